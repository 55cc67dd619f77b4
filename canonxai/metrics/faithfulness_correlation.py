"""Faithfulness correlation: whether the attribution of a set of pixels tells how much the output falls without them.

    r = corr_S (sum_{p in S} R(p), f(x) - f(x_S))

over random sets S of a fixed size, where x_S has the pixels of S replaced; Pearson's correlation. Bhatt, Weller and
Moura, IJCAI 2020, "Evaluating and aggregating feature-based model explanations". Sets are of pixels, where Quantus
draws channel values.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from canonxai import random
from canonxai.errors import check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.output import Output
from canonxai.metrics.replacement import REPLACEMENTS, replacement
from canonxai.metrics.similarity import pearson, rescaled
from canonxai.perturbation import every_step
from canonxai.random import Stream


class FaithfulnessCorrelation(Metric):
    """The correlation over sets of pixels that are a function of (seed, sample id) alone.

    Args:
        subsets: number of sets, >= 2.
        fraction: size of each set as a fraction of all pixels, rounded, at least one; in (0, 1).
        output: f is the target's softmax ``probability`` or its ``logit``.
        replacement: ``uniform`` noise, the data's ``mean`` colour, ``black``, a ``blur``, or ``inpaint``.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(
        self, subsets: int = 100, fraction: float = 0.01, output: str = "logit", replacement: str = "mean"
    ) -> None:
        name = "metric.faithfulness_correlation"
        check(subsets >= 2, f"{name}.subsets", "an integer >= 2", subsets)
        check(0 < fraction < 1, f"{name}.fraction", "a number in (0, 1)", fraction)
        check_choice(f"{name}.replacement", replacement, REPLACEMENTS)
        self.output = Output(output, "faithfulness_correlation")
        self.subsets, self.fraction, self.replacement = subsets, fraction, replacement

    @property
    def columns(self) -> dict[str, Column]:
        text = "correlation of a set's relevance with the fall of {} without it, in [-1, 1]; null where one is constant"
        return {"faithfulness_correlation": Column(text.format(self.output), higher_is_better=True)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        relevance = rescaled(heatmap(batch.attribution).flatten(1))  # so that no sum overflows
        replace = replacement(self.replacement, batch)
        height, width = batch.image.shape[2:]
        size = max(1, round(self.fraction * height * width))
        start = self.output(batch.logits, batch.target)

        def score(sample: Int64[Tensor, " n"], step: Int64[Tensor, " n"]) -> Float[Tensor, "n 2"]:
            # each set is a "sample" of its own to the generator
            name = batch.sample_id[sample] * self.subsets + step
            chosen = random.bits(batch.seed, Stream.SUBSETS, name, height * width).topk(size).indices
            replaced = torch.zeros_like(relevance[sample], dtype=torch.bool).scatter_(1, chosen, True)
            images = replace(batch.image[sample], replaced.view(-1, 1, height, width), sample)
            fall = start[sample] - self.output(batch.predict(images), batch.target[sample])
            return torch.stack([relevance[sample].gather(1, chosen).double().sum(1), fall.double()], 1)

        sums, falls = every_step(score, len(relevance), self.subsets, batch.batch_size, relevance.device).unbind(2)
        return {"faithfulness_correlation": pearson(sums, falls)}
