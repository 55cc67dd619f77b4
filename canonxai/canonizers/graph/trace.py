"""The forward pass of a network as a graph, by torch.fx, or an error that names the line which prevents it."""

import operator
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops.misc import FrozenBatchNorm2d
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, Linear, MaxPool

from canonxai.errors import UserError

_RULED = (Linear, Activation, AvgPool, MaxPool, Sum, FrozenBatchNorm2d)
_TORCH = str(Path(torch.__file__).parent)


class _Proxy(fx.Proxy):
    """Knows ``x += y`` from ``x + y``: the former changes x for all who read it later."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, function: Callable[..., object], other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class _Tracer(fx.Tracer):
    """Looks into all modules but torch's own and those of a type that rules are made for."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

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
        return _Tracer().trace(_with_forward_in_class(root))
    except Exception as error:  # torch.fx raises errors of any kind for what it cannot trace
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_TORCH) and frame.filename != __file__]
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
