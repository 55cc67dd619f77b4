"""The step that Lightning's predict loop drives: a batch is attributed, then the maps are evaluated."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from zennit.canonizers import Canonizer

from canonxai.attribution import Method, Query
from canonxai.batch_size import BatchSize
from canonxai.canonizers import Agreements, canonization_agreement
from canonxai.config import Target
from canonxai.data import Batch
from canonxai.errors import UserError, check
from canonxai.memo import OriginalMaps
from canonxai.metrics import Explanation, Metric, heatmap
from canonxai.metrics.base import check_finite, is_finite
from canonxai.models.evaluator import Evaluator
from canonxai.models.labels import is_zero
from canonxai.models.normalization import Normalization
from canonxai.models.precision import tf32


class Evaluation(TypedDict):
    """What one batch yields."""

    columns: dict[str, Tensor]  #: a row an image
    heatmap: Float[Tensor, "batch height width"]


@dataclass(frozen=True)
class Observation:
    """What explainers that differ in their methods alone share of a batch.

    Attributes:
        logits: of the images.
        target: the class that is explained.
        of_images: what their metrics need of the images alone.
    """

    logits: Float[Tensor, "batch classes"]
    target: Int64[Tensor, " batch"]
    of_images: dict[Any, Any] = field(default_factory=dict)


class Explainer(LightningModule):
    """Explains a network with one method in one state of canonization, and evaluates the maps.

    The network is the original one throughout, and is canonized only while its relevance is computed. Predictions and
    perturbation curves of both states come from one and the same other copy of it, the evaluator's. Maps are computed
    in float64 by default: in float32, rounding changes the order of some pixels between two states whose maps are the
    same.

    Args:
        model: a classifier of normalised images; frozen, put into evaluation mode and converted to ``precision``.
        normalize: from pixel values to the model's input.
        method: how to explain.
        metrics: what to evaluate, by name.
        canonizer: ``None`` explains the network as written.
        outputs: how many classes the network must have; ``None`` for any number.
        target: which class is explained.
        precision: of the maps.
        seed: of all random numbers.
        evaluator: the network as perturbation tests evaluate it; ``None`` for that of the defaults.
        verify: how many images, from the first on, are used to prove that the canonizer leaves the logits unchanged.
        tolerance: largest relative difference of the logits, in either precision, at which the run goes on.
        originals: where maps of the original network are kept.
        name: of the method, as messages tell it.
    """

    def __init__(
        self,
        model: nn.Module,
        normalize: Normalization,
        method: Method,
        metrics: Mapping[str, Metric],
        canonizer: Canonizer | None = None,
        outputs: int | None = None,
        target: Target = Target.label,
        precision: torch.dtype = torch.float64,
        seed: int = 0,
        evaluator: Evaluator | None = None,
        verify: int = 64,
        tolerance: float = 1e-4,
        originals: OriginalMaps | None = None,
        name: str = "method",
    ) -> None:
        super().__init__()
        check(verify >= 1, "canonizer.verify", "an integer >= 1", verify)
        check(tolerance > 0, "canonizer.tolerance", "a number > 0", tolerance)
        self.evaluator = evaluator or Evaluator(model, normalize)
        self.precision = precision
        self.explained = model.eval().requires_grad_(False).to(precision)
        # channels_last: 4 times the forwards per second of ResNet18, 1.5 of VGG-16, on 2 CPU cores
        self.explained.to(memory_format=torch.channels_last)
        self.normalize = normalize
        self.method, self.metrics, self.name = method, metrics, name
        self.canonizers = [] if canonizer is None else [canonizer]
        self.outputs, self.target, self.seed = outputs, target, seed
        self.verify, self.tolerance = verify, tolerance
        self.originals = originals or OriginalMaps(memory=0)
        # a whole batch, or what of it fits into memory, which for maps is less than for logits
        self.logits_at_once, self.maps_at_once = (BatchSize(sys.maxsize, "data.batch_size") for _ in range(2))
        self.verified, self.is_zero = 0, False
        self.agreement = Agreements()

    @torch.no_grad()
    @tf32(False)
    def predict_step(self, batch: Batch, batch_idx: int) -> Evaluation | None:
        return self.explain(batch, self.observe(batch)) if _is_there(batch) else None

    def observe(self, batch: Batch) -> Observation:
        """What there is to know of a batch before it is explained; the first images verify the networks."""
        image, evaluator = batch["image"], self.evaluator
        logits = self.logits_at_once.rows(lambda rows: evaluator(image[rows]), len(image))
        check_finite("model", "logits", logits, batch["sample_id"])
        self.is_zero = self.is_zero or is_zero(logits)  # told once
        expected = self.outputs or max(int(batch["label"].max()) + 1, logits.shape[1])
        check(
            logits.shape[1] == expected, "model", f"{expected} outputs, one for each class", logits.shape[1],
            "Choose a model for the data set's classes, or name those of its outputs in model.classes.",
        )  # fmt: skip
        target = batch["label"] if self.target is Target.label else logits.argmax(1)

        def verify(rows: slice) -> Tensor:
            self._verify(image[rows])
            return target[rows]

        def compare(rows: slice) -> Tensor:
            evaluator.compare(self.explained, image[rows], target[rows])
            return target[rows]

        self.logits_at_once.rows(verify, min(len(image), self.verify - self.verified))
        self.logits_at_once.rows(compare, min(len(image), evaluator.verify - evaluator.effect.images))
        return Observation(logits, target)

    def explain(self, batch: Batch, observation: Observation) -> Evaluation:
        """The maps of a batch, and what the metrics say of them."""
        logits, target = observation.logits, observation.target
        query = self.query(batch["image"], target, batch["sample_id"])
        original = None
        if not self.canonizers or any(metric.needs_original for metric in self.metrics.values()):
            original = self._original(query)
        attribution = self._maps(query, self.canonizers) if original is None or self.canonizers else original
        explanation = Explanation(
            sample_id=batch["sample_id"],
            place=batch["place"],
            image=batch["image"],
            box=batch["box"],
            mask=batch["mask"],
            target=target,
            logits=logits,
            attribution=attribution,
            original=original,
            predict=self.evaluator,
            normalize=self.normalize,
            explain=self._explain,
            network=self.explained,
            batch_size=self.evaluator.batch_size,
            seed=self.seed,
            name=self.name,
        )
        explanation.of_images.update(observation.of_images)
        columns = {
            "sample_id": batch["sample_id"],
            "label": batch["label"],
            "target": target,
            "prediction": logits.argmax(1),
            "probability": logits.softmax(1).gather(1, target[:, None])[:, 0],
            "box_fraction": batch["box"].double().mean((1, 2)),
            "relevance_total": attribution.double().sum((1, 2, 3)),
            "relevance_max": attribution.abs().amax((1, 2, 3)),
        }
        relevance = heatmap(attribution)
        overflows = ~is_finite(relevance)  # the sum over channels of huge values
        for metric in self.metrics.values():
            columns |= {name: _without(overflows, values) for name, values in metric(explanation).items()}
        observation.of_images.update(explanation.of_images)
        return {"columns": columns, "heatmap": relevance}

    def query(
        self,
        image: UInt8[Tensor, "batch channels height width"],
        target: Int64[Tensor, " batch"],
        sample_id: Int64[Tensor, " batch"],
    ) -> Query:
        """The question that the method answers for a batch of images."""
        return self._query(self.normalize(image, self.precision), target, sample_id)

    def _query(
        self,
        input: Float[Tensor, "batch channels height width"],
        target: Int64[Tensor, " batch"],
        sample_id: Int64[Tensor, " batch"],
    ) -> Query:
        low, high = self.normalize.bounds(self.precision)
        return Query(self.explained, input, target, low, high, sample_id, self.seed)

    def _explain(
        self,
        input: Float[Tensor, "batch channels height width"],
        target: Int64[Tensor, " batch"],
        sample_id: Int64[Tensor, " batch"],
    ) -> Float[Tensor, "batch map_channels height width"]:
        return self._maps(self._query(input, target, sample_id), self.canonizers)

    def _maps(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Float[Tensor, "n map_channels height width"]:
        def compute(rows: slice) -> Tensor:
            input, target, sample_id = query.input[rows], query.target[rows], query.sample_id[rows]
            return self._some_maps(replace(query, input=input, target=target, sample_id=sample_id), canonizers)

        return self.maps_at_once.rows(compute, len(query.input))

    def _some_maps(self, query: Query, canonizers: Sequence[Canonizer]) -> Float[Tensor, "n map_channels height width"]:
        maps = self.method(query, canonizers)
        check_maps(self.name, maps, query.input)
        return maps.to(query.input.dtype)  # in which metrics ask for further ones

    def _original(self, query: Query) -> Float[Tensor, "batch map_channels height width"]:
        key = (*query.sample_id.tolist(), str(query.input.device))
        return self.originals.get(key, lambda: self._maps(query), keep=bool(self.canonizers))

    def _verify(self, image: UInt8[Tensor, "batch channels height width"]) -> None:
        """Compares canonized and original logits in float64 and in the run's precisions, on the first images."""
        image = image[: self.verify - self.verified]
        if not self.canonizers or not len(image):
            return
        for dtype in dict.fromkeys((torch.float64, self.evaluator.precision.dtype, self.precision)):
            agreement = canonization_agreement(self.explained, self.canonizers, self.normalize(image, dtype))
            self.agreement.add(str(dtype).removeprefix("torch."), agreement)
            check(
                agreement.max_rel <= self.tolerance,
                "canonizer",
                f"logits as those of the original network, up to canonizer.tolerance={self.tolerance:g}",
                f"a relative difference of {agreement.max_rel:.3g}",
                "The canonizer does not fit this network; or it is zennit's inexact one (canonizer.exact=false), which "
                "needs canonizer.tolerance=0.1.",
            )
        self.verified += len(image)


class Explainers(LightningModule):
    """Explains each batch by several methods; it is loaded, and evaluated without perturbation, once for all.

    A method that fails is left out from then on, and the others go on.

    Args:
        explainers: of the same network, data, state of canonization and metrics.
        done: the batches that each of them need not explain, by their number.

    Attributes:
        errors: those of explainers that failed, by their place.

    Raises:
        UserError: on prediction, if all have failed.
    """

    def __init__(self, explainers: Sequence[Explainer], done: Sequence[Collection[int]] = ()) -> None:
        super().__init__()
        self.explainers = list(explainers)
        self.done = done or [()] * len(explainers)
        self.networks = nn.ModuleList(explainers)  # for Lightning, which puts them on a device
        self.errors: dict[int, Exception] = {}

    @torch.no_grad()
    @tf32(False)
    def predict_step(self, batch: Batch, batch_idx: int) -> list[Evaluation | None]:
        if not _is_there(batch):
            return [None] * len(self.explainers)
        observation = self.explainers[0].observe(batch)
        return [self._explain(place, batch, observation) for place in range(len(self.explainers))]

    def _explain(self, place: int, batch: Batch, observation: Observation) -> Evaluation | None:
        if place in self.errors or batch["index"] in self.done[place]:
            return None
        try:
            evaluation: Evaluation = self.explainers[place].explain(batch, observation)
        except Exception as error:  # of someone's own method or metric
            self.errors[place] = error
            if len(self.errors) == len(self.explainers):
                raise
            return None
        return evaluation


def check_maps(name: str, maps: object, input: Float[Tensor, "batch channels height width"]) -> None:
    """Raises a :class:`UserError` unless a method gave what :class:`canonxai.attribution.Method` promises."""
    batch, _, height, width = input.shape
    shape = f"({batch}, channels, {height}, {width})"
    expected = f"a float tensor of shape {shape}, as the images (see canonxai.attribution.Method)"
    if not isinstance(maps, Tensor):
        raise UserError(f"{name}: expected {expected}, got {'None' if maps is None else type(maps).__name__}.")
    is_alike = maps.ndim == 4 and maps.shape[1] >= 1 and (len(maps), *maps.shape[2:]) == (batch, height, width)
    is_held_alike = (maps.layout, maps.device) == (torch.strided, input.device)
    if not (is_alike and is_held_alike and maps.is_floating_point()):
        held = "" if is_held_alike else f", {maps.layout} on {maps.device} instead of {torch.strided} on {input.device}"
        raise UserError(f"{name}: expected {expected}, got {maps.dtype} of shape {tuple(maps.shape)}{held}.")


def _without(rows: Bool[Tensor, " batch"], values: Tensor) -> Tensor:
    """The values, NaN in some rows."""
    chosen = rows.view(-1, *[1] * (values.ndim - 1))
    return values.where(~chosen, torch.nan) if rows.any() else values


def _is_there(batch: Batch) -> bool:
    """Whether any of a batch's files could be read."""
    return len(batch["sample_id"]) > 0
