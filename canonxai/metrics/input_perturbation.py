"""Input perturbation: how fast the network's output falls when what the map calls relevant is replaced by noise.

After Samek et al., IEEE TNNLS 2017, "Evaluating the visualization of what a deep neural network has learned". Regions
are replaced in the descending order of their attribution, and::

    IP(x, k) = f(x_0) - f(x_k)

where ``x_k`` has ``k`` regions replaced by pixel values drawn uniformly from all possible ones.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from canonxai import random
from canonxai.errors import check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.perturbation import perturbation_curve, perturbed_pixels, ranks, region_scores
from canonxai.random import Stream


class InputPerturbation(Metric):
    """The curve f(x_k) and its mean fall, the mean of IP(x, k) over the evaluated k > 0.

    The noise and the order of equal regions are functions of (seed, sample id) alone: every method, model and state of
    canonization sees the same. The evaluated network is always the original one, so two maps with the same order of
    regions have the same score to the bit.

    Args:
        region_size: side of the square regions in pixels, from 1 to the shorter side of the image.
        steps: number of evaluated k > 0, >= 1; each replaces more regions than the one before.
        fraction: the last step replaces this fraction of all regions, in (0, 1].
        spacing: of the steps: ``linear``, or ``log`` from a hundredth of ``fraction`` on.
        output: f is the target's softmax ``probability`` or its ``logit``.

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the images are too small for it.
    """

    def __init__(
        self,
        region_size: int = 1,
        steps: int = 20,
        fraction: float = 0.2,
        spacing: str = "linear",
        output: str = "probability",
    ) -> None:
        name = "metric.input_perturbation"
        check(region_size >= 1, f"{name}.region_size", "an integer >= 1", region_size)
        check(steps >= 1, f"{name}.steps", "an integer >= 1", steps)
        check(0 < fraction <= 1, f"{name}.fraction", "a number in (0, 1]", fraction)
        check_choice(f"{name}.spacing", spacing, ("linear", "log"))
        check_choice(f"{name}.output", output, ("probability", "logit"))
        self.region_size, self.steps, self.fraction = region_size, steps, fraction
        self.spacing, self.output = spacing, output

    @property
    def columns(self) -> dict[str, Column]:
        f = f"f, the target's {self.output}"
        return {
            "input_perturbation": Column(
                f"mean over k > 0 of IP(x, k) = f(x_0) - f(x_k), {f}; in [-1, 1] for probabilities",
                higher_is_better=True,
            ),
            "perturbation_curve": Column(
                f"f(x_k) from k = 0 on; {f}; the axis is the fraction of all regions, rounded in use to whole ones",
                kind="curve",
                axis=(0.0, *self.fractions.tolist()),
            ),
        }

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
            bool((np.diff(counts) > 0).all()), "metric.input_perturbation.steps",
            f"steps that each replace more of the image's {regions} regions", f"{self.steps} of k = {counts.tolist()}",
            "Use fewer steps, a larger fraction, smaller regions or spacing=linear.",
        )  # fmt: skip
        return torch.from_numpy(counts)

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        height, width = batch.image.shape[2:]
        side = min(height, width)
        check(
            self.region_size <= side, "metric.input_perturbation.region_size",
            f"at most the image's shorter side, {side}", self.region_size,
        )  # fmt: skip
        scores = region_scores(heatmap(batch.attribution), self.region_size)
        regions = scores[0].numel()
        rank = ranks(scores, random.bits(batch.seed, Stream.TIES, batch.sample_id, regions))

        def score(image: UInt8[Tensor, "n c h w"], sample: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
            return self._output(batch.predict(image), batch.target[sample])

        curve = perturbation_curve(
            score,
            batch.image,
            random.pixels(batch.seed, Stream.NOISE, batch.sample_id, tuple(batch.image.shape[1:])),
            perturbed_pixels(rank, self.region_size, height, width),
            self.counts(regions),
            batch.batch_size,
        )
        start = self._output(batch.logits, batch.target)[:, None]
        return {
            "input_perturbation": (start - curve).mean(1),
            "perturbation_curve": torch.cat([start, curve], 1),
        }

    def _output(self, logits: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        values = logits.softmax(1) if self.output == "probability" else logits
        return values.gather(1, target[:, None])[:, 0]
