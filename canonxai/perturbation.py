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

from canonxai.batch_size import BatchSize

Pixels = Real[Tensor, "... channels height width"]
Mask = Bool[Tensor, "... #channels height width"]
Samples = Int64[Tensor, " n"]
Indices = Int64[Tensor, "steps samples"]
#: images with the pixels of a mask replaced, given which sample of the batch each is made of; see :func:`paste`
Replace = Callable[[Pixels, Mask, Samples | slice], Pixels]


def paste(values: Real[Tensor, "batch channels height width"]) -> Replace:
    """Replaces pixels by those of another image, one for each sample.

    A mask may have several steps of the same images, if these are given by a slice.
    """
    values = values.contiguous(memory_format=torch.channels_last)

    def replace(image: Pixels, replaced: Mask, sample: Samples | slice) -> Pixels:
        other = values[sample]
        if image.dtype != torch.uint8 or other.dtype != torch.uint8:
            return torch.where(replaced, other, image)
        # the same, modulo 256: on a CPU, where() of bytes takes ten times as long
        return torch.addcmul(image, other - image, replaced.view(torch.uint8))

    return replace


def every_step(
    score: Callable[[Samples, Samples], Float[Tensor, "n *values"]],
    samples: int,
    steps: int,
    batch_size: BatchSize,
    device: torch.device,
) -> Float[Tensor, "samples steps *values"]:
    """The scores of all steps of all samples, ``batch_size`` at once.

    Args:
        score: given the indices of samples in the batch, and a step for each.
        samples: how many there are.
        steps: how many steps each sample has.
        batch_size: does not change the result.
        device: of the indices.
    """

    def evaluate(steps: range, samples: range) -> Float[Tensor, "steps samples *values"]:
        step, sample = (indices.flatten() for indices in _indices(steps, samples, device))
        scores = score(sample, step)
        return scores.view(len(steps), len(samples), *scores.shape[1:])

    return batch_size.table(evaluate, samples, steps)


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
    values, order = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    if tied.any():  # few maps need another sort
        by_ties = ties[tied].argsort(dim=1, stable=True)
        shuffled = scores[tied].flatten(1).gather(1, by_ties)
        order[tied] = by_ties.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
    position = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, position).view_as(scores)


def perturbed_pixels(
    rank: Int64[Tensor, "batch rows columns"], size: int, height: int, width: int
) -> Int64[Tensor, "batch height width"]:
    """The rank of each pixel: that of its region."""
    return rank.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :height, :width]


def perturbation_curve(
    score: Callable[[Real[Tensor, "n channels height width"], Samples], Float[Tensor, " n"]],
    image: Real[Tensor, "batch channels height width"],
    replace: Replace,
    rank: Int64[Tensor, "batch height width"],
    counts: Int64[Tensor, " steps"],
    batch_size: BatchSize,
) -> Float[Tensor, "batch steps"]:
    """``f(x_k)`` for every sample and every ``k`` in ``counts``.

    Args:
        score: ``f`` of images, given the index of the sample that each is made of.
        image: the images ``x``, pixel values.
        replace: what replaces them.
        rank: the order in which pixels are replaced.
        counts: how many of the first ranks are replaced, ascending.
        batch_size: images in one forward; does not change the result.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    # the step from which on a value is replaced; in bytes, if they suffice, comparing it is next to free on a CPU
    dtype = torch.uint8 if len(counts) < 256 else torch.int32
    by_rank = torch.bucketize(torch.arange(image[0, 0].numel(), device=counts.device), counts, right=True)
    first = torch.empty_like(image, dtype=dtype).copy_(by_rank.to(image.device, dtype)[rank][:, None])

    def evaluate(steps: range, samples: range) -> Float[Tensor, "steps samples"]:
        some = slice(samples.start, samples.stop)
        step, sample = _indices(steps, samples, image.device)
        replaced = torch.le(first[some], step[:, :1, None, None, None].to(dtype), out=first.new_empty(0))
        images = replace(image[some], replaced.to(torch.uint8).view(torch.bool), some)
        return score(images.flatten(0, 1), sample.flatten()).view_as(step)

    return batch_size.table(evaluate, len(image), len(counts))


def _indices(steps: range, samples: range, device: torch.device) -> tuple[Indices, Indices]:
    """The step and the sample of each entry of a table."""
    step, sample = (torch.arange(r.start, r.stop, device=device) for r in (steps, samples))
    return step[:, None].expand(-1, len(sample)), sample.expand(len(step), -1)
