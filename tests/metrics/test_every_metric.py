"""What holds for every metric that has a YAML: maps of any kind, images without an object, batches of any size."""

import json
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from canonxai.assemble import build_metrics
from canonxai.attribution import Method
from canonxai.attribution.random_map import RandomMap
from canonxai.batch_size import BatchSize
from canonxai.config import CONF
from canonxai.errors import UserError
from canonxai.explainer import Explainer
from canonxai.metrics.replacement import REPLACEMENTS
from canonxai.report.reliability import FIXED
from canonxai.results.store import Store, sample_schema
from canonxai.results.summary import summarize
from tests.metrics.batches import METRICS, built, select, unexpected
from tests.metrics.unusual import KINDS, NO_OBJECT, ONE_CLASS, SIDE, UNDEFINED, Network, batch_of_kinds


@pytest.fixture
def metric(name):
    """The metric with the parameters of its YAML, but cheap."""
    small = {"region_size": 2, "steps": 2, "subsets": 20, "fraction": 0.25, "samples": 2, "draws": 3}
    node = OmegaConf.load(CONF / "metric" / f"{name}.yaml")[name]
    return built(name, **{key: value for key, value in small.items() if key in node})


@pytest.mark.parametrize("name", METRICS)
def test_a_value_is_defined_or_not_as_documented(metric, name):
    values = metric(batch_of_kinds())
    assert values.keys() == metric.columns.keys()
    for column, value in values.items():
        described = metric.columns[column]
        assert value.shape == (len(KINDS), len(described.axis)) if described.kind == "curve" else (len(KINDS),)
        for kind, one in zip(KINDS, value, strict=True):
            assert bool(one.isnan().all() if name in UNDEFINED[kind] else one.isfinite().all()), (column, kind)
        if described.kind == "number" and any(name in undefined for undefined in UNDEFINED.values()):
            assert "null" in described.description, column


@pytest.mark.parametrize("name", METRICS)
def test_results_of_a_sample_depend_neither_on_the_others_nor_on_the_batch_size(metric, name):
    batch = batch_of_kinds()
    expected = metric(batch)
    for chosen, batch_size in [([2], 1), ([7, 0, 3], 5), (list(range(len(KINDS))), 1000)]:
        values = metric(replace(select(batch, chosen), batch_size=BatchSize(batch_size)))
        for column, value in values.items():
            torch.testing.assert_close(value, expected[column][chosen], rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("power", [-990, 990])
@pytest.mark.parametrize("name", METRICS)
def test_a_maps_scale_changes_nothing(metric, name, power):
    batch = select(batch_of_kinds(), [KINDS.index(kind) for kind in ("random", "one pixel", "zero")])
    changed = replace(
        batch, attribution=batch.attribution * 2.0**power, original=batch.original * 2.0**power,
        explain=lambda *query: batch.explain(*query) * 2.0**power,
    )  # fmt: skip
    expected = metric(batch)
    for column, value in metric(changed).items():
        torch.testing.assert_close(value, expected[column], rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize(("dtype", "power"), [(torch.float64, 990), (torch.float32, 100)])
@pytest.mark.parametrize("name", ["relevance_mass_accuracy", "relevance_rank_accuracy"])
def test_the_scale_of_a_map_whose_channels_are_squared_changes_nothing(name, dtype, power):
    batch = select(batch_of_kinds(), [KINDS.index(kind) for kind in ("random", "one pixel", "zero")])
    values = [
        built(name, pooling="l2_squared")(replace(batch, attribution=(batch.attribution * factor).to(dtype)))[name]
        for factor in (1, 2.0**power, 2.0**-power)
    ]
    assert all(torch.equal(value.nan_to_num(-1), values[0].nan_to_num(-1)) for value in values)


@pytest.mark.parametrize("name", METRICS)
def test_a_network_of_one_class_has_no_other_and_all_else_is_defined(metric, name):
    batch = select(batch_of_kinds(classes=1), [0])
    assert all(bool(value.isnan().all()) == (name in ONE_CLASS) for value in metric(batch).values())


EXPLAINING = ["sensitivity", "local_lipschitz", "random_logit", "parameter_randomization", "efficient_mprt"]


class Broken(Method):
    """Maps of which those from the ``first`` call on are changed."""

    def __init__(self, change, first=0):
        self.change, self.first, self.calls = change, first, 0

    def __call__(self, query, canonizers=()):
        self.calls += 1
        maps = query.input.clone()
        return maps if self.calls <= self.first else self.change(maps)

    def attributor(self, query, composite):
        unexpected("attributor")()


def one_value(value):
    def change(maps):
        maps[1, 0, 4, 4] = value
        return maps

    return change


def explained(metric, method, **arguments):
    """A batch, from image to columns, as in a run."""
    batch = batch_of_kinds()
    dataset = {"image": batch.image, "label": batch.target, "sample_id": batch.sample_id, "place": batch.place}
    explainer = Explainer(Classifier(), batch.normalize, method, {"metric": metric}, verify=1, **arguments)
    return explainer.predict_step({**dataset, "box": batch.box, "mask": batch.mask}, 0)["columns"]


class Classifier(Network):
    """One of the network's input, not of pixel values."""

    def forward(self, input):
        return self.layers(input).mean((2, 3))


NOT_FINITE = r"^method: expected finite relevance, got NaN or infinity for sample 101\. Raise method\.epsilon"
SHAPE = rf"\(9, channels, {SIDE}, {SIDE}\)"
BAD = {
    "nan": (one_value(torch.nan), NOT_FINITE),
    "inf": (one_value(torch.inf), NOT_FINITE),
    "-inf": (one_value(-torch.inf), NOT_FINITE),
    "no channels": (lambda maps: maps.sum(1), rf"^method: expected a float tensor of shape {SHAPE}, as the images"),
    "zero channels": (lambda maps: maps[:, :0], rf"got torch\.float64 of shape \(9, 0, {SIDE}, {SIDE}\)\.$"),
    "sparse": (
        lambda maps: maps.to_sparse(),
        r"^method: .*\), torch\.sparse_coo on cpu instead of torch\.strided on cpu\.$",
    ),
    "meta": (
        lambda maps: maps.to("meta"),
        r"^method: .*\), torch\.strided on meta instead of torch\.strided on cpu\.$",
    ),
    "smaller": (lambda maps: maps[..., ::2, ::2], r"as the images .*, got torch\.float64 of shape \(9, 3, 8, 8\)\.$"),
    "one pixel": (lambda maps: maps[..., :1, :1], r"got torch\.float64 of shape \(9, 3, 1, 1\)\.$"),
    "too few": (lambda maps: maps[:1], rf"got torch\.float64 of shape \(1, 3, {SIDE}, {SIDE}\)\.$"),
    "nothing": (lambda maps: None, r"^method: expected a float tensor .*, got None\.$"),
    "an array": (lambda maps: maps.numpy(), r"^method: expected a float tensor .*, got ndarray\.$"),
    "integers": (lambda maps: maps.long(), r"^method: expected a float tensor .*, got torch\.int64 of shape"),
    "complex": (lambda maps: maps.cfloat(), r"^method: expected a float tensor .*, got torch\.complex64 of shape"),
    "booleans": (lambda maps: maps > 0, r"^method: expected a float tensor .*, got torch\.bool of shape"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", METRICS)
def test_a_map_of_another_shape_or_that_is_not_finite_reaches_no_metric(metric, name, kind):
    change, message = BAD[kind]
    assert explained(metric, Broken(None, first=10**6)).keys() >= metric.columns.keys()
    with pytest.raises(UserError, match=message):
        explained(metric, Broken(change))
    if message == NOT_FINITE:
        batch = batch_of_kinds()
        with pytest.raises(UserError, match=message):
            replace(batch, attribution=change(batch.attribution.clone()))


def test_the_message_of_a_map_that_is_not_finite_begins_with_the_methods_name():
    with pytest.raises(UserError, match=r"^method=broken: expected finite relevance"):
        explained(built("localization"), Broken(one_value(torch.nan)), name="method=broken")


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"distance"}))
def test_what_is_fixed_for_random_maps_has_no_floor(metric, name):
    """Not so of the distance, which has no direction; few images may be equal to metrics that count."""
    columns = explained(metric, RandomMap())
    numbers = [column for column, described in metric.columns.items() if described.kind == "number"]
    of_objects = slice(0, 7)  # those images that have one, but no whole one
    fixed = {column for column in numbers if len(set(columns[column][of_objects].tolist())) == 1}
    assert fixed - {"effective_complexity", "sufficiency"} == set(numbers) & set(FIXED)


@pytest.mark.parametrize("name", METRICS)
def test_a_map_whose_sum_over_channels_no_float_holds_is_undefined(metric, name, tmp_path):
    def change(maps):
        maps[1, :, 4, 4] = torch.finfo(maps.dtype).max
        return maps

    expected, columns = explained(metric, Broken(None, first=10**6)), explained(metric, Broken(change, first=0))
    for column in metric.columns:
        assert columns[column][1].isnan().all()
        torch.testing.assert_close(columns[column][2:], expected[column][2:], rtol=1e-9, atol=0, equal_nan=True)
    store = Store(tmp_path, sample_schema(metric.columns))
    store.write(0, columns)
    store.finish()
    summary = summarize(store, metric.columns)
    assert summary["relevance"]["undefined"] == 1
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_infidelity_takes_maps_of_pixels_and_tells_channels_that_the_input_has_not():
    pixels = explained(built("infidelity"), Broken(lambda maps: maps.sum(1, keepdim=True)))["infidelity"]
    repeated = explained(built("infidelity"), Broken(lambda maps: maps.sum(1, keepdim=True).expand(-1, 3, -1, -1)))
    torch.testing.assert_close(pixels, repeated["infidelity"])
    with pytest.raises(UserError, match=r"^metric\.infidelity: expected maps of 1 channel or the 3 of .*, got 6\.$"):
        explained(built("infidelity"), Broken(lambda maps: maps.repeat(1, 2, 1, 1)))


@pytest.mark.parametrize("name", EXPLAINING)
def test_a_further_map_of_another_shape_stops_the_run(metric, name):
    with pytest.raises(UserError, match=r"^method: expected a float tensor .* of shape \(9, 3, 1, 1\)"):
        explained(metric, Broken(lambda maps: maps[..., :1, :1], first=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", METRICS)
def test_maps_of_another_precision_are_converted_to_that_of_the_run(metric, name, dtype):
    columns = explained(metric, Broken(lambda maps: maps.to(dtype)))
    expected = explained(metric, Broken(lambda maps: maps.to(dtype).double()))
    for column in metric.columns:
        torch.testing.assert_close(columns[column], expected[column], rtol=0, atol=0, equal_nan=True)


def test_an_original_map_that_is_not_finite_makes_the_distance_undefined():
    batch = batch_of_kinds()
    original = batch.attribution.clone()
    original[:2, 0, 4, 4] = torch.tensor([torch.nan, torch.inf])
    values = built("distance")(replace(batch, original=original))["distance"]
    assert values[:3].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", EXPLAINING)
def test_a_further_map_that_is_not_finite_makes_the_value_undefined(metric, name, value):
    """That of the image itself stops the run, but a random network may well have such a map."""
    batch = select(batch_of_kinds(), [0, 1])
    broken = batch.attribution.clone()
    broken[0, 0, 4, 4] = value
    values = metric(replace(batch, explain=lambda *_: broken))
    assert all(bool(one[0].isnan().all()) for one in values.values())
    assert all(one[1].isfinite().all() for one in values.values())


@pytest.mark.parametrize("name", METRICS)
def test_the_network_is_left_as_it_was(metric, name):
    batch = batch_of_kinds()
    before = {key: (id(value), value.clone()) for key, value in batch.network.state_dict(keep_vars=True).items()}
    with torch.random.fork_rng():
        torch.manual_seed(99)  # a state that no metric could leave behind by itself
        state = torch.get_rng_state()
        metric(batch)
        assert torch.equal(torch.get_rng_state(), state)
    after = batch.network.state_dict(keep_vars=True)
    assert all(id(after[key]) == place and torch.equal(after[key], value) for key, (place, value) in before.items())


@pytest.mark.parametrize("name", sorted(NO_OBJECT))
def test_a_region_that_does_not_exist_is_told(name):
    with pytest.raises(UserError, match=rf"^metric\.{name}\.region: expected one of box, mask, got 'boxes'\."):
        built(name, region="boxes")


@pytest.mark.parametrize(
    "override",
    [
        "pointing_game.tolerance=-1", "top_k_intersection.fraction=0", "relevance_mass_accuracy.pooling=sum",
        "relevance_rank_accuracy.pooling=sum", "effective_complexity.threshold=1", "faithfulness_correlation.subsets=1",
        "faithfulness_correlation.fraction=1", "faithfulness_correlation.output=softmax",
        "faithfulness_correlation.replacement=white", "infidelity.region_size=0", "infidelity.output=softmax",
        "infidelity.replacement=white", "insertion_deletion.steps=0", "insertion_deletion.deletion=white",
        "insertion_deletion.insertion=inpaint", "input_perturbation.replacement=white",
        "region_perturbation.fraction=2",
        "road.steps=0", "road.fraction=0", "sensitivity.samples=0", "sensitivity.radius=0", "local_lipschitz.samples=0",
        "local_lipschitz.noise=0", "sufficiency.draws=0", "sufficiency.fraction=0", "random_logit.similarity=l2",
        "parameter_randomization.steps=0", "parameter_randomization.similarity=l2", "efficient_mprt.bins=1",
    ],
)  # fmt: skip
def test_an_argument_out_of_its_range_is_told_by_name(override):
    place, value = override.split("=")
    name, argument = place.split(".")
    with pytest.raises(UserError, match=rf"^metric\.{name}\.{argument}: expected .*, got "):
        built(name, **{argument: value})


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_deletion_takes_every_replacement(replacement):
    batch = batch_of_kinds()
    same = {"steps": 4, "fraction": 1.0, "output": "logit", "replacement": replacement}
    expected = built("input_perturbation", **same)(batch)["perturbation_curve"]
    found = built("insertion_deletion", steps=4, output="logit", deletion=replacement)(batch)["deletion_curve"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_network_with_fewer_layers_than_steps_is_told():
    metric = built("parameter_randomization")
    with pytest.raises(
        UserError, match=r"parameter_randomization\.steps: expected at most the network's 4 layers, got 5"
    ):
        metric(batch_of_kinds())


def test_a_square_larger_than_the_image_is_told():
    metric = built("infidelity", region_size=17)
    with pytest.raises(
        UserError, match=r"infidelity\.region_size: expected at most the image's shorter side, 16, got 17"
    ):
        metric(batch_of_kinds())


def test_the_followup_studys_metrics_have_its_parameters(config):
    metrics = build_metrics(config("metric=followup"))
    assert list(metrics) == [
        "sparseness", "faithfulness_correlation", "relevance_rank_accuracy", "relevance_mass_accuracy", "sensitivity",
        "random_logit",
    ]  # fmt: skip
    assert (metrics["sensitivity"].samples, metrics["sensitivity"].normalize) == (10, True)
    assert (
        build_metrics(config("metric=[followup,localization]", "metric.sensitivity.samples=3"))["sensitivity"].samples
        == 3
    )
