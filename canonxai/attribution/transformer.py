"""Rules for LayerNorm and attention, which make a transformer linear piece by piece.

LayerNorm, its standard deviation held constant, is linear: the epsilon rule. Attention ``A v`` is bilinear; its
relevance is split between attention and values in one of two ways::

    constant    A is a constant: all to the values, by the epsilon rule       (Ali et al. 2022)
    attnlrp     one half each, by the epsilon rule; through the softmax
                s = softmax(x), R_in = x (R - s sum(R)); from the scores      (Achtibat et al. 2024)
                q k^T one half each to queries and keys

Ali et al., ICML 2022, "XAI for transformers: better explanations through conservative propagation"; Achtibat et al.,
ICML 2024, "AttnLRP: attention-aware layer-wise relevance propagation for transformers". LayerNorm is that of the first
in both: the second hands relevance through it unchanged. The softmax rule is its first-order Taylor expansion at x,
whose constant term absorbs relevance; all else conserves it, but for biases.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from zennit.core import BasicHook, Hook, Stabilizer
from zennit.rules import NoMod, Pass

from canonxai.layers import AttentionScores, AttentionSoftmax, AttentionSum, Scale

#: what attention and values get of the relevance of a weighted sum
ATTENTION_SHARES = {"constant": (0.0, 1.0), "attnlrp": (0.5, 0.5)}


class _ConstantDeviation(TorchFunctionMode):
    """Computes ``layer_norm``, whichever module calls it, without a gradient through the standard deviation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.layer_norm:
            return _linear_layer_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear_layer_norm(
    input: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    variance = input.var(dims, correction=0, keepdim=True).detach()
    output = (input - input.mean(dims, keepdim=True)) / (variance + eps).sqrt()
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


class _LinearLayerNorm(NoMod):  # type: ignore[misc]
    @contextmanager
    def __call__(self, module: nn.Module) -> Iterator[nn.Module]:
        with super().__call__(module) as modified, _ConstantDeviation():
            yield modified


class LayerNormEpsilon(BasicHook):  # type: ignore[misc]
    """The epsilon rule for LayerNorm, its standard deviation held constant, its mean a part of the linear layer."""

    def __init__(self, epsilon: float = 1e-6, zero_params: list[str] | None = None) -> None:
        stabilize = Stabilizer(epsilon)
        super().__init__(
            input_modifiers=[lambda input: input],
            param_modifiers=[_LinearLayerNorm(zero_params=zero_params)],
            output_modifiers=[lambda output: output],
            gradient_mapper=lambda relevance, outputs: relevance / stabilize(outputs[0]),
            reducer=lambda inputs, gradients: inputs[0] * gradients[0],
        )


class BilinearEpsilon(Hook):  # type: ignore[misc]
    """The epsilon rule for a product of two inputs, each the other's weight, of which each gets a share.

    Args:
        shares: of the first and the second input, together 1.
        epsilon: added to the output, with its sign, > 0.
    """

    def __init__(self, shares: tuple[float, float] = (0.5, 0.5), epsilon: float = 1e-6) -> None:
        super().__init__()
        self.shares, self.stabilize = shares, Stabilizer(epsilon)

    def forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor) -> None:
        self.stored_tensors["input"] = input

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor]) -> tuple[Tensor, ...]:
        inputs = [input.detach().requires_grad_() for input in self.stored_tensors["input"]]
        with torch.enable_grad():
            output = module.forward(*inputs)
        gradients = torch.autograd.grad(output, inputs, grad_output[0] / self.stabilize(output.detach()))
        return tuple(share * x * gradient for share, x, gradient in zip(self.shares, inputs, gradients, strict=True))

    def copy(self) -> "BilinearEpsilon":
        return type(self)(self.shares, self.stabilize.epsilon)


class SoftmaxTaylor(Hook):  # type: ignore[misc]
    """The rule of AttnLRP for ``s = softmax(x)``: ``R_in = x (R - s sum(R))``."""

    def forward(self, module: nn.Module, input: tuple[Tensor], output: Tensor) -> None:
        self.stored_tensors["input"], self.stored_tensors["output"] = input[0], output

    def backward(self, module: Any, grad_input: Any, grad_output: tuple[Tensor]) -> tuple[Tensor]:
        input, output = (self.stored_tensors[key].detach() for key in ("input", "output"))
        (relevance,) = grad_output
        return (input * (relevance - output * relevance.sum(module.dim, keepdim=True)),)


def transformer_map(attention: str, epsilon: float, zero_params: list[str] | None) -> list[tuple[type, Hook | None]]:
    """Which rules the layers of transformers get, to be put before the layer map of a composite.

    Args:
        attention: one of ``ATTENTION_SHARES``.
        epsilon: of the epsilon rule, > 0.
        zero_params: parameters that count as zero, of ``weight`` and ``bias``.
    """
    return [
        (nn.LayerNorm, LayerNormEpsilon(epsilon, zero_params)),
        (Scale, Pass()),
        (AttentionSum, BilinearEpsilon(ATTENTION_SHARES[attention], epsilon)),
        (AttentionSoftmax, SoftmaxTaylor()),
        (AttentionScores, BilinearEpsilon(epsilon=epsilon)),
        (nn.MultiheadAttention, None),  # zennit's rule for it, Pass, fails: as written it is left to the gradient
    ]
