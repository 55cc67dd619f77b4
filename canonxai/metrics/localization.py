"""Localization: how much of the positive attribution lies on the object.

The inside-total relevance ratio of the study, after Kohlbrenner et al., IJCNN 2020, "Towards best practice in
explaining neural network decisions with LRP"::

    mu = R+_inside / R+_total
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.metrics.region import RegionMetric
from canonxai.metrics.similarity import scaled


def inside_total_ratio(
    relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """Positive relevance inside a region over all positive relevance.

    Args:
        relevance: one value a pixel.
        region: where the object is.

    Returns:
        In [0, 1], higher is better. NaN, that is undefined, where no relevance is positive or the region is empty.

    >>> relevance = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
    >>> inside_total_ratio(relevance, torch.tensor([[[True, False], [True, False]]]))
    tensor([0.7500])
    """
    positive = scaled(relevance.clamp(min=0))  # so that the sums of huge and tiny maps stay within range
    ratio = (positive * region).sum((1, 2)) / positive.sum((1, 2))
    return ratio.where(region.any(-1).any(-1), torch.nan)


class Localization(RegionMetric):
    """The inside-total ratio mu of the channel-summed map."""

    name = "localization"
    description = (
        "inside-total ratio mu = R+ inside the {region} / R+ total, in [0, 1]; "
        "null where no relevance is positive or there is no object"
    )

    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        return inside_total_ratio(relevance, region)
