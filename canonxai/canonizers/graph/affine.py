"""A scale and a shift of each channel, which is what a BatchNorm is in evaluation mode, folded into linear layers.

With ``s = gamma / sqrt(var + eps)`` and ``t = beta - mean s``, around a convolution with weight W and bias b::

    s' (W * pad(s x + t) + b) + t'  =  (s' W s) * pad(x)  +  s' (W * pad(t) + b) + t'

Where the convolution pads with zeros, ``W * pad(t)`` depends on the position: at the border, t is missing. The bias
then is a map over the output, computed from an input that is t everywhere.

All is computed in float64 and rounded once.
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops.misc import FrozenBatchNorm2d
from zennit.types import Convolution, ConvolutionTranspose

from canonxai.canonizers.graph.hooks import has_hooks


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift``, a value of each per channel."""

    scale: Float64[Tensor, " channels"]
    shift: Float64[Tensor, " channels"]

    def then(self, other: "Affine | None") -> "Affine":
        """First this, then the other."""
        return self if other is None else Affine(self.scale * other.scale, self.shift * other.scale + other.shift)

    def split(self, sizes: list[int]) -> "list[Affine]":
        """That of each slice of the channels."""
        return [
            Affine(*pair) for pair in zip(torch.split(self.scale, sizes), torch.split(self.shift, sizes), strict=True)
        ]

    def repeat(self, times: int) -> "Affine":
        """With each channel repeated, as by flattening."""
        return Affine(self.scale.repeat_interleave(times), self.shift.repeat_interleave(times))


#: every kind, synchronised and frozen ones among them
BATCH_NORM = (_BatchNorm, FrozenBatchNorm2d)


def is_batch_norm(module: nn.Module | None) -> bool:
    """Whether a module is a BatchNorm of any kind."""
    return isinstance(module, BATCH_NORM)


def batch_norm_affine(module: Any) -> Affine | None:
    """What a BatchNorm computes in evaluation mode; None if it has no running statistics."""
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return None
    scale = (variance.detach().double() + module.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    return Affine(scale, shift - mean.detach().double() * scale)


def channels(linear: Any) -> tuple[int, int]:
    """The channels or features that a linear layer takes and gives."""
    if isinstance(linear, Convolution):
        return linear.in_channels, linear.out_channels
    return linear.in_features, linear.out_features


def obstacle(linear: nn.Module) -> str:
    """Why nothing can be folded into a linear layer; empty if it can."""
    if not {"weight", "bias"} <= linear._parameters.keys() or linear._parameters["weight"] is None:
        return "its weight is computed from other parameters"
    if "forward" in vars(linear):
        return "its forward pass is set on the instance"
    if has_hooks(linear):
        return "it has hooks, which would see other values"
    if not type(linear).__module__.startswith("torch.nn") and not _is_affine(linear):
        return f"the forward pass of {type(linear).__name__} is not that of a linear layer"
    return ""


def _is_affine(linear: nn.Module) -> bool:
    """Whether a forward pass f(x; W, b) is linear in x, and scales of channels can be folded into W and b.

    For two inputs, scales s of input channels and s' of output channels it is tried whether f(0; W, b) = b and::

        f(x; s' W s, s' b) - f(-y; s' W s, s' b)  =  s' (f(s x; W, b) + f(s y; W, b) - 2 b)
    """
    probe: Any = copy.deepcopy(linear).double().requires_grad_(False)
    shape = [channels(probe)[0]]
    if isinstance(probe, Convolution):
        shape += [d * (k - 1) + 3 for d, k in zip(probe.dilation, probe.kernel_size, strict=True)]
    x, y = (f(math.prod(shape)).to(probe.weight).view(1, *shape) for f in (_waves, partial(torch.linspace, -1, 1)))
    before, after = (_waves(n).to(probe.weight).abs() + 0.1 for n in channels(probe))
    weight, bias = probe.weight, torch.zeros_like(after) if probe.bias is None else probe.bias

    def over(value: Tensor) -> Tensor:
        return value.view(-1, *(1 for _ in shape[1:]))

    try:
        zero = probe.forward(0 * x)
        expected = probe.forward(over(before) * x) + probe.forward(over(before) * y) - 2 * zero
        probe.weight = nn.Parameter(weight * _over_outputs(probe, after) * _over_inputs(probe, before), False)
        if probe.bias is not None:
            probe.bias = nn.Parameter(bias * after, False)
        got = probe.forward(x) - probe.forward(-y)
        return torch.allclose(got, over(after) * expected, rtol=1e-9) and torch.allclose(
            zero, over(bias).expand_as(zero), rtol=1e-9
        )
    except Exception:  # anything may be wrong with a forward pass of the user's
        return False


def _waves(count: int) -> Tensor:
    return torch.arange(1, count + 1).double().mul(1.7).sin()


class BiasMap:
    """The forward pass of a convolution whose bias is a map over the output.

    The map is the convolution's parameter ``bias``, so that rules that modify or zero biases reach it. It is made anew
    for an input of another size than the last.

    Args:
        linear: the layer to which this forward pass is given; its weight is that of the folded layer.
        reference: the layer before ``shift`` was folded, in float64.
        shift: what is added to each input channel.
    """

    def __init__(self, linear: Any, reference: nn.Module, shift: Float64[Tensor, " channels"]) -> None:
        self.linear, self.reference, self.shift = linear, reference, shift
        self.without_bias: Any = copy.deepcopy(linear)
        self.without_bias.bias = None

    def __call__(self, input: Tensor) -> Tensor:
        linear = self.linear
        size = input.shape[2:]
        if vars(linear).get("bias_map_size") != size:  # in the layer, so that a snapshot restores it with the bias
            linear.bias_map_size = size
            shift = self.shift.view(-1, *(1 for _ in size)).expand(-1, *size)
            bias = self.reference.forward(shift[None])[0].to(linear.weight.dtype)
            linear.bias = nn.Parameter(bias, requires_grad=linear.weight.requires_grad)
        self.without_bias.weight = linear.weight
        output: Tensor = self.without_bias.forward(input) + linear.bias
        return output


@torch.no_grad()
def fold(linear: Any, before: Affine | None, after: Affine | None) -> None:
    """Makes a linear layer compute ``after(linear(before(x)))``; its parameters are new ones."""
    weight, bias = linear.weight.double(), None if linear.bias is None else linear.bias.double()
    bias = weight.new_zeros(channels(linear)[1]) if bias is None else bias
    if after is not None:
        weight, bias = weight * _over_outputs(linear, after.scale), bias * after.scale + after.shift
    bias_map = None
    if before is not None:
        if (before.shift != 0).any() and _has_border(linear):
            reference = copy.deepcopy(linear).double().requires_grad_(False)
            reference.weight, reference.bias = (nn.Parameter(p, requires_grad=False) for p in (weight, bias))
            bias_map = BiasMap(linear, reference, before.shift)
        elif (before.shift != 0).any():
            bias = bias + (weight * _over_inputs(linear, before.shift)).flatten(1).sum(1)
        weight = weight * _over_inputs(linear, before.scale)
    dtype, requires_grad = linear.weight.dtype, linear.weight.requires_grad
    linear.weight = nn.Parameter(weight.to(dtype), requires_grad)
    linear.bias = nn.Parameter(bias.to(dtype), requires_grad)
    if bias_map is not None:
        linear.forward = bias_map


def _has_border(linear: Any) -> bool:
    """Whether some outputs see less of the input than others."""
    if not isinstance(linear, Convolution):
        return False
    if isinstance(linear, ConvolutionTranspose) or not type(linear).__module__.startswith("torch.nn"):
        return True
    pads = linear.padding not in ("valid", 0) and any(p != 0 for p in linear.padding)
    return pads and linear.padding_mode == "zeros"


def _over_outputs(linear: Any, value: Float64[Tensor, " channels"]) -> Tensor:
    """A value of each output channel, in the shape of the weight."""
    if isinstance(linear, ConvolutionTranspose):  # (inputs, outputs / groups, ...)
        value = value.view(linear.groups, 1, -1).expand(-1, linear.in_channels // linear.groups, -1).flatten(0, 1)
    else:
        value = value[:, None]
    return value.reshape(value.shape + (1,) * (linear.weight.ndim - 2))


def _over_inputs(linear: Any, value: Float64[Tensor, " channels"]) -> Tensor:
    """A value of each input channel, in the shape of the weight."""
    if isinstance(linear, ConvolutionTranspose):
        value = value[:, None]
    elif isinstance(linear, Convolution):  # (outputs, inputs / groups, ...)
        value = value.view(linear.groups, 1, -1).expand(-1, linear.out_channels // linear.groups, -1).flatten(0, 1)
    else:
        value = value[None]
    return value.reshape(value.shape + (1,) * (linear.weight.ndim - 2))
