"""Normalisation against torchvision's, and its bounds."""

import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from canonxai.errors import UserError
from canonxai.models.normalization import Normalization

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


DTYPES = {torch.float32: 1e-6, torch.float64: 1e-14}


@pytest.mark.parametrize("dtype, tolerance", DTYPES.items())
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_pixels_are_normalised_as_by_torchvision(dtype, tolerance, batch):
    pixels = torch.randint(256, (*batch, 3, 5, 7), dtype=torch.uint8)
    result = Normalization(MEAN, STD)(pixels, dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result, normalize(pixels.to(dtype) / 255, MEAN, STD), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", DTYPES.items())
def test_bounds_are_the_values_of_black_and_of_white(dtype, tolerance):
    normalization = Normalization(MEAN, STD)
    every = normalization(torch.arange(256, dtype=torch.uint8).expand(3, 1, 256), dtype)
    for bound, value in zip(normalization.bounds(dtype), (every[..., :1], every[..., -1:]), strict=True):
        assert bound.shape == (3, 1, 1)
        torch.testing.assert_close(bound, value, rtol=0, atol=tolerance)


def test_single_precision_is_the_default():
    normalization = Normalization(MEAN, STD)
    values = normalization(torch.zeros(3, 2, 2, dtype=torch.uint8)), *normalization.bounds()
    assert {value.dtype for value in values} == {torch.float32}


def test_nothing_is_added_to_a_state_dict():
    assert Normalization(MEAN, STD).state_dict() == {}


@pytest.mark.parametrize("mean", [[], [0.5], [0.5] * 4])
def test_a_wrong_mean_is_named(mean):
    with pytest.raises(UserError, match=r"^data\.mean: expected three numbers in \[0, 1\], got \["):
        Normalization(mean, STD)


@pytest.mark.parametrize("std", [[], [0.2], [0.2] * 4, [0.2, 0.0, 0.2], [0.2, 0.2, -0.1]])
def test_a_wrong_deviation_is_named(std):
    with pytest.raises(UserError, match=r"^data\.std: expected three numbers > 0, got \["):
        Normalization(MEAN, std)
