"""What pixels are replaced by.

``uniform``
    values drawn uniformly from all possible ones, a function of (seed, sample id) alone;
``mean``
    the data's mean colour, zero after normalisation;
``black``
    zero;
``blur``
    the image under a Gaussian of 11 x 11 pixels and standard deviation 5, as in Petsiuk et al., BMVC 2018, "RISE";
``inpaint``
    noisy linear imputation from the pixels that are left, :mod:`canonxai.metrics.imputation`.
"""

import torch
from jaxtyping import Real
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from canonxai import random
from canonxai.metrics.base import Explanation, once_per_images
from canonxai.metrics.imputation import noisy_linear_imputation
from canonxai.perturbation import Replace, paste
from canonxai.random import Stream

Image = Real[Tensor, "batch channels height width"]


@once_per_images
def uniform(batch: Explanation) -> Image:
    """Noise, of which all methods and states of canonization see the same."""
    return random.pixels(batch.seed, Stream.NOISE, batch.sample_id, tuple(batch.image.shape[1:]))


def mean(batch: Explanation) -> Image:
    """The data's mean colour everywhere, rounded to a pixel value."""
    return (255 * batch.normalize.mean).round().to(batch.image).expand_as(batch.image)


def black(batch: Explanation) -> Image:
    """Zero everywhere."""
    return torch.zeros_like(batch.image)


@once_per_images
def blur(batch: Explanation) -> Image:
    """The image under RISE's Gaussian, rounded to pixel values; computed in float64, so that no batch changes them."""
    height, width = batch.image.shape[2:]
    kernel = [min(11, 2 * side - 1) for side in (width, height)]
    blurred: Tensor = gaussian_blur(batch.image.double(), kernel, [5.0, 5.0])
    return blurred.round().to(batch.image.dtype)


IMAGES = {"uniform": uniform, "mean": mean, "black": black, "blur": blur}
REPLACEMENTS = (*IMAGES, "inpaint")


def replacement(kind: str, batch: Explanation) -> Replace:
    """What replaces pixels of a batch, by one of :data:`REPLACEMENTS`."""
    if kind == "inpaint":
        return noisy_linear_imputation(batch)
    return paste(IMAGES[kind](batch))
