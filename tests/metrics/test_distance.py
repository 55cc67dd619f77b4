"""The cosine distance against high precision and answers known beforehand; scipy stands in ``tests/reference``."""

from decimal import Context, Decimal, localcontext

import pytest
import torch
from scipy.spatial.distance import cosine

from canonxai.metrics.distance import Distance, cosine_distance
from tests.metrics.batches import explanation


def random_maps(seed, dtype=torch.float64, shape=(2, 5, 6, 7)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact(first, second):
    """The distance of two maps with 60 digits."""
    with localcontext(Context(prec=60)):
        first, second = ([Decimal(value) for value in relevance.flatten().tolist()] for relevance in (first, second))
        inner = sum(a * b for a, b in zip(first, second, strict=True))
        return float(1 - inner / (sum(a * a for a in first) * sum(b * b for b in second)).sqrt())


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_symmetric_lies_in_0_to_2_and_adds_up_to_2_with_that_of_the_negated_map(seed):
    first, second = random_maps(seed)
    distance = cosine_distance(first, second)
    assert ((distance > 0) & (distance < 2)).all()
    assert torch.equal(cosine_distance(second, first), distance)
    assert cosine_distance(first, -second).tolist() == pytest.approx((2 - distance).tolist())


def test_distance_of_the_same_map_is_0_to_the_bit():
    first, _ = random_maps(0)
    assert cosine_distance(first, first.clone()).tolist() == [0] * 5


@pytest.mark.parametrize("factor", [1e-3, 0.7, 3.0, 1e5])
def test_distance_of_a_map_times_a_factor_is_0_if_it_is_positive_and_2_if_negative(factor):
    first, _ = random_maps(0)
    assert cosine_distance(first, factor * first).tolist() == pytest.approx([0] * 5, abs=1e-30)
    assert cosine_distance(first, -factor * first).tolist() == pytest.approx([2] * 5)


def test_distance_of_orthogonal_maps_is_1():
    first = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    second = torch.tensor([[[0.0, 0.0], [-3.0, 5.0]], [[1.0, -1.0], [2.0, -2.0]]])
    assert cosine_distance(first, second).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("difference", [1e-3, 1e-6, 1e-9, 1e-12])
def test_distance_near_0_keeps_its_digits(difference):
    first, noise = random_maps(0)
    second = first * (1 + difference * noise)
    expected = [exact(*one) for one in zip(first, second, strict=True)]
    # rounding moves each entry by 1e-16, so a difference of 1e-12 has four digits
    assert cosine_distance(first, second).tolist() == pytest.approx(expected, rel=max(1e-12, 1e-15 / difference), abs=0)
    assert all(0.01 < value / difference**2 < 10 for value in expected)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e30), (torch.float64, 1e200)])
def test_distance_does_not_depend_on_the_scale_of_the_maps(dtype, scale):
    first, second = random_maps(0, dtype)
    expected = cosine_distance(first, second).tolist()
    for a, b in [(scale, scale), (1 / scale, 1 / scale), (scale, 1 / scale)]:
        assert cosine_distance(a * first, b * second).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("zero", [0, 1])
def test_distance_is_nan_where_a_map_is_zero_and_only_there(zero):
    maps = random_maps(0)
    expected = cosine_distance(*maps)
    maps[zero, 2] = 0
    distance = cosine_distance(*maps)
    assert distance.isnan().tolist() == [False, False, True, False, False]
    others = [0, 1, 3, 4]
    assert torch.equal(distance[others], expected[others])


def test_metric_compares_the_maps_summed_over_channels():
    attribution, original = random_maps(0, shape=(2, 4, 3, 5, 6))
    sums = [[sum(channel for channel in sample) for sample in maps] for maps in (attribution, original)]
    expected = [cosine(a.flatten(), b.flatten()) for a, b in zip(*sums, strict=True)]
    metric = Distance()
    values = metric(explanation(attribution, original=original))
    assert values.keys() == metric.columns.keys() == {"distance"}
    assert values["distance"].tolist() == pytest.approx(expected)
    assert metric.columns["distance"].higher_is_better is None


def test_metric_asks_for_the_original_maps_and_fails_without_them():
    assert Distance.needs_original
    with pytest.raises(ValueError, match=r"Explanation\.original"):
        Distance()(explanation(random_maps(0, shape=(4, 3, 5, 6))))
