"""Complexity: over how many pixels the attribution is spread, by the entropy of its shares.

    H = -sum_p q(p) ln q(p),    q(p) = |R(p)| / sum |R|

Bhatt, Weller and Moura, IJCAI 2020, "Evaluating and aggregating feature-based model explanations".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.similarity import scaled


def entropy(relevance: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """The entropy of the shares of absolute relevance, in nats.

    Returns:
        In [0, ln n]: 0 where one pixel has everything, the largest where all are equal. NaN, that is undefined, for a
        map that is zero everywhere.

    >>> entropy(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]])).exp()
    tensor([2.], dtype=torch.float64)
    """
    values = scaled(relevance.flatten(1).double().abs())  # so that no sum overflows
    entropy: Tensor = torch.special.entr(values / values.sum(1, keepdim=True)).sum(1)
    return entropy


class Complexity(Metric):
    """The entropy of the channel-summed map."""

    @property
    def columns(self) -> dict[str, Column]:
        text = "entropy of the shares of absolute relevance in nats, in [0, ln(pixels)]; null where the map is zero"
        return {"complexity": Column(text, higher_is_better=False)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        return {"complexity": entropy(heatmap(batch.attribution))}
