"""Every metric that Quantus has too, against Quantus, where both are defined alike."""

from dataclasses import replace

import numpy as np
import pytest
import quantus
import skimage
import torch
from quantus.functions.complexity_func import discrete_entropy
from quantus.functions.perturb_func import noisy_linear_imputation
from torch import nn
from torch.nn.functional import conv2d

from canonxai import random
from canonxai.metrics.complexity import Complexity
from canonxai.metrics.effective_complexity import EffectiveComplexity
from canonxai.metrics.efficient_mprt import EfficientMPRT
from canonxai.metrics.faithfulness_correlation import FaithfulnessCorrelation
from canonxai.metrics.imputation import linear_imputation
from canonxai.metrics.infidelity import Infidelity
from canonxai.metrics.local_lipschitz import LocalLipschitz
from canonxai.metrics.localization_auc import LocalizationAUC
from canonxai.metrics.parameter_randomization import ParameterRandomization
from canonxai.metrics.pointing_game import PointingGame
from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.region_perturbation import RegionPerturbation
from canonxai.metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from canonxai.metrics.relevance_rank_accuracy import RelevanceRankAccuracy
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.metrics.sparseness import Sparseness
from canonxai.metrics.top_k_intersection import TopKIntersection
from canonxai.models.normalization import Normalization
from canonxai.random import Stream
from tests.metrics.batches import explanation

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLES, SIDE = 6, 12


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
    def __init__(self, classes=3):
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


@pytest.fixture
def batch():
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
        sample_id=torch.tensor([5, 3, 8, 1, 0, 77]),
        target=target,
        box=region,
        mask=region.flip(1),
        logits=network(normalize(image, torch.float64)).detach(),
        predict=lambda pixels: network(normalize(pixels, torch.float64)).detach(),
        normalize=normalize,
        explain=lambda input, target, _: gradient_times_input(network, input, target),
        network=network,
    )


def of_quantus(metric, batch, attribution=None, region=None, **options):
    """What Quantus computes for the channel-summed maps, which it takes as maps of one channel."""
    attribution = batch.attribution.sum(1, keepdim=True) if attribution is None else attribution
    options = {"softmax": False, "batch_size": SAMPLES, **options}
    return np.array(
        metric(
            model=batch.network,
            x_batch=batch.input.numpy(),
            y_batch=batch.target.numpy(),
            a_batch=attribution.numpy().copy(),
            s_batch=None if region is None else region[:, None].numpy(),
            channel_first=True,
            **options,
        ),
        dtype=float,
    )


@pytest.mark.parametrize("region", ["box", "mask"])
@pytest.mark.parametrize(
    ("metric", "column", "reference"),
    [
        (PointingGame, "pointing_game", quantus.PointingGame(normalise=False)),
        (RelevanceMassAccuracy, "relevance_mass_accuracy", quantus.RelevanceMassAccuracy(abs=True)),
        (RelevanceRankAccuracy, "relevance_rank_accuracy", quantus.RelevanceRankAccuracy(abs=True)),
        (TopKIntersection, "top_k_intersection", quantus.TopKIntersection(k=3)),
        (LocalizationAUC, "localization_auc", quantus.AUC()),
    ],
)
def test_localization(batch, metric, column, reference, region):
    values = metric(region)(batch)[column]
    assert values.tolist() == pytest.approx(of_quantus(reference, batch, region=getattr(batch, region)), rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "column", "reference", "tolerance"),
    [
        (Sparseness(), "sparseness", quantus.Sparseness(), 2e-5),  # Quantus adds 1e-7 to every value
        (Complexity(), "complexity", quantus.Complexity(), 1e-9),  # and 1e-12 within the logarithm
        (EffectiveComplexity(), "effective_complexity", quantus.EffectiveComplexity(normalise=False), 0),
        (EffectiveComplexity(0.3), "effective_complexity", quantus.EffectiveComplexity(eps=0.3, normalise=False), 0),
    ],
)
def test_complexity(batch, metric, column, reference, tolerance):
    # divided by their largest values here: Quantus would take the largest of the whole batch
    maps = batch.attribution.sum(1, keepdim=True)
    expected = of_quantus(reference, batch, maps / maps.abs().amax((1, 2, 3), keepdim=True))
    assert metric(batch)[column].tolist() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("order", "output"), [("morf", "logit"), ("lerf", "logit"), ("morf", "probability")])
def test_region_perturbation(batch, size, order, output):
    regions = (SIDE // size) ** 2
    noise = torch.randn(batch.attribution.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = replace(batch, attribution=batch.attribution + 1e-3 * noise)  # without equal regions
    metric = RegionPerturbation(size, steps=regions, fraction=1.0, output=output, replacement="black")
    reference = quantus.RegionPerturbation(
        patch_size=size, regions_evaluation=regions, order=order, perturb_baseline=0.0, normalise=False
    )
    falls = of_quantus(reference, batch, softmax=output == "probability")
    values = metric(batch)
    curve = values[f"region_perturbation_{order}_curve"].numpy()
    np.testing.assert_allclose(curve[:, :1] - curve[:, 1:], falls, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(values[f"region_perturbation_{order}"], falls.mean(1), rtol=1e-9)


def test_faithfulness_correlation_of_the_same_sets(batch, monkeypatch):
    metric = FaithfulnessCorrelation(subsets=7, fraction=10 / SIDE**2, replacement="black")
    sets = []
    for run in range(7):
        chosen = random.bits(0, Stream.SUBSETS, batch.sample_id * 7 + run, SIDE**2).topk(10).indices
        sets += [np.concatenate([one + channel * SIDE**2 for channel in range(3)]) for one in chosen.numpy()]
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: sets.pop(0))
    reference = quantus.FaithfulnessCorrelation(
        nr_runs=7, subset_size=30, perturb_baseline=0.0, normalise=False, return_aggregate=False
    )
    expected = of_quantus(reference, batch, batch.attribution)
    assert not sets
    assert metric(batch)["faithfulness_correlation"].tolist() == pytest.approx(expected, rel=1e-9)


def test_infidelity_of_one_square(batch):
    """Of several, Quantus keeps those before replaced."""
    reference = quantus.Infidelity(perturb_baseline=0.0, perturb_patch_sizes=[SIDE], n_perturb_samples=1)
    expected = of_quantus(reference, batch, batch.attribution)
    values = Infidelity(SIDE, scaled=False)(batch)["infidelity"]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_linear_imputation(batch, share):
    missing = torch.rand(SAMPLES, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) < share
    missing[0, 2:9, :7] = True  # a hole at the border
    image = batch.image.double()
    imputed = linear_imputation(image, missing)
    for one, hole, values in zip(image.numpy(), missing.numpy(), imputed.numpy(), strict=True):
        expected = noisy_linear_imputation(one, np.flatnonzero(hole), noise=0)
        np.testing.assert_allclose(values, expected, atol=1e-3)  # of 255


def noises(stream, copies, draw):
    """The noise that canonxai adds to each copy of the whole batch, for Quantus to add the same."""
    names = torch.tensor([5, 3, 8, 1, 0, 77])
    drawn = iter([draw(0, stream, names * copies + copy, (3, SIDE, SIDE)).numpy() for copy in range(copies)])
    return lambda arr, **_: arr + next(drawn).reshape(arr.shape)


def explain_one_channel(model, inputs, targets, **_):
    return gradient_times_input(model, inputs, targets).sum(1, keepdim=True).numpy()


@pytest.mark.parametrize(
    ("column", "reference"),
    [("max_sensitivity", quantus.MaxSensitivity), ("avg_sensitivity", quantus.AvgSensitivity)],
)
def test_sensitivity_under_the_same_noise(batch, column, reference):
    add = noises(Stream.SENSITIVITY, 4, lambda *args: 0.2 * (2 * random.uniform(*args) - 1))
    metric = reference(nr_samples=4, perturb_func=add, normalise=False)
    expected = of_quantus(metric, batch, explain_func=explain_one_channel)
    # Quantus explains in float32
    assert Sensitivity(samples=4)(batch)[column].tolist() == pytest.approx(expected, rel=1e-5)


def test_local_lipschitz_under_the_same_noise(batch):
    add = noises(Stream.LIPSCHITZ, 4, lambda *args: 0.1 * random.normal(*args))
    metric = quantus.LocalLipschitzEstimate(
        nr_samples=4, perturb_func=add, normalise_func=quantus.normalise_by_max, normalise=True
    )
    attribution = batch.attribution.sum(1, keepdim=True)
    scale = attribution.abs().amax((1, 2, 3), keepdim=True)

    def explain(model, inputs, targets, **_):
        maps = explain_one_channel(model, inputs, targets)
        return maps / np.abs(maps).max((1, 2, 3), keepdims=True)  # Quantus divides by the batch's maximum, here 1

    expected = of_quantus(metric, batch, attribution / scale, explain_func=explain)
    assert LocalLipschitz(samples=4)(batch)["local_lipschitz"].tolist() == pytest.approx(expected, rel=1e-5)


def ssim_of_maps(first, second, batched):
    """Skimage's similarity of two-dimensional maps of unit length; Quantus flattens them."""
    values = []
    for pair in zip(first.reshape(-1, SIDE, SIDE), second.reshape(-1, SIDE, SIDE), strict=True):
        one, two = (relevance / np.linalg.norm(relevance) for relevance in pair)
        span = max(one.max(), two.max()) - min(one.min(), two.min())
        values.append(skimage.metrics.structural_similarity(one, two, data_range=span))
    return np.array(values)


def test_random_logit_of_the_only_other_class(batch):
    network = Network(classes=2).eval()
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
    expected = of_quantus(reference, batch, explain_func=explain_one_channel)
    assert RandomLogit()(batch)["random_logit"].tolist() == pytest.approx(expected, rel=1e-5)


def test_parameter_randomization_of_each_layer(batch):
    reference = quantus.MPRT(
        layer_order="top_down", similarity_func=quantus.correlation_spearman, abs=False, normalise=False
    )
    scores = reference(
        model=batch.network,
        x_batch=batch.input.numpy(),
        y_batch=batch.target.numpy(),
        a_batch=batch.attribution.sum(1, keepdim=True).numpy(),
        explain_func=explain_one_channel,
        channel_first=True,
        batch_size=SAMPLES,
    )
    assert list(scores) == ["original", "third", "second", "first"]
    values = ParameterRandomization(steps=3)(batch)
    curve = values["parameter_randomization_curve"].numpy()
    np.testing.assert_allclose(curve.T, list(scores.values())[1:], atol=1e-9)
    assert values["parameter_randomization"].tolist() == pytest.approx(curve.mean(1).tolist())
    assert (np.abs(curve) < 0.999).any()


def test_efficient_mprt(batch):
    reference = quantus.EfficientMPRT(
        complexity_func=discrete_entropy, complexity_func_kwargs={"n_bins": 20}, normalise=False
    )
    expected = reference(
        model=batch.network,
        x_batch=batch.input.numpy(),
        y_batch=batch.target.numpy(),
        a_batch=batch.attribution.sum(1, keepdim=True).numpy(),
        explain_func=explain_one_channel,
        channel_first=True,
        batch_size=SAMPLES,
    )
    assert EfficientMPRT(bins=20)(batch)["efficient_mprt"].tolist() == pytest.approx(expected, rel=1e-9)
