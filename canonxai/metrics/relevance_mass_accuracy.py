"""Relevance mass accuracy: how much of a map without negative values lies on the object.

    RMA = sum_{p in region} R(p) / sum_p R(p)

Arras et al., Information Fusion 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network
explanations". Each pixel is pooled to a non-negative value first, as there. Quantus does not: with signed values its
ratio can be negative or above 1.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.metrics.localization import inside_total_ratio
from canonxai.metrics.region import PooledRegionMetric


class RelevanceMassAccuracy(PooledRegionMetric):
    """The share of pooled relevance in the region; with ``pooling=positive`` it is the ratio mu of ``localization``."""

    name = "relevance_mass_accuracy"
    description = (
        "pooled relevance inside the {region} over all of it, in [0, 1]; null where all is zero or there is no object"
    )

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        return inside_total_ratio(relevance, region)
