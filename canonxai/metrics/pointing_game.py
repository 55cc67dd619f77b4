"""Pointing game: whether the maximum of the map lies on the object.

Zhang et al., IJCV 2018, "Top-down neural attention by Excitation Backprop": a hit is a maximum at a distance of at most
``tolerance`` from the object, 15 pixels there. Where several pixels are the maximum, the share of them that hit counts,
so that a constant map scores as a random one; Quantus counts a hit if one of them does.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.errors import check
from canonxai.metrics.region import RegionMetric, dilated, hits


class PointingGame(RegionMetric):
    """The share of the maxima of the channel-summed map, mostly one, that lie in the region or near enough.

    Args:
        region: ``box`` or ``mask``.
        tolerance: how many pixels outside still count, >= 0.

    Raises:
        UserError: if an argument is out of its range.
    """

    name = "pointing_game"
    description = (
        "share of the maxima of the map that lie in the {region}, or as near as the tolerance; 0 or 1 for one maximum; "
        "null without an object"
    )

    def __init__(self, region: str = "box", tolerance: int = 0) -> None:
        super().__init__(region)
        check(tolerance >= 0, "metric.pointing_game.tolerance", "an integer >= 0", tolerance)
        self.tolerance = tolerance

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        return hits(relevance, dilated(region, self.tolerance), torch.ones_like(region[:, 0, 0], dtype=torch.int64))
