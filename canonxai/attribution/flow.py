"""How much relevance enters and leaves each layer: where it is conserved, and where it is lost or made."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer

from canonxai.attribution.base import Method, Query, one_hot
from canonxai.models.snapshot import restored


@dataclass
class Flow:
    """Relevance of one layer, summed over its values, its calls and the batch.

    Attributes:
        above: what it gets from the layers above.
        below: what it hands on to the layers below.
    """

    above: float = 0.0
    below: float = 0.0

    @property
    def ratio(self) -> float:
        """``below / above``: 1 where relevance is conserved; NaN where none arrives."""
        return self.below / self.above if self.above else float("nan")


def relevance_flow(method: Method, query: Query, canonizers: Sequence[Canonizer] = ()) -> dict[str, Flow]:
    """Relevance into and out of every module without children, under the rules of ``method``.

    Args:
        method: one whose composite propagates relevance; of others, this is the flow of the modified gradient.
        query: what is explained; the model is unchanged afterwards.
        canonizers: as the method is given.

    Returns:
        By the module's name, for modules that the forward pass uses; those of the canonized network.
    """
    composite, flows = method.composite(query, canonizers), {}
    with ExitStack() as stack:
        for context in (torch.enable_grad(), restored(query.model)):
            stack.enter_context(context)
        model = stack.enter_context(composite.context(query.model))
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):
                flows[name] = flow = Flow()
                # before zennit's own: what these see is what the rule is given, and what it returns
                stack.enter_context(module.register_forward_pre_hook(partial(_enter, flow), prepend=True))
                stack.enter_context(module.register_forward_hook(partial(_leave, flow), prepend=True))
        input = query.input.detach().requires_grad_()
        logits = model(input)
        torch.autograd.grad(logits, input, one_hot(query.target, logits))
    return {name: flow for name, flow in flows.items() if flow != Flow()}


def _enter(flow: Flow, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def add(relevance: Tensor) -> None:
        flow.below += float(relevance.sum())

    watched = []
    for value in inputs:
        if isinstance(value, Tensor) and value.requires_grad:
            value = value.clone()  # the layer's own share, where others use the tensor as well
            value.register_hook(add)  # type: ignore[no-untyped-call]
        watched.append(value)
    return tuple(watched)


def _leave(flow: Flow, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    def add(relevance: Tensor) -> None:
        flow.above += float(relevance.sum())

    for value in output if isinstance(output, tuple) else (output,):
        if isinstance(value, Tensor) and value.requires_grad:
            value.register_hook(add)  # type: ignore[no-untyped-call]
