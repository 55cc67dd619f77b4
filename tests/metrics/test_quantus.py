"""The adapter against Quantus called directly, and what it refuses."""

import builtins
import random as python_random
from dataclasses import replace

import numpy as np
import pytest
import quantus
import torch
from pyarrow.parquet import read_table
from torch import nn

from canonxai import random
from canonxai.assemble import build_metrics
from canonxai.batch_size import BatchSize
from canonxai.errors import UserError
from canonxai.metrics.base import heatmap
from canonxai.metrics.quantus import OF_SEVERAL_IMAGES, Quantus
from canonxai.random import Stream
from canonxai.report.reliability import FIXED
from tests.conftest import ROOT
from tests.metrics.batches import select
from tests.metrics.colour_images import SIDE, Network, colour_images, gradient_times_input
from tests.tiny import CELL

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = [override for override in CELL if not override.startswith("metric")]


@pytest.fixture
def batch():
    return colour_images()


def directly(metric, batch, region="box", curve=None, **options):
    """Quantus as its documentation shows it, one image after the other, seeded as documented."""
    sample = batch.sample_id
    seeds = random.below(batch.seed, Stream.QUANTUS, sample, torch.full_like(sample, 2**31)).tolist()

    def explain(model, inputs, targets, **_):
        targets = torch.as_tensor(targets).reshape(-1).expand(len(inputs))
        maps = gradient_times_input(model, torch.as_tensor(inputs).double(), targets)
        return maps.sum(1, keepdim=True).numpy()

    class Float32(Network):  # which takes inputs in the precision that Quantus gives it
        def forward(self, input):
            return super().forward(input.double())

    values = []
    for place, seed in enumerate(seeds):
        one = slice(place, place + 1)
        np.random.seed(seed)
        python_random.seed(seed)
        torch.manual_seed(seed)
        scores = metric(seed)(
            model=Float32().eval(), x_batch=batch.input[one].numpy(), y_batch=batch.target[one].numpy(),
            a_batch=batch.attribution[one].sum(1, keepdim=True).numpy(),
            s_batch=getattr(batch, region)[one, None].numpy(), explain_func=explain, channel_first=True,
            **options,
        )  # fmt: skip
        scores = [*scores.values()] if isinstance(scores, dict) else scores
        values.append(np.mean(scores) if curve == "mean" else float(np.squeeze(scores)))
    return values


#: metric, its arguments, and what is given to the adapter besides
CASES = [
    ("Complexity", {}, {}),
    ("Sparseness", {"abs": True}, {}),
    ("EffectiveComplexity", {"eps": 0.1}, {}),
    ("FaithfulnessCorrelation", {"nr_runs": 5, "subset_size": 20, "return_aggregate": False}, {}),
    ("FaithfulnessEstimate", {"features_in_step": 12}, {}),
    ("MonotonicityCorrelation", {"nr_samples": 3, "features_in_step": 48}, {}),
    ("Monotonicity", {"features_in_step": 12}, {}),
    ("Infidelity", {"perturb_patch_sizes": [4], "n_perturb_samples": 2, "perturb_baseline": "uniform"}, {}),
    ("PixelFlipping", {"features_in_step": 12}, {"curve": "mean"}),
    ("PixelFlipping", {"features_in_step": 12}, {"curve": "mean", "softmax": False}),
    ("Selectivity", {"patch_size": 4}, {"curve": "mean"}),
    ("RegionPerturbation", {"patch_size": 4, "regions_evaluation": 5}, {"curve": "mean"}),
    ("AttributionLocalisation", {}, {}),
    ("AttributionLocalisation", {}, {"region": "mask"}),
    ("AUC", {}, {}),
    ("PointingGame", {}, {}),
    ("RelevanceMassAccuracy", {}, {}),
    ("RelevanceRankAccuracy", {"abs": True}, {}),
    ("TopKIntersection", {"k": 20}, {"region": "mask"}),
    ("MaxSensitivity", {"nr_samples": 3}, {}),
    ("AvgSensitivity", {"nr_samples": 3}, {}),
    ("LocalLipschitzEstimate", {"nr_samples": 3}, {}),
    ("RelativeInputStability", {"nr_samples": 3}, {}),
    ("RelativeOutputStability", {"nr_samples": 3}, {}),
    ("RelativeRepresentationStability", {"nr_samples": 3}, {}),
    ("RandomLogit", {"similarity_func": "correlation_spearman"}, {}),
    ("MPRT", {"similarity_func": "correlation_spearman", "return_average_correlation": True}, {}),
    ("MPRT", {"similarity_func": "correlation_spearman"}, {"curve": "mean"}),
    ("SmoothMPRT", {"nr_samples": 2, "similarity_func": "correlation_spearman", "return_last_correlation": True}, {}),
    ("EfficientMPRT", {}, {}),
    ("Completeness", {}, {}),
    ("NonSensitivity", {}, {}),
    ("Continuity", {"nr_steps": 4}, {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CASES)
def test_scores_are_those_of_quantus_itself(batch, name, arguments, options):
    given = {key: value for key, value in arguments.items() if key != "return_aggregate"}
    metric = Quantus(name, given, **options)
    kind, extra = getattr(quantus, name), {}
    if "similarity_func" in arguments:
        extra["similarity_func"] = getattr(quantus.similarity_func, arguments["similarity_func"])

    def make(seed):
        own = {"seed": seed} if name in ("RandomLogit", "MPRT", "SmoothMPRT", "EfficientMPRT") else {}
        classes = {"num_classes": 3} if name == "RandomLogit" else {}
        return kind(**{**own, **classes, **arguments, **extra})

    expected = directly(make, batch, **options)
    (values,) = metric(batch).values()
    assert values.tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert np.isfinite(expected).all()
    assert list(metric.columns) == [metric.column]
    if name != "RegionPerturbation":
        assert metric.columns[metric.column].higher_is_better == (kind.score_direction.value == "higher")


def test_directions_that_quantus_has_upside_down():
    """A map that is better by definition scores higher, or lower, than its opposite."""
    batch, directions = colour_images(), {}
    opposite = replace(batch, attribution=-batch.attribution)
    for order in ("morf", "lerf"):
        metric = Quantus("RegionPerturbation", {"patch_size": 4, "regions_evaluation": 5, "order": order}, curve="mean")
        good, bad = (metric(either)[metric.column].mean() for either in (batch, opposite))
        directions[order] = metric.columns[metric.column].higher_is_better
        assert (good > bad) == directions[order]
    assert directions == {"morf": True, "lerf": False}
    (random_order,) = Quantus("RegionPerturbation", {"order": "random"}, curve="mean").columns.values()
    assert random_order.higher_is_better is None
    assert [Quantus(name).higher_is_better for name in ("Consistency", "Sufficiency", "ROAD")] == [True, True, False]


def test_continuity_of_predictions_that_change_is_nan(batch):
    """By a name that NumPy 2 has no more."""
    metric = Quantus("Continuity", {"nr_steps": 4, "return_nan_when_prediction_changes": True})
    assert metric(replace(batch, target=(batch.logits.argmax(1) + 1) % 3))[metric.column].isnan().all()
    assert not hasattr(np, "NaN") or np.__version__ < "2"


class Brightness(nn.Module):
    """Whether an image is brighter than grey, in float64."""

    def forward(self, input):
        mean = input.double().mean((1, 2, 3))
        return torch.stack([mean, torch.full_like(mean, 0.5)], 1)


def test_road_removes_whole_pixels_of_colour_images(batch):
    network = Brightness().eval()
    colour = replace(batch, network=network, logits=network(batch.input), target=network(batch.input).argmax(1))
    percentages = [10, 30, 50, 70, 90, 99]
    expected = []
    for image, relevance, target in zip(colour.input.numpy(), heatmap(colour.attribution), colour.target, strict=True):
        order = relevance.flatten().argsort(descending=True).numpy()
        counts = [-(-(3 * SIDE**2 * percentage // 100) // 3) for percentage in percentages]
        images = [quantus.perturb_func.noisy_linear_imputation(image, np.sort(order[:n]), noise=0.0) for n in counts]
        expected.append(float((network(torch.tensor(np.stack(images))).argmax(1) == target).double().mean()))
    metric = Quantus("ROAD", {"percentages": percentages, "noise": 0.0}, curve="mean")
    assert metric(colour)["quantus_road"].tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Complexity", {}),
        ("FaithfulnessCorrelation", {"nr_runs": 5, "subset_size": 20}),
        ("MaxSensitivity", {"nr_samples": 2}),
        ("RandomLogit", {"similarity_func": "correlation_spearman"}),
        ("EfficientMPRT", {}),
    ],
)
def test_a_score_depends_on_its_image_alone_and_all_is_left_as_it_was(batch, name, arguments):
    metric = Quantus(name, arguments)
    before = {key: (id(value), value.clone()) for key, value in batch.network.state_dict(keep_vars=True).items()}
    np.random.seed(1)
    states = np.random.get_state()[1].copy(), python_random.getstate(), torch.get_rng_state()
    expected = metric(batch)[metric.column]
    again = metric(replace(select(batch, [2, 0]), batch_size=BatchSize(1)))[metric.column]
    assert again.tolist() == expected[[2, 0]].tolist()
    assert len(set(expected.tolist())) > 1
    after = np.random.get_state()[1], python_random.getstate(), torch.get_rng_state()
    assert (states[0] == after[0]).all() and states[1] == after[1] and torch.equal(states[2], after[2])
    held = batch.network.state_dict(keep_vars=True)
    assert all(id(held[key]) == place and torch.equal(held[key], value) for key, (place, value) in before.items())
    assert not batch.network._forward_pre_hooks


def test_torch_s_generator_begins_at_the_seed(batch):
    metric = Quantus("SmoothMPRT", {"nr_samples": 2, "similarity_func": "correlation_spearman"}, curve="mean")
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(metric(batch)[metric.column].tolist())
    assert scores[0] == scores[1]


def test_other_seeds_give_other_draws(batch):
    metric = Quantus("FaithfulnessCorrelation", {"nr_runs": 5, "subset_size": 20})
    first, second = (metric(replace(batch, seed=seed))[metric.column] for seed in (3, 4))
    assert (first != second).all()


def test_what_is_fixed_for_random_maps_has_no_floor_in_the_report(batch):
    """A random map is the same for other inputs, classes and networks."""
    kinds = {name: kind for name, kind in vars(quantus.metrics).items() if hasattr(kind, "score_direction")}
    fixed = {Quantus("InputInvariance").column} | {
        Quantus(name).column
        for name, kind in kinds.items()
        if kind.evaluation_category.value in ("Robustness", "Randomisation") and name not in OF_SEVERAL_IMAGES
    }
    assert fixed == {name for name in FIXED if name.startswith("quantus_")}
    random_maps = replace(batch, explain=lambda *query: batch.attribution[torch.isin(batch.sample_id, query[2])])
    cases = (("MaxSensitivity", True), ("RandomLogit", True), ("InputInvariance", True), ("Sparseness", False))
    for name, is_fixed in cases:
        (values,) = Quantus(name)(random_maps).values()
        assert (len(set(values.round(decimals=9).tolist())) == 1) == is_fixed


def test_what_is_not_defined_is_nan(batch):
    attribution, box = batch.attribution.clone(), batch.box.clone()
    attribution[0], attribution[1], box[2] = 0, -1 - attribution[1].abs(), False
    odd = replace(batch, attribution=attribution, box=box)
    assert Quantus("Complexity")(odd)["quantus_complexity"].isnan().tolist() == [True, True, False, False]
    assert Quantus("PointingGame")(odd)["quantus_pointing_game"].isnan().tolist() == [True, True, True, False]
    broken = replace(batch, explain=lambda input, *_: torch.full_like(input, torch.nan))
    assert Quantus("MaxSensitivity", {"nr_samples": 1})(broken)["quantus_max_sensitivity"].isnan().all()


@pytest.mark.parametrize(
    ("name", "arguments", "options", "told"),
    [
        (None, {}, {}, r"^metric\.name: expected .*, one of AUC, .*TopKIntersection, got None"),
        ("Complexty", {}, {}, r"^metric\.name: expected .*, perhaps Complexity.*, got 'Complexty'"),
        ("Metric", {}, {}, r"^metric\.name: expected .*, .*, got 'Metric'"),
        ("Sufficiency", {}, {"group": 1}, r"^metric\.quantus\.group: expected an integer >= 2, got 1"),
        ("ROAD", {"percentage": [1]}, {}, r"quantus\.arguments: expected one of percentages, .*'percentage'"),
        ("ROAD", {"return_aggregate": True}, {}, r"quantus\.arguments: expected one of .*'return_aggregate'"),
        ("MPRT", {"similarity_func": "corelation_spearman"}, {}, r"similarity_func: .*, perhaps correlation_spearman"),
        ("MPRT", {"similarity_func": "os.system"}, {}, r"arguments\.similarity_func: expected .*, got 'os\.system'"),
        ("MPRT", {"layer_order": "sideways"}, {}, r"quantus\.arguments: MPRT .* not take .*sideways"),
        ("AUC", {}, {"region": "circle"}, r"metric\.quantus\.region: expected one of box, mask, got 'circle'"),
        ("AUC", {}, {"curve": "max"}, r"metric\.quantus\.curve: expected one of None, mean, got 'max'"),
    ],
)  # fmt: skip
def test_mistakes_are_told(name, arguments, options, told):
    with pytest.raises(UserError, match=told) as error:
        Quantus(name, arguments, **options)
    assert "\n" not in str(error.value)


def test_several_numbers_an_image_are_refused(batch):
    metric = Quantus("PixelFlipping", {"features_in_step": 12})
    told = r"^metric\.name: expected .* one number .*, got 'PixelFlipping, which gives 36'\. .*curve=mean.*return_auc"
    with pytest.raises(UserError, match=told):
        metric(batch)


def test_what_are_no_numbers_is_refused_even_as_a_curve():
    metric = Quantus("MPRT", curve="mean")
    for scores in ({"x": [1.0], "y": [1.0, 2.0]}, [{"x": [1.0]}], []):
        with pytest.raises(UserError, match=r"^metric\.name: .* got 'MPRT, which gives no list of numbers'"):
            metric._numbers(scores, 1)


def test_a_failure_names_sample_and_metric(batch):
    told = r"^metric\.quantus: FaithfulnessEstimate of Quantus failed for sample 5: \w+Error: [^\n]*$"
    with pytest.raises(UserError, match=told):
        Quantus("FaithfulnessEstimate", {"features_in_step": 7})(batch)


def test_quantus_not_installed_is_told_in_a_line(monkeypatch):
    load = builtins.__import__

    def without(name, *rest):
        if name == "quantus":
            raise ImportError("No module named 'quantus'")
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"^metric\.quantus: .*pip install 'canonxai\[quantus\]'$"):
        Quantus("Complexity")


def test_the_name_stands_where_the_command_line_says_it(config):
    metrics = build_metrics(config("metric=[localization,quantus]", "metric.name=MaxSensitivity",
                                   "+metric.quantus.arguments.nr_samples=3"))  # fmt: skip
    assert list(metrics) == ["localization", "quantus"]
    assert (metrics["quantus"].name, metrics["quantus"].arguments) == ("MaxSensitivity", {"nr_samples": 3})


def test_a_cell_stores_what_quantus_gives_and_the_report_pairs_it(cli, tmp_path):
    cell = [*TINY, "metric=[localization,quantus]", "metric.name=Complexity"]
    done = cli("-m", *cell, "canonize=true,false", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "multirun/default/report/comparison.parquet").to_pylist()
    (row,) = (row for row in rows if row["metric"] == "quantus_complexity" and row["stratum"] == "all")
    assert not row["higher_is_better"] and row["images"] == 12 and row["effect"] == "equal"  # of I x G
    done = cli(*cell, "canonize=true", PYTHONPATH=str(ROOT))
    assert "complete before" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["metric=quantus"], "metric.name: expected a metric of Quantus, one of AUC, "),
        (["metric=quantus", "metric.name=Sparsenes"], "metric.name: expected a metric of Quantus, perhaps Sparseness"),
        (["metric=localization", "metric.name=Sparseness"], "metric.name: Key 'name'"),
        (
            ["metric=quantus", "metric.name=Focus", "data.batch_size=8"],
            "data.batch_size: expected a multiple of metric.quantus.group=16, got 8",
        ),
    ],
)
def test_a_wrong_name_is_told_in_a_line(cli, overrides, told):
    done = cli(*TINY, *overrides, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr
