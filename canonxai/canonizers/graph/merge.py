"""Each BatchNorm merged into linear layers before or after it, wherever that is exact.

In this order, the first that applies:

- *left*: its input is the output of a linear layer that nothing else uses;
- *right*: all that uses its output are linear layers, possibly behind pools, with which a scale and shift commute;
- *threshold*: the same behind a ReLU, see :mod:`canonxai.canonizers.graph.threshold`;
- *split*: its input is a linear layer that others use, too, or a concatenation of such. Each layer is repeated, with
  the BatchNorm's slice merged; a slice from no linear layer becomes a depthwise 1 x 1 convolution if others do.

``preactivation="untangle"`` tries *split* before *threshold*, as Motzkus et al., ICIP 2022, but for first layers, which
may have a rule of their own: a copy does not get it.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
from zennit.types import Convolution, Linear

from canonxai.canonizers.graph.affine import Affine, batch_norm_affine, channels, fold, is_batch_norm, obstacle
from canonxai.canonizers.graph.functional import Mean
from canonxai.canonizers.graph.network import Network, shallow_copy
from canonxai.canonizers.graph.record import KEPT, MERGED_LEFT, MERGED_RIGHT, MODULE, SPLIT, THRESHOLD
from canonxai.canonizers.graph.shapes import Shapes, dimensions, is_concatenation, is_plain, is_pool
from canonxai.canonizers.graph.threshold import thresholded

PREACTIVATIONS = ("threshold", "untangle")
_FIRST = "a copy of a first layer does not get the first layer's rule"
_NOT_FLAT = "its input is not known to be flattened"


class UnmergeableError(Exception):
    """Why a BatchNorm cannot be merged in some way."""


@dataclass
class _Fold:
    """What is to be folded into a call of a linear layer."""

    before: Affine | None = None
    after: Affine | None = None


def merge_batch_norms(network: Network, preactivation: str) -> None:
    """Merges every BatchNorm of a network that can be merged."""
    merge = _Merge(network)
    first = [merge.split_later_layers] if preactivation == "untangle" else []
    merge.by(merge.left)
    merge.by(merge.right, *first, merge.threshold, merge.split)
    network.eliminate_dead_code()
    merge.fold()


def fuse_batch_norms(network: Network) -> None:
    """Merges only what is merged left: the network has as many layers as before, without the BatchNorms.

    It may write in place.
    """
    merge = _Merge(network)
    merge.by(merge.left)
    merge.fold()


_Way = Callable[[Node, Any, Affine], None]


class _Merge:
    def __init__(self, network: Network) -> None:
        self.network, self.shapes = network, Shapes(network)
        self.folds: dict[Node, _Fold] = {}

    def by(self, *ways: _Way) -> None:
        """Merges every BatchNorm for which one of the ways applies."""
        while sum(self._merge(node, ways) for node in self._batch_norms()):  # one may make way for another
            pass

    def _batch_norms(self) -> list[Node]:
        nodes = [node for node in self.network.graph.nodes if node.op == "call_module"]
        return [node for node in nodes if is_batch_norm(self.network.module(node))]

    def _merge(self, node: Node, ways: tuple[_Way, ...]) -> bool:
        """Merges a BatchNorm in the first way that applies; whether one does."""
        batch_norm: Any = self.network.module(node)
        affine = batch_norm_affine(batch_norm)
        if affine is None:
            self.network.record(node, KEPT, reason="without running statistics it is not a linear function")
            return False
        if not is_plain(batch_norm):
            reason = "it has hooks or a forward pass of its own, which may change what it computes"
            self.network.record(node, KEPT, reason=reason)
            return False
        reasons = []
        for way in ways:
            try:
                way(node, batch_norm, affine)
                return True
            except UnmergeableError as reason:
                reasons += [str(reason)] if str(reason) != _FIRST else []  # why not even then is told, too
        self.network.record(node, KEPT, reason="; ".join(dict.fromkeys(reasons)))
        return False

    def left(self, node: Node, batch_norm: Any, affine: Affine) -> None:
        """Into the linear layer before it."""
        producer: Any = node.args[0]
        self._check_producer(producer, batch_norm, affine)
        if len(self.network.readers(producer)) > 1:
            raise UnmergeableError(f"others use the output of {producer.target}, too")
        self._append(producer, affine)
        self._finish(node, producer, MERGED_LEFT, [producer])

    def right(self, node: Node, batch_norm: Any, affine: Affine) -> None:
        """Into the linear layers after it."""
        into = list(self._consumers(node, affine, dimensions(batch_norm)))
        self._prepend(into)
        self._finish(node, node.args[0], MERGED_RIGHT, [consumer for consumer, _ in into])

    def threshold(self, node: Node, batch_norm: Any, affine: Affine) -> None:
        """Into the linear layers after the ReLU after it."""
        relu, *others = self.network.readers(node) or [node]
        module = self.network.module(relu)
        if others or type(module) is not nn.ReLU or not is_plain(module):
            raise UnmergeableError("no ReLU alone follows it")
        activation, after = thresholded(affine, batch_norm.running_mean.dtype)
        into = list(self._consumers(relu, after, dimensions(batch_norm)))
        self._prepend(into)
        new = self.network.call(relu, activation, node.args[0])
        self.network.record(relu, MODULE, [new])
        self._finish(node, node.args[0], THRESHOLD, [new, *(consumer for consumer, _ in into)])

    def split(self, node: Node, batch_norm: Any, affine: Affine) -> None:
        """Into copies of the linear layers before it."""
        value: Any = node.args[0]
        into: list[Node] = []
        with self.network.graph.inserting_before(node):
            new = self._pulled(value, batch_norm, affine, into)
        reason = _FIRST if self._is_first(value) else ""
        self._finish(node, new, SPLIT, into, reason)

    def split_later_layers(self, node: Node, batch_norm: Any, affine: Affine) -> None:
        """The same, but for first layers, which may have a rule of their own that copies do not get."""
        if self._is_first(node.args[0]):
            raise UnmergeableError(_FIRST)
        self.split(node, batch_norm, affine)

    def _is_first(self, value: Any) -> bool:
        """Whether some of the linear layers that give a value read the network's input, not that of other layers."""
        if isinstance(self.network.module(value), Linear):
            return not any(isinstance(self.network.module(node), Linear) for node in _before(value))
        if is_concatenation(value):
            return any(self._is_first(part) for part in value.args[0])
        if is_pool(self.network.module(value)):
            return self._is_first(value.args[0])
        return False

    def _finish(self, node: Node, new: Any, action: str, into: list[Node], reason: str = "") -> None:
        self.network.record(node, action, into, reason)
        self.network.replace(node, new)

    # to the left

    def _pulled(self, value: Any, batch_norm: Any, affine: Affine, into: list[Node]) -> Node:
        """A new node that computes ``affine(value)``; the linear layers that do so are appended to ``into``."""
        module: Any = self.network.module(value)
        if isinstance(module, Linear):
            self._check_producer(value, batch_norm, affine)
            new = self.network.graph.node_copy(value)
            if value in self.folds:
                self.folds[new] = replace(self.folds[value])
            self._append(new, affine)
            into.append(new)
            return new
        if _commutes(module, affine):
            pulled = self._pulled(value.args[0], batch_norm, affine, into)
            return self.network.graph.call_module(self.network.add(value.name, shallow_copy(module)), (pulled,))
        if is_concatenation(value):
            return self._pulled_slices(value, batch_norm, affine, into)
        raise UnmergeableError(f"its input is computed by {self.network.name(value)}, not by a linear layer")

    def _pulled_slices(self, cat: Node, batch_norm: Any, affine: Affine, into: list[Node]) -> Node:
        parts: Any = cat.args[0]
        sizes = self.shapes.sizes(parts, len(affine.scale))
        if sum(sizes) != len(affine.scale):
            raise UnmergeableError("the sizes of the slices of its input are not known")
        slices = list(enumerate(zip(parts, affine.split(sizes), strict=True)))
        pulled: dict[int, Node] = {}
        for index, (part, slice) in slices:
            with suppress(UnmergeableError):
                pulled[index] = self._pulled(part, batch_norm, slice, into)
        if not pulled:
            raise UnmergeableError("no slice of its input comes from a linear layer")
        for index, (part, slice) in slices:
            if index not in pulled:
                layer = self.network.add(part.name, _depthwise(batch_norm, slice))
                pulled[index] = self.network.graph.call_module(layer, (part,))
                into.append(pulled[index])
        return self.network.graph.call_function(torch.cat, ([pulled[index] for index, _ in slices], 1))

    def _check_producer(self, value: Any, batch_norm: Any, affine: Affine) -> None:
        module: Any = self.network.module(value)
        if not isinstance(module, Linear):
            raise UnmergeableError(f"its input is computed by {self.network.name(value)}, not by a linear layer")
        if problem := obstacle(module):
            raise UnmergeableError(f"{value.target}: {problem}")
        if channels(module)[1] != len(affine.scale) or (isinstance(module, nn.Linear) and dimensions(batch_norm)):
            raise UnmergeableError(f"{value.target} has its features in another dimension")
        if isinstance(module, nn.Linear) and not self.shapes.is_flat(value):
            raise UnmergeableError(f"{value.target} may have its features in another dimension: {_NOT_FLAT}")

    def _append(self, linear: Node, affine: Affine) -> None:
        fold = self.folds.setdefault(linear, _Fold())
        fold.after = affine if fold.after is None else fold.after.then(affine)

    # to the right

    def _consumers(
        self, node: Node, affine: Affine, ndim: int | None, flat: bool = False
    ) -> Iterator[tuple[Node, Affine]]:
        """All linear layers that take ``affine(node)``, and what each is to take in."""
        for user in self.network.readers(node):
            module: Any = self.network.module(user)
            if isinstance(module, Linear):
                yield user, self._taken_in(user, module, affine, ndim, flat)
            elif not flat and _commutes(module, affine):
                yield from self._consumers(user, affine, ndim)
            elif isinstance(module, nn.Flatten) and is_plain(module) and (module.start_dim, module.end_dim) == (1, -1):
                yield from self._consumers(user, affine, ndim, flat=True)
            elif isinstance(module, Mean) and ndim and {d % ndim for d in module.dim} == set(range(2, ndim)):
                yield from self._consumers(user, affine, ndim, flat=not module.keepdim)
            else:
                raise UnmergeableError(f"its output goes to {self.network.name(user)}, not to linear layers alone")

    def _taken_in(self, user: Node, linear: Any, affine: Affine, ndim: int | None, flat: bool) -> Affine:
        if problem := obstacle(linear):
            raise UnmergeableError(f"{user.target}: {problem}")
        times, rest = divmod(channels(linear)[0], len(affine.scale))
        fits = times == 1 and not flat if isinstance(linear, Convolution) else flat or (not ndim and times == 1)
        if rest or not fits or len(user.args) > 1 or user.kwargs:
            raise UnmergeableError(f"{user.target} has its features in another dimension")
        if isinstance(linear, nn.Linear) and not flat and not self.shapes.is_flat(user.args[0]):
            raise UnmergeableError(f"{user.target} may have its features in another dimension: {_NOT_FLAT}")
        return affine.repeat(times)

    def _prepend(self, into: list[tuple[Node, Affine]]) -> None:
        for linear, affine in into:
            fold = self.folds.setdefault(linear, _Fold())
            fold.before = affine.then(fold.before)

    # at last

    def fold(self) -> None:
        """Gives the linear layers the parameters with what is merged into them."""
        live = [node for node in self.network.graph.nodes if node.op == "call_module"]
        targets = {node.target for node in live if node in self.folds}
        self.network.unshare([node for node in live if node.target in targets])
        self.network.keep_parameters(self.network.root.get_submodule(str(n.target)) for n in live if n in self.folds)
        for node in live:
            if node in self.folds:
                fold(self.network.module(node), self.folds[node].before, self.folds[node].after)


def _commutes(module: Any, affine: Affine) -> bool:
    """Whether it is all the same if a module comes before or after a scale and shift of each channel."""
    if not is_plain(module):
        return False
    if isinstance(module, _AvgPoolNd):
        pads = module.padding if isinstance(module.padding, tuple) else (module.padding,)
        return getattr(module, "divisor_override", None) is None and not (any(pads) and module.count_include_pad)
    if isinstance(module, (_MaxPoolNd, _AdaptiveMaxPoolNd)):
        return not module.return_indices and float(affine.scale.min()) >= 0
    return isinstance(module, _AdaptiveAvgPoolNd)


def _before(value: Node) -> list[Node]:
    """All nodes from which a value is computed."""
    found = list(value.all_input_nodes)
    seen = set(found)
    for node in found:  # which grows
        new = [other for other in node.all_input_nodes if other not in seen]
        seen.update(new)
        found += new
    return found


@torch.no_grad()
def _depthwise(batch_norm: Any, affine: Affine) -> nn.Module:
    """A slice of a BatchNorm as a linear layer of its own."""
    ndim, size = dimensions(batch_norm), len(affine.scale)
    if ndim is None:
        raise UnmergeableError("a slice of its input comes from no linear layer")
    layer = (nn.Conv2d if ndim == 4 else nn.Conv3d)(size, size, 1, groups=size).to(batch_norm.running_mean)
    layer.weight.copy_(affine.scale.view(-1, *(1 for _ in range(ndim - 1))))
    layer.bias.copy_(affine.shift)  # type: ignore[union-attr]
    return layer.requires_grad_(False).eval()
