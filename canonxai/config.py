"""Where the configs are, the schemas that validate them, and how a config node becomes an object.

Nothing here imports torch, so that ``--help`` and ``--cfg`` answer at once. The keys that every config of a group
shares are typed by the dataclasses below; the other keys of a node are the arguments of its ``_target_``, typed by
that signature. So a new method, metric, model or data set needs a class and a YAML, and no schema of its own.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import logging
import os
import re
import typing
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from canonxai.errors import UserError, check, conversion
from canonxai.files import file_name
from canonxai.models.preprocessing import Preprocessing
from canonxai.parallel import PER_CORE
from canonxai.targets import check_call

_here = Path(__file__).resolve().parent
#: the folder of the YAML files, in a wheel (beside this file) and in a checkout (one above)
CONF = next(path for path in (_here / "conf", _here.parent / "conf") if (path / "config.yaml").is_file())


class Target(Enum):
    """Which class is explained: the true one or the one that the model predicts."""

    label = "label"
    predicted = "predicted"


@dataclass
class Data:
    name: str = MISSING
    label_space: str = MISSING  # what the labels mean; chooses the model's variant
    mean: list[float] = MISSING
    std: list[float] = MISSING
    batch_size: int = MISSING
    num_workers: int = MISSING
    on_error: str = "exclude"
    cache: str | None = None
    shard: str | None = None  # i/n: this job computes the i-th of n parts of the batches


@dataclass
class Model:
    name: str = MISSING
    checkpoint: str | None = None
    label_space: str | None = None  # what the outputs mean; None for whatever the data set's labels mean
    classes: Any = None  # names of the outputs in their order, or a file of them; None for the data set's order
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


@dataclass
class Canonizer:
    tolerance: float = 1e-4
    verify: int = 64


@dataclass
class Method:
    name: str = MISSING
    title: str = MISSING


logging.getLogger("hydra.utils").addFilter(lambda record: False)  # get_object logs what it raises, in several lines

#: the schema of the keys that all configs of a group share
GROUPS: dict[str, type] = {"model": Model, "data": Data, "canonizer": Canonizer, "method": Method}


@dataclass
class Perturbation:
    network: str = "fused"
    precision: str = "32"
    batch_size: int | str = 256
    channels_last: bool = True
    winograd: bool = True
    compile: bool = False
    verify: int = 16
    tolerance: float = 1e-4


@dataclass
class Report:
    """What can be chosen of a report.

    Attributes:
        test: paired test, ``wilcoxon`` or ``sign_flip``.
        resample: what the bootstrap draws, ``image`` or ``class``.
        claims: a name in ``conf/claims``, or a path.
        samples: of the heatmap figures; ``None`` for the most different ones.
    """

    test: str = "wilcoxon"
    resample: str = "image"
    claims: str = "icip2022"
    samples: list[int] | None = None


@dataclass
class Run:
    """How a cell is computed.

    Attributes:
        resume: whether what the folder holds of the cell is kept, and what is lacking is computed.
        deterministic: whether only operations run that give the same bits each time.
    """

    resume: bool = True
    deterministic: bool = False


@dataclass
class Command:
    """What every command reads."""

    allow_targets: list[str] = field(default_factory=list)
    seed: int = 0
    data: Any = MISSING
    model: Any = MISSING
    canonizer: Any = None  # which each model's config names, also where it is of no use


@dataclass
class Config(Command):
    """What ``python -m canonxai`` reads."""

    study: str = "default"
    precision: int = 64
    canonize: bool = False
    target: Target = Target.label
    save_maps: int = 16
    run: Run = field(default_factory=Run)
    perturbation: Perturbation = field(default_factory=Perturbation)
    method: Any = MISSING
    metric: dict[str, Any] = field(default_factory=dict)
    objective: list[str] | None = None  # the columns whose means a search maximises, as far as their direction says so
    trainer: dict[str, Any] = MISSING
    logger: Any = None
    report: Report | None = field(default_factory=Report)


@dataclass
class Training(Command):
    """What ``python -m canonxai.train`` reads."""

    samples: int = 200_000
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    output: str = MISSING
    trainer: dict[str, Any] = MISSING


@dataclass
class Audit(Command):
    """What ``python -m canonxai.audit`` reads."""

    samples: int = 4
    method: Any = MISSING


def register() -> None:
    """Makes the schemas of the whole configs available to their defaults lists."""
    OmegaConf.register_new_resolver("cell", _cell, replace=True)
    OmegaConf.register_new_resolver("directions", _directions, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
    OmegaConf.register_new_resolver("preprocessing", _preprocessing, replace=True)
    OmegaConf.register_new_resolver("study", _study, replace=True)
    store = ConfigStore.instance()
    store.store(name="schema_config", node=Config)
    store.store(name="schema_training", node=Training)
    store.store(name="schema_audit", node=Audit)


def _cell(*, _root_: DictConfig) -> str:
    methods = methods_together(OmegaConf.select(_root_, "hydra.overrides.task") or [])
    return f"{TOGETHER}/{cell_name(_root_, methods)}" if methods else cell_name(_root_)


def _study(*, _root_: DictConfig) -> str:
    """The folder of a study, which a stranger's config must not choose."""
    name = str(_root_.study)
    check(name == file_name(name) and name not in ("", ".", ".."), "study", "a name, no path", name)
    return name


def _directions(*, _root_: DictConfig) -> list[str]:
    """Optuna's direction of each objective, see ``canonxai.objective``."""
    return ["maximize"] * len(_root_.objective or [""])


def methods_together(overrides: Sequence[str]) -> list[str]:
    """The names in the override ``method=[a,b]``; empty if there is none, or a single method."""
    parsed = (OverridesParser.create().parse_override(text) for text in overrides)
    chosen = [override.value() for override in parsed if override.key_or_group == "method"]
    return [str(name) for name in chosen[-1]] if chosen and isinstance(chosen[-1], list) else []


_SECRET = re.compile(
    "key|token|secret|pass|.pwd|credential|auth|cookie|session|private|dsn|bearer|webhook|_pat$|_url$", re.IGNORECASE
)


def _environment(name: str, *default: Any) -> str | None:
    """OmegaConf's own ``oc.env``, but for secrets: what a config reads is written to files, logs and reports."""
    value = oc.env(name, *default)
    if _SECRET.search(name) or re.search("://.*@", str(value)):  # a password in a URL
        raise UserError(f"oc.env: expected a variable without a secret, got {name}. No result depends on it.")
    return value


def _preprocessing(zoo: str, name: str, weights: Any) -> DictConfig:
    """What the weights of a network of ``canonxai.models.<zoo>`` expect."""
    module = importlib.import_module(f"canonxai.models.{zoo}")
    return OmegaConf.create(dataclasses.asdict(module.preprocessing(name, weights)))  # data's keys refer into it


#: the folder of a study that holds what Hydra writes of cells that are computed together
TOGETHER = "together"
_NO_GROUPS = ("hydra", "claims", "sweep")


def options() -> str:
    """Every config group with its options, each with the comment that begins its file."""
    lines = []
    groups = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in _NO_GROUPS)
    for group in [*groups, CONF / "hydra" / "launcher", CONF / "hydra" / "sweeper"]:
        lines.append(f"{group.relative_to(CONF)}=")
        for path in sorted(group.glob("*.yaml")):
            comments = (line for line in path.read_text().splitlines() if not line.startswith("# @package"))
            lines.append(f"  {path.stem:<25}{next(comments).removeprefix('#').strip()}")
    return "\n".join(lines) + "\n"


#: keys on which no result depends
_NO_SETTINGS = ("study", "allow_targets", "objective", "save_maps", "run", "trainer", "logger", "report", "hydra")
_NO_SETTINGS_OF = {
    "data": ("batch_size", "num_workers", "on_error", "cache", "shard"),
    "perturbation": ("batch_size", "channels_last", "winograd", "compile", "verify", "tolerance"),
}


def state(cfg: Mapping[str, Any]) -> str:
    """``original``, ``canonized``, or which part of the canonizer was applied, as ``merge_bn``."""
    if not cfg.get("canonize", True) or cfg["canonizer"] is None:
        return "original"
    parts = cfg["canonizer"].get("parts")
    return "canonized" if parts is None else "+".join(parts) or "no_parts"


def result_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings on which results depend."""
    kept = {key: value for key, value in settings.items() if key not in _NO_SETTINGS}
    for group, keys in _NO_SETTINGS_OF.items():
        kept[group] = {key: value for key, value in kept[group].items() if key not in keys}
    return kept


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        is_inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if is_inner else {prefix + key: value}
    return found


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The keys of which two mappings tell something else; NaN is the same as NaN."""
    keys = sorted(first.keys() | second.keys())
    return [key for key in keys if first.get(key) != second.get(key) and repr(first.get(key)) != repr(second.get(key))]


def cell_name(cfg: DictConfig, methods: Sequence[str] = ()) -> str:
    """A readable name that two cells share only if they compute the same.

    Data, model, method and state, and eight digits of a hash over all settings on which results depend.

    Args:
        cfg: the cell's config; that of any of them for cells that are computed together.
        methods: of those.
    """
    settings = typing.cast("dict[str, Any]", OmegaConf.to_container(cfg))
    settings = result_settings({"perturbation": {}, **settings})  # which an audit has not
    method = cfg.method.name
    if methods:
        settings["method"], method = list(methods), f"{len(methods)}_methods"
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    return file_name(f"{cfg.data.name}-{cfg.model.name}-{method}-{state(cfg)}-{digest[:8]}")


def check_groups(cfg: DictConfig) -> None:
    """Converts the keys that all configs of a group share to the types that their schema gives them.

    Raises:
        UserError: if a key is missing or its value has another type, or there are too many loading processes.
    """
    for group, schema in GROUPS.items():
        if cfg.get(group) is None:
            continue
        typed = OmegaConf.structured(schema)
        for key in typed:
            if key in cfg[group]:
                _assign(typed, key, cfg[group][key], f"{group}.{key}")
            if OmegaConf.is_missing(typed, key):
                raise UserError(f"{group}.{key}: expected a value, got none.")
        OmegaConf.set_struct(cfg[group], False)
        cfg[group].update(typed)
    most = PER_CORE * (os.cpu_count() or 1)
    check(0 <= cfg.data.num_workers <= most, "data.num_workers", f"a number from 0 to {most}", cfg.data.num_workers)


def build(node: DictConfig, group: str, schema: type | None = None, **extra: Any) -> Any:
    """Calls a node's ``_target_`` with the node's other keys, checked against the target's signature.

    Args:
        node: a config node with a ``_target_``.
        group: the node's place in the config, for messages.
        schema: the dataclass whose keys belong to the framework and not to the target.
        extra: arguments that do not come from the config.

    Raises:
        UserError: if the target does not exist, a key is not one of its arguments, or a value has the wrong type.
    """
    path = str(node["_target_"])
    check_call(f"{group}._target_", path)
    try:
        target = get_object(path)
        if not callable(target):
            raise ValueError(f"it is a {type(target).__name__}")
    except (InstantiationException, ValueError, ImportError) as error:
        expected, reason = "the dotted path of a class or function", error.__cause__ or error
        raise UserError(f"{group}._target_: expected {expected}, got {path!r} ({reason}).") from error
    ours = {"_target_"} | ({f.name for f in dataclasses.fields(schema)} if schema else set())
    arguments = _arguments(target, exclude=set(extra))
    for key in (str(key) for key in node if key not in ours):
        if key not in list(arguments) and OmegaConf.is_struct(arguments):
            known = ", ".join(str(key) for key in arguments) or "no arguments"
            raise UserError(f"{group}.{key}: {path} takes no such argument, only {known}.")
        _assign(arguments, key, node[key], f"{group}.{key}")
    missing = [str(key) for key in arguments if OmegaConf.is_missing(arguments, key)]
    if missing:
        raise UserError(f"{group}.{missing[0]}: expected a value, as {path} requires it, got none.")
    return target(**typing.cast("dict[str, Any]", OmegaConf.to_container(arguments)), **extra)


def _arguments(target: Any, exclude: set[str]) -> DictConfig:
    """The arguments of ``target`` with their defaults: the types that OmegaConf knows are kept, the rest is ``Any``."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    arguments, is_open = [], False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            is_open |= parameter.kind is parameter.VAR_KEYWORD
        elif parameter.name not in exclude:
            default = MISSING if parameter.default is parameter.empty else parameter.default
            argument = (parameter.name, hints.get(parameter.name, Any), default)
            arguments.append(argument if _is_known(*argument) else (parameter.name, Any, default))
    config = _structured(arguments)
    OmegaConf.set_struct(config, not is_open)
    return config


def _assign(typed: DictConfig, key: str, value: Any, name: str) -> None:
    try:
        OmegaConf.update(typed, key, value, merge=True)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        told = conversion(reason)
        if told == reason:
            hint = f" Write a list as {name}=[{value}]." if "is not a ListConfig" in reason else ""
            told = f"{reason}, got {value!r}.{hint}"
        raise UserError(f"{name}: {told}") from error


def _structured(arguments: list[tuple[str, Any, Any]]) -> DictConfig:
    fields = [(name, hint, field(default_factory=partial(copy, default))) for name, hint, default in arguments]
    return typing.cast(DictConfig, OmegaConf.structured(dataclasses.make_dataclass("Arguments", fields)))


def _is_known(name: str, hint: Any, default: Any) -> bool:
    try:
        _structured([(name, hint, default)])
    except (OmegaConfBaseException, ValueError, TypeError):
        return False
    return True
