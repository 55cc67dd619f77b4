"""Noisy linear imputation beside the comparison with Quantus': what it costs, and what is left out altogether."""

import torch

from canonxai.metrics import imputation
from canonxai.metrics.imputation import linear_imputation


def test_an_image_that_is_solved_costs_nothing_while_others_are_not(monkeypatch):
    """Of a pixel and of a hole of 30 x 30."""
    sizes, neighbours = [], imputation._neighbours

    def counted(values):
        sizes.append(len(values))
        return neighbours(values)

    image = 255 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    missing = torch.zeros(2, 32, 32, dtype=torch.bool)
    missing[0, 5, 7] = True
    missing[1, 1:31, 1:31] = True
    monkeypatch.setattr(imputation, "_neighbours", counted)
    together = linear_imputation(image, missing)
    assert sizes[:3] == [1, 6, 6] and set(sizes[3:-1]) == {3} and len(sizes) > 20
    for one in range(2):
        alone = linear_imputation(image[one : one + 1], missing[one : one + 1])
        torch.testing.assert_close(together[one : one + 1], alone, rtol=0, atol=1e-9)


def test_pixels_that_are_left_stay_and_without_any_the_image_is_black():
    image = 255 * torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    missing = torch.zeros(3, 6, 5, dtype=torch.bool)
    missing[1, 2:4], missing[2] = True, True
    imputed = linear_imputation(image, missing)
    assert torch.equal(imputed[0], image[0]) and not imputed[2].any()
    assert torch.equal(imputed[1][:, ~missing[1]], image[1][:, ~missing[1]])
    assert linear_imputation(image.masked_fill(missing[:, None], torch.nan), missing).equal(imputed)
