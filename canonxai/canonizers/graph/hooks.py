"""Hooks that a module carries: zennit's rules, and those of its user's."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from zennit.core import Hook

_TABLES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def rule_of(module: nn.Module) -> Hook | None:
    """The rule that a module has."""
    hooks = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
    return next((hook for hook in hooks if isinstance(hook, Hook)), None)


def has_hooks(module: nn.Module) -> bool:
    """Whether the user has registered hooks on a module; they may change what it computes."""
    return any(True for _ in _hooks(module))


def copy_hooks(module: nn.Module, new: nn.Module) -> None:
    """Registers the user's hooks on ``module`` on ``new``, too."""
    for table, key, hook in _hooks(module):
        getattr(new, table)[key] = hook
        for kind in (f"{table}_with_kwargs", f"{table}_always_called"):
            if key in getattr(module, kind, {}):
                getattr(new, kind)[key] = True
    new._is_full_backward_hook = module._is_full_backward_hook


def _hooks(module: nn.Module) -> Iterator[tuple[str, int, Any]]:
    for table in _TABLES:
        for key, hook in getattr(module, table).items():
            if not isinstance(getattr(hook, "__self__", None), Hook):
                yield table, key, hook
