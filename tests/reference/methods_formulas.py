"""Every rule again, slowly: each layer is a matrix, each image is on its own, each rule is its formula."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from canonxai.attribution import Method, Query
from canonxai.attribution.deconvnet import DeconvNet
from canonxai.attribution.ebp import ExcitationBackprop
from canonxai.attribution.gbp import GuidedBackprop
from canonxai.attribution.gradient import Gradient
from canonxai.attribution.ig import IntegratedGradients
from canonxai.attribution.ixg import InputXGradient
from canonxai.attribution.lrp import (
    LRPEpsilon,
    LRPEpsilonAlpha2Beta1,
    LRPEpsilonAlpha2Beta1Flat,
    LRPEpsilonGammaBox,
    LRPEpsilonGammaFlat,
    LRPEpsilonPlus,
    LRPEpsilonPlusFlat,
    LRPGroups,
)
from canonxai.canonizers import ExactMergeBatchNorm
from tests.networks import query, randomize
from tests.reference.comparison import Comparison, Comparisons, Pairs

EPSILON, STABILIZER, GAMMA = 0.03, 0.02, 0.4  # large and all different, so that a mix-up shows

# A rule gets a layer's input x, its matrix w and bias b, as in z = w x + b, and the relevance r of its output.
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def stable(z: Tensor, stabilizer: float) -> Tensor:
    return torch.where(z >= 0, z + stabilizer, z - stabilizer)


def epsilon(x: Tensor, w: Tensor, b: Tensor, r: Tensor, stabilizer: float) -> Tensor:
    return x * (w.T @ (r / stable(w @ x + b, stabilizer)))


def excited(x: Tensor, w: Tensor, b: Tensor, r: Tensor, sign: int) -> Tensor:
    """What goes to the contributions x_i w_ij of one sign."""
    contribution = (sign * w * x).clamp(min=0) * sign
    z = contribution.sum(1) + (sign * b).clamp(min=0) * sign
    return contribution.T @ (r / stable(z, STABILIZER))


def z_plus(*layer: Tensor) -> Tensor:
    return excited(*layer, sign=1)


def alpha2_beta1(*layer: Tensor) -> Tensor:
    return 2 * excited(*layer, sign=1) - excited(*layer, sign=-1)


def gamma(x: Tensor, w: Tensor, b: Tensor, r: Tensor, sign: Tensor, more: float = GAMMA) -> Tensor:
    """Contributions of the sign of the layer's true output count 1 + gamma; an output of zero has none."""
    contribution = w * x
    contribution = contribution + more * torch.where(contribution.sign() == sign[:, None], contribution, 0)
    z = contribution.sum(1) + b + more * torch.where(b.sign() == sign, b, 0)
    return contribution.T @ (sign.abs() * r / stable(z, STABILIZER))


def gamma_of_positive_inputs(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    """The rule as it was published, w + gamma w+; the same, if a ReLU follows."""
    assert (x >= 0).all()
    w, b = w + GAMMA * w.clamp(min=0), b + GAMMA * b.clamp(min=0)
    return x * (w.T @ (r / stable(w @ x + b, STABILIZER)))


def flat(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    connected = (w != 0).double()
    return connected.T @ (r / (connected.sum(1) + STABILIZER))


def box(x: Tensor, w: Tensor, b: Tensor, r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    contribution = w * x - w.clamp(min=0) * low - w.clamp(max=0) * high
    return contribution.T @ (r / stable(contribution.sum(1), STABILIZER))


def derivative(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return w.T @ r


def unchanged(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return r


def unroll(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and the bias of a layer at an input: unit vectors pushed through it."""
    size = x.numel()
    if isinstance(layer, nn.ReLU | nn.MaxPool2d):  # linear around x only
        return jacobian(layer, x).view(-1, size), torch.zeros(layer(x).numel()).double()
    bias = layer(torch.zeros_like(x))
    unit = torch.eye(size).double().view(size, *x.shape[1:])
    return (layer(unit) - bias).flatten(1).T.detach(), bias.flatten().detach()


def backward(query: Query, rule_of: Callable[[int, nn.Module], Rule], zero_params: Sequence[str] = ()) -> Tensor:
    """Hands each image's relevance down, layer by layer."""
    maps = []
    for x, target in zip(query.input.split(1), query.target, strict=True):
        steps = []
        for i, layer in enumerate(query.model):
            w, b = unroll(layer, x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                w, b = w * ("weight" not in zero_params), b * ("bias" not in zero_params)
            rule, inputs, x = rule_of(i, layer), x.flatten(), layer(x).detach()
            rule = partial(rule, sign=x.flatten().sign()) if getattr(rule, "func", rule) is gamma else rule
            steps.append(partial(rule, inputs, w, b))
        r = (torch.arange(x.numel()) == target).double()
        for step in reversed(steps):
            r = step(r)
        maps.append(r.view(query.input.shape[1:]))
    expected = torch.stack(maps)
    # of nothing, nothing would be tested
    assert zero_params == ["weight"] or (expected.flatten(1).abs().amax(1) > 0).all()
    return expected


def rules(convolution: Rule, first: Rule | None = None) -> Callable[[int, nn.Module], Rule]:
    """LRP's: the epsilon rule in fully connected layers, relevance unchanged by ReLU and BatchNorm."""

    def rule_of(i: int, layer: nn.Module) -> Rule:
        if isinstance(layer, nn.Conv2d):
            return first if first and i == 0 else convolution
        if isinstance(layer, nn.Linear):
            return partial(epsilon, stabilizer=EPSILON)
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return partial(epsilon, stabilizer=STABILIZER)
        return unchanged if isinstance(layer, nn.ReLU | nn.BatchNorm2d) else derivative

    return rule_of


def rules_of_ebp(i: int, layer: nn.Module) -> Rule:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return z_plus
    return partial(epsilon, stabilizer=STABILIZER) if isinstance(layer, nn.AdaptiveAvgPool2d) else derivative


def rules_of_box(query: Query) -> Callable[[int, nn.Module], Rule]:
    low, high = (bound.expand_as(query.input[0]).flatten() for bound in (query.low, query.high))
    return rules(gamma, partial(box, low=low, high=high))


# Networks: with a pool or all positions, with or without BatchNorm, and any sign of the input.


def classifier(pool: bool, batch_norm: bool = False, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(18)  # with this seed relevance reaches every image by every rule
    layers = [
        nn.Conv2d(3, 4, 3, padding=1, bias=bias),
        *([nn.BatchNorm2d(4)] if batch_norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 2, stride=2, bias=bias and not batch_norm),
        *([nn.BatchNorm2d(8)] if batch_norm else []),
        nn.ReLU(),
        *([nn.AdaptiveAvgPool2d(1)] if pool else []),
        nn.Flatten(),
        nn.Linear(8 if pool else 32, 12, bias=bias),
        nn.ReLU(),
        nn.Linear(12, 4, bias=bias),
    ]
    return randomize(nn.Sequential(*layers))


def merged(network: nn.Sequential) -> nn.Sequential:
    """The network without its BatchNorms, each convolution computing what both did."""
    layers = [layer for layer in network if not isinstance(layer, nn.BatchNorm2d)]
    for i, layer in enumerate(network):
        if isinstance(layer, nn.BatchNorm2d):
            before = network[i - 1]
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            both = nn.Conv2d(before.in_channels, before.out_channels, before.kernel_size, before.stride, before.padding)
            with torch.no_grad():
                both.weight = nn.Parameter(before.weight * scale[:, None, None, None])
                old = 0 if before.bias is None else before.bias
                both.bias = nn.Parameter((old - layer.running_mean) * scale + layer.bias)
            layers[layers.index(before)] = both
    return nn.Sequential(*layers)


LRP = {
    LRPEpsilon: lambda query: rules(partial(epsilon, stabilizer=EPSILON)),
    LRPEpsilonPlus: lambda query: rules(z_plus),
    LRPEpsilonPlusFlat: lambda query: rules(z_plus, flat),
    LRPEpsilonAlpha2Beta1: lambda query: rules(alpha2_beta1),
    LRPEpsilonAlpha2Beta1Flat: lambda query: rules(alpha2_beta1, flat),
    LRPEpsilonGammaBox: rules_of_box,
    LRPEpsilonGammaFlat: lambda query: rules(gamma, flat),
    LRPGroups: lambda query: rules(partial(gamma, more=GAMMA), partial(gamma, more=GAMMA / 10)),
    ExcitationBackprop: lambda query: rules_of_ebp,
}


def build(kind: type[Method], **arguments: object) -> Method:
    arguments = {"stabilizer": STABILIZER, **arguments}
    if kind is not ExcitationBackprop:
        arguments["epsilon"] = EPSILON
    if kind is LRPGroups:  # of two convolutions, the last third is empty
        arguments |= {"gamma_low": GAMMA / 10, "gamma_middle": GAMMA}
    if "Gamma" in kind.__name__:
        arguments["gamma"] = GAMMA
    return kind(**arguments)


COMPARISONS = Comparisons("formula, float64")
TOLERANCE = 1e-12
NAMES = {
    LRPEpsilon: "lrp_eps",
    LRPEpsilonPlus: "lrp_eps_plus",
    LRPEpsilonPlusFlat: "lrp_eps_plus_flat",
    LRPEpsilonAlpha2Beta1: "lrp_eps_a2b1",
    LRPEpsilonAlpha2Beta1Flat: "lrp_eps_a2b1_flat",
    LRPEpsilonGammaBox: "lrp_eps_gamma_box",
    LRPEpsilonGammaFlat: "lrp_eps_gamma_flat",
    LRPGroups: "lrp_groups",
    ExcitationBackprop: "ebp",
}


def compared(kind: type[Method]) -> Pairs:
    """With a pool or all positions; with biases or as if they were zero; and BatchNorm, canonized and not."""
    for pool in (True, False):
        for zero_params in (None, ["bias"]):
            image = query(classifier(pool), size=8)
            expected = backward(image, LRP[kind](image), zero_params or ())
            yield from zip(build(kind, zero_params=zero_params)(image), expected, strict=True)
        original = query(classifier(pool, batch_norm=True), size=8)
        canonized = query(merged(original.model), size=8)
        torch.testing.assert_close(original.model(original.input), canonized.model(canonized.input))
        for image, canonizers in ((original, []), (canonized, [ExactMergeBatchNorm()])):
            yield from zip(build(kind)(original, canonizers), backward(image, LRP[kind](image)), strict=True)


COMPARISONS += [
    Comparison(name, COMPARISONS.reference, TOLERANCE, partial(compared, kind)) for kind, name in NAMES.items()
]


@COMPARISONS(
    "lrp_eps_gamma_flat",
    TOLERANCE,
    "the generalised rule equals the published one, w + gamma w+, where inputs are >= 0",
    "published gamma rule, float64",
)
def published_gamma() -> Pairs:
    for pool in (True, False):
        image = query(classifier(pool), size=8)
        yield from zip(
            build(LRPEpsilonGammaFlat)(image), backward(image, rules(gamma_of_positive_inputs, flat)), strict=True
        )


def with_relu(method: Method, relu: Rule) -> Pairs:
    """The gradient, but for ReLUs."""
    for pool in (True, False):
        for batch_norm in (True, False):
            image = query(classifier(pool, batch_norm), size=8)
            yield from zip(
                method(image),
                backward(image, lambda i, layer: relu if isinstance(layer, nn.ReLU) else derivative),
                strict=True,
            )


@COMPARISONS("gradient", TOLERANCE)
def gradient() -> Pairs:
    yield from with_relu(Gradient(), derivative)


@COMPARISONS("gbp", TOLERANCE)
def guided() -> Pairs:
    yield from with_relu(GuidedBackprop(), lambda x, w, b, r: r * (x > 0) * (r > 0))


@COMPARISONS("deconvnet", TOLERANCE)
def deconvolved() -> Pairs:
    yield from with_relu(DeconvNet(), lambda x, w, b, r: r * (r > 0))


@COMPARISONS("ixg", TOLERANCE)
def input_x_gradient() -> Pairs:
    image = query(classifier(pool=True), size=8)
    yield from zip(InputXGradient()(image), image.input * backward(image, lambda i, layer: derivative), strict=True)


@COMPARISONS("ig", TOLERANCE, "the right Riemann sum")
def integrated_gradients() -> Pairs:
    image = query(classifier(pool=True), size=8)
    for baseline, start in (("mean", torch.zeros_like(image.input)), ("black", image.low.expand_as(image.input))):
        total = torch.zeros_like(image.input)
        for step in (1, 2, 3):
            point = replace(image, input=start + step / 3 * (image.input - start))
            total += backward(point, lambda i, layer: derivative)
        yield from zip(
            IntegratedGradients(steps=3, baseline=baseline)(image), (image.input - start) * total / 3, strict=True
        )
