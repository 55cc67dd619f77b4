"""What makes a graph easier to match and changes nothing: no identities, no writing in place, BatchNorms as modules."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import stochastic_depth

from canonxai.canonizers.graph.functional import ALIASES, is_size, operation
from canonxai.canonizers.graph.hooks import has_hooks
from canonxai.canonizers.graph.network import Network, shallow_copy
from canonxai.canonizers.graph.record import REMOVED
from canonxai.canonizers.graph.trace import IN_PLACE, require_default
from canonxai.errors import UserError

_VIEWING = (nn.Flatten, nn.Unflatten, nn.Identity, _DropoutNd)
_BATCH_NORM = ("running_mean", "running_var", "weight", "bias")


def normalize(network: Network) -> None:
    """Removes assertions and what is the identity in evaluation mode, writes nowhere in place.

    Raises:
        UserError: if the network writes into a tensor of which another view is read later.
    """
    simplify(network)
    for node in list(network.graph.nodes):
        _write_elsewhere(network, node)
    for node in network.graph.nodes:
        module: Any = network.module(node)
        if node.op == "call_module" and hasattr(module, "inplace"):
            module.inplace = False
    network.eliminate_dead_code()


def simplify(network: Network) -> None:
    """Of these, what is done without a look at what writes in place."""
    for step in (_make_positional, _remove_assertion, _remove_identity, _make_batch_norm_a_module):
        for node in list(network.graph.nodes):
            step(network, node)


def _make_positional(network: Network, node: Node) -> None:
    """The input of a module that is given by keyword becomes the first argument."""
    if node.op == "call_module" and not node.args and node.kwargs:
        module: Any = network.module(node)
        name = next(iter(inspect.signature(module.forward).parameters), "")
        if name in node.kwargs:
            node.args, node.kwargs = (node.kwargs[name],), {k: v for k, v in node.kwargs.items() if k != name}


def _remove_assertion(network: Network, node: Node) -> None:
    if node.target is torch._assert:
        network.forget(node)
        network.graph.erase_node(node)


def _remove_identity(network: Network, node: Node) -> None:
    module = network.module(node) if node.op == "call_module" else None
    is_plain = module is not None and not has_hooks(module) and "forward" not in vars(module)
    if (is_plain and isinstance(module, (nn.Identity, _DropoutNd))) or _is_dropout_in_evaluation(node):
        network.record(node, REMOVED, reason="the identity in evaluation mode")
        network.replace(node, node.all_input_nodes[0])


def _is_dropout_in_evaluation(node: Node) -> bool:
    if node.target is not stochastic_depth and not operation(node).endswith("dropout"):
        return False
    position = 3 if node.target is stochastic_depth else 2
    given = node.args[position] if len(node.args) > position else node.kwargs.get("training", node.kwargs.get("train"))
    return given is False


def _write_elsewhere(network: Network, node: Node) -> None:
    """An operation in place gives a new tensor, and whatever read the old one later now reads that."""
    target = node.args[0] if node.args else None
    if node not in network.signals or node.target is require_default:
        return
    if isinstance(node.kwargs.get("out"), Node):
        raise UserError(
            f"canonizer: expected no operation that writes into an argument out, got {node.name}. "
            "Write it out of place, or use a canonizer that works module by module, as canonizer=resnet."
        )
    if not isinstance(target, Node) or not _set_in_place_off(network, node):
        return
    for alias in _same_storage(network, target, node):
        if alias is not target and any(user > node for user in alias.users):
            raise UserError(
                f"canonizer: expected no writing into a tensor of which another view is read later, got {node.name}. "
                "Write it out of place, or use a canonizer that works module by module, as canonizer=resnet."
            )
    for user in list(target.users):
        if user > node:
            user.replace_input_with(target, node)


def _set_in_place_off(network: Network, node: Node) -> bool:
    """Whether a node wrote in place; a function or method does not any more."""
    name = operation(node)
    if node.op == "call_module":
        return getattr(network.module(node), "inplace", False) is True
    if node.target in IN_PLACE:
        node.target = IN_PLACE[node.target]
    elif node.kwargs.get("inplace") is True:
        node.update_kwarg("inplace", False)
    elif name.endswith("_") and not name.endswith("__"):
        spaces = (Tensor,) if node.op == "call_method" else (F, torch)
        elsewhere: Any = next((f for space in spaces if callable(f := getattr(space, name[:-1], None))), None)
        if elsewhere is None:
            raise UserError(f"canonizer: expected no operation that can only write in place, got {node.name}.")
        node.target = name[:-1] if node.op == "call_method" else elsewhere
    else:
        return False
    return True


def _same_storage(network: Network, node: Node, before: Node) -> list[Node]:
    """A node and all that may be views of the same storage, made before another node."""
    found = [node]
    for alias in found:  # which grows
        near = [*_aliased(network, alias), *(user for user in alias.users if alias in _aliased(network, user))]
        found += [other for other in near if other < before and other not in found]
    return found


def _aliased(network: Network, node: Node) -> list[Node]:
    """The arguments of which a node may give a view, or which it may give as they are."""
    if is_size(node) or node.op not in ("call_module", "call_function", "call_method"):
        return []
    inputs = node.all_input_nodes
    name = operation(node)
    if node.op == "call_module":
        return inputs if isinstance(network.module(node), _VIEWING) else []
    if name in ALIASES:
        return inputs if name in ("broadcast_tensors", "meshgrid") else inputs[:1]
    return [] if name else inputs  # attributes as mT, and functions that are not known


def _make_batch_norm_a_module(network: Network, node: Node) -> None:
    """One of torch's own instead of a subclass with a forward pass of its own, which is traced into."""
    scope = network.scope(node)
    if operation(node) != "batch_norm" or node not in network.signals or not scope:
        return
    module: Any = network.root.get_submodule(scope)
    given = dict(zip(_BATCH_NORM, node.args[1:], strict=False)) | node.kwargs
    kind = next((kind for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) if isinstance(module, kind)), None)
    if kind and all(_holds(module, scope, name, given.get(name)) for name in _BATCH_NORM):
        plain = shallow_copy(module)
        plain.__class__ = kind
        plain._modules.clear()
        vars(plain).pop("forward", None)
        new = network.call(node, plain, node.args[0])
        network.stands_for(new, node)


def _holds(module: nn.Module, scope: str, name: str, given: Any) -> bool:
    return getattr(module, name) is None if given is None else getattr(given, "target", None) == f"{scope}.{name}"
