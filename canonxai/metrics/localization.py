"""Localization: how much of the positive attribution lies on the object.

The inside-total relevance ratio of the study, after Kohlbrenner et al., IJCNN 2020, "Towards best practice in
explaining neural network decisions with LRP"::

    mu = R+_inside / R+_total
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonxai.errors import check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap


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
    positive = relevance.clamp(min=0)
    # dividing by the largest value first keeps the sums of huge and tiny maps within range
    positive = positive / positive.amax((1, 2), keepdim=True)
    ratio = (positive * region).sum((1, 2)) / positive.sum((1, 2))
    return ratio.where(region.any(-1).any(-1), torch.nan)


class Localization(Metric):
    """The inside-total ratio mu of the channel-summed map.

    Args:
        region: ``box``, the union of the boxes of the true class, or ``mask``, the object itself.

    Raises:
        UserError: if ``region`` is neither.
    """

    def __init__(self, region: str = "box") -> None:
        check_choice("metric.localization.region", region, ("box", "mask"))
        self.region = region

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "localization": Column(
                f"inside-total ratio mu = R+ inside the {self.region} / R+ total, in [0, 1]; "
                "null where no relevance is positive or there is no object",
                higher_is_better=True,
            )
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        region = batch.box if self.region == "box" else batch.mask
        return {"localization": inside_total_ratio(heatmap(batch.attribution), region)}
