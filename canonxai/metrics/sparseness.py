"""Sparseness: how few pixels carry the attribution, by the Gini index of their absolute values.

    G = 1 - 2 sum_{k=1..n} a_(k) / |a|_1 (n - k + 1/2) / n

with the absolute values a_(k) of the channel-summed map in ascending order. Chalasani et al., ICML 2020, "Concise
explanations of neural networks using adversarial training".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.similarity import scaled


def gini(relevance: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """The Gini index of the absolute values.

    Returns:
        In [0, 1 - 1/n]: 0 where all are equal, the largest where one pixel has everything. NaN, that is undefined, for
        a map that is zero everywhere.

    >>> gini(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
    tensor([0.5000], dtype=torch.float64)
    """
    values = relevance.flatten(1).double().abs().sort().values
    n = values.shape[1]
    weights = (2 * torch.arange(1, n + 1, dtype=values.dtype, device=values.device) - n - 1) / n
    values = scaled(values)  # so that no sum overflows
    return (values * weights).sum(1) / values.sum(1)


class Sparseness(Metric):
    """The Gini index of the channel-summed map."""

    @property
    def columns(self) -> dict[str, Column]:
        text = "Gini index of absolute relevance, in [0, 1); null where the map is zero"
        return {"sparseness": Column(text, higher_is_better=True)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        return {"sparseness": gini(heatmap(batch.attribution))}
