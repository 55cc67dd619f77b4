"""Input perturbation: regions of the image are replaced by noise, in the order of their attribution.

There is no sequence in it. With ``rank(r)`` the position of region ``r`` in the descending order of attribution, the
image after ``k`` replacements is ``x_k = where(rank < k, noise, x)``: all steps of all samples are independent images
that are evaluated in plain batched forwards.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad


def region_scores(heatmap: Float[Tensor, "batch height width"], size: int) -> Float[Tensor, "batch rows columns"]:
    """The attribution of each region of ``size`` x ``size`` pixels: the sum over its pixels.

    Regions at the right and lower border have fewer pixels where the side is not a multiple of ``size``.
    """
    if size == 1:
        return heatmap
    height, width = heatmap.shape[1:]
    padded = pad(heatmap, (0, -width % size, 0, -height % size))
    return avg_pool2d(padded[:, None], size, divisor_override=1)[:, 0]


def ranks(
    scores: Float[Tensor, "batch rows columns"], ties: Int64[Tensor, "batch regions"]
) -> Int64[Tensor, "batch rows columns"]:
    """The position of each region in the descending order of its score, from 0; equal scores go by ``ties``, ascending.

    Args:
        scores: attribution of each region; any strictly monotone transform gives the same ranks.
        ties: an order of the regions that does not depend on the scores.
    """
    by_ties = ties.argsort(dim=1, stable=True)
    shuffled = scores.flatten(1).gather(1, by_ties)
    order = by_ties.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
    position = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, position).view_as(scores)


def perturbed_pixels(
    rank: Int64[Tensor, "batch rows columns"], size: int, height: int, width: int
) -> Int64[Tensor, "batch height width"]:
    """The rank of each pixel: that of its region."""
    return rank.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :height, :width]


def perturbation_curve(
    score: Callable[[UInt8[Tensor, "n channels height width"], Int64[Tensor, " n"]], Float[Tensor, " n"]],
    image: UInt8[Tensor, "batch channels height width"],
    noise: UInt8[Tensor, "batch channels height width"],
    rank: Int64[Tensor, "batch height width"],
    counts: Int64[Tensor, " steps"],
    batch_size: int,
) -> Float[Tensor, "batch steps"]:
    """``f(x_k)`` for every sample and every ``k`` in ``counts``.

    Args:
        score: ``f`` of images, given the index of the sample that each is made of.
        image: the images ``x``, pixel values.
        noise: what replaces them.
        rank: the order in which pixels are replaced.
        counts: how many of the first ranks are replaced.
        batch_size: images in one forward; does not change the result.
    """
    samples = torch.arange(len(image), device=image.device).repeat_interleave(len(counts))
    limits = counts.to(image.device).repeat(len(image))
    curve = []
    for start in range(0, len(samples), batch_size):
        sample, limit = samples[start : start + batch_size], limits[start : start + batch_size]
        replaced = (rank[sample] < limit[:, None, None])[:, None]
        curve.append(score(torch.where(replaced, noise[sample], image[sample]), sample))
    return torch.cat(curve).view(len(image), len(counts))
