"""Layers that a canonizer puts where a network computes something that rules cannot see, as zennit's ``Sum``."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zennit.layer import Sum


def add(layer: Sum, a: Any, b: Any) -> Any:
    """``a + b`` by a ``Sum`` over the last dimension; b is broadcast to a. Tensors, or what torch.fx takes for them."""
    return layer(torch.stack([a, b.expand_as(a)], dim=-1))


class Scale(nn.Module):
    """Multiplies by constants, ``y = c x``: all relevance of y is that of x.

    Args:
        scale: the constants c, broadcast to the input.
    """

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self.scale * input


class AttentionScores(nn.Module):
    """How similar each query is to each key: ``q k^T / sqrt(d)``."""

    def forward(
        self, query: Float[Tensor, "*batch tokens d"], key: Float[Tensor, "*batch tokens d"]
    ) -> Float[Tensor, "*batch tokens tokens"]:
        return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])


class AttentionSoftmax(nn.Softmax):
    """The softmax over the keys."""

    def __init__(self) -> None:
        super().__init__(dim=-1)


class AttentionSum(nn.Module):
    """The sum of the values, weighted by the attention: ``A v``."""

    def forward(
        self, attention: Float[Tensor, "*batch tokens tokens"], value: Float[Tensor, "*batch tokens d"]
    ) -> Float[Tensor, "*batch tokens d"]:
        return attention @ value
