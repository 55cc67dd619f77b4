"""Every metric that Quantus has too, against Quantus, on the same maps and with the same random numbers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any
from unittest import mock

import numpy as np
import quantus
import skimage
import torch
from quantus.functions.complexity_func import discrete_entropy
from quantus.functions.perturb_func import noisy_linear_imputation
from torch import Tensor, nn
from torch.nn.functional import conv2d

from canonxai import random
from canonxai.batch_size import BatchSize
from canonxai.metrics import Explanation, Metric, heatmap
from canonxai.metrics.complexity import Complexity
from canonxai.metrics.effective_complexity import EffectiveComplexity
from canonxai.metrics.efficient_mprt import EfficientMPRT
from canonxai.metrics.energy_pointing_game import EnergyPointingGame
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.imputation import NOISE, linear_imputation
from canonxai.metrics.infidelity import Infidelity
from canonxai.metrics.insertion_deletion import InsertionDeletion
from canonxai.metrics.local_lipschitz import LocalLipschitz
from canonxai.metrics.localization import Localization
from canonxai.metrics.localization_auc import LocalizationAUC
from canonxai.metrics.parameter_randomization import ParameterRandomization
from canonxai.metrics.pointing_game import PointingGame
from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.region import RegionMetric
from canonxai.metrics.region_perturbation import RegionPerturbation
from canonxai.metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from canonxai.metrics.relevance_rank_accuracy import RelevanceRankAccuracy
from canonxai.metrics.road import Road
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.metrics.sparseness import Sparseness
from canonxai.metrics.top_k_intersection import TopKIntersection
from canonxai.models.normalization import Normalization
from canonxai.perturbation import paste, perturbation_curve, ranks
from canonxai.random import Stream
from tests.metrics.batches import explanation
from tests.reference.comparison import Comparison, Comparisons, Pairs

COMPARISONS = Comparisons("Quantus")
SAMPLES, SIDE = 6, 12
NAMES = torch.tensor([5, 3, 8, 1, 0, 77])
#: metrics that Quantus has none of, or by their name only, and why
MISSING = {
    "distance": "has none",
    "sufficiency": "has another one of the name (Dasgupta et al., 2022): how often images with similar maps have the "
    "same prediction",
}


class Layer(nn.Module):
    """A convolution whose parameters are drawn anew without any generator, so that two libraries draw the same."""

    def __init__(self, inputs, outputs):
        super().__init__()
        generator = torch.Generator().manual_seed(inputs + 10 * outputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=torch.float64) / 4)

    def reset_parameters(self):
        with torch.no_grad():
            self.weight.copy_(
                torch.linspace(-1, 1, self.weight.numel(), dtype=torch.float64).view_as(self.weight).sin()
            )

    def forward(self, input):
        return conv2d(input.double(), self.weight, padding=1)


class Network(nn.Module):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.first, self.second, self.third = Layer(3, 4), Layer(4, 4), Layer(4, classes)

    def forward(self, input):
        return self.third(self.second(self.first(input).relu()).relu()).mean((2, 3))


def gradient_times_input(model, inputs, targets):
    input = torch.as_tensor(inputs, dtype=torch.float64).requires_grad_()
    with torch.enable_grad():
        output = model(input).gather(1, torch.as_tensor(targets)[:, None]).sum()
        (gradient,) = torch.autograd.grad(output, input)
    return (gradient * input).detach()


def explained() -> Explanation:
    """Images, explained by Gradient x Input in float64; the input is the pixel value over 256, exact in float32."""
    generator = torch.Generator().manual_seed(0)
    network = Network().eval()
    normalize = Normalization([0.0] * 3, [256 / 255] * 3)
    image = torch.randint(1, 256, (SAMPLES, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    target = torch.arange(SAMPLES) % 3
    region = torch.zeros(SAMPLES, SIDE, SIDE, dtype=torch.bool)
    for sample in range(SAMPLES):
        region[sample, sample : sample + 5, 2 : 6 + sample] = True
    return explanation(
        gradient_times_input(network, normalize(image, torch.float64), target),
        image=image,
        sample_id=NAMES,
        target=target,
        box=region,
        mask=region.flip(1),
        logits=network(normalize(image, torch.float64)).detach(),
        predict=lambda pixels: network(normalize(pixels, torch.float64)).detach(),
        normalize=normalize,
        explain=lambda input, target, _: gradient_times_input(network, input, target),
        network=network,
    )


def maps(batch: Explanation) -> Tensor:
    """The channel-summed maps, which Quantus takes as maps of one channel."""
    return heatmap(batch.attribution)[:, None]


def of_quantus(
    metric: Any, batch: Explanation, attribution: Tensor | None = None, region: Tensor | None = None, **options: Any
) -> Any:
    """What Quantus computes."""
    return metric(
        model=batch.network,
        x_batch=batch.input.numpy(),
        y_batch=batch.target.numpy(),
        a_batch=(maps(batch) if attribution is None else attribution).numpy().copy(),
        s_batch=None if region is None else region[:, None].numpy(),
        channel_first=True,
        batch_size=SAMPLES,
        **{"softmax": False, **options},
    )


# Localization, for box and mask.


def in_regions(metric: type[RegionMetric], reference: Any) -> Pairs:
    batch = explained()
    for region in ("box", "mask"):
        yield metric(region)(batch)[metric.name], of_quantus(reference, batch, region=getattr(batch, region))


INSIDE = quantus.AttributionLocalisation(abs=False, positive_attributions=True, normalise=False, weighted=False)
COMPARISONS += [
    Comparison(metric.name, f"Quantus' {type(theirs).__name__}", tolerance, partial(in_regions, metric, theirs), note)
    for metric, theirs, tolerance, note in (
        (Localization, INSIDE, 1e-7, "of positive relevance; Quantus adds 1e-9 to the denominator, and by default "
        "takes "
         "absolute values"),
        (EnergyPointingGame, INSIDE, 1e-7, "of positive relevance, so that it equals localization"),
        (PointingGame, quantus.PointingGame(normalise=False), 0, "where several pixels are the maximum, the share of "
        "them "
         "that hit; Quantus: whether one does, and always for an image without an object, here null"),
        (RelevanceMassAccuracy, quantus.RelevanceMassAccuracy(abs=True), 1e-12, "Quantus with abs=True; without, its "
         "ratio of signed values can be negative or above 1"),
        (RelevanceRankAccuracy, quantus.RelevanceRankAccuracy(abs=True), 1e-12, "equal values count by their "
        "expectation; "
         "Quantus: by what its sort puts first"),
        (TopKIntersection, quantus.TopKIntersection(k=3), 1e-12, "equal values count by their expectation; Quantus: "
         "by what its sort puts first; k is a share of the pixels, Quantus' a number"),
        (LocalizationAUC, quantus.AUC(), 1e-12, ""),
    )
]  # fmt: skip


# Complexity, of maps that are divided by their largest values here: Quantus would take the largest of the batch.


def of_map(metric: Metric, reference: Any) -> Pairs:
    batch = explained()
    scaled = maps(batch) / maps(batch).abs().amax((1, 2, 3), keepdim=True)
    (value,) = metric(batch).values()
    yield value, of_quantus(reference, batch, scaled)


@COMPARISONS("sparseness", 2e-5, "Quantus adds 1e-7 to every value", "Quantus' Sparseness")
def sparseness() -> Pairs:
    yield from of_map(Sparseness(), quantus.Sparseness())


@COMPARISONS("complexity", 1e-9, "Quantus adds 1e-12 within the logarithm", "Quantus' Complexity")
def complexity() -> Pairs:
    yield from of_map(Complexity(), quantus.Complexity())


@COMPARISONS(
    "effective_complexity", 0, "the threshold is a share of each map's largest value; Quantus': of the batch's, if it "
    "normalises", "Quantus' EffectiveComplexity",
)  # fmt: skip
def effective_complexity() -> Pairs:
    yield from of_map(EffectiveComplexity(), quantus.EffectiveComplexity(normalise=False))
    yield from of_map(EffectiveComplexity(0.3), quantus.EffectiveComplexity(eps=0.3, normalise=False))


# Faithfulness.


@COMPARISONS(
    "input_perturbation", 1e-12, "the curve; Quantus flips channel values, not pixels, and leaves out f(x0): maps "
    "whose "
    "channels follow each other, three in a step; black, as Quantus' noise is one number a step", "Quantus' "
    "PixelFlipping",
)  # fmt: skip
def pixel_flipping() -> Pairs:
    batch, attribution = separate_channels(explained())
    pixels = SIDE * SIDE
    curve = perturbation_curve(
        lambda images, sample: batch.predict(images).gather(1, batch.target[sample, None])[:, 0],
        batch.image,
        paste(torch.zeros_like(batch.image)),
        ranks(heatmap(attribution), torch.arange(pixels).expand(SAMPLES, pixels)),
        torch.arange(1, pixels + 1),
        batch_size=BatchSize(500),
    )
    yield curve, flipped(batch, attribution)


@COMPARISONS(
    "insertion_deletion", 1e-12, "the curve of deletion into black, of maps as for input_perturbation; Quantus "
    "has no insertion",
    "Quantus' PixelFlipping",
)  # fmt: skip
def deletion() -> Pairs:
    batch, attribution = separate_channels(explained())
    metric = InsertionDeletion(steps=SIDE * SIDE, output="logit", deletion="black")
    yield metric(replace(batch, attribution=attribution))["deletion_curve"][:, 1:], flipped(batch, attribution)


def separate_channels(batch: Explanation) -> tuple[Explanation, Tensor]:
    """Maps with distinct pixels, of which the channels' nearly equal values come after each other in any order."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.stack([torch.randperm(SIDE * SIDE, generator=generator).double() for _ in range(SAMPLES)])
    return batch, scores.view(-1, 1, SIDE, SIDE) - 70 + torch.tensor([0.0, 1e-3, 2e-3]).view(3, 1, 1)


def flipped(batch: Explanation, attribution: Tensor) -> Any:
    metric = quantus.PixelFlipping(features_in_step=3, perturb_baseline=0.0, abs=False, normalise=False)
    return of_quantus(metric, batch, attribution)


@COMPARISONS(
    "region_perturbation", 1e-12, "MoRF and LeRF, logit and probability, of regions that are not equal: Quantus sorts "
    "them "
    "unstably; in black, as Quantus' noise is one number a step", "Quantus' RegionPerturbation",
)  # fmt: skip
def region_perturbation() -> Pairs:
    batch = explained()
    noise = torch.randn(batch.attribution.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = replace(batch, attribution=batch.attribution + 1e-3 * noise)
    for size in (2, 3):
        for order, output in (("morf", "logit"), ("lerf", "logit"), ("morf", "probability")):
            regions = (SIDE // size) ** 2
            values = RegionPerturbation(size, steps=regions, fraction=1.0, output=output, replacement="black")(batch)
            reference = quantus.RegionPerturbation(
                patch_size=size, regions_evaluation=regions, order=order, perturb_baseline=0.0, normalise=False
            )
            falls = of_quantus(reference, batch, softmax=output == "probability")
            curve = values[f"region_perturbation_{order}_curve"]
            yield curve[:, :1] - curve[:, 1:], falls
            yield values[f"region_perturbation_{order}"], np.mean(falls, 1)


@COMPARISONS(
    "faithfulness_correlation", 1e-12, "of the same random sets of pixels; Quantus draws single channel values",
    "Quantus' FaithfulnessCorrelation",
)  # fmt: skip
def faithfulness_correlation() -> Pairs:
    batch, sets = explained(), []
    for run in range(7):
        chosen = random.bits(0, Stream.SUBSETS, batch.sample_id * 7 + run, SIDE**2).topk(10).indices
        sets += [np.concatenate([one + channel * SIDE**2 for channel in range(3)]) for one in chosen.numpy()]
    reference = quantus.FaithfulnessCorrelation(
        nr_runs=7, subset_size=30, perturb_baseline=0.0, normalise=False, return_aggregate=False
    )
    with mock.patch.object(np.random, "choice", lambda *_, **__: sets.pop(0)):
        expected = of_quantus(reference, batch, batch.attribution)
    assert not sets
    metric = FaithfulnessCorrelation(subsets=7, fraction=10 / SIDE**2, replacement="black")
    yield metric(batch)["faithfulness_correlation"], expected


@COMPARISONS(
    "infidelity", 1e-12, "of one square, and not scaled: of several, Quantus keeps those before replaced",
    "Quantus' Infidelity",
)  # fmt: skip
def infidelity() -> Pairs:
    batch = explained()
    reference = quantus.Infidelity(perturb_baseline=0.0, perturb_patch_sizes=[SIDE], n_perturb_samples=1)
    yield Infidelity(SIDE, scaled=False)(batch)["infidelity"], of_quantus(reference, batch, batch.attribution)


class Grey(nn.Module):
    """A network for images of one channel, the others of which are black."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        return self.network(torch.cat([input, torch.zeros_like(input), torch.zeros_like(input)], 1))


@COMPARISONS(
    "road", 1e-12, "MoRF, the mean over images, which is all that Quantus gives, of grey images, which are all that it "
    "takes, under the same noise", "Quantus' ROAD",
)  # fmt: skip
def road() -> Pairs:
    batch = explained()
    batch.network.first.weight.data[:, 1:] = 0  # it sees the first channel, which is all that Quantus is given
    batch = replace(batch, logits=batch.predict(batch.image))
    grey = Grey(batch.network).eval()
    noises = cycle(NOISE * 255 / 256 * random.normal(0, Stream.IMPUTATION, NAMES, (3, SIDE, SIDE))[:, :1].numpy())

    def impute(arr: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        imputed, noise = noisy_linear_imputation(arr, indices, noise=0), next(noises)
        imputed.reshape(1, -1)[:, indices] += noise.reshape(1, -1)[:, indices]
        return imputed

    reference = quantus.ROAD(percentages=[25, 50, 75], perturb_func=impute, normalise=False)
    expected = reference(
        model=grey,
        x_batch=batch.input[:, :1].numpy(),
        y_batch=batch.target.numpy(),
        a_batch=maps(batch).numpy(),
        channel_first=True,
        softmax=False,
    )
    curve = Road(steps=3, fraction=0.75)(batch)["road_morf_curve"][:, 1:].mean(0)
    assert 0 < curve.min() < 1
    yield curve, list(expected.values())


@COMPARISONS(
    "road: linear imputation", 1e-5, "without noise, of pixels anywhere, few or many, and of a hole at the border",
    "Quantus' noisy_linear_imputation",
)  # fmt: skip
def imputation() -> Pairs:
    for share in (0.05, 0.5, 0.95):
        missing = torch.rand(SAMPLES, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) < share
        missing[0, 2:9, :7] = True
        image = explained().image.double()
        for one, hole, values in zip(image.numpy(), missing.numpy(), linear_imputation(image, missing), strict=True):
            yield values, noisy_linear_imputation(one, np.flatnonzero(hole), noise=0)


# Robustness.


def noises(stream: Stream, copies: int, draw: Callable[..., Tensor]) -> Callable[..., np.ndarray]:
    """The noise that canonxai adds to each copy of the whole batch, for Quantus to add the same."""
    drawn: Iterator[np.ndarray] = iter(
        [draw(0, stream, NAMES * copies + copy, (3, SIDE, SIDE)).numpy() for copy in range(copies)]
    )
    return lambda arr, **_: arr + next(drawn).reshape(arr.shape)


def explain_one_channel(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    return gradient_times_input(model, inputs, targets).sum(1, keepdim=True).numpy()


def sensitivity(column: str, reference: type) -> Pairs:
    add = noises(Stream.SENSITIVITY, 4, lambda *args: 0.2 * (2 * random.uniform(*args) - 1))
    batch = explained()
    metric = reference(nr_samples=4, perturb_func=add, normalise=False)
    yield Sensitivity(samples=4)(batch)[column], of_quantus(metric, batch, explain_func=explain_one_channel)


for column, theirs in (("max_sensitivity", quantus.MaxSensitivity), ("avg_sensitivity", quantus.AvgSensitivity)):
    COMPARISONS(
        f"sensitivity: {column}", 1e-12, "under the same noise; Quantus' is not seeded",
        f"Quantus' {theirs.__name__}",
    )(partial(sensitivity, column, theirs))  # fmt: skip


@COMPARISONS(
    "local_lipschitz", 1e-9, "under the same noise; each map is divided by its largest value, in Quantus by the "
    "batch's; "
    "Quantus adds 1e-10 to the denominator", "Quantus' LocalLipschitzEstimate",
)  # fmt: skip
def local_lipschitz() -> Pairs:
    add = noises(Stream.LIPSCHITZ, 4, lambda *args: 0.1 * random.normal(*args))
    metric = quantus.LocalLipschitzEstimate(
        nr_samples=4, perturb_func=add, normalise_func=quantus.normalise_by_max, normalise=True
    )
    batch = explained()

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        one = explain_one_channel(model, inputs, targets)
        return one / np.abs(one).max((1, 2, 3), keepdims=True)  # the batch's maximum is 1 then

    scaled = maps(batch) / maps(batch).abs().amax((1, 2, 3), keepdim=True)
    yield LocalLipschitz(samples=4)(batch)["local_lipschitz"], of_quantus(metric, batch, scaled, explain_func=explain)


# Randomisation.


def ssim_of_maps(first: np.ndarray, second: np.ndarray, batched: bool) -> np.ndarray:
    """Skimage's similarity of two-dimensional maps of unit length; Quantus flattens them."""
    values = []
    for pair in zip(first.reshape(-1, SIDE, SIDE), second.reshape(-1, SIDE, SIDE), strict=True):
        one, two = (relevance / np.linalg.norm(relevance) for relevance in pair)
        span = max(one.max(), two.max()) - min(one.min(), two.min())
        values.append(skimage.metrics.structural_similarity(one, two, data_range=span))
    return np.array(values)


@COMPARISONS(
    "random_logit", 1e-12, "of two classes, so that both draw the same; with scikit-image's SSIM of two-dimensional "
    "maps, "
    "where Quantus flattens them", "Quantus' RandomLogit",
)  # fmt: skip
def random_logit() -> Pairs:
    batch, network = explained(), Network(classes=2).eval()
    target = batch.target % 2
    batch = replace(
        batch,
        network=network,
        target=target,
        logits=network(batch.input).detach(),
        attribution=gradient_times_input(network, batch.input, target),
        explain=lambda input, target, _: gradient_times_input(network, input, target),
    )
    reference = quantus.RandomLogit(num_classes=2, similarity_func=ssim_of_maps, normalise=False)
    yield RandomLogit()(batch)["random_logit"], of_quantus(reference, batch, explain_func=explain_one_channel)


@COMPARISONS(
    "parameter_randomization", 1e-12, "a network whose parameters are drawn without a generator; layer by layer from "
    "the "
    "output on", "Quantus' MPRT",
)  # fmt: skip
def parameter_randomization() -> Pairs:
    batch = explained()
    reference = quantus.MPRT(
        layer_order="top_down", similarity_func=quantus.correlation_spearman, abs=False, normalise=False
    )
    scores = of_quantus(reference, batch, explain_func=explain_one_channel)
    assert list(scores) == ["original", "third", "second", "first"]
    values = ParameterRandomization(steps=3)(batch)
    assert (values["parameter_randomization_curve"].abs() < 0.999).any()
    yield values["parameter_randomization_curve"].T, list(scores.values())[1:]
    yield values["parameter_randomization"], np.mean(list(scores.values())[1:], 0)


@COMPARISONS(
    "efficient_mprt",
    1e-12,
    "a network whose parameters are drawn without a generator; 20 bins",
    "Quantus' EfficientMPRT",
)
def efficient_mprt() -> Pairs:
    batch = explained()
    reference = quantus.EfficientMPRT(
        complexity_func=discrete_entropy, complexity_func_kwargs={"n_bins": 20}, normalise=False
    )
    expected = of_quantus(reference, batch, explain_func=explain_one_channel, softmax=True)
    yield EfficientMPRT(bins=20)(batch)["efficient_mprt"], expected
