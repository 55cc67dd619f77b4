"""Products with a gate as modules that give all relevance to the signal and none to the gate.

    y = g x:    R_x = R_y,  R_g = 0

Arras et al., WASSA 2017, "Explaining recurrent neural network predictions in sentiment analysis", for the gates of
LSTMs; for squeeze-and-excitation Pahde et al., CVPR-W 2023.
"""

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.fx import Node
from zennit.layer import Sum

from canonxai.canonizers.graph.functional import VIEWS, operation
from canonxai.canonizers.graph.hooks import rule_of
from canonxai.canonizers.graph.network import Network
from canonxai.canonizers.graph.record import GATE, KEPT

_GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax)


class Gate(Sum):  # type: ignore[misc]
    """``signal * gate``: under a rule a sum of one summand with a constant weight, otherwise the plain product.

    zennit's composites that propagate relevance have a rule for sums, which hands on relevance in proportion: all of it
    to the signal. Methods that modify gradients have none, and get the product's true gradient.

    Args:
        combine: what is done to signal and gate instead, as a division.
    """

    def __init__(self, combine: Callable[[Any, Any], Any] = operator.mul) -> None:
        super().__init__()
        self.combine = combine

    def forward(self, signal: Tensor, gate: Tensor | int | float | None = None) -> Tensor:
        if gate is None:  # a rule calls again: all is the signal's
            return signal
        if isinstance(gate, Tensor) and rule_of(self) is not None:
            gate = gate.detach()
        output: Tensor = self.combine(signal, gate)
        return output


def make_gates(network: Network) -> None:
    """Makes each product of a signal with a sigmoid, softmax or constant a :class:`Gate`, and each quotient."""
    for node in list(network.graph.nodes):
        if operation(node) in ("mul", "multiply") and node in network.signals and len(node.args) == 2:
            for is_gate in (_is_constant, _is_gate):
                gates = [factor for factor in node.args if is_gate(network, factor)]
                if len(gates) == 1:
                    signal: Any = next(factor for factor in node.args if factor is not gates[0])
                    network.record(node, GATE, [network.call(node, Gate(), signal, gate=gates[0])])
                    break
            else:
                network.record(node, KEPT, reason="which factor is the gate is not known: not one alone is a sigmoid")
        elif operation(node) in ("div", "divide", "truediv") and _is_divided_by_constant(network, node):
            signal, divisor = node.args
            network.record(node, GATE, [network.call(node, Gate(operator.truediv), signal, gate=divisor)])


def _is_divided_by_constant(network: Network, node: Node) -> bool:
    return len(node.args) == 2 and not node.kwargs and _is_constant(network, node.args[1])


def _is_constant(network: Network, factor: Any) -> bool:
    return factor not in network.signals


def _is_gate(network: Network, factor: Any) -> bool:
    while isinstance(factor, Node) and (operation(factor) in VIEWS or isinstance(network.module(factor), nn.Flatten)):
        factor = factor.args[0]
    return isinstance(network.module(factor), _GATES) or (isinstance(factor, Node) and operation(factor) == "softmax")
