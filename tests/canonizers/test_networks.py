import itertools

import pytest
import torch
from torch import Tensor, nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite
from zennit.layer import Sum
from zennit.torchvision import ResNetBasicBlockCanonizer

from canonxai.attribution.lrp import LRPEpsilon, LRPEpsilonPlus
from canonxai.canonizers import ExactMergeBatchNorm, ResNetCanonizer, VGGCanonizer
from canonxai.errors import UserError
from tests.networks import BATCH_NORM, CANONIZERS, cosine_distance, difference, network, query, untouched

BLOCKS = {"resnet18": 8, "resnet50": 4, "vgg16_bn": 0}
STATES = [
    *itertools.product(["resnet18", "resnet50"], [None, [], ["merge_bn"], ["sum"], ["merge_bn", "sum"]]),
    *itertools.product(["vgg16_bn"], [None, [], ["merge_bn"]]),
]
every_state = pytest.mark.parametrize("name, parts", STATES)


def logits_and_gradient(model: nn.Module, input: Tensor) -> tuple[Tensor, Tensor]:
    input = input.clone().requires_grad_()
    logits = model(input)
    return logits, torch.autograd.grad(logits[:, 3].sum(), input)[0]


@every_state
def test_an_exact_canonizer_leaves_logits_and_gradients_unchanged(name, parts):
    model = network(name)
    input = query(model).input
    logits, gradient = logits_and_gradient(model, input)
    with untouched(model, input), Composite(canonizers=[CANONIZERS[name](parts)]).context(model):
        canonized_logits, canonized_gradient = logits_and_gradient(model, input)
    assert difference(canonized_logits, logits) < 1e-9
    assert cosine_distance(canonized_gradient, gradient).max() < 1e-10


@every_state
def test_zennits_own_merge_is_undone_too_and_nearly_leaves_the_logits_unchanged(name, parts):
    model = network(name)
    input = query(model).input
    logits = model(input)
    with untouched(model, input), Composite(canonizers=[CANONIZERS[name](parts, exact=False)]).context(model):
        assert difference(model(input), logits) < 1e-2


@every_state
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "zennit's"])
def test_the_parts_are_done_and_no_others(name, parts, exact):
    model = network(name)
    before = dict(model.named_parameters())
    merges = parts is None or "merge_bn" in parts
    with Composite(canonizers=[CANONIZERS[name](parts, exact)]).context(model):
        modules = list(model.modules())
        bypassed = ["forward" in vars(module) for module in modules if isinstance(module, BATCH_NORM)]
        assert set(bypassed) == {merges and exact}
        assert sum(isinstance(module, Sum) for module in modules) == (
            BLOCKS[name] if parts is None or "sum" in parts else 0
        )
        changed = [name for name, p in model.named_parameters() if p.ndim == 4 and before[name] is not p]
        assert len(changed) == (len(bypassed) if merges and exact else 0)


@pytest.mark.parametrize("exact", [True, False])
def test_exact_chooses_between_our_merge_and_zennits(exact):
    merge = ExactMergeBatchNorm if exact else SequentialMergeBatchNorm
    for canonizer in (ResNetCanonizer(exact=exact), VGGCanonizer(exact=exact)):
        assert type(canonizer.canonizers[0]) is merge


@pytest.mark.parametrize("canonizer, choices", [(ResNetCanonizer, "merge_bn, sum"), (VGGCanonizer, "merge_bn")])
@pytest.mark.parametrize("parts", [["add"], ["merge_bn", "merge_bn"], ["merge_bn", "sum", "add"]])
def test_parts_that_are_unknown_or_named_twice_are_refused(canonizer, choices, parts):
    with pytest.raises(UserError, match=rf"^canonizer\.parts: expected .* names from {choices}, got \["):
        canonizer(parts)


def test_vgg_has_no_sum_to_make():
    with pytest.raises(UserError, match=r"^canonizer\.parts: "):
        VGGCanonizer(["sum"])


@pytest.mark.parametrize("exact", [True, False])
def test_if_a_part_fails_those_before_it_are_undone(exact, monkeypatch):
    def fail(self, root_module):
        assert not exact or "forward" in vars(model.bn1)
        raise ZeroDivisionError

    model, canonizer = network("resnet18"), ResNetCanonizer(exact=exact)
    monkeypatch.setattr(canonizer.canonizers[2], "apply", fail.__get__(canonizer.canonizers[2]))
    assert isinstance(canonizer.canonizers[2], ResNetBasicBlockCanonizer)
    with pytest.raises(ZeroDivisionError), untouched(model, query(model).input):
        Composite(canonizers=[canonizer]).register(model)


@pytest.mark.parametrize("canonizer, parts", [(CANONIZERS[name], parts) for name, parts in STATES])
@pytest.mark.parametrize("exact", [True, False])
def test_a_copy_has_the_same_parts(canonizer, parts, exact):
    original = canonizer(parts, exact)
    copy = original.copy()
    assert type(copy) is canonizer and copy is not original
    assert (copy.parts, copy.exact) == (original.parts, original.exact)
    assert [type(c) for c in copy.canonizers] == [type(c) for c in original.canonizers]


def without_biases(name: str) -> nn.Module:
    model = network(name)
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, BATCH_NORM):
            module.running_mean.zero_()
    return model


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("method", [LRPEpsilon(1e-12, 1e-12), LRPEpsilonPlus(1e-9, 1e-9)], ids=["epsilon", "z+"])
def test_sums_conserve_the_relevance_that_each_plain_residual_add_doubles(name, method):
    model = without_biases(name)
    for parts, expected in ((None, 1), (["merge_bn", "sum"], 1), (["merge_bn"], 2 ** BLOCKS[name])):
        total = method(query(model), [ResNetCanonizer(parts)]).sum((1, 2, 3))
        torch.testing.assert_close(total, torch.full_like(total, expected), rtol=1e-4, atol=0)
