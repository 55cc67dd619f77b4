"""The forward pass of a network as a graph, by torch.fx, or an error that names the line which prevents it."""

import operator
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, no_type_check

import jaxtyping
import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops.misc import FrozenBatchNorm2d
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, Linear, MaxPool

from canonxai.errors import UserError, check

_RULED = (Linear, Activation, AvgPool, MaxPool, Sum, FrozenBatchNorm2d)
#: whose lines are no network's
_OTHERS = (str(Path(torch.__file__).parent), str(Path(jaxtyping.__file__).parent), __file__)


#: in-place operators, and those that give a new tensor
IN_PLACE = {
    getattr(operator, f"i{name.strip('_')}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift")
}


class _Proxy(fx.Proxy):
    """Knows ``x += y`` from ``x + y``: the former changes x for all who read it later."""


def _in_place(function: Callable[..., object]) -> Callable[[_Proxy, object], fx.Proxy]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", _in_place(_function))


def require_default(value: object, default: object, name: str) -> None:
    """Refuses an argument of the forward pass that is not the default with which the network was traced."""
    same = value is default or (type(value) is type(default) and value == default)
    hint = "A canonized network takes the defaults of its optional arguments; bind others to a module around it."
    check(same, f"{name} of the forward pass", f"{default!r}, its default", value if same else type(value), hint)


def _modes() -> tuple[bool, ...]:
    """Whether gradients, and lower precisions, are switched on: what a graph does not tell of its operations."""
    return torch.is_grad_enabled(), *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))


class _Tracer(fx.Tracer):
    """Looks into all modules but torch's own and those of a type that rules are made for.

    Refuses operations in ``torch.no_grad``, ``torch.autocast`` or a ``torch.autograd.Function``, which switches
    gradients off to give its own: a graph has the operations alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modes = _modes()

    @no_type_check  # checked, it would be the checker's line that is told
    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            raise ValueError("a graph does not hold torch.no_grad, torch.autocast or a torch.autograd.Function")
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Constants that are defaults of arguments are traced as such, since a forward pass may branch on them."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, [self._default(arg) for arg in args]

    def _default(self, arg: Any) -> Any:
        if not isinstance(arg, fx.Proxy) or not arg.node.args:
            return arg
        (default,) = arg.node.args
        if default is not None and not isinstance(default, (bool, int, float, str)):
            return arg
        self.create_proxy("call_function", require_default, (arg, default, str(arg.node.target)), {})
        return default

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if super().is_leaf_module(m, module_qualified_name) or type(m).forward is _BatchNorm.forward:
            return True
        return isinstance(m, _RULED) and not any(True for _ in m.children())


def trace(root: nn.Module) -> fx.Graph:
    """The operations of ``root``'s forward pass, also of one that is set on the instance.

    Raises:
        UserError: if torch.fx cannot trace the network.
    """
    try:
        with torch.enable_grad():
            return _Tracer().trace(_with_forward_in_class(root))
    except Exception as error:  # torch.fx raises errors of any kind for what it cannot trace
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
        where = f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""
        raise UserError(
            f"canonizer: expected a network that torch.fx can trace, got {type(root).__name__}, which stops it{where}: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}. Keep the function around that line whole by "
            "torch.fx.wrap, or use a canonizer that works module by module, as canonizer=resnet."
        ) from error


def _with_forward_in_class(root: nn.Module) -> nn.Module:
    """The same module, sharing all it holds, but of a class with the instance's forward, the one that is traced."""
    forward = vars(root).get("forward")
    if not isinstance(forward, types.MethodType):
        return root
    shell: nn.Module = object.__new__(type(type(root).__name__, (type(root),), {"forward": forward.__func__}))
    shell.__dict__ = root.__dict__
    return shell
