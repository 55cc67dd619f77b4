"""Every value in a config, and where it stands."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

UNRESOLVED = "a value that cannot be resolved"


class Leaf(NamedTuple):
    """A value in a config: where it stands, under which key, resolved, and as written."""

    place: str
    key: Any
    value: Any
    raw: Any


def leaves(node: Any, path: str, key: Any = None, raw: Any = None) -> Iterator[Leaf]:
    """Every value in a config, or in a dict or list."""
    if isinstance(node, dict | list | DictConfig | ListConfig):
        values: Any = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
        for inner in values if isinstance(values, dict) else range(len(values)):
            value = value_at(node, inner) if OmegaConf.is_config(node) else node[inner]
            yield from leaves(value, f"{path}.{inner!s}", inner, values[inner])
    elif node is not None:
        yield Leaf(path, key, node, raw)


def named(node: Any, path: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every value of a config that names a class, function or object: at one of ``keys``, or ``ext://`` in logging."""
    for leaf in leaves(node, path):
        external = "class" in keys and str(leaf.value).startswith(("ext://", "cfg://", UNRESOLVED))
        if external or leaf.key in keys:
            # Hydra's output folder, in the names of log files, is not known at first, and another one for each job
            yield leaf.place, str(leaf.raw if leaf.value == UNRESOLVED or leaf.key == "filename" else leaf.value)


def raw_value(cfg: DictConfig, key: str) -> Any:
    """What stands at a key, as written."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    values: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}
    return values.get(name)


def value_at(node: Any, key: Any) -> Any:
    """What stands at a key, resolved."""
    try:
        value = None if OmegaConf.is_missing(node, key) else node[key]
        return OmegaConf.create(value) if isinstance(value, dict | list) else value  # as a resolver may return
    except OmegaConfBaseException:
        return UNRESOLVED
