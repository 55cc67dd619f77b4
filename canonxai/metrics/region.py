"""What the localization metrics share: the object's region, and pixels of it among the most relevant ones."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import conv2d

from canonxai.errors import check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.similarity import rescaled

REGIONS = ("box", "mask")
#: one non-negative value a pixel from those of its channels, up to a factor of the map, after
#: Arras et al., Information Fusion 2022, "CLEVR-XAI"
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "positive": lambda attribution: attribution.sum(1).clamp(min=0),
    "absolute": lambda attribution: attribution.sum(1).abs(),
    "l2_squared": lambda attribution: rescaled(attribution).square().sum(1),  # so that no square over- or underflows
    "max_norm": lambda attribution: attribution.abs().amax(1),
}


class RegionMetric(Metric):
    """A metric that compares a map with the region of the object; NaN, that is undefined, where there is no object.

    Args:
        region: ``box``, the union of the boxes of the true class, or ``mask``, the object itself.

    Raises:
        UserError: if ``region`` is neither.
    """

    name: ClassVar[str]
    description: ClassVar[str]  #: of the column, with ``{region}``

    def __init__(self, region: str = "box") -> None:
        check_choice(f"metric.{self.name}.region", region, REGIONS)
        self.region = region

    @property
    def columns(self) -> dict[str, Column]:
        return {self.name: Column(self.description.format(region=self.region), higher_is_better=True)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        region = batch.box if self.region == "box" else batch.mask
        score = self.score(self.relevance(batch), region).double()
        return {self.name: score.where(region.flatten(1).any(1), torch.nan)}

    def relevance(self, batch: Explanation) -> Float[Tensor, "batch height width"]:
        """The value of each pixel."""
        return heatmap(batch.attribution)

    @abstractmethod
    def score(
        self, relevance: Float[Tensor, "batch height width"], region: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        """The metric, for regions that are not empty."""


class PooledRegionMetric(RegionMetric):
    """A metric of the region and of a map without negative values.

    Args:
        region: ``box`` or ``mask``.
        pooling: how the channels of a pixel become one value: their sum if it is ``positive``, its ``absolute`` value,
            the sum of squares, ``l2_squared``, or the largest absolute value, ``max_norm``.

    Raises:
        UserError: if an argument is none of its choices.
    """

    def __init__(self, region: str = "box", pooling: str = "absolute") -> None:
        super().__init__(region)
        check_choice(f"metric.{self.name}.pooling", pooling, POOLINGS)
        self.pooling = pooling

    def relevance(self, batch: Explanation) -> Float[Tensor, "batch height width"]:
        relevance: Tensor = POOLINGS[self.pooling](batch.attribution)
        return relevance


def hits(
    relevance: Float[Tensor, "batch height width"],
    region: Bool[Tensor, "batch height width"],
    count: Int64[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """How many of the ``count`` most relevant pixels lie in a region.

    Where equal values are so many that some of them are left out, it is the expectation over all choices of them: no
    result depends on how a sort orders what is equal.

    >>> relevance = torch.tensor([[[3.0, 1.0], [1.0, 0.0]]])
    >>> hits(relevance, torch.tensor([[[True, True], [False, False]]]), torch.tensor([2]))
    tensor([1.5000], dtype=torch.float64)
    """
    relevance, region = relevance.flatten(1), region.flatten(1)
    count_or_one = count.clamp(min=1)
    last = relevance.topk(int(count_or_one.max())).values.gather(1, count_or_one[:, None] - 1)
    above, tied = relevance > last, relevance == last
    share = (tied & region).sum(1).double() / tied.sum(1)
    return (above & region).sum(1) + (count - above.sum(1)) * share


def dilated(region: Bool[Tensor, "batch height width"], radius: int) -> Bool[Tensor, "batch height width"]:
    """The pixels at a distance of at most ``radius`` from a region."""
    offset = torch.arange(-radius, radius + 1, device=region.device)
    disk = (offset[:, None] ** 2 + offset**2 <= radius**2).float()
    return conv2d(region[:, None].float(), disk[None, None], padding=radius)[:, 0] > 0.5
