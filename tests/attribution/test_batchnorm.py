from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d
from zennit.composites import LayerMapComposite

from canonxai.attribution.batchnorm import batchnorm_map
from canonxai.attribution.ebp import ExcitationBackprop
from canonxai.attribution.lrp import LRPEpsilon, LRPEpsilonPlus
from canonxai.attribution.rules import rule_table
from canonxai.canonizers import ExactMergeBatchNorm
from canonxai.errors import UserError
from tests.networks import CANONIZERS, difference, network, query, randomize
from tests.reference.methods_formulas import (
    EPSILON,
    LRP,
    STABILIZER,
    backward,
    build,
    classifier,
    epsilon,
    unchanged,
)

KINDS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
RULES = ["pass", "epsilon", "omega"]
every_rule = pytest.mark.parametrize("rule", RULES)


def factor(rule: str, scaled: float, shift: float) -> float:
    """What a rule multiplies the relevance of one output with."""
    if rule == "pass":
        return 1
    if rule == "omega":
        return abs(scaled) / (abs(scaled) + abs(shift) + STABILIZER)
    output = scaled + shift
    return scaled / (output + (EPSILON if output >= 0 else -EPSILON))


def backward_of_layer(layer: nn.Module, x: Tensor, relevance: Tensor, rule: str, zero_params=None) -> Tensor:
    composite = LayerMapComposite(batchnorm_map(rule, EPSILON, STABILIZER, zero_params))
    x = x.clone().requires_grad_()
    with composite.context(layer):
        return torch.autograd.grad(layer(x), x, relevance)[0]


@every_rule
@pytest.mark.parametrize("dims", KINDS)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("zero_params", [None, ["bias"], ["weight"]])
def test_a_rule_is_its_formula_number_by_number(rule, dims, affine, zero_params):
    torch.manual_seed(0)
    layer = randomize(KINDS[dims](5, affine=affine, eps=1e-3))
    x, relevance = torch.randn(2, 2, 5, *[3] * dims).double()
    result = backward_of_layer(layer, x, relevance, rule, zero_params)
    expected = torch.zeros_like(x)
    zero = zero_params or []
    for index in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        channel, index = index[1], tuple(index)
        gamma, beta = (layer.weight[channel].item(), layer.bias[channel].item()) if affine else (1, 0)
        scale = gamma / (layer.running_var[channel].item() + 1e-3) ** 0.5
        if affine and "weight" in zero:
            scale = 0
        shift = 0 if "bias" in zero else beta - layer.running_mean[channel].item() * scale
        expected[index] = factor(rule, scale * x[index].item(), shift) * relevance[index]
    assert difference(result, expected) < 1e-12 if expected.any() else not result.any()


# In networks, against the formulas on matrices.


def omega(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    contribution = (w * x).abs()
    return contribution.T @ (r / (contribution.sum(1) + b.abs() + STABILIZER))


@pytest.mark.parametrize("kind", LRP)
@every_rule
def test_maps_are_those_of_the_formulas(kind, rule):
    image = query(classifier(pool=True, batch_norm=True), size=8)
    size = STABILIZER if kind is ExcitationBackprop else EPSILON
    of_batch_norm = {"pass": unchanged, "epsilon": partial(epsilon, stabilizer=size), "omega": omega}[rule]
    rule_of = LRP[kind](image)
    expected = backward(
        image, lambda i, layer: of_batch_norm if isinstance(layer, nn.BatchNorm2d) else rule_of(i, layer)
    )
    assert difference(build(kind, batchnorm_rule=rule)(image), expected) < 1e-10


# For eps -> 0, BatchNorm hands on the share s z / y of its relevance and the layer before it the share x w / z of that:
# together x w s / y, which is that of the merged layer. With eps > 0 each share is off by the order of eps / z.


@pytest.mark.parametrize("net", ["chain", "resnet18", "vgg16_bn"])
def test_without_stabilizer_the_epsilon_rule_is_canonization_for_lrp_epsilon(net):
    if net == "chain":
        image, original, canonized = query(classifier(True, batch_norm=True), size=8), [], [ExactMergeBatchNorm()]
    else:
        image, canonized = query(network(net)), [CANONIZERS[net]()]
        original = [CANONIZERS[net](["sum"])] if net == "resnet18" else []

    def distance(size: float, rule: str) -> float:
        method = partial(LRPEpsilon, size, size)
        return difference(method(batchnorm_rule=rule)(image, original), method()(image, canonized))

    assert distance(1e-13, "epsilon") < 1e-6
    assert distance(1e-9, "epsilon") < 0.1 * distance(1e-7, "epsilon")
    assert distance(1e-13, "pass") > 0.1 and distance(1e-13, "omega") > 0.01


def test_with_zplus_convolutions_it_is_not():
    image = query(classifier(True, batch_norm=True), size=8)
    alternative = LRPEpsilonPlus(1e-12, 1e-12, batchnorm_rule="epsilon")(image)
    assert difference(alternative, LRPEpsilonPlus(1e-12, 1e-12)(image, [ExactMergeBatchNorm()])) > 0.01


@every_rule
def test_relevance_is_conserved_if_biases_count_as_zero(rule):
    image = query(classifier(True, batch_norm=True), size=8)
    total = LRPEpsilon(1e-12, 1e-12, ["bias"], rule)(image).sum((1, 2, 3))
    torch.testing.assert_close(total, torch.ones(3).double(), rtol=1e-6, atol=0)


def test_omega_keeps_the_sign_of_relevance_and_never_increases_it_which_epsilon_does():
    torch.manual_seed(0)
    layer = randomize(nn.BatchNorm2d(5))
    x, relevance = torch.randn(2, 8, 5, 9, 9).double()
    share = backward_of_layer(layer, x, relevance, "omega") / relevance
    assert (share > 0).all() and (share < 1).all()
    share = backward_of_layer(layer, x, relevance, "epsilon") / relevance
    assert share.min() < -5 and share.max() > 5


# With canonizers.


@pytest.mark.parametrize("net", ["resnet18", "vgg16_bn"])
@pytest.mark.parametrize("method", [LRPEpsilonPlus, ExcitationBackprop])
@every_rule
def test_a_merged_batch_norm_has_no_use_for_a_rule(net, method, rule):
    image, canonizers = query(network(net)), [CANONIZERS[net]()]
    assert torch.equal(method(batchnorm_rule=rule)(image, canonizers), method()(image, canonizers))
    assert not torch.equal(method(batchnorm_rule="omega")(image), method()(image))


@pytest.mark.parametrize(
    "method, unmerged, merged",
    [
        (LRPEpsilonPlus(), "Pass", "Pass"),
        (LRPEpsilonPlus(batchnorm_rule="epsilon"), "BatchNormEpsilon", "Pass"),
        (LRPEpsilonPlus(batchnorm_rule="omega"), "BatchNormOmega", "Pass"),
        (ExcitationBackprop(), "gradient", "gradient"),
        (ExcitationBackprop(batchnorm_rule="pass"), "Pass", "Pass"),
        (ExcitationBackprop(batchnorm_rule="omega"), "BatchNormOmega", "Pass"),
    ],
)
def test_the_table_of_rules_names_it(method, unmerged, merged):
    image = query(network("resnet18"))
    for parts, expected in (([], unmerged), (["merge_bn"], merged)):
        canonizers = [CANONIZERS["resnet18"](parts)]
        table = rule_table(image.model, method.composite(image, canonizers), canonizers)
        assert {layer.rule for layer in table if layer.type == "BatchNorm2d"} == {expected}


@pytest.mark.parametrize("method, rule", [(LRPEpsilon, "gradient"), (LRPEpsilon, "z"), (ExcitationBackprop, "z")])
def test_another_rule_is_refused_by_name(method, rule):
    with pytest.raises(UserError, match=r"^method\.batchnorm_rule: expected one of .*pass, epsilon, omega, got "):
        method(batchnorm_rule=rule)


@every_rule
@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, nn.SyncBatchNorm])
@pytest.mark.parametrize("zero_params", [None, ["bias"]])
def test_frozen_and_synchronised_ones_get_the_rule_too(rule, kind, zero_params):
    plain = randomize(nn.BatchNorm2d(5)).eval().double()
    other = kind(5).eval().double()
    other.load_state_dict(plain.state_dict(), strict=False)
    x, relevance = torch.randn(2, 2, 5, 3, 3).double()
    arguments = (x, relevance, rule, zero_params)
    assert torch.allclose(backward_of_layer(other, *arguments), backward_of_layer(plain, *arguments), rtol=1e-12)
