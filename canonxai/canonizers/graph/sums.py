"""Additions as zennit's ``Sum``, which hands on relevance in proportion; a plain add gives each summand all of it."""

from typing import Any

import torch
from torch.fx import Node
from zennit.layer import Sum

from canonxai.canonizers.graph.functional import operation
from canonxai.canonizers.graph.gates import Gate
from canonxai.canonizers.graph.network import Network
from canonxai.canonizers.graph.record import KEPT, SUM


def make_sums(network: Network) -> None:
    """Makes ``a + b`` and ``a - b`` of two branches, and ``a.sum(dim)`` over one dimension, a ``Sum``."""
    for node in list(network.graph.nodes):
        if node not in network.signals:
            continue
        if operation(node) in ("add", "sub", "subtract"):
            _make_sum_of_branches(network, node)
        elif operation(node) == "sum":
            _make_sum_over_dimension(network, node)


def _make_sum_of_branches(network: Network, node: Node) -> None:
    branches = [*node.args, *(node.kwargs[key] for key in ("input", "other") if key in node.kwargs)]
    constants = [branch for branch in branches if branch not in network.signals]
    if constants or node.kwargs.get("alpha", 1) != 1:
        reason = "a constant is added, not a branch" if constants else "one summand is multiplied by alpha"
        if branches[0] in constants and operation(node) != "add":
            reason = "it is subtracted from a constant, and relevance follows its gradient: the sign changes"
        network.record(node, KEPT, reason=reason)
        return
    with network.graph.inserting_before(node):
        if operation(node) != "add":
            opposite = network.add(f"{node.name}_opposite", Gate())
            branches[1] = network.graph.call_module(opposite, (branches[1],), {"gate": -1})
        equal = network.graph.call_function(torch.broadcast_tensors, tuple(branches))
        stack = network.graph.call_function(torch.stack, (equal, -1))
    network.record(node, SUM, [network.call(node, Sum(), stack)])


def _make_sum_over_dimension(network: Network, node: Node) -> None:
    dim: Any = node.args[1] if len(node.args) == 2 else node.kwargs.get("dim")
    dim = dim[0] if isinstance(dim, (list, tuple)) and len(dim) == 1 else dim
    if isinstance(dim, int) and not set(node.kwargs) - {"dim"} and len(node.args) <= 2:
        network.record(node, SUM, [network.call(node, Sum(dim), node.args[0])])
