"""How similar two maps are; each function treats every row of a batch by itself and is NaN where it is undefined."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

Maps = Float[Tensor, "batch height width"]


def average_ranks(values: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """Ascending ranks from 1; equal values share the mean of theirs.

    >>> average_ranks(torch.tensor([[3.0, 1.0, 3.0]]))
    tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    ordered, order = values.sort()
    place = torch.arange(1, values.shape[1] + 1, device=values.device).expand_as(values)
    changes = ordered[:, 1:] != ordered[:, :-1]
    is_first, is_last = (nn.functional.pad(changes, side, value=True) for side in ((1, 0), (0, 1)))  # of equal ones
    first = place.where(is_first, 0).cummax(1).values
    last = place.where(is_last, values.shape[1]).flip(1).cummin(1).values.flip(1)
    return torch.zeros_like(values, dtype=torch.float64).scatter(1, order, (first + last).double() / 2)


def pearson(first: Float[Tensor, "batch n"], second: Float[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
    """Pearson's correlation in [-1, 1]; NaN where one side is constant."""
    first, second = (_standard(values.double()) for values in (first, second))
    return (first * second).sum(1).clamp(-1, 1)


def _standard(values: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """Values with mean 0 and length 1; NaN where all are equal, whatever rounding makes of their mean."""
    constant = (values == values[:, :1]).all(1, keepdim=True)
    values = scaled(values)  # so that no square over- or underflows
    values = values - values.mean(1, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return (values / length).masked_fill(constant, torch.nan)


def spearman(first: Maps, second: Maps) -> Float[Tensor, " batch"]:
    """Spearman's rank correlation of the pixels, in [-1, 1]; NaN where a map is constant or not finite."""
    finite = (first.isfinite() & second.isfinite()).all((1, 2))
    correlation = pearson(average_ranks(first.flatten(1)), average_ranks(second.flatten(1)))
    return correlation.where(finite, torch.nan)


def cosine(first: Maps, second: Maps) -> Float[Tensor, " batch"]:
    """The cosine of the angle between two maps, in [-1, 1]; NaN where one is zero everywhere."""
    return (unit(first) * unit(second)).sum((1, 2)).clamp(-1, 1)


def ssim(first: Maps, second: Maps) -> Float[Tensor, " batch"]:
    """Structural similarity of two maps of unit length, in [-1, 1]; NaN where one is zero everywhere.

    Wang et al., IEEE TIP 2004, "Image quality assessment: from error visibility to structural similarity", over windows
    of 7 x 7 pixels within the map::

        SSIM = (2 m_x m_y + c_1) (2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1) (s_x^2 + s_y^2 + c_2))

    with c_1 = (0.01 L)^2, c_2 = (0.03 L)^2 and L the range of both maps' values.
    """
    first, second = unit(first)[:, None], unit(second)[:, None]
    side = min(7, *first.shape[2:])
    values = torch.cat([first, second], 1)
    span = values.amax((1, 2, 3), keepdim=True) - values.amin((1, 2, 3), keepdim=True)
    mean = avg_pool2d(values, side, 1)
    unbiased = side**2 / max(side**2 - 1, 1)
    squares = unbiased * (avg_pool2d(values.square(), side, 1) - mean.square())
    product = unbiased * (avg_pool2d(first * second, side, 1) - mean.prod(1, keepdim=True))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean.prod(1, keepdim=True) + c1) / (mean.square().sum(1, keepdim=True) + c1)
    structure = (2 * product + c2) / (squares.sum(1, keepdim=True) + c2)
    similarity: Tensor = (luminance * structure).mean((1, 2, 3))
    return similarity


def unit(relevance: Maps) -> Maps:
    """Maps in float64 over their Euclidean length; NaN where all is zero."""
    relevance = scaled(relevance.double())  # so that no square over- or underflows
    length: Tensor = torch.linalg.vector_norm(relevance, dim=(1, 2), keepdim=True)
    return relevance / length


def scaled(values: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
    """Each row over its largest absolute value; NaN where all is zero."""
    return values / values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)


def rescaled(values: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
    """Each row over a power of two, which rounds nothing: its largest absolute value is then in [1, 2), or zero."""
    largest = values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)
    power = largest / (2 * torch.frexp(largest).mantissa)
    return values / power.where(largest > 0, 1)


SIMILARITIES = {"ssim": ssim, "cosine": cosine, "spearman": spearman}
