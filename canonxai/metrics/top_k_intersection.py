"""Top-k intersection: how many of the k most relevant pixels lie on the object.

    TKI = |top_k(R) and region| / k

Theiner, Mueller-Budack and Ewerth, WACV 2022, "Interpretable semantic photo geolocation". It reaches 1 only where the
object has at least k pixels. Equal values count by their expectation, where Quantus counts what its sort puts first.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.errors import check
from canonxai.metrics.region import RegionMetric, hits


class TopKIntersection(RegionMetric):
    """The share of the most relevant pixels that lie in the region.

    Args:
        region: ``box`` or ``mask``.
        fraction: k as a fraction of all pixels, rounded, at least one; in (0, 1].

    Raises:
        UserError: if an argument is out of its range.
    """

    name = "top_k_intersection"
    description = "share of the k most relevant pixels that lie in the {region}, in [0, 1]; null without an object"

    def __init__(self, region: str = "box", fraction: float = 0.02) -> None:
        super().__init__(region)
        check(0 < fraction <= 1, "metric.top_k_intersection.fraction", "a number in (0, 1]", fraction)
        self.fraction = fraction

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        k = max(1, round(self.fraction * region[0].numel()))
        return hits(relevance, region, torch.full((len(region),), k, device=region.device)) / k
