"""Which classes and functions a config may name.

A config says by ``_target_`` what Python calls, and configs come from strangers. So a target must be, by its exact
name, one that a shipped config uses: a list of prefixes is no boundary, as a module also holds what it imports. Others
have to be allowed on the command line, ``allow_targets=[my_methods.Mine]``; what a config allows itself is refused.

The job looks at its config before it imports anything, and at each target once more when it is called.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from canonxai.errors import UserError
from canonxai.leaves import named, value_at

KEY = "allow_targets"
ENVIRONMENT = "CANONXAI_ALLOW_TARGETS"  #: hands what was allowed on to the processes of a sweep
_GUARDED: ContextVar[Path | None] = ContextVar("guarded", default=None)


@cache
def shipped(folder: Path) -> frozenset[str]:
    """The targets of all configs in a folder."""
    texts = (path.read_text() for path in folder.rglob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"\b_target_: *(\w+(?:\.\w+)+)", text))


def allow(arguments: Sequence[str]) -> None:
    """Remembers what a command line allows, in the environment: an option of the config could come from a file."""
    found: list[str] = []
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            continue  # Hydra tells
        if override.key_or_group == KEY and isinstance(value := override.value(), list):
            found += map(str, value)
    if found:
        os.environ[ENVIRONMENT] = ",".join(found)


def allowed() -> set[str]:
    """The targets that the command line allows."""
    return set(filter(None, os.environ.get(ENVIRONMENT, "").split(",")))


def check_targets(cfg: DictConfig, folder: Path) -> None:
    """Looks at each target of a job's config.

    Args:
        cfg: where all values can be resolved.
        folder: that of the shipped configs.

    Raises:
        UserError: for the first target that is neither shipped nor allowed on the command line.
    """
    with guarded(folder):
        for key in cfg:
            for place, name in named(value_at(cfg, key), str(key), ("_target_",)) if key != "hydra" else ():
                check_call(place, name)


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Has what is called looked at once more, as a value may be another one by then."""
    token = _GUARDED.set(folder)
    try:
        yield
    finally:
        _GUARDED.reset(token)


def check_call(place: str, name: str) -> None:
    """Looks at a target that is about to be called, in a job; errors as those of :func:`check_targets`."""
    if (folder := _GUARDED.get()) is not None and name not in shipped(folder) | allowed():
        raise UserError(
            f"{place}: expected a class or function that a shipped config uses, got {name!r}. "
            f"If you trust it, add '{KEY}=[{name}]' to the command line."
        )
