"""What holds for every metric that has a YAML: maps of any kind, images without an object, batches of any size."""

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from canonxai.assemble import build_metrics
from canonxai.batch_size import BatchSize
from canonxai.config import CONF, build
from canonxai.errors import UserError
from canonxai.models.normalization import Normalization
from tests.metrics.batches import explanation, of_map, select

NAMES = sorted(path.stem for path in (CONF / "metric").glob("*.yaml") if path.stem not in ("followup", "quantus"))
SIDE = 16
NO_OBJECT = {
    "energy_pointing_game", "localization", "localization_auc", "pointing_game", "relevance_mass_accuracy",
    "relevance_rank_accuracy", "top_k_intersection",
}  # fmt: skip
ZERO = {
    "complexity", "distance", "effective_complexity", "efficient_mprt", "energy_pointing_game",
    "faithfulness_correlation", "local_lipschitz", "localization", "parameter_randomization", "random_logit",
    "relevance_mass_accuracy", "sensitivity", "sparseness",
}  # fmt: skip
#: what is not defined, by kind of the map or of the object; all else is a number
UNDEFINED = {
    "random": set(),
    "one pixel": set(),
    "huge": set(),
    "tiny": set(),
    "negative": {"localization", "energy_pointing_game"},
    "constant": {"efficient_mprt", "faithfulness_correlation", "parameter_randomization"},
    "zero": ZERO,
    "no object": NO_OBJECT,
    "nothing but the object": {"localization_auc"},
}
KINDS = list(UNDEFINED)


class Network(nn.Module):
    """A convolution, in float64, that gets pixel values."""

    def __init__(self, classes=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Conv2d(4, 4, 3),
                nn.ReLU(),
                nn.Conv2d(4, classes, 3),
            )
        self.double().eval().requires_grad_(False)

    def forward(self, pixels):
        return self.layers(pixels.double() / 255).mean((2, 3))


def batch_of_kinds(classes=3):
    """One sample of each of ``KINDS``."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(len(KINDS), SIDE, SIDE, generator=generator, dtype=torch.float64)
    relevance, region = random.clone(), torch.zeros(len(KINDS), SIDE, SIDE, dtype=torch.bool)
    region[:, 3:9, 4:12] = True
    changes = {
        "one pixel": torch.eye(SIDE * SIDE)[40].view(SIDE, SIDE), "huge": 1e200 * random[0], "tiny": 1e-200 * random[0],
        "negative": -random[0].abs() - 1, "constant": torch.tensor(0.3), "zero": torch.tensor(0.0),
    }  # fmt: skip
    for kind, value in changes.items():
        relevance[KINDS.index(kind)] = value
    region[KINDS.index("no object")] = False
    region[KINDS.index("nothing but the object")] = True
    network = Network(classes)
    image = torch.randint(0, 256, (len(KINDS), 3, SIDE, SIDE), generator=generator).to(torch.uint8)

    def explain(input, target, sample_id):
        """A map of the sample's scale that depends on all that it may: input, target, and the network's parameters."""
        scale = relevance.abs().amax((1, 2))[sample_id - 100]
        bias = sum(parameter.sum() for parameter in network.parameters())
        maps = input * (1 + target.double().view(-1, 1, 1, 1)) + bias * torch.arange(SIDE).double().sin()
        return scale.view(-1, 1, 1, 1) * maps

    return explanation(
        of_map(relevance),
        sample_id=torch.arange(len(KINDS)) + 100,
        original=of_map(random.roll(1, 0)),
        image=image,
        target=torch.arange(len(KINDS)) % classes,
        box=region,
        mask=region,
        logits=network(image),
        predict=network,
        normalize=Normalization([0.5] * 3, [0.25] * 3),
        explain=explain,
        network=network,
        seed=3,
    )


def built(name, **arguments):
    """The metric with the parameters of its YAML, but for some."""
    node = OmegaConf.load(CONF / "metric" / f"{name}.yaml")[name]
    return build(OmegaConf.merge(node, arguments), f"metric.{name}")


@pytest.fixture
def metric(name):
    """The metric with the parameters of its YAML, but cheap."""
    small = {"region_size": 2, "steps": 2, "subsets": 20, "fraction": 0.25, "samples": 2, "draws": 3}
    node = OmegaConf.load(CONF / "metric" / f"{name}.yaml")[name]
    return built(name, **{key: value for key, value in small.items() if key in node})


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
def test_results_of_a_sample_depend_neither_on_the_others_nor_on_the_batch_size(metric, name):
    batch = batch_of_kinds()
    expected = metric(batch)
    for chosen, batch_size in [([2], 1), ([7, 0, 3], 5), (list(range(len(KINDS))), 1000)]:
        values = metric(replace(select(batch, chosen), batch_size=BatchSize(batch_size)))
        for column, value in values.items():
            torch.testing.assert_close(value, expected[column][chosen], rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_one_class_has_no_other_and_all_else_is_defined(metric, name):
    batch = select(batch_of_kinds(classes=1), [0])
    assert all(bool(value.isnan().all()) == (name == "random_logit") for value in metric(batch).values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["sensitivity", "local_lipschitz", "random_logit", "parameter_randomization", "efficient_mprt"]
)
def test_a_further_map_that_is_not_finite_makes_the_value_undefined(metric, name, value):
    """That of the image itself stops the run, but a random network may well have such a map."""
    batch = select(batch_of_kinds(), [0, 1])
    broken = batch.attribution.clone()
    broken[0, 0, 4, 4] = value
    values = metric(replace(batch, explain=lambda *_: broken))
    assert all(bool(one[0].isnan().all()) for one in values.values())
    assert all(one[1].isfinite().all() for one in values.values())


@pytest.mark.parametrize("name", NAMES)
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
        "infidelity.replacement=white", "insertion_deletion.steps=0", "insertion_deletion.deletion=inpaint",
        "insertion_deletion.insertion=white", "input_perturbation.replacement=white", "region_perturbation.fraction=2",
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
