"""Evaluated images a second: canonxai's metrics against Quantus' of the same name.

Both get the same maps of the same images, the same regions and network, and for further maps the same function; both
get all images as one batch, and as many draws, squares, subsets or random networks. Where both are defined alike and
draw nothing, the results must agree.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import quantus
import torch
from jaxtyping import Float
from quantus.functions.complexity_func import discrete_entropy
from torch import Tensor, nn

from benchmarks.harness import Result, Settings, Target, agree, speedup, turns
from benchmarks.networks import inputs, networks, normalization, on, scenes
from canonxai.metrics import Explanation, Metric, heatmap
from canonxai.metrics.complexity import Complexity
from canonxai.metrics.effective_complexity import EffectiveComplexity
from canonxai.metrics.efficient_mprt import EfficientMPRT
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.infidelity import Infidelity
from canonxai.metrics.local_lipschitz import LocalLipschitz
from canonxai.metrics.localization import Localization
from canonxai.metrics.localization_auc import LocalizationAUC
from canonxai.metrics.parameter_randomization import ParameterRandomization
from canonxai.metrics.pointing_game import PointingGame
from canonxai.metrics.quantus_mends import of_pixels
from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.randomization import layers
from canonxai.metrics.region_perturbation import RegionPerturbation
from canonxai.metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from canonxai.metrics.relevance_rank_accuracy import RelevanceRankAccuracy
from canonxai.metrics.road import Road
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.metrics.sparseness import Sparseness
from canonxai.metrics.top_k_intersection import TopKIntersection
from canonxai.models.evaluator import Evaluator

TOLERANCE = 1e-4  #: relative to the largest value; Quantus adds small constants to what it divides by
#: why a metric has no row
NOT_MEASURED = {
    "input_perturbation": "in the benchmark perturbation",
    "sufficiency": "Quantus' is another metric, of images among each other",
    "insertion_deletion": "Quantus has no insertion; its PixelFlipping is deletion, in the benchmark perturbation",
    "energy_pointing_game": "localization by another name",
    "distance": "Quantus has none",
}


@dataclass(frozen=True)
class Case:
    """A metric of both.

    Attributes:
        own: canonxai's.
        column: the one of its columns that is compared.
        theirs: what Quantus computes together, one after the other.
        differs: why the results are not compared, or nothing.
        softmax: whether Quantus takes probabilities.
    """

    own: Metric
    column: str
    theirs: tuple[Callable[[], Any], ...]
    differs: str = ""
    softmax: bool = False


def cases(side: int, depth: int, draws: int) -> list[Case]:
    """All that both have.

    Args:
        side: of the images.
        depth: how many layers the network has.
        draws: how many noisy copies and subsets.
    """
    q, noise, k = quantus, "each draws its own noise", round(0.02 * side**2)
    plain: dict[str, Any] = {"normalise": False, "disable_warnings": True}
    regions = (side // 8) ** 2
    pixels = max(1, round(0.01 * side**2))
    region_perturbation = [
        lambda order=order: q.RegionPerturbation(
            patch_size=8, regions_evaluation=regions, order=order, perturb_baseline=-1.0, **plain
        )
        for order in ("morf", "lerf")
    ]
    return [
        Case(
            Localization(), "localization",
            (lambda: q.AttributionLocalisation(positive_attributions=True, abs=False, **plain),),
        ),
        Case(PointingGame(), "pointing_game", (lambda: q.PointingGame(**plain),)),
        Case(
            RelevanceMassAccuracy(), "relevance_mass_accuracy", (lambda: q.RelevanceMassAccuracy(abs=True, **plain),)
        ),
        Case(
            RelevanceRankAccuracy(), "relevance_rank_accuracy", (lambda: q.RelevanceRankAccuracy(abs=True, **plain),)
        ),
        Case(TopKIntersection(fraction=k / side**2), "top_k_intersection", (lambda: q.TopKIntersection(k=k, **plain),)),
        Case(LocalizationAUC(), "localization_auc", (lambda: q.AUC(**plain),)),
        Case(
            RegionPerturbation(8, regions, 1.0, output="logit", replacement="black"),
            "region_perturbation_morf_curve", tuple(region_perturbation),
        ),
        Case(
            Road(), "road_morf_curve", tuple(lambda sign=sign: road(side, sign) for sign in (1, -1)),
            "each draws its own noise",
        ),
        Case(
            FaithfulnessCorrelation(subsets=draws, fraction=pixels / side**2, replacement="black"),
            "faithfulness_correlation",
            (lambda: q.FaithfulnessCorrelation(
                nr_runs=draws, subset_size=3 * pixels, perturb_baseline=-1.0, return_aggregate=False, **plain
            ),),
            "each draws its own subsets",
        ),
        Case(
            Infidelity(8, scaled=False), "infidelity",
            (lambda: q.Infidelity(perturb_patch_sizes=[8], n_perturb_samples=1, perturb_baseline=-1.0, **plain),),
            "Quantus keeps the squares before replaced",
        ),
        Case(
            Sensitivity(draws), "max_sensitivity", (lambda: q.MaxSensitivity(nr_samples=draws, **plain),), noise
        ),
        Case(
            LocalLipschitz(draws), "local_lipschitz", (lambda: q.LocalLipschitzEstimate(nr_samples=draws, **plain),),
            noise,
        ),
        Case(Sparseness(), "sparseness", (lambda: q.Sparseness(**plain),)),
        Case(Complexity(), "complexity", (lambda: q.Complexity(**plain),)),
        Case(EffectiveComplexity(), "effective_complexity", (lambda: q.EffectiveComplexity(**plain),)),
        Case(
            RandomLogit(), "random_logit", (lambda: q.RandomLogit(num_classes=10, **plain),),
            "each draws its own class; Quantus compares flattened maps",
        ),
        Case(
            ParameterRandomization(depth), "parameter_randomization",
            (lambda: q.MPRT(similarity_func=q.correlation_spearman, abs=False, **plain),),
            "each draws its own parameters",
        ),
        Case(
            EfficientMPRT(), "efficient_mprt",
            (lambda: q.EfficientMPRT(
                complexity_func=discrete_entropy, complexity_func_kwargs={"n_bins": 100}, **plain
            ),),
            "each draws its own parameters", softmax=True,
        ),
    ]  # fmt: skip


def road(side: int, sign: int) -> Any:
    """ROAD of Quantus, which takes grey images alone, of whole pixels of colour images; by -1 in the other order."""
    metric = quantus.ROAD(
        percentages=list(range(10, 100, 10)), normalise_func=lambda a, **_: sign * a, disable_warnings=True
    )
    metric.perturb_func, metric.a_size = of_pixels(metric.perturb_func), 3 * side**2
    return metric


def run(settings: Settings) -> Result:
    """Measures all metrics on the embedded ResNet18."""
    network = networks(quick=True)[0]
    model = network.build().requires_grad_(False).to(settings.device)
    count, draws = settings.size(2, 32, 256), settings.size(2, 10, 10)
    batch = explained(model, count, network.side, settings)
    rows, details = [], {}
    for case in cases(network.side, len(layers(model)), draws):
        row, seconds, differences = measure(case, batch, settings)
        rows.append(row)
        details[row["metric"]] = {"seconds": seconds, "differences": differences}
    slowest = min(rows, key=lambda row: row["x Quantus"])
    targets = [Target(f"slowest against Quantus, {slowest['metric']}", slowest["x Quantus"], ">=", 1)]
    about = {"images": count, "draws": draws, "not measured": NOT_MEASURED}
    return Result(f"Evaluated images/s, {network.title}", rows, targets, {**about, **details})


def explained(model: nn.Module, count: int, side: int, settings: Settings) -> Explanation:
    """Scenes with their maps, each divided by its largest value, as Quantus would divide by that of all."""
    samples = on(scenes(count, side), settings.device)
    normalize = normalization(settings.device)
    evaluator = Evaluator(model, normalize)
    attribution = gradient_times_input(model, inputs(samples["image"]), samples["label"])
    scale = heatmap(attribution).abs().amax((1, 2)).view(-1, 1, 1, 1)
    return Explanation(
        sample_id=samples["sample_id"],
        place=samples["place"],
        image=samples["image"],
        box=samples["box"],
        mask=samples["mask"],
        target=samples["label"],
        logits=evaluator(samples["image"]),
        attribution=attribution / scale,
        original=None,
        predict=evaluator,
        normalize=normalize,
        explain=lambda input, target, _: gradient_times_input(model, input, target),
        network=model,
        batch_size=evaluator.batch_size,
        seed=0,
    )


def gradient_times_input(model: nn.Module, input: Float[Tensor, "n 3 h w"], target: Tensor) -> Float[Tensor, "n 3 h w"]:
    """The explanation, the same function for both."""
    input = input.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(input).gather(1, target[:, None]).sum(), input)
    return (gradient * input).detach()


def measure(
    case: Case, batch: Explanation, settings: Settings
) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, float]]:
    """A row of the table, the seconds of each repeat, and how far results are apart."""
    ways = {"canonxai": lambda: canonxai(case, batch), "quantus": lambda: of_quantus(case, batch)}
    seconds, results = turns(ways, settings.repeats)
    name, differences = case.column.removesuffix("_morf_curve"), {}
    if not case.differs:
        differences = agree(name, {"quantus": results["quantus"], "canonxai": results["canonxai"]}, TOLERANCE)
    images = len(batch.image)
    row = {
        "metric": name,
        **{way: images / statistics.median(values) for way, values in seconds.items()},
        "x Quantus": speedup(seconds, "canonxai", "quantus"),
        "results": case.differs or "equal",
    }
    return row, seconds, differences


@torch.no_grad()
def canonxai(case: Case, batch: Explanation) -> Tensor:
    """The column; nothing is known of the batch beforehand."""
    values = case.own(replace(batch))[case.column]
    return values[:, :1] - values[:, 1:] if values.ndim == 2 else values  # of a curve, the falls


def of_quantus(case: Case, batch: Explanation) -> Tensor:
    """What Quantus gives first."""

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        input = torch.as_tensor(inputs, dtype=torch.float32, device=batch.image.device)
        target = torch.as_tensor(targets, device=batch.image.device).long()
        return heatmap(gradient_times_input(model, input, target))[:, None].cpu().numpy()

    scores = [
        make()(
            model=batch.network,
            x_batch=batch.input.cpu().numpy(),
            y_batch=batch.target.cpu().numpy(),
            a_batch=heatmap(batch.attribution)[:, None].cpu().numpy(),
            s_batch=batch.box[:, None].cpu().numpy(),
            channel_first=True,
            explain_func=explain,
            softmax=case.softmax,
            device=str(batch.image.device),
            batch_size=len(batch.image),
        )
        for make in case.theirs
    ]
    first = [*scores[0].values()] if isinstance(scores[0], dict) else scores[0]
    return torch.from_numpy(np.array(first, dtype=np.float64))
