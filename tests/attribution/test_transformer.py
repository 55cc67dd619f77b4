"""The rules of LayerNorm and attention as their formulas, and whole networks against another way to compute them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.convnext import LayerNorm2d
from zennit.composites import LayerMapComposite

from canonxai.attribution.lrp import LRPEpsilon
from canonxai.attribution.transformer import transformer_map
from canonxai.canonizers.transformer import TransformerCanonizer
from canonxai.errors import UserError
from canonxai.layers import AttentionScores, AttentionSoftmax, AttentionSum, Scale
from tests.networks import difference, query
from tests.transformers import transformer

EPSILON = 0.03
every_attention = pytest.mark.parametrize("attention", ["constant", "attnlrp"])


def stable(z: Tensor) -> Tensor:
    return torch.where(z >= 0, z + EPSILON, z - EPSILON)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def backward(layer: nn.Module, inputs: list[Tensor], relevance: Tensor, **arguments: object) -> tuple[Tensor, ...]:
    arguments = {"attention": "constant", "epsilon": EPSILON, "zero_params": None, **arguments}
    inputs = [input.clone().requires_grad_() for input in inputs]
    with LayerMapComposite(transformer_map(**arguments)).context(layer):
        return torch.autograd.grad(layer(*inputs), inputs, relevance)


# LayerNorm.

LAYER_NORMS = {
    "vector": (lambda: nn.LayerNorm(6), (2, 3, 6), (-1,)),
    "matrix": (lambda: nn.LayerNorm([3, 4]), (2, 3, 4), (-2, -1)),
    "no bias": (lambda: nn.LayerNorm(6, bias=False), (2, 3, 6), (-1,)),
    "no parameters": (lambda: nn.LayerNorm(6, elementwise_affine=False), (2, 3, 6), (-1,)),
    "channels first": (lambda: LayerNorm2d(6), (2, 6, 3, 4), (1,)),
}
every_layer_norm = pytest.mark.parametrize("build, shape, dims", LAYER_NORMS.values(), ids=LAYER_NORMS)


def layer_norm(build, bias: bool = True) -> nn.LayerNorm:
    layer = build().double()
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter) if bias or name != "bias" else nn.init.zeros_(parameter)
    return layer


@every_layer_norm
@pytest.mark.parametrize("zero_params", [None, ["bias"], ["weight"]])
def test_layer_norm_is_a_linear_layer_of_its_own_for_each_vector(build, shape, dims, zero_params):
    torch.manual_seed(0)
    layer, x, relevance = layer_norm(build), random(*shape), random(*shape)
    (result,) = backward(layer, [x], relevance, zero_params=zero_params)

    def vectors(tensor: Tensor) -> Tensor:
        return tensor.movedim(dims, tuple(range(-len(dims), 0))).reshape(-1, n)

    n = layer.normalized_shape[0] * (layer.normalized_shape[1] if len(dims) > 1 else 1)
    gamma = torch.ones(n).double() if layer.weight is None else layer.weight.detach().flatten()
    beta = torch.zeros(n).double() if layer.bias is None else layer.bias.detach().flatten()
    gamma = gamma * 0 if zero_params == ["weight"] and layer.weight is not None else gamma
    beta = beta * 0 if zero_params == ["bias"] else beta
    expected = []
    for vector, r in zip(vectors(x), vectors(relevance), strict=True):
        sigma = (((vector - vector.mean()) ** 2).mean() + layer.eps) ** 0.5
        w = gamma[:, None] * (torch.eye(n).double() - 1 / n) / sigma
        expected.append(vector * (w.T @ (r / stable(w @ vector + beta))))
    expected = torch.stack(expected)
    assert (vectors(result) - expected).abs().max() < 1e-10


@every_layer_norm
def test_layer_norm_without_bias_conserves_the_relevance_of_each_vector(build, shape, dims):
    torch.manual_seed(0)
    layer, x, relevance = layer_norm(build, bias=False), random(*shape), random(*shape)
    (result,) = backward(layer, [x], relevance, epsilon=1e-13)
    torch.testing.assert_close(result.sum(dims), relevance.sum(dims), rtol=1e-7, atol=1e-9)


# Attention.


def test_of_constant_attention_each_value_gets_what_it_contributes():
    torch.manual_seed(0)
    a, v, r = random(2, 3, 4, 4).softmax(-1), random(2, 3, 4, 5), random(2, 3, 4, 5)
    of_attention, of_value = backward(AttentionSum(), [a, v], r)
    contribution = torch.einsum("bhji,bhip->bhjip", a, v)
    expected = contribution * (r / stable(contribution.sum(3)))[:, :, :, None]
    assert not of_attention.any() and difference(of_value, expected.sum(2)) < 1e-12


def test_of_attnlrp_each_factor_of_a_product_gets_half():
    torch.manual_seed(0)
    a, v, r = random(2, 3, 4, 4).softmax(-1), random(2, 3, 4, 5), random(2, 3, 4, 5)
    product = torch.einsum("bhji,bhip->bhjip", a, v)
    share = product * (r / stable(product.sum(3)))[:, :, :, None] / 2
    of_attention, of_value = backward(AttentionSum(), [a, v], r, attention="attnlrp")
    assert difference(of_attention, share.sum(4)) < 1e-12 and difference(of_value, share.sum(2)) < 1e-12

    q, k, r = random(2, 3, 4, 5), random(2, 3, 4, 5), random(2, 3, 4, 4)
    product = torch.einsum("bhip,bhjp->bhijp", q, k) / 5**0.5
    share = product * (r / stable(product.sum(4)))[..., None] / 2
    of_query, of_key = backward(AttentionScores(), [q, k], r, attention="attnlrp")
    assert difference(of_query, share.sum(3)) < 1e-12 and difference(of_key, share.sum(2)) < 1e-12


@every_attention
@pytest.mark.parametrize("layer", [AttentionScores(), AttentionSum()], ids=["scores", "sum"])
def test_products_conserve_relevance(layer, attention):
    torch.manual_seed(0)
    a, b = random(2, 3, 4, 4), random(2, 3, 4, 4)
    r = random(2, 3, 4, 4)
    parts = backward(layer, [a, b], r, attention=attention, epsilon=1e-13)
    torch.testing.assert_close(sum(part.sum((2, 3)) for part in parts), r.sum((2, 3)), rtol=1e-7, atol=1e-9)


def test_the_softmax_rule_is_a_first_order_expansion_whose_constant_takes_the_rest():
    torch.manual_seed(0)
    x, r = random(3, 5), random(3, 5)
    (result,) = backward(AttentionSoftmax(), [x], r)
    for i in range(3):
        s = x[i].softmax(0)
        slope = torch.autograd.functional.jacobian(lambda x: x.softmax(0), x[i])  # (outputs, inputs)
        constant = s - slope @ x[i]
        assert difference(result[i], x[i] * (slope.T @ (r[i] / s))) < 1e-12
        assert abs(result[i].sum() + (constant / s * r[i]).sum() - r[i].sum()) < 1e-12


def test_a_constant_factor_passes_relevance_on():
    torch.manual_seed(0)
    x, r = random(2, 3, 4), random(2, 3, 4)
    assert torch.equal(backward(Scale(random(4) * 1e-6), [x], r)[0], r)


def test_other_attention_is_refused_by_name():
    with pytest.raises(UserError, match=r"^method\.attention: expected one of constant, attnlrp, got 'none'"):
        LRPEpsilon(attention="none")


# Networks. For eps -> 0, LRP-epsilon is input x gradient / logit if the gradient takes for a constant what the rules
# do: here of torchvision's network as it is written, its functions replaced, and without any module of ours.


@contextmanager
def functions(attention: str) -> Iterator[None]:
    softmax = F.softmax

    def weights(scores: Tensor, dim: int = -1) -> Tensor:
        return softmax(scores, dim).detach() if attention == "constant" else softmax(scores, dim)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b if attention == "constant" else (a.detach() @ b + a @ b.detach()) / 2

    def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Tensor:
        return product(weights(product(q, k.mT) / q.shape[-1] ** 0.5), v)

    def layer_norm(x: Tensor, shape: object, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt().detach() * weight + bias

    def gelu(x: Tensor, **_: object) -> Tensor:
        return x * (1 + torch.erf(x / 2**0.5)).detach() / 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "softmax", weights)
        patch.setattr(F, "scaled_dot_product_attention", scaled_dot_product_attention)
        patch.setattr(F, "layer_norm", layer_norm)
        patch.setattr(F, "gelu", gelu)
        patch.setattr(Tensor, "matmul", product)  # of Swin alone
        yield


@every_attention
@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_lrp_epsilon_is_input_times_a_gradient_with_constants(name, attention):
    image = query(transformer(name))
    x = image.input.clone().requires_grad_()
    with functions(attention):
        logits = image.model(x)
        target = logits[range(3), image.target]
        expected = x * torch.autograd.grad((target / target.detach()).sum(), x)[0]
    assert difference(logits, image.model(image.input)) < 1e-12
    result = LRPEpsilon(1e-13, 1e-13, attention=attention)(image, [TransformerCanonizer()])
    assert difference(result, expected.detach()) < 1e-6


@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_constant_attention_conserves_the_relevance_of_a_network_without_constants(name):
    model = transformer(name)
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or "pos_embedding" in key or "class_token" in key:
            nn.init.zeros_(parameter)
    total = LRPEpsilon(1e-13, 1e-13)(query(model), [TransformerCanonizer()]).sum((1, 2, 3))
    torch.testing.assert_close(total, torch.ones(3).double(), rtol=1e-6, atol=0)
    as_written = LRPEpsilon(1e-13, 1e-13)(query(model)).sum((1, 2, 3))
    assert ((as_written - 1).abs() > 0.1).all()
