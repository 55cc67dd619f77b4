import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import convnext_tiny, swin_t, swin_v2_t, vit_b_16
from torchvision.models.swin_transformer import ShiftedWindowAttention
from zennit.core import Composite
from zennit.layer import Sum

from canonxai.attribution.lrp import LRPEpsilonPlus
from canonxai.attribution.rules import GRADIENT, rule_table
from canonxai.canonizers.transformer import TransformerCanonizer
from canonxai.errors import UserError
from canonxai.layers import AttentionSum, Scale
from tests.networks import cosine_distance, difference, query, untouched
from tests.transformers import BUILDERS, transformer

every_network = pytest.mark.parametrize("name", BUILDERS)


def logits_and_gradient(model: nn.Module, input: Tensor) -> tuple[Tensor, Tensor]:
    input = input.clone().requires_grad_()
    logits = model(input)
    return logits, torch.autograd.grad(logits[:, 3].sum(), input)[0]


@every_network
@pytest.mark.parametrize("parts", [None, [], ["merge_bn"], ["attention"], ["sum"]])
def test_logits_and_gradients_are_unchanged_and_nothing_is_left_behind(name, parts):
    model = transformer(name)
    input = query(model).input
    logits, gradient = logits_and_gradient(model, input)
    with untouched(model, input), Composite(canonizers=[TransformerCanonizer(parts)]).context(model):
        canonized_logits, canonized_gradient = logits_and_gradient(model, input)
    assert difference(canonized_logits, logits) < 1e-12
    assert cosine_distance(canonized_gradient, gradient).max() < 1e-12


@pytest.mark.parametrize(
    "name, parts, layers",
    [
        ("vit", None, {AttentionSum: 2, Sum: 5, Scale: 0}),
        ("vit", ["attention"], {AttentionSum: 2, Sum: 0}),
        ("vit", ["sum"], {AttentionSum: 0, Sum: 5}),
        ("swin", None, {AttentionSum: 4, Sum: 12}),
        ("swin", ["attention"], {AttentionSum: 4, Sum: 4}),
        ("convnext", None, {AttentionSum: 0, Sum: 4, Scale: 4}),
        ("convnext", ["attention"], {Sum: 0, Scale: 0}),
    ],
)
def test_the_parts_are_done_and_no_others(name, parts, layers):
    model = transformer(name)
    with Composite(canonizers=[TransformerCanonizer(parts)]).context(model):
        for kind, count in layers.items():
            assert sum(isinstance(module, kind) for module in model.modules()) == count


@pytest.mark.parametrize("size", [(6, 6), (7, 8), (3, 9), (2, 5)])
@pytest.mark.parametrize("shift", [[0, 0], [1, 1], [0, 2]])
def test_windows_are_torchvisions_for_any_size_and_shift(size, shift):
    torch.manual_seed(0)
    attention = ShiftedWindowAttention(8, [3, 3], shift, 2).double().eval()
    nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, *size, 8).double()
    expected = attention(x)
    with Composite(canonizers=[TransformerCanonizer()]).context(attention):
        assert difference(attention(x), expected) < 1e-12


#: modules and functions through which the gradient of relevance is the relevance: they move numbers or do nothing
MOVING = {
    *("Dropout", "StochasticDepth", "Permute", "Flatten", "getattr", "getitem", "eq", "_assert", "floordiv", "mul"),
    *("reshape", "permute", "expand", "expand_as", "cat", "stack", "unflatten", "movedim", "transpose", "unbind"),
    *("flatten", "to_windows", "from_windows", "scores_bias", "_get_relative_position_bias", "_patch_merging_pad"),
}


@every_network
@pytest.mark.parametrize("attention", ["constant", "attnlrp"])
def test_every_layer_has_a_rule_and_the_map_is_finite_and_not_constant(name, attention):
    image, canonizers = query(transformer(name)), [TransformerCanonizer()]
    method = LRPEpsilonPlus(attention=attention)
    table = rule_table(image.model, method.composite(image, canonizers), canonizers)
    without = {layer.layer if layer.type == "function" else layer.type for layer in table if layer.rule == GRADIENT}
    assert without and without <= MOVING
    assert not any(layer.note for layer in table if layer.type != "BatchNorm2d")
    assert any(layer.type == "function" for layer in table)  # it was traced
    relevance = method(image, canonizers)
    assert relevance.isfinite().all() and (relevance.flatten(1).std(1) > 0).all()


@every_network
def test_as_written_there_is_a_map_too_and_the_table_shows_what_has_no_rule(name):
    image = query(transformer(name))
    table = rule_table(image.model, LRPEpsilonPlus().composite(image))
    without = {layer.layer if layer.type == "function" else layer.type for layer in table if layer.rule == GRADIENT}
    attention = {"convnext": {"mul"}, "swin": {"shifted_window_attention"}}.get(name, {"MultiheadAttention"})
    assert {*attention, "add"} <= without
    assert LRPEpsilonPlus()(image).isfinite().all()


@pytest.mark.parametrize(
    "arguments, got",
    [
        ({"batch_first": False}, "batch_first=False"),
        ({"kdim": 4, "vdim": 4}, "kdim or vdim"),
        ({"add_bias_kv": True}, "add_bias_kv"),
        ({"add_zero_attn": True}, "add_zero_attn"),
    ],
)
def test_other_attention_is_refused_before_anything_is_changed(arguments, got):
    model = nn.Sequential(nn.MultiheadAttention(8, 2, **{"batch_first": True, **arguments}))
    before = dict(model.named_modules())
    with pytest.raises(UserError, match=rf"^canonizer: expected nn\.Multi.*, got \['{got}'\]\. Leave the part"):
        Composite(canonizers=[TransformerCanonizer()]).register(model)
    assert dict(model.named_modules()) == before and "forward" not in vars(model[0])
    Composite(canonizers=[TransformerCanonizer(["sum"])]).register(model)


@pytest.mark.parametrize("arguments", [{}, {"need_weights": False, "attn_mask": torch.zeros(3, 3)}])
def test_attention_that_is_called_with_a_mask_or_for_its_weights_is_refused(arguments):
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.zeros(1, 3, 8)
    with (
        Composite(canonizers=[TransformerCanonizer()]).context(attention),
        pytest.raises(UserError, match=r"^canonizer: expected self-attention without masks and weights"),
    ):
        attention(x, x, x, **arguments)


def test_the_second_version_of_swin_is_left_as_it_is():
    model = swin_v2_t(num_classes=5)
    names = [name for name, _ in model.named_modules()]
    with Composite(canonizers=[TransformerCanonizer()]).context(model):
        assert [name for name, _ in model.named_modules()] == names


def test_a_copy_has_the_same_parts():
    copy = TransformerCanonizer(["sum"], exact=False).copy()
    assert type(copy) is TransformerCanonizer and (copy.parts, copy.exact) == (["sum"], False)
    assert len(copy.canonizers) == len(TransformerCanonizer(["sum"]).canonizers)


@pytest.mark.parametrize("build", [partial(vit_b_16, image_size=32), swin_t, convnext_tiny])
def test_torchvisions_own_networks_have_maps(build):
    torch.manual_seed(0)
    model = build(num_classes=5).eval()
    if hasattr(model, "heads"):  # zero at first
        nn.init.normal_(model.heads.head.weight, std=0.02)
    image = query(model, batch=1)
    image = dataclasses.replace(image, input=image.input.float(), low=image.low.float(), high=image.high.float())
    relevance = LRPEpsilonPlus()(image, [TransformerCanonizer()])
    assert relevance.isfinite().all() and relevance.std() > 1e-3 * relevance.abs().max()
