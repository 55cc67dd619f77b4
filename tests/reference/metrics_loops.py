"""The metrics against loops over images, steps and pixels in float64, and their parts against scipy and others."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import scipy.stats
import skimage
import torch
from quantus.functions.perturb_func import noisy_linear_imputation
from scipy.ndimage import correlate1d
from scipy.spatial.distance import cosine as cosine_distance_of_scipy
from sklearn.metrics import auc, roc_auc_score
from torch import Tensor

from canonxai import random
from canonxai.batch_size import BatchSize
from canonxai.metrics import Explanation
from canonxai.metrics.complexity import Complexity
from canonxai.metrics.distance import cosine_distance
from canonxai.metrics.effective_complexity import EffectiveComplexity
from canonxai.metrics.efficient_mprt import EfficientMPRT
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.imputation import NOISE
from canonxai.metrics.infidelity import Infidelity
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.metrics.insertion_deletion import InsertionDeletion
from canonxai.metrics.local_lipschitz import LocalLipschitz
from canonxai.metrics.localization import Localization
from canonxai.metrics.localization_auc import LocalizationAUC
from canonxai.metrics.pointing_game import PointingGame
from canonxai.metrics.region import dilated
from canonxai.metrics.region_perturbation import RegionPerturbation
from canonxai.metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from canonxai.metrics.relevance_rank_accuracy import RelevanceRankAccuracy
from canonxai.metrics.replacement import IMAGES
from canonxai.metrics.road import Road
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.metrics.similarity import average_ranks, cosine, pearson, spearman, ssim
from canonxai.metrics.sparseness import Sparseness
from canonxai.metrics.sufficiency import Sufficiency
from canonxai.metrics.top_k_intersection import TopKIntersection
from canonxai.models.normalization import Normalization
from canonxai.random import Stream
from tests.metrics.batches import explanation, of_map
from tests.reference.comparison import Comparisons, Pairs

COMPARISONS = Comparisons("loop, float64")
ROUNDING = 1e-12
SAMPLES, HEIGHT, WIDTH = 4, 9, 7
SHAPE = (3, HEIGHT, WIDTH)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHTS = torch.randn(math.prod(SHAPE), 3, generator=generator(0), dtype=torch.float64) / 8


def logits(pixels: Tensor) -> Tensor:
    return (pixels.double().flatten(1) / 255 - 0.4).tanh() @ WEIGHTS


def logit(pixels: np.ndarray, target: int) -> float:
    return float(logits(torch.as_tensor(np.asarray(pixels))[None])[0, target])


def output(pixels: np.ndarray, target: int, kind: str) -> float:
    if kind == "logit":
        return logit(pixels, target)
    exponentials = [math.exp(logit(pixels, one)) for one in range(3)]
    return exponentials[target] / sum(exponentials)


def explained(kind: str = "continuous") -> Explanation:
    """Images whose maps have only different pixels, few levels, or one."""
    image = torch.randint(0, 256, (SAMPLES, *SHAPE), generator=generator(1)).to(torch.uint8)
    relevance = torch.randn(SAMPLES, HEIGHT, WIDTH, generator=generator(2), dtype=torch.float64)
    levels = {"continuous": None, "few levels": 3, "constant": 1}[kind]
    if levels is not None:
        relevance = torch.randint(0, levels, relevance.shape, generator=generator(2)).double() / 4
    region = torch.rand(2, SAMPLES, HEIGHT, WIDTH, generator=generator(5)) < 0.4
    return explanation(
        of_map(relevance),
        sample_id=torch.tensor([4, 9, 2, 30]),
        image=image,
        target=torch.tensor([0, 2, 1, 2]),
        box=region[0],
        mask=region[1],
        logits=logits(image),
        predict=logits,
        normalize=Normalization([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        explain=lambda input, target, _: input * (1 + target.double().view(-1, 1, 1, 1)),
        batch_size=BatchSize(13),
        seed=6,
    )


def samples(batch: Explanation) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """What a loop needs of each sample: image, order of its pixels from the most relevant on, and target."""
    for image, attribution, target in zip(batch.image.numpy(), batch.attribution, batch.target.tolist(), strict=True):
        yield image, np.argsort(-attribution.sum(0).flatten().numpy()), target


def mixed(image: np.ndarray, other: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The image with some pixels, by number, of another one."""
    image = image.copy()
    for pixel in pixels:
        image[:, pixel // WIDTH, pixel % WIDTH] = other[:, pixel // WIDTH, pixel % WIDTH]
    return image


# Localization.


def regions(kind: str = "continuous") -> Iterator[tuple[Explanation, str, list[tuple[list[float], list[bool]]]]]:
    """Pixels in a row, and which of them are in the region."""
    batch = explained(kind)
    for name in ("box", "mask"):
        rows = zip(batch.attribution.sum(1).flatten(1).tolist(), getattr(batch, name).flatten(1).tolist(), strict=True)
        yield batch, name, list(rows)


def share(relevance: list[float], region: list[bool]) -> float:
    """Of what is summed up."""
    inside = total = 0.0
    for value, is_inside in zip(relevance, region, strict=True):
        total += value
        inside += value * is_inside
    return inside / total


@COMPARISONS("localization", ROUNDING)
def localization() -> Pairs:
    for batch, name, rows in regions():
        expected = [share([max(value, 0) for value in relevance], region) for relevance, region in rows]
        yield Localization(name)(batch)["localization"], expected


@COMPARISONS("relevance_mass_accuracy", ROUNDING, "of absolute and of squared values")
def relevance_mass_accuracy() -> Pairs:
    for pooling, pooled in (("absolute", abs), ("l2_squared", lambda value: value**2)):
        for batch, name, rows in regions():
            expected = [share(list(map(pooled, relevance)), region) for relevance, region in rows]
            yield RelevanceMassAccuracy(name, pooling)(batch)["relevance_mass_accuracy"], expected


def hits(relevance: list[float], region: list[bool], count: int) -> float:
    """How many of the largest are inside; the mean over the orders of those that are equal."""
    last = sorted(relevance, reverse=True)[count - 1]
    above = [inside for value, inside in zip(relevance, region, strict=True) if value > last]
    tied = [inside for value, inside in zip(relevance, region, strict=True) if value == last]
    return sum(above) + (count - len(above)) * sum(tied) / len(tied)


@COMPARISONS("relevance_rank_accuracy", ROUNDING, "also of maps with equal values")
def relevance_rank_accuracy() -> Pairs:
    for kind in ("continuous", "few levels", "constant"):
        for batch, name, rows in regions(kind):
            expected = [
                hits(list(map(abs, relevance)), region, sum(region)) / sum(region) for relevance, region in rows
            ]
            yield RelevanceRankAccuracy(name)(batch)["relevance_rank_accuracy"], expected


@COMPARISONS("top_k_intersection", ROUNDING, "also of maps with equal values")
def top_k_intersection() -> Pairs:
    for kind in ("continuous", "few levels", "constant"):
        for batch, name, rows in regions(kind):
            expected = [hits(relevance, region, 13) / 13 for relevance, region in rows]
            yield TopKIntersection(name, fraction=0.2)(batch)["top_k_intersection"], expected


@COMPARISONS("pointing_game", ROUNDING, "also of maps with equal values; each tolerance a disk, pixel by pixel")
def pointing_game() -> Pairs:
    for radius in (0, 1, 2, 5):
        region = torch.rand(2, HEIGHT, WIDTH, generator=generator(0)) < 0.05
        for before, after in zip(region, dilated(region, radius), strict=True):
            inside = before.nonzero().tolist()
            yield (
                after,
                [
                    [
                        any((y - row) ** 2 + (x - column) ** 2 <= radius**2 for row, column in inside)
                        for x in range(WIDTH)
                    ]
                    for y in range(HEIGHT)
                ],
            )
    for kind in ("continuous", "few levels", "constant"):
        for batch, name, rows in regions(kind):
            yield PointingGame(name)(batch)["pointing_game"], [hits(relevance, region, 1) for relevance, region in rows]


@COMPARISONS("localization_auc", ROUNDING, "also of maps with equal values", "scikit-learn's roc_auc_score")
def localization_auc() -> Pairs:
    for kind in ("continuous", "few levels", "constant"):
        for batch, name, rows in regions(kind):
            expected = [roc_auc_score(region, relevance) for relevance, region in rows]
            yield LocalizationAUC(name)(batch)["localization_auc"], expected


# Complexity.


@COMPARISONS("sparseness", ROUNDING, "the mean absolute difference of all pairs of pixels over twice the mean")
def sparseness() -> Pairs:
    batch = explained()
    expected = []
    for row in batch.attribution.sum(1).flatten(1).abs().tolist():
        expected.append(sum(abs(a - b) for a in row for b in row) / (2 * len(row) * sum(row)))
    yield Sparseness()(batch)["sparseness"], expected


@COMPARISONS("complexity", ROUNDING, "", "scipy.stats.entropy")
def complexity() -> Pairs:
    batch = explained()
    yield (
        Complexity()(batch)["complexity"],
        [scipy.stats.entropy(row.numpy()) for row in batch.attribution.sum(1).flatten(1).abs()],
    )


@COMPARISONS("effective_complexity", 0)
def effective_complexity() -> Pairs:
    batch = explained()
    rows = batch.attribution.sum(1).flatten(1).abs().tolist()
    expected = [sum(value > 0.3 * max(row) for value in row) for row in rows]
    yield EffectiveComplexity(0.3)(batch)["effective_complexity"], expected


# Faithfulness.


@COMPARISONS("input_perturbation", ROUNDING, "regions of 1 to 4 pixels, equal ones among them, at the border cut off")
def input_perturbation() -> Pairs:
    for kind in ("continuous", "few levels", "constant"):
        batch = explained(kind)
        for size, fraction, linear, log in ((1, 0.6, 5, 3), (2, 0.6, 5, 2), (4, 1.0, 4, 2)):
            for spacing, kind_of_output in (("linear", "probability"), ("log", "logit"), ("linear", "logit")):
                steps = {"linear": linear, "log": log}[spacing]
                values = InputPerturbation(size, steps, fraction, spacing, kind_of_output)(batch)
                curves = perturbation_curves(batch, size, steps, fraction, spacing, kind_of_output)
                yield values["perturbation_curve"], curves
                yield (
                    values["input_perturbation"],
                    [sum(curve[0] - value for value in curve[1:]) / steps for curve in curves],
                )


def perturbation_curves(
    batch: Explanation,
    size: int,
    steps: int,
    fraction: float,
    spacing: str,
    kind: str,
    most_relevant_first: bool = True,
) -> list[list[float]]:
    """One image, one step and one region at a time."""
    corners = [(top, left) for top in range(0, HEIGHT, size) for left in range(0, WIDTH, size)]
    noises = random.pixels(batch.seed, Stream.NOISE, batch.sample_id, SHAPE).numpy()
    all_ties = random.bits(batch.seed, Stream.TIES, batch.sample_id, len(corners)).tolist()
    sign = -1 if most_relevant_first else 1
    curves = []
    for (image, _, target), relevance, noise, ties in zip(
        samples(batch), batch.attribution.sum(1), noises, all_ties, strict=True
    ):
        scores = [float(relevance[top : top + size, left : left + size].sum()) for top, left in corners]
        order = sorted(range(len(corners)), key=lambda region: (sign * scores[region], ties[region]))
        curve = [output(image, target, kind)]
        for step in range(1, steps + 1):
            part = step / steps if spacing == "linear" else 100 ** ((step - steps) / (steps - 1))
            perturbed = image.copy()
            for region in order[: max(1, round(fraction * part * len(corners)))]:
                top, left = corners[region]
                corner = np.s_[:, top : top + size, left : left + size]
                perturbed[corner] = noise[corner]
            curve.append(output(perturbed, target, kind))
        curves.append(curve)
    return curves


@COMPARISONS("region_perturbation", ROUNDING, "MoRF, LeRF, and their difference, ABPC")
def region_perturbation() -> Pairs:
    for kind in ("continuous", "few levels"):
        batch = explained(kind)
        values = RegionPerturbation(2, steps=5, fraction=1.0, output="logit", replacement="uniform")(batch)
        means = []
        for order in ("morf", "lerf"):
            curves = perturbation_curves(batch, 2, 5, 1.0, "linear", "logit", order == "morf")
            means.append([np.mean([curve[0] - value for value in curve[1:]]) for curve in curves])
            yield values[f"region_perturbation_{order}"], means[-1]
        yield values["region_perturbation_abpc"], np.subtract(*means)


@COMPARISONS("insertion_deletion", ROUNDING, "the area by scikit-learn's auc")
def insertion_and_deletion() -> Pairs:
    batch = explained()
    blurred, mean = (IMAGES[kind](batch).numpy() for kind in ("blur", "mean"))
    values = InsertionDeletion(steps=5, output="logit")(batch)
    for sample, (image, order, target) in enumerate(samples(batch)):
        counts = [round(step / 5 * len(order)) for step in range(6)]
        for name, start, other in (("deletion", image, mean[sample]), ("insertion", blurred[sample], image)):
            curve = [logit(mixed(start, other, order[:count]), target) for count in counts]
            yield values[f"{name}_curve"][sample], curve
            yield values[name][sample], auc([step / 5 for step in range(6)], curve)


@COMPARISONS("road", 0, "both orders; the imputation is Quantus', and the same noise is added")
def road() -> Pairs:
    batch = explained()
    values = Road(steps=3, fraction=0.9)(batch)
    noise = 255 * NOISE * random.normal(6, Stream.IMPUTATION, batch.sample_id, SHAPE).numpy()
    for sample, (image, order, target) in enumerate(samples(batch)):
        for name, pixels in (("morf", order), ("lerf", order[::-1])):
            curve = [float(logits(torch.tensor(image)[None]).argmax() == target)]
            for step in (1, 2, 3):
                removed = pixels[: round(0.3 * step * len(order))]
                imputed = noisy_linear_imputation(image.astype(float), removed, noise=0)
                imputed = mixed(imputed, imputed + noise[sample], removed)
                curve.append(float(logits(torch.tensor(imputed)[None]).argmax() == target))
            yield values[f"road_{name}_curve"][sample], curve
            yield values[f"road_{name}"][sample], np.mean(curve[1:])


@COMPARISONS("sufficiency", 0)
def sufficiency() -> Pairs:
    batch = explained()
    for fraction in (0.3, 0.8):
        values = Sufficiency(draws=8, fraction=fraction)(batch)["sufficiency"]
        assert values.unique().numel() > 1
        for sample, (image, order, _) in enumerate(samples(batch)):
            predicted = logits(torch.tensor(image)[None]).argmax()
            same = 0
            for draw in range(8):
                noise = random.pixels(6, Stream.COMPLETION, batch.sample_id[sample : sample + 1] * 8 + draw, SHAPE)[0]
                completed = mixed(noise.numpy(), image, order[: round(fraction * len(order))])
                same += int(logits(torch.tensor(completed)[None]).argmax() == predicted)
            yield values[sample], same / 8


@COMPARISONS("infidelity", ROUNDING, "scaled by NumPy's lstsq, and not")
def infidelity() -> Pairs:
    batch = explained()
    mean, std = np.array([0.5, 0.4, 0.3]).reshape(3, 1, 1), np.array([0.2, 0.25, 0.3]).reshape(3, 1, 1)
    for scaled in (False, True):
        for size, replacement in ((2, "black"), (4, "mean"), (7, "uniform")):
            other = IMAGES[replacement](batch).numpy()
            values = Infidelity(size, scaled, replacement=replacement)(batch)["infidelity"]
            for sample, (image, _, target) in enumerate(samples(batch)):
                foretold, falls = [], []
                for top in range(0, HEIGHT, size):
                    for left in range(0, WIDTH, size):
                        perturbed = image.copy()
                        corner = np.s_[:, top : top + size, left : left + size]
                        perturbed[corner] = other[sample][corner]
                        change = (image / 255 - mean) / std - (perturbed / 255 - mean) / std
                        foretold.append((change * batch.attribution[sample].numpy()).sum())
                        falls.append(logit(image, target) - logit(perturbed, target))
                foretold, falls = np.array(foretold), np.array(falls)
                factor = np.linalg.lstsq(foretold[:, None], falls, rcond=None)[0][0] if scaled else 1
                yield values[sample], np.mean((factor * foretold - falls) ** 2)


@COMPARISONS("faithfulness_correlation", ROUNDING, "scipy's pearsonr; every replacement")
def faithfulness_correlation() -> Pairs:
    batch = explained()
    for replacement in IMAGES:
        other = IMAGES[replacement](batch).numpy()
        values = FaithfulnessCorrelation(6, 0.1, replacement=replacement)(batch)["faithfulness_correlation"]
        for sample, (image, _, target) in enumerate(samples(batch)):
            relevance = batch.attribution[sample].sum(0).flatten().numpy()
            sums, falls = [], []
            for run in range(6):
                name = batch.sample_id[sample : sample + 1] * 6 + run
                draws = random.bits(6, Stream.SUBSETS, name, HEIGHT * WIDTH)[0].numpy()
                chosen = np.argsort(-draws)[:6]
                sums.append(relevance[chosen].sum())
                falls.append(logit(image, target) - logit(mixed(image, other[sample], chosen), target))
            yield values[sample], scipy.stats.pearsonr(sums, falls)[0]


@COMPARISONS("replacement: blur", 0, "RISE's Gaussian, 11 pixels, sigma 5", "scipy.ndimage.correlate1d")
def blur() -> Pairs:
    batch = explained()
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 5**2))
    expected = batch.image.numpy().astype(float)
    for axis in (2, 3):
        expected = correlate1d(expected, weights / weights.sum(), axis=axis, mode="mirror")
    yield IMAGES["blur"](batch), np.rint(expected)


# Robustness and randomisation.


@COMPARISONS(
    "sensitivity", ROUNDING, "of normalized maps, as the follow-up study's: each over the root of its mean square"
)
def sensitivity() -> Pairs:
    batch = explained()
    values = Sensitivity(samples=3, radius=0.4, normalize=True)(batch)
    for sample in range(SAMPLES):
        original = batch.attribution[sample].sum(0).numpy()
        changes = []
        for copy in range(3):
            name = batch.sample_id[sample : sample + 1] * 3 + copy
            noise = 0.4 * (2 * random.uniform(6, Stream.SENSITIVITY, name, SHAPE)[0] - 1)
            assert noise.abs().max() <= 0.4
            moved = ((batch.input[sample] + noise) * (1 + batch.target[sample])).sum(0).numpy()
            one, two = (relevance / np.sqrt(np.mean(relevance**2)) for relevance in (original, moved))
            changes.append(np.linalg.norm(one - two) / np.linalg.norm(one))
        yield values["max_sensitivity"][sample], max(changes)
        yield values["avg_sensitivity"][sample], np.mean(changes)


@COMPARISONS("local_lipschitz", ROUNDING)
def local_lipschitz() -> Pairs:
    batch = explained()
    values = LocalLipschitz(samples=3, noise=0.2)(batch)["local_lipschitz"]
    for sample in range(SAMPLES):
        original = batch.attribution[sample].sum(0).numpy()
        quotients = []
        for copy in range(3):
            name = batch.sample_id[sample : sample + 1] * 3 + copy
            noise = 0.2 * random.normal(6, Stream.LIPSCHITZ, name, SHAPE)[0]
            moved = ((batch.input[sample] + noise) * (1 + batch.target[sample])).sum(0).numpy()
            one, two = (relevance / np.abs(relevance).max() for relevance in (original, moved))
            quotients.append(np.linalg.norm(one - two) / float(noise.norm()))
        yield values[sample], max(quotients)


@COMPARISONS("similarity: ssim", ROUNDING, "of maps of unit length", "scikit-image's structural_similarity")
def structural_similarity() -> Pairs:
    first, second = torch.randn(2, 3, 12, 10, generator=generator(3), dtype=torch.float64)
    for a, b in zip(first, second + first, strict=True):
        one, two = (a / a.norm()).numpy(), (b / b.norm()).numpy()
        span = max(one.max(), two.max()) - min(one.min(), two.min())
        yield ssim(a[None], b[None])[0], skimage.metrics.structural_similarity(one, two, data_range=span)


def maps_of_levels() -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of maps, with equal values in most of them; constant ones are not defined."""
    for levels in (1, 2, 4, 1000):
        first, second = torch.randint(0, levels, (2, 5, 6, 7), generator=generator(levels)).double() / 3
        yield from zip(first, second, strict=True)


@COMPARISONS("similarity: spearman", ROUNDING, "with equal values", "scipy.stats.spearmanr")
def rank_correlation() -> Pairs:
    for a, b in maps_of_levels():
        yield average_ranks(a.flatten()[None])[0], scipy.stats.rankdata(a.flatten())
        yield spearman(a[None], b[None])[0], scipy.stats.spearmanr(a.flatten(), b.flatten())[0]


@COMPARISONS("similarity: pearson", ROUNDING, "", "scipy.stats.pearsonr")
def correlation() -> Pairs:
    for a, b in maps_of_levels():
        yield pearson(a.flatten()[None], b.flatten()[None])[0], scipy.stats.pearsonr(a.flatten(), b.flatten())[0]


@COMPARISONS("similarity: cosine", ROUNDING)
def angle() -> Pairs:
    for a, b in maps_of_levels():
        yield cosine(a[None], b[None])[0], float((a * b).sum() / a.norm() / b.norm())


@COMPARISONS("distance", ROUNDING, "maps in float64 and in float32", "scipy.spatial.distance.cosine")
def distance() -> Pairs:
    for dtype in (torch.float64, torch.float32):
        for seed in range(5):
            first, second = torch.randn(2, 5, 6, 7, generator=generator(seed), dtype=dtype)
            pairs = zip(first.double().flatten(1), second.double().flatten(1), strict=True)
            assert cosine_distance(first, second).dtype == torch.float64
            yield cosine_distance(first, second), [cosine_distance_of_scipy(a, b) for a, b in pairs]


@COMPARISONS("efficient_mprt", ROUNDING, "the entropy of NumPy's histogram", "numpy.histogram and scipy.stats.entropy")
def efficient_mprt() -> Pairs:
    batch = explained()
    batch = replace(batch, network=torch.nn.Linear(1, 1))

    def entropy(relevance: Tensor) -> float:
        return float(scipy.stats.entropy(np.histogram(relevance.flatten().numpy(), bins=9)[0]))

    expected = []
    for before, after in zip(
        batch.attribution.sum(1), batch.explain(batch.input, batch.target, batch.sample_id).sum(1), strict=True
    ):
        expected.append((entropy(after) - entropy(before)) / entropy(before))
    yield EfficientMPRT(bins=9)(batch)["efficient_mprt"], expected
