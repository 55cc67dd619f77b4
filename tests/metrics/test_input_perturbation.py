"""Input perturbation's invariances and arguments; loops and Quantus stand in ``tests/reference``."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from canonxai import random
from canonxai.batch_size import BatchSize
from canonxai.errors import UserError
from canonxai.metrics import heatmap
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.metrics.perturbation_metric import region_ranks
from canonxai.random import Stream
from tests.metrics import batches
from tests.metrics.batches import of_map, select

SAMPLES, CLASSES, HEIGHT, WIDTH = 5, 4, 6, 7


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other make many small forwards a hundred times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Network(nn.Module):
    """A classifier of pixel values, in float64.

    All weights are integers, so all sums are exact in any order, and logits can be compared to the bit.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randint(-2, 3, (8, 3, 3, 3), generator=generator).double()
        self.readout = torch.randint(-2, 3, (8 * HEIGHT * WIDTH, CLASSES), generator=generator).double()

    def forward(self, image):
        hidden = conv2d(image.double(), self.kernel, padding=1).relu()
        return hidden.flatten(1) @ self.readout / 2**14


NETWORK = Network()


def heatmaps(kind):
    """Attributions of a kind."""
    shape = SAMPLES, 3, HEIGHT, WIDTH
    generator = torch.Generator().manual_seed(1)
    if kind == "continuous":
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    levels = 3 if kind == "few levels" else 1
    return torch.randint(0, levels, shape, generator=generator).double() / 4


def explanation(attribution=None, **changes):
    """Five images explained."""
    image = torch.randint(0, 256, (SAMPLES, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(2))
    batch = batches.explanation(
        heatmaps("continuous") if attribution is None else attribution,
        sample_id=torch.tensor([3, 0, 41, 7, 5]),
        image=image.to(torch.uint8),
        target=torch.tensor([0, 3, 1, 1, 2]),
        logits=NETWORK(image),
        predict=NETWORK,
        seed=11,
    )
    return replace(batch, **changes)


@pytest.mark.parametrize("most_relevant_first", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_regions_are_ranked_whatever_the_scale_of_the_map(dtype, size, most_relevant_first):
    relevance = heatmap(heatmaps("continuous")).abs().to(dtype)
    expected = region_ranks(explanation(of_map(relevance)), size, most_relevant_first)
    power = math.frexp(torch.finfo(dtype).max)[1] - math.frexp(relevance.max().item())[1]
    assert region_ranks(explanation(of_map(relevance * 2.0**power)), size, most_relevant_first).equal(expected)


def textbook_f(image, target, output):
    logits = NETWORK(image[None])[0].tolist()
    if output == "logit":
        return logits[target]
    return math.exp(logits[target]) / sum(math.exp(logit) for logit in logits)


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("fraction", [0.2, 1.0])
def test_last_step_replaces_the_asked_fraction_of_regions(spacing, steps, fraction):
    metric = InputPerturbation(steps=steps, fraction=fraction, spacing=spacing)
    assert metric.counts(10**6)[-1] == 10**6 * fraction
    assert metric.columns["perturbation_curve"].axis[-1] == fraction


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_each_value_of_the_curve_has_its_place_on_the_axis(spacing):
    metric = InputPerturbation(steps=3, fraction=1.0, spacing=spacing)
    values = metric(explanation())
    axis = metric.columns["perturbation_curve"].axis
    assert values.keys() == metric.columns.keys() == {"input_perturbation", "perturbation_curve"}
    assert values["perturbation_curve"].shape == (SAMPLES, len(axis)) == (SAMPLES, 4)
    assert axis[0] == 0
    assert list(axis) == sorted(set(axis))
    assert metric.counts(10**6).tolist() == [round(10**6 * value) for value in axis[1:]]


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("size", [1, 4])
def test_results_do_not_depend_on_the_batch_size(size, output):
    metric = InputPerturbation(size, steps=4, fraction=1.0, output=output)
    expected = metric(explanation())
    for batch_size in (1, 7, 64, 1000):
        seen = []
        predict = lambda image: seen.append(len(image)) or NETWORK(image)  # noqa: B023, E731
        values = metric(explanation(batch_size=BatchSize(batch_size), predict=predict))
        assert all(torch.equal(values[name], expected[name]) for name in expected)
        assert min(batch_size, SAMPLES * 4) / 2 < max(seen) <= batch_size


@pytest.mark.parametrize("kind", ["continuous", "constant"])
@pytest.mark.parametrize("chosen", [[0], [1], [4], [3, 1], [4, 3, 2, 1, 0]])
def test_results_of_a_sample_do_not_depend_on_the_others_in_the_batch(kind, chosen):
    metric = InputPerturbation(2, steps=6, fraction=1.0)
    batch = explanation(heatmaps(kind))
    expected, values = metric(batch), metric(select(batch, chosen))
    assert all(torch.equal(values[name], expected[name][chosen]) for name in expected)


@pytest.mark.parametrize("transform", [math.exp, math.atan, lambda x: 3 * x + 1, lambda x: x**3, lambda x: 1e-30 * x])
@pytest.mark.parametrize("kind", ["continuous", "few levels"])
def test_curve_depends_on_the_order_of_the_regions_alone(kind, transform):
    metric = InputPerturbation(fraction=1.0)
    scores = heatmap(heatmaps(kind))
    expected = metric(explanation(of_map(scores)))
    values = metric(explanation(of_map(scores.clone().apply_(transform))))
    reverse = metric(explanation(of_map(-scores)))
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    assert not torch.equal(reverse["perturbation_curve"], expected["perturbation_curve"])


def test_curve_does_not_depend_on_how_a_pixel_is_shared_by_its_channels():
    metric = InputPerturbation(fraction=1.0)
    attribution = heatmaps("few levels")  # sums are exact
    expected = metric(explanation(attribution))["perturbation_curve"]
    assert torch.equal(metric(explanation(attribution.flip(1)))["perturbation_curve"], expected)
    assert torch.equal(metric(explanation(of_map(attribution.sum(1))))["perturbation_curve"], expected)


@pytest.mark.parametrize("constant", [0.0, -3.0, 1e-20, 1e20])
def test_curve_of_a_constant_map_does_not_depend_on_the_constant(constant):
    metric = InputPerturbation(fraction=1.0)
    expected = metric(explanation(heatmaps("constant")))
    values = metric(explanation(of_map(torch.full((SAMPLES, HEIGHT, WIDTH), constant))))
    assert all(torch.equal(values[name], expected[name]) for name in expected)


def test_order_of_a_constant_map_depends_on_seed_and_sample_id_alone():
    def replaced(seed):
        """Which of the pixels of a black image are replaced after half of them, by sample."""
        seen = []
        black = torch.zeros(SAMPLES, 3, HEIGHT, WIDTH, dtype=torch.uint8)
        batch = explanation(heatmaps("constant"), image=black, seed=seed, sample_id=torch.tensor([3, 4, 3, 5, 4]))
        InputPerturbation(steps=1, fraction=0.5)(replace(batch, predict=lambda x: seen.append(x) or NETWORK(x)))
        (images,) = seen
        return [tuple(image.any(0).flatten().tolist()) for image in images]

    orders = replaced(0)
    assert replaced(0) == orders
    assert orders[0] == orders[2] and orders[1] == orders[4]
    assert len({orders[0], orders[1], orders[3], *(replaced(1)[i] for i in (0, 1, 3))}) == 6
    assert all(sum(order) == HEIGHT * WIDTH // 2 for order in orders)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_curve_begins_with_the_image_and_ends_with_the_noise_where_all_is_replaced(size, output):
    batch = explanation()
    curve = InputPerturbation(size, steps=3, fraction=1.0, output=output)(batch)["perturbation_curve"]
    noise = random.pixels(batch.seed, Stream.NOISE, batch.sample_id, (3, HEIGHT, WIDTH))
    for images, values in ((batch.image, curve[:, 0]), (noise, curve[:, -1])):
        expected = [textbook_f(image, target, output) for image, target in zip(images, batch.target, strict=True)]
        assert values.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("region_size", 0, "an integer >= 1, got 0"),
        ("steps", 0, "an integer >= 1, got 0"),
        ("fraction", 0.0, r"a number in \(0, 1\], got 0\.0"),
        ("fraction", 1.5, r"a number in \(0, 1\], got 1\.5"),
        ("fraction", math.nan, r"a number in \(0, 1\], got nan"),
        ("spacing", "cubic", "one of linear, log, got 'cubic'"),
        ("output", "foo", "one of probability, logit, got 'foo'"),
    ],
)
def test_argument_out_of_its_range_is_told_by_name(argument, value, expected):
    with pytest.raises(UserError, match=rf"^metric\.input_perturbation\.{argument}: expected {expected}\."):
        InputPerturbation(**{argument: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region_size": 7}, r"region_size: expected at most the image's shorter side, 6, got 7\."),
        (
            {"steps": 20},
            r"steps: expected steps that each replace more of the image's 42 regions, got '20 of k = \[1, 1, 1",
        ),
        ({"region_size": 6, "steps": 3}, r"steps: expected .* 2 regions, got '3 of k = \[1, 1, 1\]'\. Use fewer steps"),
        ({"steps": 3, "spacing": "log"}, r"steps: expected .* 42 regions, got '3 of k = \[1, 1, 8\]'\."),
    ],
)
def test_images_too_small_for_the_arguments_are_told(arguments, message):
    with pytest.raises(UserError, match=rf"^metric\.input_perturbation\.{message}"):
        InputPerturbation(**arguments)(explanation())
