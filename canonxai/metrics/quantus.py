"""Metrics of Quantus, for what is not native: Hedström et al., JMLR 2023, "Quantus: an explainable AI toolkit".

Quantus gets what canonxai has: the network's input as ``x_batch``, the explained class as ``y_batch``, the map, summed
over channels, as ``a_batch``, the region of the object as ``s_batch``, the original network as ``model``, and for maps
of other inputs, classes or parameters ``explain_func``: the same method in the same state of canonization.

It gets one image at a time. In a batch, Quantus would divide maps by the largest value of all, and draw from global
generators; so each score depends on its image alone, and on generators that begin anew at a function of (seed, sample
id). Metrics that compare images with each other get groups of ``group`` images, which follow each other in the data.
What Quantus 0.6.0 does for grey images alone, or for networks of one form, is mended: see
:mod:`canonxai.metrics.quantus_mends`. ``docs/references.md`` lists what each metric needs.
"""

import difflib
import inspect
import random as python_random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from canonxai import random
from canonxai.errors import UserError, check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap, is_finite
from canonxai.metrics.quantus_mends import adapt, is_higher_better, mended
from canonxai.metrics.region import REGIONS
from canonxai.models.snapshot import restored
from canonxai.random import Stream

#: metrics that compare images with each other
OF_SEVERAL_IMAGES = ("BatchSufficiency", "Consistency", "Focus", "SensitivityN", "Sufficiency")
OF_A_GROUP = "SensitivityN"  #: the one that gives a group a score, and not each image of it
#: arguments that are the same for all metrics, and what an adapter sets them to
FIXED = {"return_aggregate": False, "disable_warnings": True, "display_progressbar": False}
PRESENTATION = ("aggregate_func", "default_plot_func", "kwargs")


class UndefinedError(Exception):
    """A map for which Quantus defines no score."""


class Quantus(Metric):
    """A metric of Quantus, a number an image.

    Args:
        name: its class, as ``Complexity``.
        arguments: of the class; functions of Quantus by their names, as ``similarity_func: ssim``. What is left out
            is as Quantus has it, but ``num_classes``, the network's, and ``seed``, a function of (seed, sample id).
        region: ``box``, the union of the boxes of the true class, or ``mask``, the object itself.
        softmax: whether the network's output is a probability or a logit; ``None`` for what the metric has by default.
        curve: ``mean`` takes the mean of what metrics give that have several numbers an image.
        group: how many images are compared with each other, >= 2, by metrics that do; their scores depend on it. It
            divides ``data.batch_size``; the data's last group may be smaller. A score of the whole group stands at its
            first image, so that each counts once.

    Raises:
        UserError: if Quantus is not installed, has no such metric, or refuses an argument; on a call, if the metric
            fails, or gives several numbers an image and ``curve`` does not say what becomes of them.
    """

    def __init__(
        self,
        name: str | None = None,
        arguments: Any = None,
        region: str = "box",
        softmax: bool | None = None,
        curve: str | None = None,
        group: int = 16,
    ) -> None:
        check_choice("metric.quantus.region", region, REGIONS)
        check_choice("metric.quantus.curve", curve, (None, "mean"))
        check(group >= 2, "metric.quantus.group", "an integer >= 2", group)
        check(isinstance(arguments or {}, dict), "metric.quantus.arguments", "names and values", arguments)
        self.kind, self.name = kind(name), str(name)
        self.known = inspect.signature(self.kind).parameters
        self.arguments = {key: self._argument(key, value) for key, value in (arguments or {}).items()}
        self.region, self.softmax, self.curve = region, softmax, curve
        self.group = group if self.name in OF_SEVERAL_IMAGES else 1
        self.higher_is_better = is_higher_better(self._built({}))

    @property
    def column(self) -> str:
        """The column's name, as ``quantus_complexity``."""
        words = re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name)
        return f"quantus_{words.lower()}"

    @property
    def columns(self) -> dict[str, Column]:
        text = f"{self.name} of Quantus; null where it is not defined, as for a map that is constant or negative"
        if self.group > 1:
            text += f"; of {self.group} images that follow each other" + (
                ", at the first of them" if self.name == OF_A_GROUP else ""
            )
        return {self.column: Column(text, higher_is_better=self.higher_is_better)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        scores, group = torch.empty_like(batch.place, dtype=torch.float64), batch.place // self.group
        for number in set(group.tolist()):
            rows = group == number
            scores[rows] = self._scores(some(batch, rows))
        return {self.column: scores}

    def _scores(self, batch: Explanation) -> Float[Tensor, " batch"]:
        """The scores of a group of images, or of one; NaN where they are not defined."""
        scores = torch.full_like(batch.sample_id, torch.nan, dtype=torch.float64)
        places = torch.arange(len(scores))
        if self.name == "Focus":
            if not (found := mosaics(batch)):
                return scores
            batch, places = found
        is_defined = has_score(heatmap(batch.attribution))
        if self.kind.evaluation_category.value == "Localisation":
            is_defined = is_defined & self._region(batch).flatten(1).any(1)
        (rows,) = is_defined.cpu().nonzero(as_tuple=True)
        if len(rows) >= (1 if self.group == 1 or self.name == "Focus" else 2):
            # the score of a group stands at the same image in both states, whichever maps have none
            chosen = places[:1] if self.name == OF_A_GROUP else places[rows]
            scores[chosen] = torch.from_numpy(self._of_quantus(some(batch, rows))).to(scores)
        return scores

    def _of_quantus(self, batch: Explanation) -> Float[np.ndarray, " scores"]:
        """What Quantus makes of images whose maps have a score, alone or compared with each other."""
        first = batch.sample_id[:1]
        seed = int(random.below(batch.seed, Stream.QUANTUS, first, torch.full_like(first, 2**31)))
        try:
            with warnings.catch_warnings(), mended(), seeded(seed, first.device), any_precision(batch.network):
                warnings.simplefilter("ignore")
                metric = self._built({"seed": seed, "num_classes": batch.logits.shape[1]})
                adapt(metric, batch.image[0].numel())
                scores = metric(
                    model=batch.network,
                    channel_first=True,
                    explain_func=explanations(batch),
                    device=str(batch.attribution.device),
                    batch_size=len(batch.sample_id),
                    **self._given(batch),
                    **({} if self.softmax is None else {"softmax": self.softmax}),
                )
        except UndefinedError:
            return np.array([np.nan])
        except UserError:
            raise
        except Exception as error:  # of any kind, as Quantus checks little
            raise UserError(
                f"metric.quantus: {self.name} of Quantus failed for sample {int(first)}: {reason(error)}. "
                "Its arguments are in metric.quantus.arguments."
            ) from error
        return self._numbers(scores, 1 if self.name == OF_A_GROUP else len(batch.sample_id))

    def _given(self, batch: Explanation) -> dict[str, Any]:
        """What the metric is called with."""
        return {
            "x_batch": batch.input.cpu().numpy(),
            "y_batch": batch.target.cpu().numpy(),
            "a_batch": as_quantus(heatmap(batch.attribution)),
            "s_batch": self._region(batch)[:, None].cpu().numpy(),
            **({"custom_batch": quadrants(batch)} if self.name == "Focus" else {}),
        }

    def _region(self, batch: Explanation) -> Bool[Tensor, "batch height width"]:
        return batch.box if self.region == "box" else batch.mask

    def _numbers(self, scores: Any, expected: int) -> Float[np.ndarray, " expected"]:
        """What Quantus returned, as a number an image, or one of a group."""
        values: list[Any] = [*scores.values()] if isinstance(scores, Mapping) else scores
        try:
            numbers = np.asarray(values, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):  # not numbers, or of different lengths
            numbers = np.zeros(0)
        own = [key for key in self.known if key.startswith("return_") and key not in FIXED]
        check(
            len(numbers) == expected or (self.curve == "mean" and expected == 1 and len(numbers) > 1), "metric.name",
            "a metric of Quantus that gives one number an image",
            f"{self.name}, which gives {len(numbers) or 'no list of numbers'}",
            "Take their mean by metric.quantus.curve=mean" + (f", or see its {', '.join(own)}." if own else "."),
        )  # fmt: skip
        return numbers if len(numbers) == expected else np.array([numbers.mean()])

    def _argument(self, key: str, value: Any) -> Any:
        """An argument of the class, a function for its name."""
        known = [name for name in self.known if name not in (*FIXED, *PRESENTATION)]
        check_choice("metric.quantus.arguments", key, known)
        if isinstance(value, str) and (key.endswith("_func") or key.startswith("norm_")):
            found = functions()
            check(
                value in found, f"metric.quantus.arguments.{key}", f"a function of Quantus{near(value, found)}", value
            )
            return found[value]
        return value

    def _built(self, defaults: Mapping[str, Any]) -> Any:
        """A new metric, as Quantus' own gather the scores of all calls."""
        defaults = {key: value for key, value in defaults.items() if key in self.known}
        try:
            return self.kind(**{**defaults, **self.arguments, **FIXED})
        except Exception as error:  # of any kind
            raise UserError(
                f"metric.quantus.arguments: {self.name} of Quantus does not take {self.arguments}: {reason(error)}."
            ) from error


def kind(name: str | None) -> Any:
    """A metric's class."""
    quantus = imported()
    kinds = {key: value for key, value in sorted(vars(quantus.metrics).items()) if hasattr(value, "score_direction")}
    check(name in kinds, "metric.name", f"a metric of Quantus{near(str(name), kinds)}", name)
    return kinds[str(name)]


def imported() -> ModuleType:
    """Quantus, which need not be installed."""
    try:
        import quantus
    except ImportError as error:
        raise UserError(
            f"metric.quantus: expected Quantus to be installed, got: {error}. pip install 'canonxai[quantus]'"
        ) from error
    module: ModuleType = quantus
    return module


def functions() -> dict[str, Callable[..., Any]]:
    """The functions that arguments of Quantus' metrics may be, by name."""
    modules = [module for module in vars(imported().functions).values() if inspect.ismodule(module)]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def near(name: str, choices: Mapping[str, Any]) -> str:
    """The choices that a misspelt name may have meant, or all of them."""
    meant = difflib.get_close_matches(name, choices, cutoff=0.7)
    return f", perhaps {' or '.join(meant)}" if meant else f", one of {', '.join(choices)}"


def reason(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")


def some(batch: Explanation, rows: Shaped[Tensor, " rows"]) -> Explanation:
    """Some images of a batch, by a mask or by their places."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    chosen: dict[str, Any] = {
        k: value[rows.to(value.device)] for k, value in values.items() if isinstance(value, Tensor)
    }
    return replace(batch, **chosen)


def has_score(maps: Float[Tensor, "n height width"]) -> Bool[Tensor, " n"]:
    """Which maps Quantus takes: neither constant, nor all negative, nor of values that are not finite."""
    values = maps.flatten(1)
    return is_finite(values) & (values.amin(1) < values.amax(1)) & (values >= 0).any(1)


def as_quantus(maps: Float[Tensor, "n height width"]) -> Float[np.ndarray, "n 1 height width"]:
    """Maps for Quantus.

    Raises:
        UndefinedError: where it does not take them.
    """
    if not has_score(maps).all():
        raise UndefinedError
    values: Float[np.ndarray, "n 1 height width"] = maps[:, None].cpu().numpy()
    return values


def mosaics(batch: Explanation) -> tuple[Explanation, Int64[Tensor, " n"]] | None:
    """Mosaics for the Focus (Arias-Duart et al., FUZZ-IEEE 2022): an image, one of its class, and two of others.

    The others are those that come next, from the end on to the beginning again; which has which corner is drawn. A
    mosaic's map is of the image's class, and its box and mask are the two corners of this class.

    Returns:
        A mosaic for each image that finds the others, and which images these are; ``None`` if there are none.
    """
    count, target = len(batch.target), batch.target.tolist()
    corners = random.bits(batch.seed, Stream.QUANTUS, batch.sample_id, 4).argsort(1).tolist()
    rows, tiles, own = [], [], []
    for image in range(count):
        following = [(image + step) % count for step in range(1, count)]
        same = [other for other in following if target[other] == target[image]]
        different = [other for other in following if target[other] != target[image]]
        if same and len(different) >= 2:
            four = [image, same[0], *different[:2]]
            rows.append(image)
            tiles.append([four[corner] for corner in corners[image]])
            own.append([corner < 2 for corner in corners[image]])
    if not rows:
        return None
    device = batch.image.device
    of_class = torch.tensor(own, device=device)[:, :, None, None].expand(-1, -1, *batch.image.shape[2:])
    region, chosen = _square(of_class[:, :, None])[:, 0], some(batch, torch.tensor(rows))
    mosaic = _square(batch.image[torch.tensor(tiles, device=device)])
    input = batch.normalize(mosaic, batch.attribution.dtype)
    try:
        attribution = batch.explain(input, chosen.target, chosen.sample_id)
    except UserError:
        raise
    except Exception as error:  # of any kind, as of a network for images of one size
        raise UserError(
            "metric.name: expected a network that takes images twice as high and wide, as Focus explains mosaics of "
            f"four, got: {reason(error)}."
        ) from error
    attribution = attribution.where(is_finite(attribution).view(-1, 1, 1, 1), 0.0)  # a constant map, without a score
    return replace(chosen, image=mosaic, box=region, mask=region, attribution=attribution), torch.tensor(rows)


def _square(tiles: Shaped[Tensor, "n 4 channels h w"]) -> Shaped[Tensor, "n channels height width"]:
    """Four tiles, two by two."""
    rows = [torch.cat([tiles[:, first], tiles[:, first + 1]], 3) for first in (0, 2)]
    return torch.cat(rows, 2)


def quadrants(batch: Explanation) -> Int64[np.ndarray, "n 4"]:
    """Which corners of mosaics are of the explained class, as the Focus of Quantus is told."""
    height, width = batch.box.shape[1:]
    corners: Int64[np.ndarray, "n 4"] = batch.box[:, :: height // 2, :: width // 2].flatten(1).long().cpu().numpy()
    return corners


def explanations(batch: Explanation) -> Callable[..., Float[np.ndarray, "n 1 h w"]]:
    """What Quantus calls for further maps of a batch's images, also of networks whose parameters it changed."""
    dtype, device = batch.attribution.dtype, batch.attribution.device

    def explain(
        model: nn.Module, inputs: Shaped[np.ndarray, "n c h w"], targets: Shaped[np.ndarray, "..."], **_: Any
    ) -> Float[np.ndarray, "n 1 h w"]:
        input = torch.as_tensor(np.asarray(inputs), dtype=dtype, device=device)
        target = torch.as_tensor(np.asarray(targets), device=device).long().reshape(-1).expand(len(input))
        with restored(batch.network):
            for own, changed in zip(batch.network.modules(), model.modules(), strict=True):
                own._parameters.update(changed._parameters)
                own._buffers.update(changed._buffers)
            return as_quantus(heatmap(batch.explain(input, target, batch.sample_id.expand(len(input)))))

    return explain


@contextmanager
def any_precision(network: nn.Module) -> Iterator[None]:
    """Within the block the network takes inputs of any precision, as Quantus gives it float32."""

    def convert(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        parameter = next(module.parameters(), None)
        return inputs if parameter is None else tuple(value.to(parameter) for value in inputs)

    handle = network.register_forward_pre_hook(convert)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block the global generators begin at ``seed``; afterwards they are as they were."""
    of_numpy, of_python = np.random.get_state(), python_random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        np.random.seed(seed)
        python_random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            python_random.setstate(of_python)
