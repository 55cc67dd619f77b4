"""Relevance rank accuracy: how many of the K most relevant pixels lie on the object, with K the object's pixels.

    RRA = |top_K(R) and region| / K,    K = |region|

Arras et al., Information Fusion 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network
explanations". Equal values count by their expectation, where Quantus counts what its sort puts first.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.metrics.region import PooledRegionMetric, hits


class RelevanceRankAccuracy(PooledRegionMetric):
    """The share of the most relevant pixels that lie in the region."""

    name = "relevance_rank_accuracy"
    description = "share in the {region} of as many most relevant pixels as it has, in [0, 1]; null without an object"

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        size = region.sum((1, 2))
        return hits(relevance, region, size) / size
