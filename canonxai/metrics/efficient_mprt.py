"""Efficient model parameter randomisation: how much more complex the map of a random network is.

    eMPRT = (H(R(x; theta_random)) - H(R(x; theta))) / H(R(x; theta))

with H the entropy of the histogram of the map's values, whose bins divide the map's own range. A map of a trained
network is simpler than that of a random one, and nothing is compared pixel by pixel. Hedström, Weber, Lapuschkin and
Höhne, 2023, "Sanity checks revisited: an exploration to repair the model parameter randomisation test".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai.errors import check
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.randomization import layers, randomized_map
from canonxai.metrics.similarity import rescaled


class EfficientMPRT(Metric):
    """The relative rise of the entropy of channel-summed maps.

    Args:
        bins: of the histogram, >= 2.

    Raises:
        UserError: if ``bins`` is out of its range.
    """

    def __init__(self, bins: int = 100) -> None:
        check(bins >= 2, "metric.efficient_mprt.bins", "an integer >= 2", bins)
        self.bins = bins

    @property
    def columns(self) -> dict[str, Column]:
        text = (
            "relative rise of the entropy of the map's values when all layers are random, >= -1; "
            "null where a map is constant or not finite"
        )
        return {"efficient_mprt": Column(text, higher_is_better=True)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        maps = heatmap(batch.attribution), randomized_map(batch, len(layers(batch.network)))
        before, after = (histogram_entropy(relevance, self.bins) for relevance in maps)
        return {"efficient_mprt": (after - before) / before}


def histogram_entropy(relevance: Float[Tensor, "batch height width"], bins: int) -> Float[Tensor, " batch"]:
    """The entropy, in nats, of the histogram of a map's values between its smallest and its largest.

    Returns:
        In (0, ln bins]; NaN for a map that is constant or not finite.
    """
    values = rescaled(relevance.flatten(1).double())  # so that no range overflows
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    place = (values - low) / (high - low)
    defined = place.isfinite().all(1)
    index = (place * bins).clamp(max=bins - 1).nan_to_num(0).long()
    counts = torch.zeros(len(values), bins, dtype=values.dtype, device=values.device)
    counts.scatter_add_(1, index, torch.ones_like(values))
    entropy: Tensor = torch.special.entr(counts / values.shape[1]).sum(1)
    return entropy.where(defined, torch.nan)
