from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from zennit.canonizers import Canonizer
from zennit.core import Composite

from canonxai.attribution.deconvnet import DeconvNet
from canonxai.attribution.ebp import ExcitationBackprop
from canonxai.attribution.gbp import GuidedBackprop
from canonxai.attribution.gradient import Gradient
from canonxai.attribution.lrp import (
    LRPEpsilon,
    LRPEpsilonAlpha2Beta1,
    LRPEpsilonAlpha2Beta1Flat,
    LRPEpsilonGammaBox,
    LRPEpsilonGammaFlat,
    LRPEpsilonPlus,
    LRPEpsilonPlusFlat,
)
from canonxai.attribution.rules import Layer, rule_table
from canonxai.canonizers import ExactMergeBatchNorm
from tests.networks import CANONIZERS, network, query, untouched

PASSED = {"BatchNorm2d": "Pass", "ReLU": "Pass", "AdaptiveAvgPool2d": "Norm", "Sum": "Norm"}
LRP = {
    LRPEpsilon: ("Epsilon", "Epsilon"),
    LRPEpsilonPlus: ("ZPlus", "ZPlus"),
    LRPEpsilonPlusFlat: ("Flat", "ZPlus"),
    LRPEpsilonAlpha2Beta1: ("AlphaBeta", "AlphaBeta"),
    LRPEpsilonAlpha2Beta1Flat: ("Flat", "AlphaBeta"),
    LRPEpsilonGammaBox: ("ZBox", "Gamma"),
    LRPEpsilonGammaFlat: ("Flat", "Gamma"),
}
#: of each method, the rule of the first convolution and those of all other modules by type; no rule is the gradient
RULES = {
    **{kind: (first, {"Conv2d": other, "Linear": "Epsilon", **PASSED}) for kind, (first, other) in LRP.items()},
    ExcitationBackprop: (
        "ZPlus",
        {"Conv2d": "ZPlus", "Linear": "ZPlus", "AdaptiveAvgPool2d": "Norm", "Sum": "Norm"},
    ),
    GuidedBackprop: ("gradient", {"ReLU": "ReLUGuidedBackprop"}),
    DeconvNet: ("gradient", {"ReLU": "ReLUDeconvNet"}),
    Gradient: ("gradient", {}),
}
LAYERS = {"resnet18": {"Conv2d": 20, "Linear": 1}, "vgg16_bn": {"Conv2d": 13, "Linear": 3}}
every_method = pytest.mark.parametrize("kind", RULES)
every_network = pytest.mark.parametrize("net", LAYERS)
every_state = pytest.mark.parametrize("canonize", [False, True], ids=["original", "canonized"])


def table(model: nn.Module, kind: type = LRPEpsilonPlus, canonizers: Sequence[Canonizer] = ()) -> list[Layer]:
    """The table of a method; the model must come out of it untouched."""
    batch = query(model)
    with untouched(model, batch.input):
        return rule_table(model, kind().composite(batch, canonizers), canonizers)


def called(model: nn.Module, canonizers: Sequence[Canonizer]) -> Counter[str]:
    """How often each leaf is really called, in the order of its first call."""
    calls: Counter[str] = Counter()
    with Composite(canonizers=list(canonizers)).context(model):
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        model(query(model).input)
    return calls


@every_method
@every_network
@every_state
def test_the_table_names_the_rule_of_every_module(kind, net, canonize):
    canonizers = [CANONIZERS[net]()] if canonize else []
    rows = [row for row in table(network(net), kind, canonizers) if row.type != "function"]
    first, rules = RULES[kind]
    assert rows[0].type == "Conv2d" and rows[0].rule == first
    assert [row.rule for row in rows[1:]] == [rules.get(row.type, "gradient") for row in rows[1:]]
    counts = Counter(row.type for row in rows)
    assert {kind: counts[kind] for kind in ("Conv2d", "Linear")} == LAYERS[net]
    assert counts["Sum"] == (8 if canonize and net == "resnet18" else 0)


@every_network
@every_state
def test_modules_come_in_the_order_of_the_forward_pass_with_their_number_of_calls(net, canonize):
    canonizers = [CANONIZERS[net]()] if canonize else []
    rows = [(row.layer, row.calls) for row in table(network(net), canonizers=canonizers) if row.type != "function"]
    assert rows == list(called(network(net), canonizers).items())


@pytest.mark.parametrize("net, parts", [(net, parts) for net in LAYERS for parts in ([], ["merge_bn"])])
def test_every_batch_norm_is_noted_as_merged_if_it_is(net, parts):
    rows = [row for row in table(network(net), canonizers=[CANONIZERS[net](parts)]) if row.type == "BatchNorm2d"]
    assert len(rows) == LAYERS[net]["Conv2d"]
    assert {row.note for row in rows} == {"merged: computes the identity" if parts else ""}


def test_no_other_module_is_noted_as_merged():
    model = network("resnet18")
    model.fc.forward = model.fc.forward  # replaced, too, but by no canonizer
    rows = table(model, canonizers=[CANONIZERS["resnet18"]()])
    assert {row.type for row in rows if row.note} == {"BatchNorm2d"}


@pytest.mark.parametrize("parts", [None, [], ["merge_bn"], ["sum"]])
def test_residual_adds_are_functions_without_a_rule_until_they_are_made_sums(parts):
    rows = table(network("resnet18"), canonizers=[CANONIZERS["resnet18"](parts)])
    adds = [row for row in rows if row.layer in ("add", "iadd")]
    sums = [row for row in rows if row.type == "Sum"]
    if parts is None or "sum" in parts:
        assert not adds
        assert [row.layer for row in sums] == [f"layer{i}.{j}.canonizer_sum" for i in (1, 2, 3, 4) for j in (0, 1)]
        assert {row.rule for row in sums} == {"Norm"}
    else:
        note = "no rule: relevance goes on in full to both summands"
        assert adds == [Layer(adds[0].layer, "function", 8, "gradient", note)] and not sums


@every_method
def test_an_add_is_noted_only_where_relevance_is_propagated(kind):
    (note,) = {row.note for row in table(network("resnet18"), kind) if row.layer in ("add", "iadd")}
    assert bool(note) == (kind in LRP or kind is ExcitationBackprop)


class Functional(nn.Module):
    """Calls ReLU as a function and as a tensor's method, and one layer twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.twice, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x):
        x = nn.functional.relu(self.conv(x))
        x = self.twice(self.relu(self.twice(x))).tanh()
        return self.relu(x) + 1.0


def test_functions_and_methods_of_tensors_are_shown_without_a_rule():
    shared = "shared: the rule sees the input of its last call only"
    rows = table(Functional().double().eval(), LRPEpsilonPlusFlat)
    assert [row.layer for row in rows] == ["conv", "relu", "twice", "relu", "tanh", "add"]
    assert rows[:5] == [
        Layer("conv", "Conv2d", 1, "Flat"),
        Layer("relu", "function", 1, "gradient"),
        Layer("twice", "Conv2d", 2, "ZPlus", shared),
        Layer("relu", "ReLU", 2, "Pass"),
        Layer("tanh", "function", 1, "gradient"),
    ]


class Untraceable(nn.Sequential):
    """Decides by its data."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


def test_of_a_network_that_cannot_be_traced_the_modules_are_shown():
    torch.manual_seed(0)
    model = Untraceable(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)))
    rows = table(model.double().eval(), LRPEpsilonGammaBox, [ExactMergeBatchNorm()])
    assert rows == [
        Layer("0", "Conv2d", 1, "ZBox"),
        Layer("1", "BatchNorm2d", 1, "Pass", "merged: computes the identity"),
        Layer("2.0", "ReLU", 1, "Pass"),
        Layer("2.1", "Conv2d", 1, "Gamma"),
    ]
