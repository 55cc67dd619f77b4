"""Sufficiency: whether what the map calls relevant is enough for the prediction.

    SUF = P(argmax f(x') = argmax f(x) | x' agrees with x on the most relevant pixels)

Dasgupta, Frost and Moshkovitz, ICML 2022, "Framework for evaluating faithfulness of local explanations", who show it to
be the precision of an anchor where the explanation is a set of features, as here. Elsewhere, x' is drawn uniformly from
all pixel values, a function of (seed, sample id), so the value of an image depends on no other. Quantus instead looks
for images of the same *batch* with similar maps: its values change with the batch, and cannot be compared with these.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from canonxai import random
from canonxai.errors import check
from canonxai.metrics.base import Column, Explanation, Metric
from canonxai.metrics.perturbation_metric import region_ranks
from canonxai.perturbation import every_step
from canonxai.random import Stream


class Sufficiency(Metric):
    """The share of random completions of the most relevant pixels that are predicted as the image is.

    Args:
        draws: number of completions, >= 1.
        fraction: of all pixels, that are kept; rounded, at least one; in (0, 1].

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(self, draws: int = 10, fraction: float = 0.5) -> None:
        check(draws >= 1, "metric.sufficiency.draws", "an integer >= 1", draws)
        check(0 < fraction <= 1, "metric.sufficiency.fraction", "a number in (0, 1]", fraction)
        self.draws, self.fraction = draws, fraction

    @property
    def columns(self) -> dict[str, Column]:
        text = (
            f"share of {self.draws} images, equal on the most relevant pixels and random elsewhere, that are "
            "predicted as the image is, in [0, 1]"
        )
        return {"sufficiency": Column(text, higher_is_better=True)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        rank, prediction, shape = region_ranks(batch, 1, True), batch.logits.argmax(1), tuple(batch.image.shape[1:])
        kept = (rank < max(1, round(self.fraction * rank[0].numel())))[:, None]

        def score(sample: Int64[Tensor, " n"], step: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
            # each completion is a "sample" of its own to the generator
            name = batch.sample_id[sample] * self.draws + step
            noise = random.pixels(batch.seed, Stream.COMPLETION, name, shape)
            images = torch.where(kept[sample], batch.image[sample], noise)
            return (batch.predict(images).argmax(1) == prediction[sample]).double()

        return {"sufficiency": every_step(score, len(rank), self.draws, batch.batch_size, rank.device).mean(1)}
