"""A network as a graph of operations that can be rewritten and then be put in the place of its forward pass."""

import copy
import types
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.fx import Node

from canonxai.canonizers.graph.affine import is_batch_norm
from canonxai.canonizers.graph.functional import VIEWS, activations, equivalent, is_size, operation
from canonxai.canonizers.graph.hooks import copy_hooks
from canonxai.canonizers.graph.record import KEPT, UNUSED, Rewrite
from canonxai.canonizers.graph.trace import require_default, trace


class Network:
    """The traced forward pass of ``root``, and a record of what is done to it.

    Modules stay the objects that they are, at their places; new ones are put into one container of ``root``.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root, self.graph = root, trace(root)
        self.signals = activations(self.graph)
        self._container = nn.Module()
        self._container_name = next(name for name in _names("canonized") if not hasattr(root, name))
        root.add_module(self._container_name, self._container)
        self._found = {node: self._describe(node) for node in self.graph.nodes if self._is_recorded(node)}
        self._done: dict[Node, tuple[str, Sequence[Node], str]] = {}

    def module(self, node: object) -> nn.Module | None:
        """The module that a node calls, or one that computes the node's function; None if there is none."""
        if not isinstance(node, Node):
            return None
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else equivalent(node)

    def readers(self, node: Node) -> list[Node]:
        """The nodes that use a node's values, not its size alone."""
        return [user for user in node.users if not is_size(user)]

    def add(self, name: str, module: nn.Module) -> str:
        """Puts a new module into the container and returns its path."""
        name = next(free for free in _names(name) if free not in self._container._modules)
        self._container.add_module(name, module)
        return f"{self._container_name}.{name}"

    def call(self, node: Node, module: nn.Module, *args: Any, **kwargs: Any) -> Node:
        """A call of a new module in the place of ``node``, which goes."""
        with self.graph.inserting_before(node):
            new = self.graph.call_module(self.add(node.name, module), args, kwargs)
        self.replace(node, new)
        return new

    def replace(self, node: Node, new: Node) -> None:
        """Whatever used ``node`` uses ``new``; a node that nothing uses any more goes."""
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        if new not in self.signals and node in self.signals:
            self.signals.add(new)

    def name(self, node: Node) -> str:
        """The name of what a node calls, for messages."""
        if node.op == "call_module":
            return f"{node.target} ({type(self.module(node)).__name__})"
        return f"the {node.op}" if node.op == "output" else operation(node) or node.name

    def unshare(self, nodes: Iterable[Node]) -> None:
        """Gives each call of a module but the first a copy of its own, with the very same parameters."""
        seen: set[object] = set()
        for node in nodes:
            if node.target in seen:
                module = self.root.get_submodule(str(node.target))
                copy_hooks(module, new := shallow_copy(module))
                node.target = self.add(str(node.target).replace(".", "_"), new)
            seen.add(node.target)

    def keep_parameters(self, modules: Iterable[nn.Module]) -> None:
        """Functions that read parameters of modules read those that are there now, also if the modules get others."""
        modules = set(modules)
        for node in self.graph.nodes:
            path, _, name = str(node.target).rpartition(".")
            module = self.root.get_submodule(path) if node.op == "get_attr" else None
            if module in modules and name in module._parameters:
                free = next(free for free in _names(node.name) if not hasattr(self._container, free))
                self._container.register_parameter(free, getattr(module, name))
                node.target = f"{self._container_name}.{free}"

    def record(self, node: Node, action: str, into: Sequence[Node] = (), reason: str = "") -> None:
        """Notes what became of a node of the original graph."""
        self._done[node] = action, into, reason

    def forget(self, node: Node) -> None:
        """Leaves a node out of the record."""
        self._found.pop(node, None)

    def stands_for(self, new: Node, node: Node) -> None:
        """Records of ``new`` are those of ``node``."""
        self._found = {new if found is node else found: text for found, text in self._found.items()}

    def rewrites(self) -> tuple[Rewrite, ...]:
        """What became of every BatchNorm and every function, in the order of the forward pass."""
        rewrites = []
        live = set(self.graph.nodes)
        for node, (layer, kind) in self._found.items():
            left = (KEPT, (), _why_kept(node)) if node in live else (UNUSED, (), "nothing uses its output")
            action, into, reason = self._done.get(node, left)
            rewrites.append(Rewrite(layer, kind, action, tuple(str(new.target) for new in into), reason))
        reached = {rewrite.layer for rewrite in rewrites}
        new = set(self._container.modules())
        for name, module in self.root.named_modules():
            if is_batch_norm(module) and name not in reached and module not in new:
                reason = "the forward pass does not reach it in evaluation mode"
                rewrites.append(Rewrite(name, type(module).__name__, UNUSED, (), reason))
        return tuple(rewrites)

    def eliminate_dead_code(self) -> None:
        """Erases the nodes whose values nothing uses."""
        self.graph.eliminate_dead_code(
            lambda node: node.op in ("placeholder", "output") or node.target is require_default
        )

    def install(self) -> None:
        """Puts the graph in the place of the root's forward pass."""
        self.graph.lint()
        code = self.graph.python_code("self")  # a GraphModule's would stay in torch.fx's caches for ever
        namespace = dict(code.globals)
        exec(compile(code.src, "<canonized>", "exec"), namespace)
        self.root.forward = types.MethodType(namespace["forward"], self.root)

    def scope(self, node: Node) -> str:
        """The path of the module in whose forward pass a function is called; empty for the root's."""
        stack = node.meta.get("nn_module_stack")
        return str(next(reversed(stack.values()))[0]) if stack else ""

    def _describe(self, node: Node) -> tuple[str, str]:
        """The layer and the operation of a node, as in a :class:`Rewrite`."""
        if node.op == "call_module":
            return str(node.target), type(self.module(node)).__name__
        scope, name = self.scope(node), operation(node) or getattr(node.target, "__name__", str(node.target))
        if name == "batch_norm" and scope:
            return scope, type(self.root.get_submodule(scope)).__name__
        return f"{scope}.{node.name}".lstrip("."), name

    def _is_recorded(self, node: Node) -> bool:
        if node.op == "call_module":
            return is_batch_norm(self.module(node))
        is_function = node.op in ("call_function", "call_method") and node.target is not require_default
        return is_function and node in self.signals


_MOVES = VIEWS | {"cat", "concat", "concatenate", "stack", "pad", "repeat", "roll", "pixel_shuffle"}


def _why_kept(node: Node) -> str:
    if node.op == "call_module":
        return "part merge_bn is off"
    if operation(node) in _MOVES:
        return "it moves values, and relevance moves with them"
    return "no rule is made for it: relevance follows its gradient"


def _names(name: str) -> Iterable[str]:
    yield name
    count = 0
    while True:
        count += 1
        yield f"{name}_{count}"


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of its own that holds the same parameters, buffers and submodules; without hooks."""
    new = copy.copy(module)
    for key, value in vars(module).items():
        if isinstance(value, dict):
            vars(new)[key] = type(value)() if key.endswith("_hooks") else copy.copy(value)
    return new
