"""Metrics of Quantus that compare images, or that Quantus 0.6.0 has for few images and networks alone."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import quantus
import torch
from pyarrow.parquet import read_table
from skimage.segmentation import slic
from torch import nn

from canonxai.errors import UserError
from canonxai.metrics.base import heatmap
from canonxai.metrics.quantus import OF_SEVERAL_IMAGES, Quantus
from canonxai.metrics.quantus_mends import of_shifted
from tests.conftest import ROOT
from tests.metrics.batches import select
from tests.metrics.colour_images import Network, colour_images, gradient_times_input
from tests.tiny import CELL

pytestmark = pytest.mark.filterwarnings("ignore")
GROUPS = [
    ("Sufficiency", {"threshold": 0.9}, {}),
    ("BatchSufficiency", {"threshold": 0.9}, {}),
    ("Consistency", {}, {}),
    ("SensitivityN", {"features_in_step": 12}, {"curve": "mean"}),
]


class Bright(nn.Module):
    """How bright the left and the right half are, in the precision of the input."""

    def forward(self, input):
        return torch.stack([half.mean((1, 2, 3)) for half in input.chunk(2, 3)], 1)


@pytest.fixture
def batch():
    return colour_images()


def eight(maps):
    """Eight images, of different predictions, and random maps."""
    batch = select(colour_images(), [0, 1, 2, 3] * 2)
    image, mirrored = batch.image.clone(), batch.image.flip(3)
    image[[1, 2, 4, 6]] = mirrored[[1, 2, 4, 6]]
    network = Bright().eval()
    attribution = torch.randn(8, 3, *image.shape[2:], generator=torch.Generator().manual_seed(maps)).double()
    attribution[[2, 3, 5]] = attribution[[0, 1, 4]] + attribution[[2, 3, 5]] / 10  # similar maps
    return replace(
        batch, image=image, network=network, attribution=attribution, sample_id=torch.arange(20, 28),
        place=torch.arange(8),
        target=torch.arange(8) % 2,
    )  # fmt: skip


def of_whole(batch, name, arguments, curve=None):
    """Quantus itself, of the whole batch at once."""
    arguments = {**arguments, "return_aggregate": False, "disable_warnings": True}
    if name == "Consistency":
        arguments["discretise_func"] = quantus.discretise_func.sign
    scores = getattr(quantus, name)(**arguments)(
        model=batch.network, x_batch=batch.input.numpy(), y_batch=batch.target.numpy(), batch_size=len(batch.target),
        a_batch=batch.attribution.sum(1, keepdim=True).numpy(), channel_first=True,
    )  # fmt: skip
    return [np.mean(scores)] + [np.nan] * (len(batch.target) - 1) if curve == "mean" else list(scores)


@pytest.mark.parametrize(("name", "arguments", "options"), [case for case in GROUPS if case[0] != "BatchSufficiency"])
@pytest.mark.parametrize("group", [4, 8, 3])
def test_scores_of_groups_are_those_of_quantus_itself(name, arguments, options, group):
    batch = eight(0)
    if name == "Consistency":  # maps whose signs are alike in part
        signs = torch.tensor([1.0, 1, 1, -1, -1, 1, 1, 1], dtype=torch.float64)
        batch = replace(batch, attribution=batch.attribution.abs() * signs[:, None, None, None])
        batch.attribution[3:5, 0, 0, 0] = 100.0  # as no map is all negative
        arguments = {"discretise_func": "sign"}
    metric = Quantus(name, arguments, group=group, **options)
    (found,) = metric(batch).values()
    parts = [select(batch, list(range(start, min(start + group, 8)))) for start in range(0, 8, group)]
    kept = {} if name == "Consistency" else arguments
    expected = [score for part in parts for score in of_whole(part, name, kept, options.get("curve"))]
    assert found.tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    if name == "SensitivityN":
        assert found.isnan().tolist() == [place % group != 0 for place in range(8)]
    else:
        assert len(set(found.tolist())) > 1


def test_batch_sufficiency_is_sufficiency():
    """Quantus' own gives a batch the shape of an image, and fails."""
    found = [Quantus(name, {"threshold": 0.9}, group=8)(eight(0)) for name in ("BatchSufficiency", "Sufficiency")]
    (batch,), (whole,) = (scores.values() for scores in found)
    assert batch.tolist() == whole.tolist() and len(set(batch.tolist())) > 1


def test_the_score_of_a_group_stands_at_its_first_image_even_if_that_has_none():
    """Or else two states, whose maps lack a score at different images, would not be paired."""
    batch = eight(1)
    attribution = batch.attribution.clone()
    attribution[0] = 0
    sensitivity = Quantus("SensitivityN", {"features_in_step": 12}, group=4, curve="mean")
    (found,), (others,) = (
        sensitivity(some).values() for some in (replace(batch, attribution=attribution), select(batch, [1, 2, 3]))
    )
    assert found[0] == others[0] and found[1:4].isnan().all()


@pytest.mark.parametrize(("name", "arguments", "options"), GROUPS)
def test_maps_without_a_score_are_left_out_of_their_group(name, arguments, options):
    batch = eight(1)
    attribution = batch.attribution.clone()
    attribution[2] = 0
    attribution[3] = -attribution[3].abs()
    (found,) = Quantus(name, arguments, group=4, **options)(replace(batch, attribution=attribution)).values()
    (others,) = Quantus(name, arguments, group=4, **options)(select(batch, [0, 1])).values()
    assert found[:2].tolist() == pytest.approx(others.tolist(), nan_ok=True)
    assert found[2:4].isnan().all() and not found[[0, 4]].isnan().any()
    alone = replace(select(batch, [0, 2]), attribution=attribution[[0, 2]])
    assert Quantus(name, arguments, group=4, **options)(alone)[Quantus(name).column].isnan().all()


def test_focus_is_the_relevance_on_the_corners_of_the_class(batch):
    batch = select(batch, [0, 1, 2, 3, 0, 1, 2])  # whose classes are 0, 1, 2, 0, 0, 1, 2
    (found,) = Quantus("Focus", group=7)(batch).values()
    partners = [[0, 3, 1, 2], [1, 5, 2, 3], [2, 6, 3, 4], [3, 4, 5, 6], [4, 0, 5, 6], [5, 1, 6, 0], [6, 2, 0, 1]]
    corners = set()
    for image, four in enumerate(partners):
        scores = []
        for order in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist():
            if len(set(order)) == 4:
                tiles = [batch.image[four[place]] for place in order]
                mosaic = torch.cat([torch.cat(tiles[:2], 2), torch.cat(tiles[2:], 2)], 1)[None]
                input = batch.normalize(mosaic, torch.float64)
                relevance = gradient_times_input(batch.network, input, batch.target[image : image + 1]).sum(1)[0]
                relevance = relevance.clamp(min=0)
                side = len(relevance) // 2
                parts = [
                    relevance[:side, :side],
                    relevance[:side, side:],
                    relevance[side:, :side],
                    relevance[side:, side:],
                ]
                own = sum(part.sum() for part, place in zip(parts, order, strict=True) if place < 2)
                scores.append((abs(float(own / relevance.sum() - found[image])), tuple(order)))
        nearest, order = min(scores)
        assert nearest < 1e-7
        corners.add(order)
    assert len(corners) > 1  # not always the same
    assert Quantus("Focus", group=7)(batch)["quantus_focus"].tolist() == found.tolist()


def test_focus_needs_another_image_of_the_class_and_two_of_others(batch):
    (found,) = Quantus("Focus", group=4)(batch).values()  # of the classes 0, 1, 2, 0
    assert found.isnan().tolist() == [False, True, True, False]
    (found,) = Quantus("Focus", group=2)(select(batch, [0, 3, 1, 2])).values()
    assert found.isnan().all()


def test_focus_without_a_finite_map_is_nan(batch):
    """As of any further map."""
    broken = lambda input, *_: torch.where(torch.arange(len(input))[:, None, None, None] == 0, torch.nan, input)  # noqa: E731
    (found,) = Quantus("Focus", group=7)(replace(select(batch, [0, 1, 2, 3, 0, 1, 2]), explain=broken)).values()
    assert found.isnan().tolist() == [True] + [False] * 6


def test_focus_of_a_network_for_images_of_one_size_is_told(batch):
    def explain(*_):
        raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")

    told = r"^metric\.name: expected .* twice as high and wide, .* Focus .*, got: RuntimeError: mat1 and mat2 [^\n]*$"
    with pytest.raises(UserError, match=told):
        Quantus("Focus", group=4)(replace(batch, explain=explain))


def test_irof_of_colour_images_is_the_area_over_the_curve(batch):
    had = hasattr(np, "trapz")
    (found,) = Quantus("IROF")(batch).values()
    expected = []
    for input, relevance, target in zip(batch.input.numpy(), heatmap(batch.attribution), batch.target, strict=True):
        segments, x = slic(np.moveaxis(input, 0, -1), start_label=0), input.copy()

        def probability(x, target=target):
            return float(batch.network(torch.tensor(x)[None]).softmax(1)[0, target])

        means = [float(relevance.numpy()[segments == segment].mean()) for segment in range(segments.max() + 1)]
        values, start = [], probability(x)
        for segment in np.argsort(-np.array(means)):
            x = np.where(segments == segment, x.mean(), x)
            values.append(probability(x) / start)
        expected.append(len(values) - sum((a + b) / 2 for a, b in itertools.pairwise(values)))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert hasattr(np, "trapz") == had  # no trace is left


class Unpadded(nn.Module):
    """A network whose first layer may have no bias, and stands within another module."""

    def __init__(self, bias):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=bias), nn.ReLU(), nn.Conv2d(6, 3, 3))
        self.double().eval().requires_grad_(False)

    def forward(self, input):
        return self.features(input).mean((2, 3))


@pytest.mark.parametrize("bias", [True, False])
def test_input_invariance_tells_the_gradient_from_gradient_times_input(batch, bias):
    network, scores = Unpadded(bias), []
    for method in (gradient, gradient_times_input):
        maps = method(network, batch.input, batch.target)
        explain = lambda input, target, _, method=method: method(network, input, target)  # noqa: E731
        own = replace(batch, network=network, attribution=maps, explain=explain)
        scores.append(Quantus("InputInvariance")(own)["quantus_input_invariance"].tolist())
    assert scores == [[1.0] * 4, [0.0] * 4]
    assert (network.features[0].bias is not None) == bias


def gradient(model, inputs, targets):
    input = inputs.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(model(input).gather(1, targets[:, None]).sum(), input)[0]


@pytest.mark.parametrize("shift", [-1.0, 0.5])
def test_a_shifted_network_is_quantus_own_where_it_has_one(batch, shift):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)

        def forward(self, input):
            return self.second(self.first(input).relu()).mean((2, 3))

    from quantus.helpers.model.pytorch_model import PyTorchModel

    wrapper, input = PyTorchModel(First().eval(), channel_first=True), batch.input.float()
    theirs = wrapper.add_mean_shift_to_first_layer(shift, (1, *input.shape[1:]))
    mine = of_shifted(wrapper, shift, (1, *input.shape[1:]))
    with torch.no_grad():
        assert torch.allclose(mine(input + shift), wrapper.model(input), atol=1e-6)
        assert torch.allclose(mine(input), theirs(input), atol=1e-6)


def test_a_network_without_layers_to_shift_is_told(batch):
    with pytest.raises(
        UserError, match=r"^metric\.name: expected a network with a convolution or linear layer, got none"
    ):
        Quantus("InputInvariance")(replace(batch, network=Bright().eval()))


def test_all_metrics_of_several_images_are_tested():
    assert {name for name, *_ in GROUPS} | {"Focus"} == set(OF_SEVERAL_IMAGES)


def test_scores_of_groups_depend_neither_on_the_batch_size_nor_on_files_that_cannot_be_read(cli, tmp_path):
    """Of the 14 images, the first and the sixth cannot be read."""
    cell = [override for override in CELL if not override.startswith(("metric", "data.batch_size"))]
    sensitivity = ["metric=quantus", "metric.name=SensitivityN", "metric.quantus.group=4", "metric.quantus.curve=mean"]
    stored = []
    for size in (4, 12):
        options = [*sensitivity, "+metric.quantus.arguments.features_in_step=8", f"data.batch_size={size}"]
        done = cli(*cell, *options, f"study=of_{size}", PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / f"multirun/of_{size}").rglob("samples.parquet")
        stored.append(read_table(path).column("quantus_sensitivity_n").to_pylist())
    assert stored[0] == pytest.approx(stored[1])
    first_of_groups = [0, 3, 6, 10]  # of the images 1 2 3, 4 6 7, 8 9 10 11, 12 13
    assert [place for place, score in enumerate(stored[0]) if score is not None] == first_of_groups
    assert len({stored[0][place] for place in first_of_groups}) > 1


def test_networks_and_maps_of_these_tests_differ():
    assert Network().first.bias is not None and len(set(eight(0).network(eight(0).input).argmax(1).tolist())) == 2
