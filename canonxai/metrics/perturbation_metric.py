"""What the metrics share that replace regions of the image in the order of their attribution."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Real
from numpy.typing import NDArray
from torch import Tensor

from canonxai import random
from canonxai.errors import check, check_choice
from canonxai.metrics.base import Explanation, Metric, heatmap, once_per_map
from canonxai.metrics.output import Output
from canonxai.metrics.replacement import REPLACEMENTS
from canonxai.metrics.similarity import rescaled
from canonxai.perturbation import Replace, perturbation_curve, perturbed_pixels, ranks, region_scores
from canonxai.random import Stream


@once_per_map
def region_ranks(
    batch: Explanation, region_size: int, most_relevant_first: bool
) -> Int64[Tensor, "batch rows columns"]:
    """The rank of each region by its attribution; equal ones in an order that is a function of (seed, sample id)."""
    relevance = heatmap(batch.attribution)
    if region_size > 1:
        relevance = rescaled(relevance)  # so that no sum over a region overflows
    scores = region_scores(relevance, region_size)
    ties = random.bits(batch.seed, Stream.TIES, batch.sample_id, scores[0].numel())
    return ranks(scores if most_relevant_first else -scores, ties)


class PerturbationMetric(Metric):
    """A metric of curves f(x_k), where x_k has the first k regions of an order replaced.

    The replacement and the order of equal regions are functions of (seed, sample id) alone: every method, model and
    state of canonization sees the same. The evaluated network is always the same, so two maps with the same order of
    regions have the same score to the bit.

    Args:
        region_size: side of the square regions in pixels, from 1 to the shorter side of the image.
        steps: number of evaluated k > 0, >= 1; each replaces more regions than the one before.
        fraction: the last step replaces this fraction of all regions, in (0, 1].
        spacing: of the steps: ``linear``, or ``log`` from a hundredth of ``fraction`` on.
        output: f is the target's softmax ``probability`` or its ``logit``.
        replacement: ``uniform`` noise, the data's ``mean`` colour, ``black``, a ``blur``, or ``inpaint``.

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the images are too small for it.
    """

    name: ClassVar[str]

    def __init__(
        self,
        region_size: int = 1,
        steps: int = 20,
        fraction: float = 0.2,
        spacing: str = "linear",
        output: str = "probability",
        replacement: str = "uniform",
    ) -> None:
        name = f"metric.{self.name}"
        check(region_size >= 1, f"{name}.region_size", "an integer >= 1", region_size)
        check(steps >= 1, f"{name}.steps", "an integer >= 1", steps)
        check(0 < fraction <= 1, f"{name}.fraction", "a number in (0, 1]", fraction)
        check_choice(f"{name}.spacing", spacing, ("linear", "log"))
        check_choice(f"{name}.replacement", replacement, REPLACEMENTS)
        self.output = Output(output, self.name)
        self.region_size, self.steps, self.fraction = region_size, steps, fraction
        self.spacing, self.replacement = spacing, replacement

    @property
    def axis(self) -> tuple[float, ...]:
        """The fraction of all regions that is replaced at each value of a curve, from 0 on."""
        return (0.0, *self.fractions.tolist())

    @property
    def fractions(self) -> NDArray[np.float64]:
        """The fraction of all regions that is replaced at each step, ascending."""
        if self.spacing == "linear":
            return np.linspace(0, self.fraction, self.steps + 1)[1:]
        return np.geomspace(self.fraction, self.fraction / 100, self.steps)[::-1]

    def counts(self, regions: int) -> Int64[Tensor, " steps"]:
        """How many of ``regions`` are replaced at each step: rounded, at least one, and at each step more."""
        counts = np.maximum(np.rint(self.fractions * regions), 1).astype(np.int64)
        check(
            bool((np.diff(counts) > 0).all()), f"metric.{self.name}.steps",
            f"steps that each replace more of the image's {regions} regions", f"{self.steps} of k = {counts.tolist()}",
            "Use fewer steps, a larger fraction, smaller regions or spacing=linear.",
        )  # fmt: skip
        return torch.from_numpy(counts)

    def curve(
        self,
        batch: Explanation,
        replace: Replace,
        most_relevant_first: bool = True,
        image: Real[Tensor, "batch channels height width"] | None = None,
    ) -> Float[Tensor, "batch points"]:
        """f(x_k) from k = 0 on, where regions are replaced in the order of their attribution.

        Args:
            batch: the maps.
            replace: what replaces regions.
            most_relevant_first: or last.
            image: x_0; ``None`` for the explained image.
        """
        logits = batch.logits if image is None else batch.predict(image)
        image = batch.image if image is None else image
        height, width = image.shape[2:]
        side = min(height, width)
        check(
            self.region_size <= side, f"metric.{self.name}.region_size",
            f"at most the image's shorter side, {side}", self.region_size,
        )  # fmt: skip
        rank = region_ranks(batch, self.region_size, most_relevant_first)
        regions = rank[0].numel()

        def score(images: Real[Tensor, "n c h w"], sample: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
            return self.f(batch.predict(images), batch.target[sample])

        pixels = perturbed_pixels(rank, self.region_size, height, width)
        curve = perturbation_curve(score, image, replace, pixels, self.counts(regions), batch.batch_size)
        return torch.cat([self.f(logits, batch.target)[:, None], curve], 1)

    def f(self, logits: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The output that is watched."""
        return self.output(logits, target)


def mean_fall(curve: Float[Tensor, "batch points"]) -> Float[Tensor, " batch"]:
    """The mean of f(x_0) - f(x_k) over k > 0."""
    return (curve[:, :1] - curve[:, 1:]).mean(1)
