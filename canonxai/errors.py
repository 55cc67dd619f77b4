"""The one kind of error that a user's mistake raises, and the checks that raise it."""

import functools
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import Any


class UserError(Exception):
    """A mistake of the user, told in one line: the argument, what was expected, what was got, what to do."""


def printable(text: str, instead: str = "\ufffd") -> str:
    """A text with something else for control characters, which command a terminal; lines stay lines.

    >>> printable("\\x1b]0;title\\x07 a\\nb")
    '\ufffd]0;title\ufffd a\\nb'
    """
    return "".join(character if character.isprintable() or character == "\n" else instead for character in text)


def check(condition: bool, argument: str, expected: str, got: Any, hint: str = "") -> None:
    """Raises a :class:`UserError` in the project's form unless ``condition`` holds."""
    if not condition:
        raise UserError(f"{argument}: expected {expected}, got {got!r}." + (f" {hint}" if hint else ""))


def check_choice(argument: str, got: Any, choices: Collection[Any]) -> None:
    """Raises a :class:`UserError` that names the choices unless ``got`` is one of them."""
    check(got in choices, argument, f"one of {', '.join(map(str, choices))}", got)


_CONVERSION = re.compile(
    r"Value '(?P<got>.*)' (of type .* could not be converted to (?P<kind>\w+)|is not a valid bool).*"
)
_KINDS = {None: "true or false", "Float": "a number", "Integer": "an integer", "String": "a text"}


def conversion(reason: str) -> str:
    """OmegaConf's reason why a value has a wrong type, in the project's form; any other as it is.

    >>> conversion("Value 'abc' of type 'str' could not be converted to Float")
    "expected a number, got 'abc'."
    """
    match = _CONVERSION.fullmatch(reason)
    return f"expected {_KINDS.get(match['kind'], match['kind'])}, got {match['got']!r}." if match else reason


def told(main: Callable[[list[str] | None], None]) -> Callable[[list[str] | None], int]:
    """Makes a command tell a user's mistake in one line; it returns the exit code.

    ``HYDRA_FULL_ERROR=1`` shows the traceback instead, as for the main command.
    """

    @functools.wraps(main)
    def wrapper(arguments: list[str] | None = None) -> int:
        try:
            main(arguments)
        except (UserError, OSError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
            return 1
        return 0

    return wrapper
