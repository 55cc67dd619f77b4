"""The one kind of error that a user's mistake raises, and the checks that raise it."""

from collections.abc import Collection
from typing import Any


class UserError(Exception):
    """A mistake of the user, told in one line: the argument, what was expected, what was got, what to do."""


def check(condition: bool, argument: str, expected: str, got: Any, hint: str = "") -> None:
    """Raises a :class:`UserError` in the project's form unless ``condition`` holds."""
    if not condition:
        raise UserError(f"{argument}: expected {expected}, got {got!r}." + (f" {hint}" if hint else ""))


def check_choice(argument: str, got: Any, choices: Collection[Any]) -> None:
    """Raises a :class:`UserError` that names the choices unless ``got`` is one of them."""
    check(got in choices, argument, f"one of {', '.join(map(str, choices))}", got)
