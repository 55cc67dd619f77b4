import copy
from importlib.metadata import version

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite

from canonxai.canonizers import ExactMergeBatchNorm
from canonxai.canonizers.graph.affine import batch_norm_affine, fold
from canonxai.errors import UserError
from tests.networks import difference, randomize, untouched

LAYERS = {
    "linear": (lambda bias: nn.Linear(4, 6, bias=bias), ()),
    "conv1d": (lambda bias: nn.Conv1d(4, 6, 3, bias=bias), (7,)),
    "conv2d": (lambda bias: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias), (7, 6)),
    "conv3d": (lambda bias: nn.Conv3d(4, 6, 2, bias=bias), (4, 5, 3)),
    "grouped": (lambda bias: nn.Conv2d(4, 6, 3, groups=2, bias=bias), (5, 6)),
    "depthwise": (lambda bias: nn.Conv2d(4, 8, 3, groups=4, bias=bias), (5, 6)),
    "transposed1d": (lambda bias: nn.ConvTranspose1d(4, 6, 3, bias=bias), (5,)),
    "transposed2d": (lambda bias: nn.ConvTranspose2d(4, 6, 3, stride=2, bias=bias), (5, 4)),
    "transposed3d": (lambda bias: nn.ConvTranspose3d(4, 6, 2, bias=bias), (3, 2, 4)),
    "grouped transposed": (lambda bias: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=bias), (5, 4)),
    "depthwise transposed": (lambda bias: nn.ConvTranspose2d(4, 8, 3, groups=4, bias=bias), (5, 4)),
}
every_layer = pytest.mark.parametrize("layer", LAYERS)
every_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
every_affine = pytest.mark.parametrize("affine", [True, False], ids=["affine", "not affine"])


def pair(layer: str, bias: bool = True, affine: bool = True) -> tuple[nn.Sequential, Tensor]:
    """A layer with a BatchNorm, and an input."""
    torch.manual_seed(0)
    build, size = LAYERS[layer]
    linear = build(bias)
    features = linear.out_features if layer == "linear" else linear.out_channels
    kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(size)]
    model = randomize(nn.Sequential(linear, kind(features, eps=1e-3, affine=affine)))
    return model, torch.randn(3, 4, *size, dtype=torch.float64)


@every_layer
@every_bias
@every_affine
def test_in_float64_the_merged_layer_computes_what_layer_and_batch_norm_did(layer, bias, affine):
    model, input = pair(layer, bias, affine)
    original = model(input)
    with Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert difference(model(input), original) < 1e-12
        assert difference(model[0](input), original) < 1e-12


@every_layer
@every_bias
@every_affine
def test_in_float32_the_merged_parameters_are_those_of_float64_rounded_once(layer, bias, affine):
    model = pair(layer, bias, affine)[0].float()
    merged = copy.deepcopy(model[0])
    fold(merged, None, batch_norm_affine(model[1]))
    weight, shift = merged.weight.detach(), merged.bias.detach()
    linear, norm = model.double()
    one, zero = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
    gamma, beta = (norm.weight, norm.bias) if affine else (one, zero)
    scale = gamma / torch.sqrt(norm.running_var + norm.eps)
    expected = linear.weight.detach().clone()
    for i in range(expected.shape[0]):
        for j in range(expected.shape[1]):
            if "transposed" in layer:  # weights of inputs i to the outputs j of i's group
                group = i // (linear.in_channels // linear.groups)
                expected[i, j] *= scale[group * expected.shape[1] + j]
            else:
                expected[i, j] *= scale[i]
    assert weight.dtype == shift.dtype == torch.float32
    assert torch.equal(weight, expected.float())
    assert torch.equal(shift, (((linear.bias if bias else zero) - norm.running_mean) * scale + beta).float())


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_merged_batch_norm_returns_its_input_to_the_bit(layer, dtype):
    model, input = pair(layer)
    between = model.to(dtype)[0](input.to(dtype))
    with Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert torch.equal(model[1](between), between)
    assert not torch.equal(model[1](between), between)


@every_layer
@every_bias
@every_affine
def test_afterwards_the_model_holds_the_very_same_parameters(layer, bias, affine):
    model, input = pair(layer, bias, affine)
    with untouched(model, input), Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert "forward" in vars(model[1])
    with (
        pytest.raises(ZeroDivisionError),
        untouched(model, input),
        Composite(canonizers=[ExactMergeBatchNorm()]).context(model),
    ):
        raise ZeroDivisionError


@pytest.mark.parametrize("frozen", [True, False])
@every_bias
def test_merged_parameters_require_gradients_where_the_original_ones_do(frozen, bias):
    model, _ = pair("conv2d", bias)
    model.requires_grad_(not frozen)
    with Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert [p.requires_grad for p in model[0].parameters()] == [not frozen] * 2


def test_only_a_batch_norm_right_after_a_linear_layer_is_merged():
    model = randomize(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3), nn.BatchNorm2d(3)))
    model.append(nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm2d(3)).double().eval()).double())
    before = dict(model.named_parameters())
    with Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert {name for name, module in model.named_modules() if "forward" in vars(module)} == {"4.1.0"}
        after = dict(model.named_parameters())
        assert {name for name in before if after[name] is not before[name]} == {"4.0.weight", "4.0.bias"}


class Crossed(nn.Module):
    """Defines a BatchNorm after a layer that its forward pass calls later."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.layer, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.layer(self.norm(self.first_norm(self.first(x))))


class RectifiedNorm(nn.BatchNorm1d):
    """More than a BatchNorm."""

    def forward(self, x):
        return super().forward(x).relu()


def doubled(linear: nn.Linear) -> nn.Module:
    linear.register_forward_hook(lambda module, input, output: 2 * output)
    return linear


REFUSED = {
    "forward of its own": (
        randomize(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), RectifiedNorm(3))),
        r"BatchNorm 3: expected a BatchNorm, got RectifiedNorm with a forward pass of its own",
    ),
    "hook": (
        randomize(nn.Sequential(doubled(nn.Linear(3, 3)), nn.BatchNorm1d(3))),
        r"BatchNorm 1: expected a linear layer before it, got 0: it has hooks",
    ),
    "training": (
        randomize(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))),
        r"BatchNorm 3: expected a BatchNorm in evaluation mode, got one in training mode",
    ),
    "no statistics": (
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
        .double()
        .eval(),
        r"BatchNorm 3: expected a BatchNorm with running statistics, got one without",
    ),
    "features": (randomize(Crossed()), r"BatchNorm norm: expected 5 features as layer before it, got 3"),
}
REFUSED["training"][0][3].train()


@pytest.mark.parametrize("model, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_merged_is_refused_before_anything_is_changed(model, message):
    with pytest.raises(UserError, match=message), untouched(model, torch.randn(4, 3).double()):
        ExactMergeBatchNorm().apply(model)


def test_a_layer_whose_weight_is_computed_is_refused():
    model = nn.Sequential(prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5), nn.BatchNorm1d(3)).eval()
    with pytest.raises(
        UserError, match="BatchNorm 1: expected a linear layer before it, got 0: its weight is computed"
    ):
        ExactMergeBatchNorm().apply(model)


@every_layer
def test_zennits_own_merge_is_inexact_and_ours_is_not(layer):
    model, input = pair(layer)
    original = model(input)
    with Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert difference(model(input), original) < 1e-12
    if version("zennit").startswith("0.5.") and "grouped" not in layer and "depthwise" not in layer:
        with Composite(canonizers=[SequentialMergeBatchNorm()]).context(model):
            assert difference(model(input), original) > 1e-6


def shared(*layers: int) -> nn.Module:
    """Two blocks of a linear layer (0 or 1) and a BatchNorm (2 or 3), some of which are the same."""
    torch.manual_seed(0)
    modules = [nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    a, b, c, d = (modules[i] for i in layers)
    return randomize(nn.Sequential(nn.Sequential(a, b), nn.ReLU(), nn.Sequential(c, d)))


def test_a_block_that_is_used_twice_is_merged_once():
    model, input = shared(0, 2, 0, 2), torch.randn(4, 3).double()
    original = model(input)
    with untouched(model, input), Composite(canonizers=[ExactMergeBatchNorm()]).context(model):
        assert difference(model(input), original) < 1e-12


@pytest.mark.parametrize("layers", [(0, 2, 0, 3), (0, 2, 1, 2)], ids=["layer", "BatchNorm"])
def test_a_layer_or_batch_norm_with_two_partners_is_refused(layers):
    model = shared(*layers)
    with pytest.raises(UserError, match="canonizer"), untouched(model, torch.randn(4, 3).double()):
        ExactMergeBatchNorm().apply(model)
