"""Random logit: whether the map of another class looks the same.

    RL = similarity(R_target(x), R_other(x))

Sixt, Granz and Landgraf, ICML 2020, "When explanations lie: why many modified BP attributions fail". The other class is
drawn uniformly, a function of (seed, sample id). Quantus compares flattened maps, so that its windows run along rows;
here SSIM has windows of 7 x 7 pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai import random
from canonxai.errors import check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.similarity import SIMILARITIES
from canonxai.random import Stream


class RandomLogit(Metric):
    """The similarity of the channel-summed maps of the target and of another class.

    Args:
        similarity: ``ssim``, ``cosine`` or ``spearman``.

    Raises:
        UserError: if ``similarity`` is none of them.
    """

    def __init__(self, similarity: str = "ssim") -> None:
        check_choice("metric.random_logit.similarity", similarity, SIMILARITIES)
        self.similarity = similarity

    @property
    def columns(self) -> dict[str, Column]:
        text = (
            f"{self.similarity} of the map with that of another class, in [-1, 1]; null where it is not defined, "
            "as for a map that is zero, or where there is no other class"
        )
        return {"random_logit": Column(text, higher_is_better=False)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        classes = batch.logits.shape[1]
        original = heatmap(batch.attribution)
        if classes == 1:
            return {"random_logit": torch.full((len(original),), torch.nan, device=original.device)}
        others = torch.full_like(batch.target, classes - 1)
        step = 1 + random.below(batch.seed, Stream.OTHER_CLASS, batch.sample_id, others)
        other = heatmap(batch.explain(batch.input, (batch.target + step) % classes, batch.sample_id))
        return {"random_logit": SIMILARITIES[self.similarity](original, other)}
