import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from zennit.core import Composite

from canonxai.attribution import Query
from canonxai.attribution.lrp import LRPEpsilon
from canonxai.canonizers import GraphCanonizer, rewrites
from canonxai.canonizers.graph.affine import is_batch_norm
from canonxai.canonizers.graph.trace import trace
from canonxai.models.snapshot import restored
from tests.canonizers.graph.networks import (
    FUNCTIONAL,
    LEFT,
    LEFT_ALONE,
    PREACTIVATION,
    RIGHT,
    SHARED,
    SPLIT,
    Network,
    built,
    conv,
    hooked,
)
from tests.networks import difference, untouched

MERGED = {
    f"{group}, {name}": build
    for group, builders in {
        "left": LEFT, "functional": FUNCTIONAL, "right": RIGHT, "preactivation": PREACTIVATION, "split": SPLIT,
        "shared": SHARED,
    }.items()
    for name, build in builders.items()
}  # fmt: skip
both = pytest.mark.parametrize("preactivation", ["threshold", "untangle"])


def output_and_gradient(model: nn.Module, input: Tensor) -> tuple[Tensor, Tensor]:
    input = input.clone().requires_grad_()
    output = model(input)
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return output, torch.autograd.grad((output * weight).sum(), input)[0]


def on_the_path(model: nn.Module) -> list[str]:
    """The BatchNorms that the forward pass calls."""
    nodes = [node for node in trace(model).nodes if node.op == "call_module"]
    return [node.target for node in nodes if is_batch_norm(model.get_submodule(node.target))]


@both
@pytest.mark.parametrize("name", MERGED)
def test_no_batch_norm_is_left_and_outputs_and_gradients_are_the_same(name, preactivation):
    model, input = built(MERGED[name])
    output, gradient = output_and_gradient(model, input)
    canonizer = GraphCanonizer(["merge_bn"], preactivation)
    with untouched(model, input):
        for _ in range(2):
            with Composite(canonizers=[canonizer]).context(model):
                assert on_the_path(model) == []
                canonized, canonized_gradient = output_and_gradient(model, input)
                other = input[..., :-1, :-1] if model(input).shape[1] < 2 else input  # maps follow the input's size
                model(other)
            assert difference(canonized, output) < 1e-10
            assert difference(canonized_gradient, gradient) < 1e-10
    copy.deepcopy(model)(input)


@pytest.mark.parametrize("name", [name for name in RIGHT if "padding" in name or "padded" in name])
def test_the_bias_map_follows_the_size_of_the_input(name):
    model, input = built(RIGHT[name])
    with Composite(canonizers=[GraphCanonizer(["merge_bn"])]).context(copied := copy.deepcopy(model)):
        for height, width in itertools.product((7, 8, 9), (6, 8)):  # of some, the outputs have the same size
            part = input[:, :, :height, :width]
            assert difference(copied(part), model(part)) < 1e-12


EXPECTED = {"left": {"merged left"}, "right": {"merged right", "merged left"}}


@both
@pytest.mark.parametrize("name", [*(f"left, {n}" for n in LEFT), *(f"right, {n}" for n in RIGHT)])
def test_plain_neighbours_are_merged_whatever_the_preactivation(name, preactivation):
    model, _ = built(MERGED[name])
    actions = {r.action for r in rewrites(model, GraphCanonizer(["merge_bn"], preactivation)) if "Norm" in r.operation}
    assert actions and actions <= EXPECTED[name.split(",")[0]]


def actions(name: str, preactivation: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    model, _ = built(MERGED[name])
    found = rewrites(model, GraphCanonizer(["merge_bn"], preactivation))
    return {r.layer: (r.action, r.into) for r in found if "Norm" in r.operation}


def test_a_dense_block_is_untangled_or_thresholded():
    assert {layer: action for layer, (action, _) in actions("split, dense", "threshold").items()} == {
        "bn1": "threshold", "bn2": "threshold", "bn3": "split"
    }  # fmt: skip
    untangled = actions("split, dense", "untangle")
    assert {action for action, _ in untangled.values()} == {"split"}
    assert {layer: len(into) for layer, (_, into) in untangled.items()} == {"bn1": 2, "bn2": 3, "bn3": 4}


def test_after_a_residual_sum_untangling_falls_back_on_the_threshold():
    for preactivation in ("threshold", "untangle"):
        found = actions("preactivation, residual", preactivation)
        assert found["2"][0] == "threshold"
        assert found["1.bn2"] == ("merged left", ("1.conv1",))
    assert actions("preactivation, residual", "threshold")["1.bn1"][0] == "merged left"


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_cannot_be_merged_exactly_is_left_and_reported(name):
    build, reason = LEFT_ALONE[name]
    model, input = built(build)
    output = model(input)
    canonizer = GraphCanonizer(["merge_bn"])
    with untouched(model, input), Composite(canonizers=[canonizer]).context(model):
        assert torch.equal(model(input), output)
        assert len(on_the_path(model)) == 1
    (rewrite,) = (rewrite for rewrite in canonizer.rewrites if "Norm" in rewrite.operation)
    assert rewrite.action == "kept" and reason in rewrite.reason, rewrite


@pytest.mark.parametrize("preactivation, action", [("untangle", "threshold"), ("threshold", "threshold")])
def test_the_first_layer_is_not_copied_since_copies_do_not_get_its_rule(preactivation, action):
    def run(m: Network, x: Tensor) -> Tensor:
        y = m.stem(x)
        y = y + m.a(m.bn1(y).relu())
        z = m.inner(y)
        return z + m.b(m.bn2(z).relu())

    layers = {"stem": conv(4, 4, 1), "bn1": nn.BatchNorm2d(4), "a": conv(4, 4, 1)}
    layers |= {"inner": conv(4, 4, 1), "bn2": nn.BatchNorm2d(4), "b": conv(4, 4, 1)}
    model, input = built(lambda: Network(run, **layers))
    found = {r.layer: r.action for r in rewrites(model, GraphCanonizer(["merge_bn"], preactivation))}
    assert (found["bn1"], found["bn2"]) == (action, "split" if preactivation == "untangle" else action)
    output = model(input)
    with Composite(canonizers=[GraphCanonizer(preactivation=preactivation)]).context(model):
        assert difference(model(input), output) < 1e-12


def test_a_first_layer_that_must_be_copied_is_reported():
    model, _ = built(SPLIT["skip"])
    (rewrite,) = (r for r in rewrites(model, GraphCanonizer()) if r.layer == "bn")
    assert rewrite.action == "split" and "first layer" in rewrite.reason


def test_hooks_are_kept_on_each_call_of_a_module():
    def run(m: Network, x: Tensor) -> Tensor:
        return m.conv(m.conv(x))

    model, input = built(lambda: Network(run, conv=hooked(conv(4, 4)), rest=nn.Identity()))
    output = model(input)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer()]).context(model):
        assert torch.equal(model(input), output)


def test_a_bias_map_made_while_the_network_was_restored_in_between_is_made_anew():
    model, input = built(RIGHT["zero padding, strided"])
    output, smaller = model(input), model(input[..., :-1])
    assert output.shape == smaller.shape
    with Composite(canonizers=[GraphCanonizer()]).context(model):
        model(input)
        with restored(model):
            assert difference(model(input[..., :-1]), smaller) < 1e-12
        assert difference(model(input[..., :-1]), smaller) < 1e-12
        assert difference(model(input), output) < 1e-12


def test_tied_weights_of_two_layers_are_merged_apart():
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten())
        model[2].weight = model[0].weight
        return model

    model, input = built(tied)
    output = model(input)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer()]).context(model):
        assert difference(model(input), output) < 1e-12
        assert model[2].weight is not model[0].weight


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize("name", ["left, padded", "right, zero padding", "preactivation, residual"])
def test_lower_precisions_are_right_up_to_their_rounding(name, dtype, tolerance):
    model, input = built(MERGED[name])
    exact, model, input = model(input), model.to(dtype), input.to(dtype)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer()]).context(model):
        assert model(input).dtype is dtype
        assert difference(model(input).double(), exact) < tolerance


LINEAR = [name for name in MERGED if name.startswith(("left", "right")) and "features" not in name]


@pytest.mark.parametrize("name", LINEAR)
def test_relevance_by_the_epsilon_rule_is_input_times_gradient(name):
    """As it must be in a network that is linear piece by piece, bias maps included."""
    model, input = built(MERGED[name])
    input.requires_grad_()
    output = model(input)
    output = output.flatten(1)
    target = output.abs().argmax(1, keepdim=True)
    value = output.gather(1, target)
    (expected,) = torch.autograd.grad(value.sum(), input)
    relevance, value = relevance_of(model, input, target, LRPEpsilon(1e-14, 1e-14)), value.view(-1, 1, 1, 1)
    assert difference(relevance * value, expected * input) < 1e-8


@pytest.mark.parametrize("name", [name for name in LINEAR if name.startswith("right") and "around" not in name])
def test_a_bias_map_that_counts_as_zero_absorbs_no_relevance(name):
    model, input = built(MERGED[name])
    target = torch.zeros(2, 1, dtype=torch.int64)
    total = relevance_of(model, input, target, LRPEpsilon(1e-14, 1e-14, ["bias"])).sum((1, 2, 3))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=0)


def relevance_of(model: nn.Module, input: Tensor, target: Tensor, method: LRPEpsilon) -> Tensor:
    input = input.detach()
    flat = nn.Sequential(model, nn.Flatten()).eval()
    asked = Query(flat, input, target[:, 0], input[0, :, :1, :1], input[0, :, :1, :1], target[:, 0], seed=0)
    with untouched(flat, input):
        return method(asked, [GraphCanonizer()])
