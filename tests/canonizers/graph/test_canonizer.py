import copy
import operator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from zennit.composites import EpsilonPlus
from zennit.core import Composite
from zennit.layer import Sum

import canonxai.canonizers.graph.canonizer as module
from canonxai.attribution.deconvnet import DeconvNet
from canonxai.attribution.ebp import ExcitationBackprop
from canonxai.attribution.gbp import GuidedBackprop
from canonxai.attribution.gradient import Gradient
from canonxai.attribution.ig import IntegratedGradients
from canonxai.attribution.ixg import InputXGradient
from canonxai.attribution.lrp import LRPEpsilon, LRPEpsilonPlus
from canonxai.canonizers import GraphCanonizer, rewrites
from canonxai.canonizers.graph.gates import Gate
from canonxai.errors import UserError
from tests.canonizers.graph.networks import LEFT, Network, Optional, bn, built, conv
from tests.canonizers.graph.test_merge import output_and_gradient
from tests.networks import difference, network, query, untouched


class Functional(nn.Module):
    """Everything called as a function, much of it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn, self.fc = conv(padding=1), conv(padding=1), bn(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.a(x))
        before = y
        y += self.b(x)
        y = F.relu_(y + before)  # twice the same tensor, since it was written in place
        y = F.leaky_relu(F.max_pool2d(y, 2, stride=1), 0.1, inplace=True)
        gate = torch.sigmoid(self.fc(y.mean((2, 3)))).view(y.size(0), -1, 1, 1)
        y = F.avg_pool2d(y * gate, 2) * 3 + 1
        y = F.dropout(torch.flatten(y, 1), 0.5, self.training)
        return torch.add(y, y.tanh())


def canonized(model: nn.Module, canonizer: GraphCanonizer) -> nn.Module:
    """A copy, canonized for good."""
    model = copy.deepcopy(model)
    canonizer.apply(model)
    return model


@pytest.mark.parametrize("parts", [None, ["merge_bn"], ["sum"], ["modules"], ["gate"], ["sum", "gate"], []])
def test_functions_in_place_and_not_give_the_same_as_modules(parts):
    model, input = built(Functional)
    output, gradient = output_and_gradient(model, input)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer(parts)]).context(model):
        canonized_output, canonized_gradient = output_and_gradient(model, input)
    assert difference(canonized_output, output) < 1e-13
    assert difference(canonized_gradient, gradient) < 1e-13


def test_every_batch_norm_and_function_is_in_the_record():
    model, _ = built(Functional)
    found = [(r.operation, r.action) for r in rewrites(model, GraphCanonizer())]
    assert found == [
        ("BatchNorm2d", "merged left"), ("iadd", "sum"), ("add", "sum"), ("relu_", "module"), ("max_pool2d", "module"),
        ("leaky_relu", "module"), ("mean", "module"), ("sigmoid", "module"), ("view", "kept"), ("mul", "gate"),
        ("avg_pool2d", "module"), ("mul", "gate"), ("add", "kept"), ("flatten", "module"), ("dropout", "removed"),
        ("tanh", "module"), ("add", "sum"),
    ]  # fmt: skip
    kept = [r.reason for r in rewrites(model, GraphCanonizer()) if r.action == "kept"]
    assert kept == ["it moves values, and relevance moves with them", "a constant is added, not a branch"]
    assert {r.action for r in rewrites(model, GraphCanonizer(["sum"]))} == {"sum", "kept", "removed"}


def test_only_the_chosen_parts_are_done():
    model, _ = built(Functional)
    for parts, sums, gates, relus in ((["sum"], 3, 0, 0), (["gate"], 0, 2, 0), (["modules"], 0, 0, 1), (None, 3, 2, 1)):
        types = [type(m) for m in canonized(model, GraphCanonizer(parts)).modules()]
        assert (types.count(Sum), types.count(Gate), types.count(nn.ReLU)) == (sums, gates, relus)


def test_summands_of_different_shapes_are_broadcast():
    model, input = built(lambda: Network(lambda m, x: m.conv(x) + x.mean((1, 2, 3), keepdim=True), conv=conv()))
    assert torch.equal(canonized(model, GraphCanonizer(["sum"]))(input), model(input))


def test_a_convolution_called_twice_has_a_module_for_each_call():
    model, input = built(lambda: Network(lambda m, x: m.conv(m.conv(x).relu()), conv=conv(4, 4)))
    two = canonized(model, GraphCanonizer())
    convolutions = [m for m in two.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2 and convolutions[0].weight is convolutions[1].weight
    assert torch.equal(two(input), model(input))


GATED = {
    "squeeze and excitation": lambda m, x: m.signal(x[:, 1:]) * m.gate(x[:, :1]).mean((2, 3), keepdim=True).sigmoid(),
    "gate first": lambda m, x: F.hardsigmoid(m.gate(x[:, :1])) * m.signal(x[:, 1:]),
    "softmax": lambda m, x: m.signal(x[:, 1:]).mul(m.gate(x[:, :1]).mean((2, 3)).softmax(1).reshape(-1, 6, 1, 1)),
    "constant": lambda m, x: -0.2 * m.signal(x[:, 1:]),
}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("method", [LRPEpsilon(1e-12, 1e-12), LRPEpsilonPlus(1e-12, 1e-12), ExcitationBackprop(1e-12)])
def test_a_gate_passes_all_relevance_to_the_signal_under_rules(name, method):
    model, _ = built(
        lambda: Network(lambda m, x: GATED[name](m, x).mean((2, 3)), signal=conv(2, bias=False), gate=conv(1))
    )
    gated, plain = (method(query(model), [GraphCanonizer(parts)]) for parts in (None, ["modules"]))
    torch.testing.assert_close(gated.sum((1, 2, 3)), torch.ones(3).double(), rtol=1e-5, atol=0)
    assert (gated[:, 0] == 0).all()
    assert (plain.sum((1, 2, 3)) - 1).abs().min() > 0.01


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("method", [Gradient(), InputXGradient(), GuidedBackprop(), DeconvNet(), IntegratedGradients()])
def test_gates_and_sums_do_not_change_methods_of_gradients(name, method):
    model, _ = built(lambda: Network(lambda m, x: GATED[name](m, x).mean((2, 3)), signal=conv(2), gate=conv(1)))
    original = method(query(model))
    assert difference(method(query(model), [GraphCanonizer()]), original) < 1e-13


def without_gradient(m: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return m.conv(x)


def in_lower_precision(m: Network, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.conv(x)


class StraightThrough(torch.autograd.Function):
    """The sign, with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


UNTRACEABLE = {
    "no gradient": without_gradient,
    "lower precision": in_lower_precision,
    "gradient of its own": lambda m, x: StraightThrough.apply(m.conv(x)),
    "control flow": lambda m, x: m.conv(x) if x.sum() > 0 else x,
    "assignment": lambda m, x: operator.setitem(x, 0, 1),
    "a view is read later": lambda m, x: (y := m.conv(x)).view(-1).relu_().sum() + y,
    "written by an argument": lambda m, x: torch.add(y := m.conv(x), 1, out=y) + y,
}

#: views, or what may be one, written into while the base is read later
WRITTEN = {
    "module": lambda m, y: m.flatten(y).mul_(3),
    "movedim": lambda m, y: y.movedim(1, 2).mul_(3),
    "attribute": lambda m, y: y.mT.mul_(3),
    "unflatten": lambda m, y: F.relu(y.unflatten(1, (2, 2)), inplace=True),
    "same dtype": lambda m, y: y.to(y.dtype).mul_(3),
    "same type": lambda m, y: y.type_as(y).relu_(),
    "double": lambda m, y: y.double().relu_(),
    "broadcast": lambda m, y: torch.broadcast_tensors(y, y)[1].relu_(),
    "view of a view": lambda m, y: y.transpose(1, 2).swapaxes(2, 3).relu_(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_writing_into_a_view_while_the_base_is_read_later_is_refused(name):
    def run(m: Network, x: Tensor) -> Tensor:
        y = m.conv(x)
        WRITTEN[name](m, y)
        return y

    model, _ = built(lambda: Network(run, conv=conv(4, 4), flatten=nn.Flatten()))
    with pytest.raises(UserError, match="writing into a tensor"):
        GraphCanonizer().apply(model)


@pytest.mark.parametrize("operator_in_place", [operator.ipow, operator.isub, operator.ifloordiv, operator.imod])
def test_an_operator_in_place_changes_what_other_names_read(operator_in_place):
    def run(m: Network, x: Tensor) -> Tensor:
        y = z = m.conv(x)
        if operator_in_place is operator.ipow:
            y **= 2
        elif operator_in_place is operator.isub:
            y -= 2
        elif operator_in_place is operator.ifloordiv:
            y //= 2
        else:
            y %= 2
        return z

    model, input = built(lambda: Network(run, conv=conv(4, 4)))
    assert torch.equal(canonized(model, GraphCanonizer())(input), model(input))


def test_optional_arguments_have_their_defaults_and_others_are_refused():
    model, input = built(Optional)
    output = model(input)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer()]).context(model):
        assert difference(model(input, skip=None, power=2), output) < 1e-12
        for given in ({"skip": output}, {"double": True}, {"power": 3}, {"power": input}):
            with pytest.raises(UserError, match=f"^{next(iter(given))} of the forward pass: expected .*default"):
                model(input, **given)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused():
    model, _ = built(lambda: nn.Sequential(conv(), bn(6)))
    with pytest.raises(UserError, match="scripted"):
        GraphCanonizer().apply(torch.jit.script(nn.Sequential(model).eval()))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_canonizers_may_be_removed_in_any_order(order):
    model, input = built(LEFT["padded"])
    output = model(input)
    with untouched(model, input):
        handles = [GraphCanonizer(parts).apply(model)[0] for parts in (["merge_bn"], None, ["sum"])]
        for index in order:
            assert difference(model(input), output) < 1e-12
            handles[index].remove()
            handles[index].remove()


def test_removal_of_a_copy_leaves_the_original():
    model, _ = built(LEFT["padded"])
    (handle,) = GraphCanonizer().apply(model)
    duplicate = copy.deepcopy(model)
    (other,) = GraphCanonizer().apply(duplicate)
    weight = model[0].weight
    other.remove()
    assert model[0].weight is weight
    handle.remove()
    assert model[0].weight is not weight


def test_relevance_of_a_difference_and_of_a_quotient_is_that_of_a_sum_and_a_product():
    def run(sign: int, m: Network, x: Tensor) -> Tensor:
        y = m.a(x)
        return ((y - m.b(x) / 4) if sign < 0 else y + m.b(x) * -0.25).mean((2, 3))

    a, b = conv(3), conv(3)
    maps, relevance = [], LRPEpsilonPlus(1e-12, 1e-12)
    for sign in (-1, 1):
        model, _ = built(lambda sign=sign: Network(partial(run, sign), a=copy.deepcopy(a), b=copy.deepcopy(b)))
        model.a.load_state_dict(a.state_dict()), model.b.load_state_dict(b.state_dict())
        maps.append(relevance(query(model.double()), [GraphCanonizer()]))
        assert difference(Gradient()(query(model), [GraphCanonizer()]), Gradient()(query(model))) < 1e-13
    assert difference(*maps) < 1e-9


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_cannot_be_traced_is_told_with_the_line(name):
    model, _ = built(lambda: Network(UNTRACEABLE[name], conv=conv(4, 4)))
    with pytest.raises(UserError, match="canonizer=resnet") as error:
        GraphCanonizer().apply(model)
    assert "networks.py" not in str(error.value)
    line = {
        "control flow": "x.sum() > 0",
        "no gradient": "return m.conv(x)",
        "lower precision": "return m.conv(x)",
        "gradient of its own": "return x.sign()",
    }
    if name in line:
        assert "test_canonizer.py:" in str(error.value) and line[name] in str(error.value)


@pytest.mark.parametrize("wrong", ["root", "1"])
def test_training_mode_is_refused(wrong):
    model, _ = built(LEFT["padded"])
    (model if wrong == "root" else model.get_submodule(wrong)).training = True
    with pytest.raises(UserError, match=r"evaluation mode.*model\.eval\(\)"):
        GraphCanonizer().apply(model)


def test_a_quantised_network_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()).eval()
    type(model[0])
    model[0] = type("Conv2d", (nn.Conv2d,), {"__module__": "torch.ao.nn.quantized.modules.conv"})(1, 1, 1)
    with pytest.raises(UserError, match="quantised Conv2d"):
        GraphCanonizer().apply(model.eval())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: nn.Sequential(nn.DataParallel(m))])
def test_a_network_in_a_wrapper_is_refused(wrap):
    """torch.fx looks into none, and its BatchNorms would be told to be unused."""
    model, _ = built(LEFT["padded"])
    with pytest.raises(UserError, match="a network by itself, got .* in a .*_orig_mod"):
        GraphCanonizer().apply(wrap(model).eval())


def test_a_network_prepared_for_quantisation_is_refused():
    stub = type("QuantStub", (nn.Module,), {"__module__": "torch.ao.quantization.stubs"})
    with pytest.raises(UserError, match="quantised QuantStub"):
        GraphCanonizer().apply(nn.Sequential(stub(), conv()).eval())


def test_what_nothing_uses_is_told_to_be_unused():
    def run(m: Network, x: Tensor) -> Tensor:
        y = m.conv(x)
        m.bn(y).tanh()
        return y

    model, _ = built(lambda: Network(run, conv=conv(), bn=bn(6)))
    (batch_norm, tanh, _) = rewrites(model, GraphCanonizer())
    assert batch_norm.action == tanh.action == "unused"


@pytest.mark.parametrize("parts", [["add"], ["sum", "sum"]])
def test_unknown_parts_are_refused(parts):
    with pytest.raises(UserError, match=r"^canonizer\.parts: expected .* merge_bn, modules, sum, gate, got \["):
        GraphCanonizer(parts)


def test_unknown_preactivations_are_refused():
    with pytest.raises(UserError, match=r"^canonizer\.preactivation: expected one of threshold, untangle"):
        GraphCanonizer(preactivation="unwind")


@pytest.mark.parametrize("step", ["merge_batch_norms", "make_modules", "make_sums", "make_gates"])
def test_if_a_part_fails_all_is_undone(step, monkeypatch):
    real = getattr(module, step)

    def fail(network, **options):
        real(network, **options)
        raise ZeroDivisionError

    monkeypatch.setattr(module, step, fail)
    model = network("resnet18")
    with pytest.raises(ZeroDivisionError), untouched(model, query(model).input):
        GraphCanonizer().apply(model)


def test_two_at_once_do_no_more_than_one():
    model = network("resnet18")
    input = query(model).input
    output = model(input)
    with untouched(model, input), Composite(canonizers=[GraphCanonizer(["merge_bn"])]).context(model):
        with Composite(canonizers=[GraphCanonizer()]).context(model):
            assert difference(model(input), output) < 1e-12
        assert difference(model(input), output) < 1e-12


def test_a_copy_has_the_same_options():
    duplicate = GraphCanonizer(["sum"], "untangle").copy()
    assert (duplicate.parts, duplicate.preactivation) == (["sum"], "untangle")


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-300])
def test_a_gate_of_any_size_leaves_all_relevance_to_the_signal(size):
    gate = Gate()
    signal = torch.rand(2, 3, 4, 4, dtype=torch.float64) + 0.1
    signal.requires_grad_()
    weight = torch.full((1,), size, dtype=torch.float64, requires_grad=True)
    with EpsilonPlus(stabilizer=1e-12).context(nn.Sequential(gate)):
        output = gate(signal, gate=weight)
        assert output.equal(signal * size)
        of_signal, of_gate = torch.autograd.grad(output, (signal, weight), torch.ones_like(output), allow_unused=True)
    torch.testing.assert_close(of_signal, torch.ones_like(output))
    assert of_gate is None


def test_repeated_use_leaves_nothing_in_the_caches_of_torch_fx():
    model = network("resnet18")
    count = len(torch.fx.graph_module._loader.eval_cache)
    for _ in range(3):
        with Composite(canonizers=[GraphCanonizer()]).context(model):
            pass
    assert len(torch.fx.graph_module._loader.eval_cache) == count
