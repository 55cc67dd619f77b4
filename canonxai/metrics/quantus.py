"""Metrics of Quantus, for what is not native: Hedström et al., JMLR 2023, "Quantus: an explainable AI toolkit".

Quantus gets what canonxai has: the network's input as ``x_batch``, the explained class as ``y_batch``, the map, summed
over channels, as ``a_batch``, the region of the object as ``s_batch``, the original network as ``model``, and for maps
of other inputs, classes or parameters ``explain_func``: the same method in the same state of canonization.

It gets one image at a time. In a batch, Quantus would divide maps by the largest value of all, and draw from global
generators; so each score depends on its image alone, and on generators that begin anew at a function of (seed, sample
id). Metrics that compare images with each other are refused. ROAD of Quantus 0.6.0 takes grey images alone; here it
removes whole pixels of colour images. ``docs/references.md`` lists what runs and what does not.
"""

import difflib
import inspect
import random as python_random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from canonxai import random
from canonxai.errors import UserError, check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.region import REGIONS
from canonxai.models.snapshot import restored
from canonxai.random import Stream

#: why a metric has no score of one image
OF_SEVERAL_IMAGES = {
    **dict.fromkeys(
        ("Consistency", "SensitivityN", "Sufficiency", "BatchSufficiency"), "compares images with each other"
    ),
    "Focus": "needs mosaics of several images",
}
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
    ) -> None:
        check_choice("metric.quantus.region", region, REGIONS)
        check_choice("metric.quantus.curve", curve, (None, "mean"))
        check(isinstance(arguments or {}, dict), "metric.quantus.arguments", "names and values", arguments)
        self.kind, self.name = kind(name), str(name)
        self.known = inspect.signature(self.kind).parameters
        self.arguments = {key: self._argument(key, value) for key, value in (arguments or {}).items()}
        self.region, self.softmax, self.curve = region, softmax, curve
        self._built({})

    @property
    def column(self) -> str:
        """The column's name, as ``quantus_complexity``."""
        words = re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name)
        return f"quantus_{words.lower()}"

    @property
    def columns(self) -> dict[str, Column]:
        text = f"{self.name} of Quantus; null where it is not defined, as for a map that is constant or negative"
        return {self.column: Column(text, higher_is_better=self.kind.score_direction.value == "higher")}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        scores = [self._score(batch, place) for place in range(len(batch.sample_id))]
        return {self.column: torch.tensor(scores, dtype=torch.float64, device=batch.attribution.device)}

    def _score(self, batch: Explanation, place: int) -> float:
        """The score of one image; NaN where it is not defined."""
        one = slice(place, place + 1)
        sample, region = batch.sample_id[one], (batch.box if self.region == "box" else batch.mask)[one]
        is_localisation = self.kind.evaluation_category.value == "Localisation"
        seed = int(random.below(batch.seed, Stream.QUANTUS, sample, torch.full_like(sample, 2**31)))
        try:
            if is_localisation and not region.any():
                raise UndefinedError
            with warnings.catch_warnings(), seeded(seed, batch.attribution.device), any_precision(batch.network):
                warnings.simplefilter("ignore")
                metric = self._built({"seed": seed, "num_classes": batch.logits.shape[1]})
                if self.name == "ROAD":
                    metric.perturb_func = of_pixels(metric.perturb_func)
                    metric.a_size = batch.image[0].numel()  # of which it takes percentages
                scores = metric(
                    model=batch.network,
                    x_batch=batch.input[one].cpu().numpy(),
                    y_batch=batch.target[one].cpu().numpy(),
                    a_batch=as_quantus(heatmap(batch.attribution[one])),
                    s_batch=region[:, None].cpu().numpy(),
                    channel_first=True,
                    explain_func=explanations(batch, sample),
                    device=str(batch.attribution.device),
                    batch_size=1,
                    **({} if self.softmax is None else {"softmax": self.softmax}),
                )
        except UndefinedError:
            return float("nan")
        except UserError:
            raise
        except Exception as error:  # of any kind, as Quantus checks little
            raise UserError(
                f"metric.quantus: {self.name} of Quantus failed for sample {int(sample)}: {reason(error)}. "
                "Its arguments are in metric.quantus.arguments."
            ) from error
        return self._number(scores)

    def _number(self, scores: Any) -> float:
        """What Quantus returned for one image, as a number."""
        values: list[Any] = [*scores.values()] if isinstance(scores, Mapping) else scores
        try:
            numbers = np.asarray(values, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):  # not numbers, or of different lengths
            numbers = np.zeros(0)
        own = [key for key in self.known if key.startswith("return_") and key not in FIXED]
        check(
            len(numbers) == 1 or (self.curve == "mean" and len(numbers) > 1), "metric.name",
            "a metric of Quantus that gives one number an image",
            f"{self.name}, which gives {len(numbers) or 'no list of numbers'}",
            "Take their mean by metric.quantus.curve=mean" + (f", or see its {', '.join(own)}." if own else "."),
        )  # fmt: skip
        return float(numbers.mean())

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
    kinds = {key: value for key, value in vars(quantus.metrics).items() if hasattr(value, "score_direction")}
    kinds = {key: value for key, value in sorted(kinds.items()) if key not in OF_SEVERAL_IMAGES}
    if why := OF_SEVERAL_IMAGES.get(str(name)):
        raise UserError(f"metric.name: expected a metric of Quantus that scores one image, got {name!r}, which {why}.")
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


def of_pixels(perturb: Callable[..., Any]) -> Callable[..., Any]:
    """A perturbation of pixels, given places among the channel values, of a map that is repeated for each channel."""

    def perturb_pixels(arr: Shaped[np.ndarray, "c h w"], indices: Int64[np.ndarray, " n"], **options: Any) -> Any:
        return perturb(arr=arr, indices=np.unique(indices % arr[0].size), **options)

    return perturb_pixels


def near(name: str, choices: Mapping[str, Any]) -> str:
    """The choices that a misspelt name may have meant, or all of them."""
    meant = difflib.get_close_matches(name, choices, cutoff=0.7)
    return f", perhaps {' or '.join(meant)}" if meant else f", one of {', '.join(choices)}"


def reason(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")


def as_quantus(maps: Float[Tensor, "n height width"]) -> Float[np.ndarray, "n 1 height width"]:
    """Maps for Quantus.

    Raises:
        UndefinedError: where Quantus refuses them, as they are constant or all negative; or where they are not finite.
    """
    if not maps.isfinite().all() or bool(maps.amin() == maps.amax()) or bool((maps < 0).all()):
        raise UndefinedError
    values: Float[np.ndarray, "n 1 height width"] = maps[:, None].cpu().numpy()
    return values


def explanations(batch: Explanation, sample: Int64[Tensor, " 1"]) -> Callable[..., Float[np.ndarray, "n 1 h w"]]:
    """What Quantus calls for further maps of a sample, also of networks whose parameters it changed."""
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
            return as_quantus(heatmap(batch.explain(input, target, sample.expand(len(input)))))

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
