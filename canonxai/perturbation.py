"""Input perturbation: regions of the image are replaced by something else, in the order of their attribution.

There is no sequence in it. With ``rank(r)`` the position of region ``r`` in the descending order of attribution, the
image after ``k`` replacements is ``x_k = where(rank < k, noise, x)``: all steps of all samples are independent images
that are evaluated in plain batched forwards. What has no order in it, as a random choice of pixels, goes the same way.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

Pixels = Real[Tensor, "n channels height width"]
Samples = Int64[Tensor, " n"]
#: images with the pixels of a mask replaced, given which sample of the batch each is made of
Replace = Callable[[Pixels, Bool[Tensor, "n height width"], Samples], Pixels]


def paste(values: Real[Tensor, "batch channels height width"]) -> Replace:
    """Replaces pixels by those of another image, one for each sample."""
    return lambda image, replaced, sample: torch.where(replaced[:, None], values[sample], image)


def every_step(
    score: Callable[[Samples, Samples], Float[Tensor, "n *values"]],
    samples: int,
    steps: int,
    batch_size: int,
    device: torch.device,
) -> Float[Tensor, "batch steps *values"]:
    """The scores of all steps of all samples, ``batch_size`` at once.

    Args:
        score: given the indices of samples in the batch, and a step for each.
        samples: how many there are.
        steps: how many steps each sample has.
        batch_size: does not change the result.
        device: of the indices.
    """
    places = torch.arange(samples * steps, device=device)
    chunks = (places[start : start + batch_size] for start in range(0, len(places), batch_size))
    scores = torch.cat([score(chunk // steps, chunk % steps) for chunk in chunks])
    return scores.view(samples, steps, *scores.shape[1:])


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
    score: Callable[[Pixels, Samples], Float[Tensor, " n"]],
    image: Real[Tensor, "batch channels height width"],
    replace: Replace,
    rank: Int64[Tensor, "batch height width"],
    counts: Int64[Tensor, " steps"],
    batch_size: int,
) -> Float[Tensor, "batch steps"]:
    """``f(x_k)`` for every sample and every ``k`` in ``counts``.

    Args:
        score: ``f`` of images, given the index of the sample that each is made of.
        image: the images ``x``, pixel values.
        replace: what replaces them.
        rank: the order in which pixels are replaced.
        counts: how many of the first ranks are replaced.
        batch_size: images in one forward; does not change the result.
    """
    counts = counts.to(image.device)

    def score_of_step(sample: Samples, step: Samples) -> Float[Tensor, " n"]:
        replaced = rank[sample] < counts[step, None, None]
        return score(replace(image[sample], replaced, sample), sample)

    return every_step(score_of_step, len(image), len(counts), batch_size, image.device)
