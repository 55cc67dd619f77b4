"""Perturbed images a second: canonxai against the floor, Quantus' PixelFlipping and a plain loop.

All evaluate the same steps of the same maps of the same images with the same noise, f(x_0) among them, and must agree.
The floor is the time that the bare forwards of as many images take in full batches, normalised beforehand, through the
form of the network that proves to be the fastest on this machine. Maps are prepared, so that nothing but the
perturbation test is measured.
"""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import quantus
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from zennit.canonizers import Canonizer

from benchmarks.harness import Result, Settings, Target, agree, speedup, turns
from benchmarks.networks import Network, inputs, networks, normalization, on, scenes
from canonxai import random
from canonxai.attribution import Method, Query
from canonxai.data.base import Batch
from canonxai.explainer import Explainer
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.models.evaluator import Evaluator
from canonxai.models.winograd import use_winograd
from canonxai.random import Stream

TOLERANCE = 1e-4  #: of probabilities, relative to the largest


@dataclass(frozen=True)
class Work:
    """How much is evaluated.

    Attributes:
        images: how many.
        steps: of each; as many pixels in each step, all pixels in the end.
        batch_size: of a forward, where a way can choose it; divides ``images * steps``, so that all are full.
        repeats: how often all ways take their turn.
    """

    images: int
    steps: int
    batch_size: int
    repeats: int

    @property
    def forwards(self) -> int:
        return self.images * (self.steps + 1)


def run(settings: Settings) -> Result:
    """Measures all networks."""
    rows, targets, details = [], [], {}
    for network in networks(settings.quick):
        row, details[network.title] = measure(network, work(network, settings), settings)
        rows.append(row)
        targets += [
            Target(
                f"{network.title}, rate over the floor's, perturbation.compile=true where that is the floor",
                row.get("compiled, of floor", row["of floor"]),
                ">=",
                0.90 if settings.is_gpu else 0.95,
            ),
            Target(f"{network.title}, times Quantus", row["x Quantus"], ">=", 10 if settings.is_gpu else 1.4),
            Target(f"{network.title}, times the plain loop", row["x loop"], ">=", 1),
        ]
    return Result("Perturbed images/s, and canonxai's rate over others'", rows, targets, details)


def work(network: Network, settings: Settings) -> Work:
    """What takes some seconds."""
    if settings.quick:
        return Work(images=2, steps=2, batch_size=2, repeats=1)
    if settings.is_gpu:
        few, many = Work(64, 28, 256, settings.repeats), Work(256, 32, 1024, settings.repeats)
    else:
        few, many = Work(16, 32, 16, 3), Work(32, 64, 256, settings.repeats)
    if network.is_heavy and not settings.is_gpu:
        return Work(4, 14, 28, 3)
    return many if network.is_embedded else few


def measure(network: Network, work: Work, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and what else there is to know."""
    batch = on(scenes(work.images, network.side), settings.device)
    noise = random.pixels(0, Stream.NOISE, batch["sample_id"], tuple(batch["image"].shape[1:]))
    maps = prepared_maps(work.images, network.side).to(settings.device)
    model = network.build().to(settings.device)

    input = inputs(batch["image"]).repeat(-(-work.batch_size // work.images), 1, 1, 1)[: work.batch_size]
    candidates, failed = forms(model, input, settings)
    trial = {name: bare_forwards(form, 1) for name, form in candidates.items()}
    trials, outputs = turns(trial, settings.size(1, 3, 5))
    agree(f"{network.title}, forms", outputs, TOLERANCE)
    fastest = min(trials, key=lambda name: statistics.median(trials[name]))

    batches = work.images * work.steps // work.batch_size
    ways = {
        "floor": bare_forwards(candidates[fastest], batches),
        "canonxai": canonxai(model, batch, maps, work),
        **({"compiled": canonxai(model, batch, maps, work, compile=True)} if "compiled" in candidates else {}),
        "quantus": pixel_flipping(model, batch, maps, noise, work),
        "loop": plain_loop(model, batch, maps, noise, work),
    }
    seconds, results = turns(ways, work.repeats)
    del results["floor"]
    seconds["floor"] = [value * work.forwards / (batches * work.batch_size) for value in seconds["floor"]]
    differences = agree(network.title, results, TOLERANCE)
    rates = {name: work.forwards / statistics.median(values) for name, values in seconds.items()}
    row = {
        "network": network.title,
        "fastest form": fastest,
        **rates,
        "of floor": speedup(seconds, "canonxai", "floor"),
        **({"compiled, of floor": speedup(seconds, "compiled", "floor")} if "compiled" in ways else {}),
        "x Quantus": speedup(seconds, "canonxai", "quantus"),
        "x loop": speedup(seconds, "canonxai", "loop"),
    }
    details = {
        "work": vars(work),
        "images_per_second_of_forms": {name: work.batch_size / statistics.median(trials[name]) for name in trials},
        "forms_that_failed": failed,
        "seconds": seconds,
        "differences": differences,
    }
    return row, details


def prepared_maps(images: int, side: int) -> Float[Tensor, "images 3 side side"]:
    """Random maps without equal values.

    Quantus replaces channel values and not pixels: nearly equal ones of a pixel follow each other in its order.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(side**2, generator=generator) for _ in range(images)])
    channels = torch.tensor([0.0, 1e-3, 2e-3], dtype=torch.float64).view(3, 1, 1)
    return order.double().view(images, 1, side, side) + channels


@dataclass(frozen=True)
class Form:
    """A form of the network, and a batch in the layout that it likes best."""

    network: nn.Module
    input: Float[Tensor, "batch 3 height width"]


def forms(model: nn.Module, input: Tensor, settings: Settings) -> tuple[dict[str, Form], dict[str, str]]:
    """Networks of the same function, and what kept others from being made."""
    fused, failed = fuse(model), {}
    found = {
        "eager": Form(model, input),
        "channels_last": channels_last(model, input),
        "fused": Form(fused, input),
        "fused, channels_last": channels_last(fused, input),
    }
    last = found["fused, channels_last"]
    if not settings.is_gpu:
        last = found["winograd"] = channels_last(fused, input)
        use_winograd(last.network)
    if not settings.quick:
        torch._dynamo.reset()
        compiled: Any = torch.compile(last.network, mode="reduce-overhead" if settings.is_gpu else "default")
        form = Form(compiled, last.input)
        try:
            bare_forwards(form, 2)()
            found["compiled"] = form
        except Exception as error:  # whatever a machine's compiler says
            failed["compiled"] = type(error).__name__
    return found, failed


def channels_last(model: nn.Module, input: Tensor) -> Form:
    network = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return Form(network, input.contiguous(memory_format=torch.channels_last))


def bare_forwards(form: Form, batches: int) -> Callable[[], Tensor]:
    """The floor; the logits of the last batch."""

    @torch.inference_mode()
    def way() -> Tensor:
        for _ in range(batches):
            output = form.network(form.input)
        return output.clone()

    return way


class Prepared(Method):
    """Maps that are there already."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps

    def __call__(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Tensor:
        return self.maps


def canonxai(model: nn.Module, batch: Batch, maps: Tensor, work: Work, compile: bool = False) -> Callable[[], Tensor]:
    """The explainer's step, whose method has its maps ready."""
    metric, normalize = InputPerturbation(steps=work.steps, fraction=1.0), normalization(maps.device)
    explainer = Explainer(
        copy.deepcopy(model), normalize, Prepared(maps), {"input_perturbation": metric}, precision=torch.float32,
        evaluator=Evaluator(model, normalize, compile=compile, batch_size=work.batch_size, verify=1),
    ).to(maps.device)  # fmt: skip

    def way() -> Tensor:
        evaluation = explainer.predict_step(batch, 0)
        assert evaluation is not None
        return evaluation["columns"]["perturbation_curve"]

    return way


class PixelFlipping(quantus.PixelFlipping):
    """Quantus' metric, in steps of whole pixels.

    It asks for steps that divide the number of pixels, although it flips as many values as there are pixels times
    channels; so no step of whole pixels would be allowed at 224 x 224.
    """

    def custom_preprocess(self, x_batch: np.ndarray, **_: Any) -> None:
        pass


def pixel_flipping(
    model: nn.Module, batch: Batch, maps: Tensor, noise: UInt8[Tensor, "n 3 h w"], work: Work
) -> Callable[[], Tensor]:
    """Quantus, which leaves f(x_0) to its user."""
    model, target, device = copy.deepcopy(model), batch["label"], maps.device
    values = inputs(noise).flatten(1).cpu().numpy()

    def replaced(arr: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        arr = arr.copy()
        rows = np.arange(len(arr))[:, None]
        arr[rows, indices] = values[rows, indices]
        return arr

    metric = PixelFlipping(
        features_in_step=maps[0].numel() // work.steps, perturb_func=replaced, abs=False, normalise=False,
        disable_warnings=True, return_aggregate=False,
    )  # fmt: skip
    order = maps.cpu().numpy()

    def way() -> Tensor:
        input = inputs(batch["image"])
        curve = metric(
            model=model, x_batch=input.cpu().numpy(), y_batch=target.cpu().numpy(), a_batch=order, channel_first=True,
            softmax=True, device=str(device), batch_size=work.images,
        )  # fmt: skip
        return torch.cat([probability(model, input, target)[:, None].cpu(), torch.tensor(np.array(curve))], 1)

    return way


def plain_loop(
    model: nn.Module, batch: Batch, maps: Tensor, noise: UInt8[Tensor, "n 3 h w"], work: Work
) -> Callable[[], Tensor]:
    """As the definition reads: step by step, all images at once."""
    image, target = batch["image"], batch["label"]
    pixels = maps[0, 0].numel() // work.steps

    def way() -> Tensor:
        order: Int64[Tensor, "n pixels"] = maps.sum(1).flatten(1).argsort(1, descending=True)
        x, values = image.flatten(2).clone(), noise.flatten(2)
        curve = [probability(model, inputs(image), target)]
        for step in range(work.steps):
            chosen = order[:, None, step * pixels : (step + 1) * pixels].expand(-1, 3, -1)
            x.scatter_(2, chosen, values.gather(2, chosen))
            curve.append(probability(model, inputs(x.view_as(image)), target))
        return torch.stack(curve, 1)

    return way


@torch.no_grad()
def probability(model: nn.Module, input: Tensor, target: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    return model(input).softmax(1).gather(1, target[:, None])[:, 0]
