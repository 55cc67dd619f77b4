"""Which classes and functions a config may name.

A config says by ``_target_`` what Python calls, and configs come from strangers. So a target must be, by its exact
name, one that a shipped config uses: a list of prefixes is no boundary, as a module also holds what it imports. Others
have to be allowed on the command line, ``allow_targets=[my_methods.Mine]``; what a config allows itself is refused.

The job looks at its config before it imports anything. Hydra acts on its own part of a config, callbacks and logging,
before that; so this part is looked at whenever a config was composed, in each process of a sweep.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonxai.errors import UserError

KEY = "allow_targets"
ENVIRONMENT = "CANONXAI_ALLOW_TARGETS"  #: hands what was allowed on to the processes of a sweep
#: what Hydra makes of its own part before a job starts
OF_HYDRA = ("callbacks", "job_logging", "hydra_logging", "launcher", "sweeper")
PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")  #: which Hydra itself looks up among what is installed
#: what a job of SLURM runs besides, and what Optuna's sweeper calls or unpickles
COMMANDS = (
    *("hydra.launcher.setup", "hydra.launcher.additional_parameters"),
    *("hydra.sweeper.custom_search_space", "hydra.sweeper.storage"),
)
#: what logging's own configs name: classes, streams and the one file
LOGGING = {
    *("logging.StreamHandler", "logging.FileHandler", "ext://sys.stdout", "ext://sys.stderr"),
    "${hydra.runtime.output_dir}/${hydra.job.name}.log",
}
#: what the options of Optuna's sweeper name
SAMPLERS = {f"optuna.samplers.{name}Sampler" for name in ("CmaEs", "Grid", "MOTPE", "NSGAII", "Random", "TPE")}
UNRESOLVED = "a value that cannot be resolved"


@cache
def shipped(folder: Path) -> frozenset[str]:
    """The targets of all configs in a folder."""
    texts = (path.read_text() for path in folder.rglob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"\b_target_: *(\w+(?:\.\w+)+)", text))


def allow(arguments: Sequence[str]) -> None:
    """Remembers what a command line allows, in the environment: an option of the config could come from a file."""
    allowed: list[str] = []
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            continue  # Hydra tells
        if override.key_or_group == KEY and isinstance(value := override.value(), list):
            allowed += map(str, value)
    if allowed:
        os.environ[ENVIRONMENT] = ",".join(allowed)


def check_targets(cfg: DictConfig, folder: Path) -> None:
    """Looks at each target of a job's config.

    Args:
        cfg: where all values can be resolved.
        folder: that of the shipped configs.

    Raises:
        UserError: for the first target that is neither shipped nor allowed on the command line.
    """
    for key in cfg:
        for place, name in _named(_value(cfg, key), str(key), ("_target_",)) if key != "hydra" else ():
            if name not in shipped(folder) | _allowed():
                raise UserError(
                    f"{place}: expected a class or function that a shipped config uses, got {name!r}. "
                    f"If you trust it, add '{KEY}=[{name}]' to the command line."
                )


def check_hydra(cfg: DictConfig, folder: Path) -> None:
    """Looks at what Hydra calls by itself: callbacks, and what logging is made of.

    Args:
        cfg: as composed, Hydra's own part included.
        folder: that of the shipped configs.

    Raises:
        UserError: for the first name that is not known; or if the config allows targets by itself.
    """
    own = [name for name in cfg.get(KEY) or [] if name not in _allowed()]
    if own or ENVIRONMENT in (OmegaConf.select(cfg, "hydra.job.env_set") or {}):
        raise UserError(f"{KEY}: expected to be given on the command line alone, got {own or ENVIRONMENT} in a config.")
    given = OmegaConf.select(cfg, "hydra.overrides.hydra") or []
    for key in COMMANDS:
        found = OmegaConf.select(cfg, key)
        if found and not any(override.lstrip("+").startswith(key) for override in given):
            raise UserError(f"{key}: expected to be given on the command line alone, got {found} in a config.")
    for section in OF_HYDRA:
        node = OmegaConf.select(cfg, f"hydra.{section}")
        for place, name in _named(node, f"hydra.{section}", ("_target_", "class", "()", "filename")):
            if name not in shipped(folder) | LOGGING | SAMPLERS and place not in PLUGINS:
                raise UserError(f"{place}: expected what Hydra or a shipped config names, got {name!r}.")


def guard(folder: Path) -> None:
    """Has Hydra's own part checked of each config that is composed in this process."""
    compose = ConfigLoaderImpl.load_configuration
    if hasattr(compose, "__wrapped__"):
        return

    @wraps(compose)
    def load_configuration(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        try:
            cfg = compose(self, *args, **kwargs)
        except TypeError as error:  # of Hydra, for instance for method=[1,ixg]
            raise UserError(
                f"command line: expected names of options, got what Hydra cannot read ({error})."
            ) from error
        check_hydra(cfg, folder)
        return cfg

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]


def _allowed() -> set[str]:
    return set(filter(None, os.environ.get(ENVIRONMENT, "").split(",")))


def _named(node: Any, path: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every value of a config that names a class, function or object: at one of ``keys``, or ``ext://`` in logging."""
    if isinstance(node, DictConfig | ListConfig):
        raw: Any = OmegaConf.to_container(node)
        for key in node if isinstance(node, DictConfig) else range(len(node)):
            value: Any = _value(node, key)
            place = f"{path}.{key!s}"
            yield from _named(value, place, keys)
            external = "class" in keys and str(value).startswith(("ext://", "cfg://", UNRESOLVED))
            if value is not None and (key in keys or external):
                # Hydra's output folder, in the names of log files, is not known at first
                yield place, str(raw[key] if value == UNRESOLVED else value)


def _value(node: Any, key: Any) -> Any:
    """What stands at a key, resolved."""
    try:
        value = None if OmegaConf.is_missing(node, key) else node[key]
        return OmegaConf.create(value) if isinstance(value, dict | list) else value  # as a resolver may return
    except OmegaConfBaseException:
        return UNRESOLVED
