"""What is drawn, and what counts by its expectation over draws; all else is in ``tests/reference``."""

import math

import numpy as np
import pytest
import torch

from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.region import hits
from canonxai.metrics.replacement import IMAGES
from tests.metrics.batches import explanation


def test_the_other_class_is_any_but_the_target_as_often():
    seen = []
    attribution = torch.randn(3000, 3, 2, 2)
    many = explanation(
        attribution,
        target=torch.arange(3000) % 4,
        logits=torch.zeros(3000, 4),
        explain=lambda _, target, __: seen.append(target) or attribution,
    )
    RandomLogit()(many)
    counts = torch.zeros(4, 4).index_put_((many.target, seen[0]), torch.tensor(1.0), accumulate=True)
    assert counts.diagonal().tolist() == [0] * 4
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 250).abs().max() < 5 * math.sqrt(250)


def test_mean_is_zero_after_normalization():
    batch = explanation(torch.zeros(1, 3, 4, 4))
    assert batch.normalize(IMAGES["mean"](batch), torch.float64).abs().max() < 0.5 / 255 / 0.2 + 1e-9


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_hits_are_the_mean_over_all_orders_of_equal_values(levels):
    relevance = torch.randint(0, levels, (3, 4, 5), generator=torch.Generator().manual_seed(levels)).double()
    region = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(7)) < 0.4
    count = torch.tensor([1, 7, 20])
    values = hits(relevance, region, count)
    drawn = np.random.default_rng(0)
    for a, inside, k, value in zip(relevance, region, count.tolist(), values.tolist(), strict=True):
        a, inside = a.flatten().numpy(), inside.flatten().numpy()
        found = [inside[np.lexsort((drawn.random(20), -a))[:k]].sum() for _ in range(4000)]
        assert value == pytest.approx(np.mean(found), abs=5 * np.std(found) / math.sqrt(4000) + 1e-9)
