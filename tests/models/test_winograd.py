"""Winograd's convolutions are the direct ones, up to rounding."""

import copy

import pytest
import torch
from torch import nn

from canonxai.errors import UserError
from canonxai.models import evaluator, narrow, winograd
from canonxai.models.evaluator import Evaluator
from canonxai.models.normalization import Normalization
from canonxai.models.winograd import Winograd, cook_toom, use_winograd

GENERATOR = torch.Generator().manual_seed(0)


def images(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64).to(dtype)


def convolution(channels=128, filters=128, **options):
    torch.manual_seed(0)
    return nn.Conv2d(channels, filters, **{"kernel_size": 3, "padding": 1, **options}).requires_grad_(False)


@pytest.fixture(autouse=True)
def inference():
    with torch.no_grad():
        yield


def error(conv, input):
    exact = nn.functional.conv2d(input.double(), conv.weight.double(), conv.bias and conv.bias.double(), padding=1)
    return float((conv(input) - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("points", [[0.0, 1.0, -1.0], winograd.POINTS, [0.0, 1.0, -1.0, 2.0, -2.0, 0.5]])
@pytest.mark.parametrize("filter", [2, 3])
def test_transforms_correlate(points, filter):
    a, g, b = cook_toom(points, filter)
    values, weights = images(len(points) + 1, dtype=torch.float64), images(filter, dtype=torch.float64)
    expected = [float(values[i : i + filter] @ weights) for i in range(len(values) + 1 - filter)]
    assert (a @ ((g @ weights) * (b @ values))).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("height, width", [(7, 7), (8, 8), (9, 14), (16, 7), (13, 12), (4, 11), (1, 1)])
@pytest.mark.parametrize("block", [1, winograd.BLOCK])
def test_outputs_are_those_of_the_direct_way(monkeypatch, bias, layout, height, width, block):
    monkeypatch.setattr(winograd, "BLOCK", block)
    direct = convolution(130, 129, bias=bias)
    input = images(3, 130, height, width).to(memory_format=layout)
    output = Winograd(direct)(input)
    torch.testing.assert_close(output, direct(input), rtol=0, atol=1e-5)
    assert output.stride() == direct(input).stride()
    assert torch.equal(output, direct(input)) == (min(height, width) < winograd.SIDE)  # else it went the direct way


def test_rounding_errors_are_small_and_smaller_than_with_the_usual_points(monkeypatch):
    direct, input = convolution(512, 512, bias=False), images(2, 512, 14, 14)
    rounding = error(Winograd(direct), input)
    assert rounding < 5e-6
    monkeypatch.setattr(winograd, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    assert error(Winograd(direct), input) > 2 * rounding


def test_images_in_double_precision_go_the_direct_way():
    direct = convolution()
    fast = Winograd(copy.deepcopy(direct))
    input = images(1, 128, 8, 8, dtype=torch.float64)
    assert torch.equal(fast.double()(input), direct.double()(input))


def test_gradients_go_the_direct_way():
    direct, input = convolution(), images(1, 128, 8, 8).requires_grad_()
    with torch.enable_grad():
        fast, expected = (torch.autograd.grad(conv(input).sin().sum(), input)[0] for conv in (Winograd(direct), direct))
    assert torch.equal(fast, expected)


@pytest.mark.parametrize("shape", [(0, 128, 8, 8), (128, 8, 8)])
def test_what_is_no_batch_goes_the_direct_way(shape):
    direct, input = convolution(), images(*shape)
    assert torch.equal(Winograd(direct)(input), direct(input))


def test_other_channels_are_refused():
    with pytest.raises(RuntimeError, match="channels"):
        Winograd(convolution())(images(32, 1, 8, 8))


def test_what_somebody_gave_a_convolution_it_keeps():
    direct = convolution().eval()
    direct.scale = 2
    direct.register_buffer("kept", torch.ones(1))
    fast = Winograd(direct)
    assert (fast.scale, fast.training, fast.weight is direct.weight) == (2, False, True)
    assert fast.state_dict().keys() == {"weight", "bias", "kept"}
    direct.forward = lambda input: -input
    assert Winograd(direct)(torch.ones(1)) == -1


def test_a_convolution_with_several_names_stays_one():
    shared = convolution()
    network = nn.Sequential(shared, nn.Sequential(shared, shared))
    assert use_winograd(network) == 1
    assert isinstance(network[0], Winograd)
    assert network[0] is network[1][0] is network[1][1]


def test_only_those_convolutions_are_replaced_that_are_alike():
    hooked, before = convolution(), convolution()
    hooked.register_forward_hook(lambda *_: None)
    before.register_forward_pre_hook(lambda *_: None)
    network = nn.Sequential(
        convolution(), convolution(padding="same"), nn.Sequential(convolution(bias=False)),
        convolution(64), convolution(128, 64), convolution(stride=2), convolution(dilation=2), convolution(padding=0),
        convolution(groups=2), convolution(kernel_size=5, padding=2), convolution(kernel_size=1, padding=0),
        convolution(padding_mode="reflect"), nn.Conv1d(128, 128, 3, padding=1), hooked, before,
    )  # fmt: skip
    assert use_winograd(network) == 3
    assert [name for name, module in network.named_modules() if isinstance(module, Winograd)] == ["0", "1", "2.0"]
    assert use_winograd(network) == 0


def test_parameters_stay_where_they_are():
    network = nn.Sequential(convolution())
    weight, state = network[0].weight, {name: value.clone() for name, value in network.state_dict().items()}
    use_winograd(network)
    assert network[0].weight is weight
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


@pytest.mark.filterwarnings("ignore")
def test_torch_compile_takes_it_as_one_operation():
    direct, input = convolution(), images(2, 128, 9, 8)
    arguments = (*Winograd(direct).transforms, direct.bias)
    graphs = []

    def backend(graph, _):
        graphs.append([node.target for node in graph.graph.nodes if "winograd" in str(node.target)])
        return graph

    # the operation alone: in tests, what is around it checks types, which not every torch can compile
    compiled = torch.compile(lambda input: winograd._convolved(input, *arguments), backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(input), direct(input), rtol=0, atol=1e-5)
    assert [len(found) for found in graphs] == [1]
    torch.library.opcheck(winograd._convolved, (input, *arguments))


PIXELS = torch.randint(256, (3, 3, 64, 64), generator=GENERATOR, dtype=torch.uint8)
NORMALIZE = Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
VGG = narrow.vgg16_bn(weights="scenes_vgg16_bn.safetensors").eval()
TARGET = torch.arange(3)


@pytest.mark.parametrize("network", ["fused", "original"])
def test_the_evaluator_uses_it_in_single_precision_alone(network):
    fast, direct = Evaluator(VGG, NORMALIZE, network), Evaluator(VGG, NORMALIZE, network, winograd=False)
    torch.testing.assert_close(fast(PIXELS), direct(PIXELS), rtol=0, atol=1e-3)
    assert not torch.equal(fast(PIXELS), direct(PIXELS))
    assert (fast.convolutions, direct.convolutions) == (5, 0)
    for precision in ("64", "bf16"):
        other = Evaluator(VGG, NORMALIZE, network, precision)
        other(PIXELS)
        assert other.convolutions == 0
    fast.compare(VGG, PIXELS, TARGET)
    assert fast.agreement["float32"].max_rel < 2e-5
    assert ("float64" in fast.agreement) == (network == "fused")


def test_a_wrong_transform_is_refused(monkeypatch):
    def inexact(network):
        count = use_winograd(network)
        for module in network.modules():
            if isinstance(module, Winograd):
                module.transforms[0].mul_(1.01)
        return count

    monkeypatch.setattr(evaluator, "use_winograd", inexact)
    with pytest.raises(UserError, match=r"^perturbation\.network: expected .*perturbation\.winograd=false"):
        Evaluator(VGG, NORMALIZE, "original").compare(VGG, PIXELS, TARGET)
