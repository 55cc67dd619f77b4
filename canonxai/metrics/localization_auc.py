"""Localization AUC: how well the map tells the object's pixels from the others.

The area under the ROC curve of the map as a score of "this pixel belongs to the object", as in Fawcett, Pattern
Recognition Letters 2006, "An introduction to ROC analysis"; it is the probability that a pixel of the object has more
relevance than one outside, and equal ones count half::

    AUC = (sum_{p in region} rank(p) - n (n + 1) / 2) / (n m)

with n pixels inside, m outside, and ascending ranks from 1.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.metrics.region import RegionMetric
from canonxai.metrics.similarity import average_ranks


class LocalizationAUC(RegionMetric):
    """The area under the ROC curve of the channel-summed map."""

    name = "localization_auc"
    description = (
        "area under the ROC curve of the map as a detector of the {region}'s pixels, in [0, 1], 0.5 by chance; "
        "null where there is no object or nothing else"
    )

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        region = region.flatten(1)
        inside, outside = region.sum(1), (~region).sum(1)
        total = (average_ranks(relevance.flatten(1)) * region).sum(1)
        return (total - inside * (inside + 1) / 2) / (inside * outside)
