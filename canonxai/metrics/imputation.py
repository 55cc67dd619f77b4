"""Noisy linear imputation: each pixel that is left out becomes the weighted mean of its eight neighbours, plus noise.

The neighbours may be left out too, so the values solve a linear system, one equation a missing pixel::

    x_i sum_j w_ij = sum_j w_ij x_j,    w = 1/6 beside, above and below, 1/12 diagonally

over the neighbours j within the image. Rong et al., ICML 2022, "A consistent and efficient evaluation strategy for
attribution methods". They solve it sparsely, one image at a time; its matrix is symmetric and positive definite, so
here a whole batch goes by conjugate gradients, of which each step is one convolution.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d

from canonxai import random
from canonxai.metrics.base import Explanation, once_per_images
from canonxai.perturbation import Mask, Pixels, Replace, Samples
from canonxai.random import Stream

NOISE = 0.01  #: standard deviation of the noise, as a fraction of the range of pixel values; that of the paper
TOLERANCE = 1e-6  #: of the residual, relative to the right-hand side's length
_WEIGHTS = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float64) / 12

Values = Float[Tensor, "n channels height width"]


@once_per_images
def noisy_linear_imputation(batch: Explanation) -> Replace:
    """Replaces pixels by what the others say of them; the noise is a function of (seed, sample id) alone."""
    noise = NOISE * 255 * random.normal(batch.seed, Stream.IMPUTATION, batch.sample_id, tuple(batch.image.shape[1:]))

    def replace(image: Pixels, replaced: Mask, sample: Samples | slice) -> Pixels:
        images = image.double().expand(*replaced.shape[:-3], -1, -1, -1)
        imputed = linear_imputation(images.flatten(0, -4).contiguous(), replaced[..., 0, :, :].flatten(0, -3))
        return imputed.view_as(images) + noise[sample] * replaced

    return replace


def linear_imputation(image: Values, missing: Bool[Tensor, "n height width"]) -> Values:
    """The image with its missing pixels imputed.

    Args:
        image: in float64; what stands at missing pixels does not matter.
        missing: which pixels; where all of an image are, they become 0.
    """
    hole = missing[:, None].double().expand_as(image)
    degree = _neighbours(torch.ones_like(image))
    right = hole * _neighbours(image * (1 - hole))
    goal = TOLERANCE**2 * _dot(right, right)

    # every channel of every image has steps of its own, and rests as soon as it is solved
    value, residual = torch.zeros_like(image), right
    direction, length = residual, _dot(residual, residual)
    while (active := length > goal).any():
        product = hole * (degree * direction - _neighbours(direction))
        step = torch.where(active, length / _dot(direction, product), 0)
        value, residual = value + step * direction, residual - step * product
        shorter = _dot(residual, residual)
        direction = torch.where(active, residual + shorter / length * direction, direction)
        length = torch.where(active, shorter, length)
    return torch.where(hole > 0, value, image)


def _neighbours(values: Values) -> Values:
    """The weighted sum over the eight neighbours of each pixel."""
    channels = values.shape[1]
    weights = _WEIGHTS.to(values).expand(channels, 1, 3, 3)
    return conv2d(values, weights, padding=1, groups=channels)


def _dot(first: Values, second: Values) -> Float[Tensor, "n channels 1 1"]:
    return (first * second).sum((2, 3), keepdim=True)
