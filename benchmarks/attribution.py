"""Explained images a second: canonxai's methods against a plain zennit loop and Captum, all in float32.

The networks are canonized for every method, as cells of ``canonize=true`` do it: here by the exact merge once a batch,
in the plain loop by zennit's own canonizer once for all batches. Captum explains the network as written, but for LRP,
where the merged one is given to it. The maps are compared beforehand in float64: canonxai's under zennit's inexact
merge with the plain loop's, and under its own with Captum's, where the definitions are equal.
"""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from captum import attr as captum
from captum.attr._utils.lrp_rules import EpsilonRule
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from zennit import attribution as zennit
from zennit.canonizers import Canonizer
from zennit.composites import (
    DeconvNet,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
)
from zennit.core import Composite
from zennit.rules import Epsilon, Flat
from zennit.types import Linear

from benchmarks.harness import Result, Settings, Target, agree, speedup, turns
from benchmarks.networks import Network, inputs, networks, normalization, on, scenes
from canonxai.attribution import Method
from canonxai.attribution.base import one_hot
from canonxai.config import CONF, build
from canonxai.config import Method as MethodSchema
from canonxai.data.base import Batch
from canonxai.explainer import Explainer

#: of maps in float64, relative to the largest value; Captum's LRP adds 1e-9 in max-pooling, where zennit adds nothing
TOLERANCE = 1e-5
STEPS = {"ig": "steps", "smoothgrad": "samples"}  #: methods of many gradients, and what says how many

#: zennit's composites as its users write them, with the defaults of canonxai's YAMLs
COMPOSITES: dict[str, Callable[..., Composite]] = {
    **dict.fromkeys(("gradient", "ixg", "ig", "smoothgrad"), Composite),
    "gbp": GuidedBackprop,
    "deconvnet": DeconvNet,
    "ebp": lambda **rest: ExcitationBackprop(stabilizer=1e-6, **rest),
    "lrp_eps": lambda **rest: EpsilonPlus(layer_map=[(Linear, Epsilon(1e-6))], **rest),
    "lrp_eps_plus": EpsilonPlus,
    "lrp_eps_plus_flat": EpsilonPlusFlat,
    "lrp_eps_a2b1": EpsilonAlpha2Beta1,
    "lrp_eps_a2b1_flat": EpsilonAlpha2Beta1Flat,
    "lrp_eps_gamma_box": lambda **rest: EpsilonGammaBox(low=-1.0, high=1.0, gamma=0.25, **rest),
    "lrp_eps_gamma_flat": lambda **rest: EpsilonGammaBox(0, 0, gamma=0.25, first_map=[(Linear, Flat())], **rest),
}
#: why Captum is not asked for a method
WITHOUT_CAPTUM = {
    "ebp": "has none",
    "lrp_eps_plus": "its z+ rule takes inputs to be positive",
    "lrp_eps_plus_flat": "has no flat rule",
    "lrp_eps_a2b1": "has no alpha2-beta1",
    "lrp_eps_a2b1_flat": "has no alpha2-beta1",
    "lrp_eps_gamma_box": "has no box rule",
    "lrp_eps_gamma_flat": "has no flat rule",
    "lrp_groups": "has no gamma by layer",
}

Batches = list[tuple[Tensor, Tensor]]  #: inputs and targets


def run(settings: Settings) -> Result:
    """Measures all methods on all networks; VGG-16 in its full width on a GPU alone."""
    rows, details = [], {}
    for network in networks(settings.quick):
        if network.is_heavy and not settings.is_gpu:
            continue
        model = network.build().requires_grad_(False).to(settings.device)
        for name in ["lrp_eps"] if settings.quick and network.name == "vgg16_bn" else COMPOSITES:
            row, details[f"{network.title}, {name}"] = measure(network, model, name, settings)
            rows.append(row)
    slowest = min(rows, key=lambda row: row["x zennit"])
    what = f"slowest against the plain loop, {slowest['method']} on {slowest['network']}"
    targets = [Target(what, slowest["x zennit"], ">=", 1)]
    return Result("Explained images/s, canonized, float32", rows, targets, details)


def measure(network: Network, model: nn.Module, name: str, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and what else there is to know."""
    size = 2 if settings.quick else settings.size(2, 16, 128) if network.is_embedded else settings.size(2, 4, 32)
    count = 1 if settings.quick else 2
    samples = on(scenes(size * count, network.side), settings.device)
    batches = [select(samples, slice(first, first + size)) for first in range(0, size * count, size)]
    steps = 2 if settings.quick else 5

    reason = without_captum(network, name)
    compared = check(network, model, name, steps, select(samples, slice(2)), reason is None)
    asked: Batches = [(inputs(batch["image"]), batch["label"]) for batch in batches]
    ways = {
        "canonxai": canonxai(model, name, steps, network.canonizer(), torch.float32, batches),
        "zennit": plain_loop(copy.deepcopy(model), name, steps, network.zennit_canonizer(), asked),
    }
    if reason is None:
        ways["captum"] = with_captum(copy.deepcopy(model), name, steps, asked)
    seconds, _ = turns(ways, settings.size(1, 3, 5))
    rates = {way: size * count / statistics.median(values) for way, values in seconds.items()}
    row = {
        "network": network.title,
        "method": name,
        "canonxai": rates["canonxai"],
        "zennit": rates["zennit"],
        "captum": rates.get("captum"),
        "x zennit": speedup(seconds, "canonxai", "zennit"),
        "x captum": None if reason else speedup(seconds, "canonxai", "captum"),
    }
    details = {
        "images": size,
        "batches": count,
        "steps": steps,
        "seconds": seconds,
        "maps": compared,
        "captum": reason or "measured",
    }
    return row, details


def without_captum(network: Network, name: str) -> str | None:
    """Why Captum is not asked."""
    if name == "lrp_eps" and network.name == "resnet18":
        return "its LRP refuses a ReLU that is used twice"
    return WITHOUT_CAPTUM.get(name)


def check(network: Network, model: nn.Module, name: str, steps: int, batch: Batch, has_captum: bool) -> str:
    """Compares the maps of a batch in float64; what was compared."""
    if name == "smoothgrad":
        return "not compared: the others draw from the global generator"
    model = copy.deepcopy(model).double()
    asked: Batches = [(inputs(batch["image"], torch.float64), batch["label"])]
    own = canonxai(model, name, steps, network.canonizer(exact=False), torch.float64, [batch])
    loop = plain_loop(copy.deepcopy(model), name, steps, network.zennit_canonizer(), asked)
    agree(f"{network.title}, {name}", {"zennit": loop(), "canonxai": own()}, TOLERANCE)
    if has_captum:
        own = canonxai(model, name, steps, network.canonizer(), torch.float64, [batch])
        other = with_captum(copy.deepcopy(model), name, steps, asked)
        agree(f"{network.title}, {name}", {"captum": other(), "canonxai": own()}, TOLERANCE)
    return "equal"


def select(batch: Batch, chosen: slice) -> Batch:
    return {key: value[chosen] for key, value in batch.items()}


def canonxai(
    model: nn.Module, name: str, steps: int, canonizer: Canonizer, dtype: torch.dtype, batches: Sequence[Batch]
) -> Callable[[], Tensor]:
    """The explainer's query, answered by the method."""
    node = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    if name in STEPS:
        node[STEPS[name]] = steps
    method: Method = build(node, "method", MethodSchema)
    explainer = Explainer(
        copy.deepcopy(model), normalization(batches[0]["image"].device), method, {}, canonizer, precision=dtype
    )

    def maps(batch: Batch) -> Tensor:
        query = explainer.query(batch["image"], batch["label"], batch["sample_id"])
        return method(query, explainer.canonizers)

    return lambda: torch.cat([maps(batch) for batch in batches])


def plain_loop(model: nn.Module, name: str, steps: int, canonizer: Canonizer, batches: Batches) -> Callable[[], Tensor]:
    """Zennit as its documentation shows it: the network is prepared once, then batch after batch is explained."""
    attributors = {"ig": zennit.IntegratedGradients, "smoothgrad": zennit.SmoothGrad}
    options = {"n_iter": steps} if name in STEPS else {}
    if name == "smoothgrad":
        options["noise_level"] = 0.1

    def maps() -> Iterator[Tensor]:
        composite = COMPOSITES[name](canonizers=[canonizer])
        with attributors.get(name, zennit.Gradient)(model, composite, **options) as attributor:
            for input, target in batches:
                _, relevance = attributor(input, partial(one_hot, target))
                yield input * relevance if name == "ixg" else relevance

    return lambda: torch.cat(list(maps()))


def with_captum(model: nn.Module, name: str, steps: int, batches: Batches) -> Callable[[], Tensor]:
    """Captum's method, whose hooks need ReLUs that leave their input as it is."""
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    if name == "lrp_eps":
        model = fuse(model)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.AdaptiveAvgPool2d):
                module.rule = EpsilonRule(1e-6)

    def one(input: Tensor, target: Tensor) -> Tensor:
        match name:
            case "gradient":
                maps = captum.Saliency(model).attribute(input, target=target, abs=False)
            case "ixg":
                maps = captum.InputXGradient(model).attribute(input, target=target)
            case "ig":
                integrated = captum.IntegratedGradients(model)
                maps = integrated.attribute(input, target=target, n_steps=steps, method="riemann_right")
            case "smoothgrad":
                tunnel = captum.NoiseTunnel(captum.Saliency(model))
                maps = tunnel.attribute(input, target=target, nt_samples=steps, stdevs=0.2, abs=False)
            case "gbp":
                maps = captum.GuidedBackprop(model).attribute(input, target=target)
            case "deconvnet":
                maps = captum.Deconvolution(model).attribute(input, target=target)
            case "lrp_eps":  # which starts with the logit, canonxai with 1
                maps = captum.LRP(model).attribute(input, target=target)
                with torch.no_grad():
                    maps = maps / model(input).gather(1, target[:, None])[..., None, None]
        return maps.detach()

    return lambda: torch.cat([one(*batch) for batch in batches])
