"""Functions as modules, and a module for each call, since rules are given to modules and remember one input each."""

from torch.fx import Node
from zennit.layer import Sum
from zennit.types import AvgPool, Linear

from canonxai.canonizers.graph.functional import equivalent
from canonxai.canonizers.graph.network import Network
from canonxai.canonizers.graph.record import MODULE


def make_modules(network: Network) -> None:
    """Makes each function that a module can compute one; linear layers and pools used repeatedly one for each call."""
    for node in list(network.graph.nodes):
        module = equivalent(node) if node in network.signals else None
        if module is not None:
            new = network.call(node, module, node.args[0])
            network.record(node, MODULE, [new])
    network.unshare(node for node in network.graph.nodes if isinstance(_called(network, node), (Linear, AvgPool, Sum)))


def _called(network: Network, node: Node) -> object:
    return network.module(node) if node.op == "call_module" else None
