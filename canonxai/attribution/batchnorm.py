"""BatchNorm by a rule of its own: what can be done instead of merging it.

In evaluation mode BatchNorm is linear in each channel: ``y = s x + t`` with ``s = gamma / sqrt(var + eps)`` and
``t = beta - mean s``. The rules hand relevance R of y on to x::

    pass       R
    epsilon    R  s x / (y + eps sign(y))
    omega      R |s x| / (|s x| + |t| + eps)

``pass`` is zennit's: it ignores s and t. ``epsilon`` is the rule of every other linear layer; for eps -> 0 it makes
LRP-epsilon the same with and without canonization, but multiplies relevance without bound where s x and t cancel.
``omega``, the |omega|-rule (in reimplementations |z|-rule) of Hui and Binder, IWANN 2019, "BatchNorm decomposition for
deep neural network interpretation", compares magnitudes instead: relevance keeps its sign and never grows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import BasicHook, Hook, Stabilizer
from zennit.rules import NoMod, Pass

from canonxai.canonizers.graph.affine import BATCH_NORM, is_batch_norm

BATCHNORM_RULES = ("pass", "epsilon", "omega")


def is_merged(module: nn.Module) -> bool:
    """Whether a BatchNorm has been merged into its neighbour, and so computes the identity."""
    return is_batch_norm(module) and "forward" in vars(module)


class _Merged(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return is_merged(instance)


class MergedBatchNorm(metaclass=_Merged):
    """The type, in zennit's sense, of each BatchNorm that computes the identity."""


class BatchNormRule(BasicHook):  # type: ignore[misc]
    """Relevance in proportion to ``s x``: ``R_in = s x factor(s x, t) R``.

    Args:
        factor: what ``s x`` is multiplied with.
        zero_params: parameters that count as zero; ``bias`` is the whole shift t, ``weight`` gamma.
    """

    def __init__(self, factor: Callable[[Tensor, Tensor], Tensor], zero_params: list[str] | None = None) -> None:
        has_shift = "bias" not in (zero_params or ())

        def gradient_mapper(relevance: Tensor, outputs: list[Tensor]) -> list[Tensor]:
            output, shift = outputs
            return [relevance * factor(output - shift, shift * has_shift), torch.zeros_like(relevance)]

        super().__init__(
            input_modifiers=[lambda input: input, torch.zeros_like],  # of zero the output is the shift
            param_modifiers=[NoMod(zero_params=zero_params)] * 2,
            output_modifiers=[lambda output: output] * 2,
            gradient_mapper=gradient_mapper,
            reducer=lambda inputs, gradients: inputs[0] * gradients[0],
        )


class BatchNormEpsilon(BatchNormRule):
    """The epsilon rule."""

    def __init__(self, epsilon: float = 1e-6, zero_params: list[str] | None = None) -> None:
        stabilize = Stabilizer(epsilon)
        super().__init__(lambda scaled, shift: 1 / stabilize(scaled + shift), zero_params)


class BatchNormOmega(BatchNormRule):
    """The |omega|-rule."""

    def __init__(self, stabilizer: float = 1e-6, zero_params: list[str] | None = None) -> None:
        super().__init__(
            lambda scaled, shift: scaled.sign() / (scaled.abs() + shift.abs() + stabilizer),
            zero_params,
        )


def batchnorm_map(
    rule: str, epsilon: float, stabilizer: float, zero_params: list[str] | None
) -> list[tuple[Any, Hook]]:
    """Which rule BatchNorms get, to be put before the layer map of a composite; merged ones pass relevance on.

    Args:
        rule: one of ``BATCHNORM_RULES``, or ``gradient`` for none.
        epsilon: of the epsilon rule, > 0.
        stabilizer: of the |omega|-rule, > 0.
        zero_params: parameters that count as zero, of ``weight`` and ``bias``.
    """
    if rule == "gradient":
        return []
    rules = {
        "pass": Pass(),
        "epsilon": BatchNormEpsilon(epsilon, zero_params),
        "omega": BatchNormOmega(stabilizer, zero_params),
    }
    return [(MergedBatchNorm, Pass()), (BATCH_NORM, rules[rule])]
