"""What a metric sees and what it says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ClassVar, Literal, TypeVar, cast

from jaxtyping import Bool, Float, Int64, Real, UInt8
from torch import Tensor, nn

from canonxai.batch_size import BatchSize
from canonxai.errors import UserError
from canonxai.models.normalization import Normalization


@dataclass(frozen=True)
class Explanation:
    """A batch of explained images.

    Attributes:
        sample_id: names of the samples.
        place: which of the batch's samples each is, of which some may be missing; ascending.
        image: pixel values.
        box: union of the boxes of the label's objects.
        mask: the label's objects.
        target: the class that is explained.
        logits: what ``predict`` gives for ``image``.
        attribution: the maps, per channel; finite.
        original: the same method's maps on the original network, where a metric needs them.
        predict: logits of other images, pixel values in [0, 255] that need not be whole, without gradients; the same
            function for all methods and both states of canonization, and not that of ``network``.
        normalize: from pixel values to the network's input.
        explain: the same method's maps, in the same state of canonization, of other inputs and targets, given the
            sample that each is made of.
        network: what ``explain`` explains; changed only within :func:`canonxai.models.snapshot.restored`.
        batch_size: how many images ``predict`` should be given at once.
        seed: the run's seed.
        name: of the method, as messages tell it.
        of_images: what metrics need of the images alone, see :func:`once_per_images`; shared by methods.
        of_map: what several metrics need of the map, see :func:`once_per_map`.

    Raises:
        UserError: if a map is not finite, of which no metric has to think.
    """

    sample_id: Int64[Tensor, " batch"]
    place: Int64[Tensor, " batch"]
    image: UInt8[Tensor, "batch channels height width"]
    box: Bool[Tensor, "batch height width"]
    mask: Bool[Tensor, "batch height width"]
    target: Int64[Tensor, " batch"]
    logits: Float[Tensor, "batch classes"]
    attribution: Float[Tensor, "batch map_channels height width"]
    original: Float[Tensor, "batch map_channels height width"] | None
    predict: Callable[[Real[Tensor, "n channels height width"]], Float[Tensor, "n classes"]]
    normalize: Normalization
    explain: Callable[
        [Float[Tensor, "n channels height width"], Int64[Tensor, " n"], Int64[Tensor, " n"]],
        Float[Tensor, "n map_channels height width"],
    ]
    network: nn.Module
    batch_size: BatchSize
    seed: int
    name: str = "method"
    of_images: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    of_map: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_finite(self.name, "relevance", self.attribution, self.sample_id)

    @property
    def input(self) -> Float[Tensor, "batch channels height width"]:
        """What the network gets for ``image``, in the maps' precision."""
        input: Tensor = self.normalize(self.image, self.attribution.dtype)
        return input


def check_finite(argument: str, what: str, values: Tensor, sample_id: Int64[Tensor, " batch"]) -> None:
    """Raises a :class:`UserError` that names the samples whose values are not finite."""
    wrong = sample_id[~is_finite(values)].tolist()
    if wrong:
        more = f" and {len(wrong) - 5} more of the batch" if len(wrong) > 5 else ""
        samples = ", ".join(map(str, wrong[:5])) + more
        raise UserError(
            f"{argument}: expected finite {what}, got NaN or infinity for sample {samples}. "
            "Raise method.epsilon or method.stabilizer, use precision=64, or check the weights."
        )


def is_finite(values: Float[Tensor, "batch *row"]) -> Bool[Tensor, " batch"]:
    """Which rows hold neither NaN nor infinity."""
    row = tuple(range(1, values.ndim))
    # their extremes tell, in a tenth of the time that all values take
    return values.amax(row).isfinite() & values.amin(row).isfinite()


Of = TypeVar("Of", bound=Callable[..., Any])


def once_per_images(function: Of) -> Of:
    """A function of a batch's images, and of hashable arguments, that is computed once for all metrics and methods."""
    return _once(function, lambda batch: batch.of_images)


def once_per_map(function: Of) -> Of:
    """A function of a batch's maps, and of hashable arguments, that is computed once for all metrics."""
    return _once(function, lambda batch: batch.of_map)


def _once(function: Of, known: Callable[[Explanation], dict[Any, Any]]) -> Of:
    @wraps(function)
    def shared(batch: Explanation, *arguments: Hashable) -> Any:
        key = (function, *arguments)
        if key not in known(batch):
            known(batch)[key] = function(batch, *arguments)
        return known(batch)[key]

    return cast(Of, shared)


@dataclass(frozen=True)
class Column:
    """One value that a metric stores for each image.

    Attributes:
        description: what it is, with its range.
        kind: a number, or a list of numbers.
        higher_is_better: the direction, or ``None`` where there is none.
        axis: for a list, the value on the horizontal axis of each entry.
    """

    description: str
    kind: Literal["number", "curve"] = "number"
    higher_is_better: bool | None = None
    axis: tuple[float, ...] = ()


class Metric(ABC):
    """A metric: a callable from a batch to its columns.

    A value that is not defined for an image is NaN here; it is stored as null, counted, and left out of means.
    """

    needs_original: ClassVar[bool] = False  #: whether ``Explanation.original`` must be there
    group: int = 1  #: images that follow each other and must be in one batch, as they are compared with each other

    @property
    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The columns that a call returns."""

    @abstractmethod
    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        """The values of each column, one row an image."""


def heatmap(
    attribution: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """The attribution of each pixel: the sum over its channels."""
    return attribution.sum(1)


def columns_of(metrics: Mapping[str, Metric]) -> dict[str, Column]:
    """The columns of several metrics."""
    return {name: column for metric in metrics.values() for name, column in metric.columns.items()}
