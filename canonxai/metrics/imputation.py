"""Noisy linear imputation: each pixel that is left out becomes the weighted mean of its eight neighbours, plus noise.

The neighbours may be left out too, so the values solve a linear system, one equation a missing pixel::

    x_i sum_j w_ij = sum_j w_ij x_j,    w = 1/6 beside, above and below, 1/12 diagonally

over the neighbours j within the image. Rong et al., ICML 2022, "A consistent and efficient evaluation strategy for
attribution methods". They solve it sparsely, one image at a time; its matrix is symmetric and positive definite, so
here a whole batch goes by conjugate gradients, of which each step is a few sums of shifted images, and which a system
leaves as soon as it is solved: large holes need many more steps than small ones.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from canonxai import random
from canonxai.metrics.base import Explanation, once_per_images
from canonxai.perturbation import Mask, Pixels, Replace, Samples
from canonxai.random import Stream

NOISE = 0.01  #: standard deviation of the noise, as a fraction of the range of pixel values; that of the paper
TOLERANCE = 1e-6  #: of the residual, relative to the right-hand side's length

Values = Float[Tensor, "n height width"]


@once_per_images
def noisy_linear_imputation(batch: Explanation) -> Replace:
    """Replaces pixels by what the others say of them; the noise is a function of (seed, sample id) alone."""
    noise = NOISE * 255 * random.normal(batch.seed, Stream.IMPUTATION, batch.sample_id, tuple(batch.image.shape[1:]))

    def replace(image: Pixels, replaced: Mask, sample: Samples | slice) -> Pixels:
        images = image.double().expand(*replaced.shape[:-3], -1, -1, -1)
        imputed = linear_imputation(images.flatten(0, -4).contiguous(), replaced[..., 0, :, :].flatten(0, -3))
        return imputed.view_as(images) + noise[sample] * replaced

    return replace


def linear_imputation(
    image: Float[Tensor, "n channels height width"], missing: Bool[Tensor, "n height width"]
) -> Float[Tensor, "n channels height width"]:
    """The image with its missing pixels imputed.

    Args:
        image: in float64; what stands at missing pixels does not matter.
        missing: which pixels; where all of an image are, they become 0.
    """
    imputed = image.masked_fill(missing[:, None], 0).flatten(0, 1)  # each channel of each image is a system of its own
    hole = missing.repeat_interleave(image.shape[1], 0).double()
    degree = _neighbours(torch.ones_like(imputed[:1]))
    residual = hole * _neighbours(imputed)
    value, direction, length = torch.zeros_like(residual), residual.clone(), _dot(residual, residual)
    system, goal = torch.arange(len(residual), device=residual.device), TOLERANCE**2 * length
    while True:
        active = (length > goal)[:, 0, 0]
        if not active.all():
            imputed[system[~active]] += value[~active]
            state = (system, hole, value, residual, direction, length, goal)
            system, hole, value, residual, direction, length, goal = (each[active] for each in state)
        if not len(system):
            return imputed.view_as(image)
        product = (degree * direction).sub_(_neighbours(direction)).mul_(hole)
        step = length / _dot(direction, product)
        value, residual = value.addcmul_(step, direction), residual.addcmul_(-step, product)
        shorter = _dot(residual, residual)
        direction, length = torch.addcmul(residual, shorter / length, direction), shorter


def _neighbours(values: Values) -> Values:
    """The weighted sum over the eight neighbours of each pixel: 1-2-1 along both axes, but for the pixel itself."""
    sums = pad(values, (1, 1, 1, 1))
    sums = (sums[:, :-2] + sums[:, 2:]).add_(sums[:, 1:-1], alpha=2)
    sums = (sums[..., :-2] + sums[..., 2:]).add_(sums[..., 1:-1], alpha=2)
    return sums.sub_(values, alpha=4).div_(12)


def _dot(first: Values, second: Values) -> Float[Tensor, "n 1 1"]:
    return (first * second).sum((1, 2), keepdim=True)
