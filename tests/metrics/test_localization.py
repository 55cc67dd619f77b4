"""Localization against answers known beforehand; Quantus and a loop in float64 stand in ``tests/reference``."""

import math

import pytest
import torch

from canonxai.errors import UserError
from canonxai.metrics.localization import Localization, inside_total_ratio
from tests.metrics.batches import explanation


def textbook(relevance, region):
    """The ratio of one map in Python floats."""
    inside = total = 0.0
    for row, inside_row in zip(relevance.tolist(), region.tolist(), strict=True):
        for value, is_inside in zip(row, inside_row, strict=True):
            if value > 0:
                total += value
                inside += value * is_inside
    return inside / total if total > 0 and region.any() else math.nan


def random_batch(seed, dtype=torch.float64, channels=None):
    generator = torch.Generator().manual_seed(seed)
    shape = (7, 6, 5) if channels is None else (7, channels, 6, 5)
    relevance = torch.randn(shape, generator=generator, dtype=dtype)
    region = torch.rand((2, 7, 6, 5), generator=generator) < torch.linspace(0.2, 0.8, 7)[:, None, None]
    return relevance, region[0], region[1]


@pytest.mark.parametrize("seed", range(5))
def test_ratio_in_float32_is_that_of_a_loop_over_pixels(seed):
    relevance, region, _ = random_batch(seed, torch.float32)
    expected = [textbook(*one) for one in zip(relevance, region, strict=True)]
    ratio = inside_total_ratio(relevance, region)
    assert ratio.dtype == torch.float32
    assert ratio.tolist() == pytest.approx(expected, rel=1e-6)


def test_ratio_is_1_where_all_is_inside_0_where_all_is_outside_and_the_area_of_the_region_for_a_uniform_map():
    region = torch.zeros(3, 4, 5, dtype=torch.bool)
    region[:, 1:3, 2:5] = True
    relevance = torch.stack([region[0].float(), (~region[0]).float(), torch.full((4, 5), 0.3)])
    assert inside_total_ratio(relevance, region).tolist() == [1.0, 0.0, pytest.approx(6 / 20)]


def test_negative_relevance_does_not_count():
    relevance, region, _ = random_batch(0)
    expected = inside_total_ratio(relevance, region)
    lower = torch.where(relevance < 0, 1e3 * relevance, relevance)
    assert torch.equal(inside_total_ratio(lower, region), expected)


@pytest.mark.parametrize("seed", range(5))
def test_ratio_lies_in_0_to_1_and_what_is_outside_is_the_rest(seed):
    relevance, region, _ = random_batch(seed, torch.float32)
    region[:, 0, 0], region[:, 5, 4] = True, False
    inside, outside = inside_total_ratio(relevance, region), inside_total_ratio(relevance, ~region)
    assert ((inside >= 0) & (inside <= 1)).all()
    assert (inside + outside).tolist() == pytest.approx([1] * 7, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e38])
def test_ratio_does_not_depend_on_the_scale_of_a_float32_map(scale):
    relevance, region, _ = random_batch(0, torch.float32)
    scaled = relevance.clamp(-3, 3) * scale  # rounded where it is subnormal, so the loop gets the same
    expected = [textbook(*one) for one in zip(scaled, region, strict=True)]
    assert scaled.isfinite().all()
    assert inside_total_ratio(scaled, region).tolist() == pytest.approx(expected, rel=1e-5)


def test_ratio_is_nan_where_no_relevance_is_positive_or_the_region_is_empty_and_only_there():
    relevance, region, _ = random_batch(0)
    expected = inside_total_ratio(relevance, region)
    relevance[1] = 0
    relevance[3] = -relevance[3].abs()
    region[5] = False
    ratio = inside_total_ratio(relevance, region)
    assert ratio.isnan().tolist() == [False, True, False, True, False, True, False]
    assert torch.equal(ratio[::2], expected[::2])


@pytest.mark.parametrize("region", ["box", "mask"])
def test_metric_sums_the_channels_and_looks_at_the_region_of_its_name(region):
    attribution, box, mask = random_batch(1, channels=3)
    heatmap = attribution[:, 0] + attribution[:, 1] + attribution[:, 2]
    expected = [textbook(*one) for one in zip(heatmap, {"box": box, "mask": mask}[region], strict=True)]
    metric = Localization(region)
    values = metric(explanation(attribution, box=box, mask=mask))
    assert values.keys() == metric.columns.keys() == {"localization"}
    assert values["localization"].tolist() == pytest.approx(expected)
    assert region in metric.columns["localization"].description
    assert metric.columns["localization"].higher_is_better is True


def test_region_is_the_box_by_default():
    assert Localization().region == "box"


def test_unknown_region_is_told_with_the_choices():
    with pytest.raises(UserError, match=r"^metric\.localization\.region: expected one of box, mask, got 'boxes'\."):
        Localization("boxes")
