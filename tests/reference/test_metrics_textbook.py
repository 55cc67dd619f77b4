"""Metrics that no library defines alike, against loops over images, steps and pixels."""

import math

import numpy as np
import pytest
import torch
from quantus.functions.perturb_func import noisy_linear_imputation
from scipy.ndimage import correlate1d
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import auc

from canonxai import random
from canonxai.batch_size import BatchSize
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.imputation import NOISE
from canonxai.metrics.infidelity import Infidelity
from canonxai.metrics.insertion_deletion import InsertionDeletion
from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.region import dilated, hits
from canonxai.metrics.replacement import IMAGES
from canonxai.metrics.road import Road
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.metrics.similarity import average_ranks, cosine, pearson, spearman
from canonxai.metrics.sufficiency import Sufficiency
from canonxai.models.normalization import Normalization
from canonxai.random import Stream
from tests.metrics.batches import explanation, of_map

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLES, HEIGHT, WIDTH = 4, 9, 7
SHAPE = (3, HEIGHT, WIDTH)


def generator(seed):
    return torch.Generator().manual_seed(seed)


WEIGHTS = torch.randn(math.prod(SHAPE), 3, generator=generator(0), dtype=torch.float64) / 8


def logits(pixels):
    return (pixels.double().flatten(1) / 255 - 0.4).tanh() @ WEIGHTS


def logit(pixels, target):
    return float(logits(torch.as_tensor(np.asarray(pixels))[None])[0, target])


@pytest.fixture
def batch():
    image = torch.randint(0, 256, (SAMPLES, *SHAPE), generator=generator(1)).to(torch.uint8)
    relevance = torch.randn(SAMPLES, HEIGHT, WIDTH, generator=generator(2), dtype=torch.float64)
    return explanation(
        of_map(relevance),
        sample_id=torch.tensor([4, 9, 2, 30]),
        image=image,
        target=torch.tensor([0, 2, 1, 2]),
        logits=logits(image),
        predict=logits,
        normalize=Normalization([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        explain=lambda input, target, _: input * (1 + target.double().view(-1, 1, 1, 1)),
        batch_size=BatchSize(13),
        seed=6,
    )


def samples(batch):
    """What a loop needs of each sample: image, order of its pixels from the most relevant on, and target."""
    for image, attribution, target in zip(batch.image.numpy(), batch.attribution, batch.target.tolist(), strict=True):
        yield image, np.argsort(-attribution.sum(0).flatten().numpy()), target


def mixed(image, other, pixels):
    """The image with some pixels, by number, of another one."""
    image = image.copy()
    for pixel in pixels:
        image[:, pixel // WIDTH, pixel % WIDTH] = other[:, pixel // WIDTH, pixel % WIDTH]
    return image


def test_insertion_and_deletion(batch):
    blurred, mean = (IMAGES[kind](batch).numpy() for kind in ("blur", "mean"))
    values = InsertionDeletion(steps=5, output="logit")(batch)
    for sample, (image, order, target) in enumerate(samples(batch)):
        counts = [round(step / 5 * len(order)) for step in range(6)]
        for name, start, other in (("deletion", image, mean[sample]), ("insertion", blurred[sample], image)):
            curve = [logit(mixed(start, other, order[:count]), target) for count in counts]
            assert values[f"{name}_curve"][sample].tolist() == pytest.approx(curve)
            assert float(values[name][sample]) == pytest.approx(auc([step / 5 for step in range(6)], curve))


def test_road(batch):
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
            assert values[f"road_{name}_curve"][sample].tolist() == curve
            assert float(values[f"road_{name}"][sample]) == pytest.approx(np.mean(curve[1:]))


@pytest.mark.parametrize("fraction", [0.3, 0.8])
def test_sufficiency(batch, fraction):
    values = Sufficiency(draws=8, fraction=fraction)(batch)["sufficiency"]
    for sample, (image, order, _) in enumerate(samples(batch)):
        predicted = logits(torch.tensor(image)[None]).argmax()
        same = 0
        for draw in range(8):
            noise = random.pixels(6, Stream.COMPLETION, batch.sample_id[sample : sample + 1] * 8 + draw, SHAPE)[0]
            completed = mixed(noise.numpy(), image, order[: round(fraction * len(order))])
            same += int(logits(torch.tensor(completed)[None]).argmax() == predicted)
        assert float(values[sample]) == same / 8
    assert values.unique().numel() > 1


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("size", "replacement"), [(2, "black"), (4, "mean"), (7, "uniform")])
def test_infidelity(batch, size, replacement, scaled):
    other = IMAGES[replacement](batch).numpy()
    values = Infidelity(size, scaled, replacement=replacement)(batch)["infidelity"]
    mean, std = np.array([0.5, 0.4, 0.3]).reshape(3, 1, 1), np.array([0.2, 0.25, 0.3]).reshape(3, 1, 1)
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
        assert float(values[sample]) == pytest.approx(np.mean((factor * foretold - falls) ** 2))


@pytest.mark.parametrize("replacement", list(IMAGES))
def test_faithfulness_correlation(batch, replacement):
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
        assert float(values[sample]) == pytest.approx(pearsonr(sums, falls)[0])


def test_sensitivity_of_normalized_maps(batch):
    values = Sensitivity(samples=3, radius=0.4, normalize=True)(batch)
    for sample in range(SAMPLES):
        original = batch.attribution[sample].sum(0).numpy()
        changes = []
        for copy in range(3):
            name = batch.sample_id[sample : sample + 1] * 3 + copy
            noise = 0.4 * (2 * random.uniform(6, Stream.SENSITIVITY, name, SHAPE)[0] - 1)
            assert noise.abs().max() <= 0.4
            moved = ((batch.input[sample] + noise) * (1 + batch.target[sample])).sum(0).numpy()
            # of the follow-up study: each map over the root of its mean square
            one, two = (relevance / np.sqrt(np.mean(relevance**2)) for relevance in (original, moved))
            changes.append(np.linalg.norm(one - two) / np.linalg.norm(one))
        assert float(values["max_sensitivity"][sample]) == pytest.approx(max(changes))
        assert float(values["avg_sensitivity"][sample]) == pytest.approx(np.mean(changes))


def test_the_other_class_is_any_but_the_target_as_often(batch):
    seen = []
    attribution = torch.randn(3000, 3, 2, 2)
    many = explanation(
        attribution,
        target=torch.arange(3000) % 4,
        logits=torch.zeros(3000, 4),
        explain=lambda _, target, __: seen.append(target) or attribution,
    )
    RandomLogit()(many)
    counts = torch.zeros(4, 4).index_put_((many.target, seen[0]), torch.tensor(1.0), accumulate=True)
    assert counts.diagonal().tolist() == [0] * 4
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 250).abs().max() < 5 * math.sqrt(250)


def test_blur_is_rises_gaussian(batch):
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 5**2))
    expected = batch.image.numpy().astype(float)
    for axis in (2, 3):
        expected = correlate1d(expected, weights / weights.sum(), axis=axis, mode="mirror")
    np.testing.assert_array_equal(IMAGES["blur"](batch).numpy(), np.rint(expected))


def test_mean_is_zero_after_normalization(batch):
    assert batch.normalize(IMAGES["mean"](batch), torch.float64).abs().max() < 0.5 / 255 / 0.2 + 1e-9


@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
def test_ranks_and_correlations_are_those_of_scipy(levels):
    first, second = torch.randint(0, levels, (2, 5, 6, 7), generator=generator(levels)).double() / 3
    for a, b, rank in zip(first, second, average_ranks(first.flatten(1)), strict=True):
        a, b = a.flatten(), b.flatten()
        assert rank.tolist() == [(sum(a < x) + sum(a <= x) + 1).item() / 2 for x in a]
        maps = a.view(1, 6, 7), b.view(1, 6, 7)
        assert float(pearson(a[None], b[None])) == pytest.approx(pearsonr(a, b)[0], nan_ok=True)
        assert float(spearman(*maps)) == pytest.approx(spearmanr(a, b)[0], nan_ok=True)
        expected = float(a @ b / a.norm() / b.norm())
        assert float(cosine(*maps)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_hits_are_the_mean_over_all_orders_of_equal_values(levels):
    relevance = torch.randint(0, levels, (3, 4, 5), generator=generator(levels)).double()
    region = torch.rand(3, 4, 5, generator=generator(7)) < 0.4
    count = torch.tensor([1, 7, 20])
    values = hits(relevance, region, count)
    drawn = np.random.default_rng(0)
    for a, inside, k, value in zip(relevance, region, count.tolist(), values.tolist(), strict=True):
        a, inside = a.flatten().numpy(), inside.flatten().numpy()
        found = [inside[np.lexsort((drawn.random(20), -a))[:k]].sum() for _ in range(4000)]
        assert value == pytest.approx(np.mean(found), abs=5 * np.std(found) / math.sqrt(4000) + 1e-9)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_dilation_reaches_as_far_as_the_radius(radius):
    region = torch.rand(2, 9, 8, generator=generator(0)) < 0.05
    for before, after in zip(region, dilated(region, radius), strict=True):
        inside = before.nonzero().tolist()
        for y in range(9):
            for x in range(8):
                near = any((y - row) ** 2 + (x - column) ** 2 <= radius**2 for row, column in inside)
                assert bool(after[y, x]) == near
