"""Metrics that know no scale: a map near the largest float64 has the value of the same map of ordinary size."""

from dataclasses import replace

import pytest
import torch

from canonxai.metrics.efficient_mprt import histogram_entropy
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.similarity import SIMILARITIES
from tests.metrics.unusual import batch_of_kinds


def maps(seed):
    """In (-2, 2), so that times 2^1023 the sum, and the difference, of two pixels overflows."""
    return 4 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_similarity_of_huge_maps_is_that_of_ordinary_ones(similarity):
    first, second = maps(0), maps(1)
    expected = SIMILARITIES[similarity](first, second)
    assert expected.isfinite().all()
    assert torch.equal(SIMILARITIES[similarity](first * 2.0**1023, second * 2.0**1023), expected)


def test_the_entropy_of_a_huge_map_is_that_of_an_ordinary_one():
    relevance = maps(0)
    expected = histogram_entropy(relevance, 10)
    assert (expected > 1).all()
    assert torch.equal(histogram_entropy(relevance * 2.0**1023, 10), expected)


def test_the_faithfulness_correlation_of_a_huge_map_is_that_of_an_ordinary_one():
    batch = batch_of_kinds()
    relevance = torch.rand_like(batch.attribution)
    huge = torch.zeros_like(relevance)
    huge[:, 0] = relevance.sum(1) / 4 * 2.0**1023  # its sum over channels is no more than that
    metric = FaithfulnessCorrelation(8, 0.1)
    values, expected = (
        metric(replace(batch, attribution=attribution))["faithfulness_correlation"] for attribution in (huge, relevance)
    )
    assert expected.isfinite().all()
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
