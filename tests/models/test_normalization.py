"""Normalisation against torchvision's, and its bounds."""

import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from canonxai.errors import UserError
from canonxai.models.normalization import Normalization

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_pixels_are_normalised_as_by_torchvision(dtype, batch):
    pixels = torch.randint(256, (*batch, 3, 5, 7), dtype=torch.uint8)
    result = Normalization(MEAN, STD).to(dtype)(pixels)
    assert result.dtype == dtype
    torch.testing.assert_close(result, normalize(pixels.to(dtype) / 255, MEAN, STD), rtol=0, atol=1e-6)


def test_bounds_are_the_values_of_black_and_of_white():
    normalization = Normalization(MEAN, STD).double()
    low, high = normalization.bounds
    assert low.shape == high.shape == (3, 1, 1)
    every = normalization(torch.arange(256, dtype=torch.uint8).expand(3, 1, 256))
    torch.testing.assert_close(every.amin((1, 2)), low.flatten())
    torch.testing.assert_close(every.amax((1, 2)), high.flatten())
    torch.testing.assert_close(every[:, 0, 0], low.flatten())


def test_nothing_is_added_to_a_state_dict():
    assert Normalization(MEAN, STD).state_dict() == {}


@pytest.mark.parametrize("mean", [[], [0.5], [0.5] * 4])
def test_a_wrong_mean_is_named(mean):
    with pytest.raises(UserError, match=r"^data\.mean: expected three numbers, got \["):
        Normalization(mean, STD)


@pytest.mark.parametrize("std", [[], [0.2], [0.2] * 4, [0.2, 0.0, 0.2], [0.2, 0.2, -0.1]])
def test_a_wrong_deviation_is_named(std):
    with pytest.raises(UserError, match=r"^data\.std: expected three numbers > 0, got \["):
        Normalization(MEAN, std)
