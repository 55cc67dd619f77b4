"""The cells of a study, read from their folders, and which of them are twins.

What cannot be read, is not complete or has no twin is not passed over: it becomes a :class:`Problem`.
"""

import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float, Int64, Shaped

from canonxai.config import result_settings
from canonxai.errors import UserError
from canonxai.results.store import COLUMNS

SUMMARY = ("study", "data", "model", "method", "title", "versions")  #: what the report needs of ``summary.json``
MAPS = ("sample_id", "label", "image", "box", "heatmap")  #: what it needs of ``maps.npz``
SAME_FUNCTION = 1e-3  #: how far the probabilities of two cells on one image may be apart if their network is the same


@dataclass(frozen=True)
class Problem:
    """What stands in the way of a comparison.

    Attributes:
        kind: ``damaged``, ``incomplete``, ``duplicate``, ``missing``, ``refused`` (a pair) or ``note``.
        cell: which cell.
        reason: what is wrong, in a sentence.
    """

    kind: str
    cell: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """The complete results of one cell.

    Attributes:
        folder: where they are.
        settings: the resolved config.
        summary: ``summary.json``.
    """

    folder: Path
    settings: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.summary["cell"])

    @property
    def data(self) -> str:
        return str(self.summary["data"])

    @property
    def model(self) -> str:
        return str(self.summary["model"])

    @property
    def method(self) -> str:
        return str(self.summary["method"])

    @property
    def title(self) -> str:
        """The method's name in the literature."""
        return str(self.summary["title"])

    @property
    def state(self) -> str:
        """``original``, ``canonized``, or which part of the canonizer was applied."""
        return "original" if self.is_original else str(self.summary["state"])

    @property
    def metrics(self) -> dict[str, bool | None]:
        """The columns of the metrics, and whether higher is better."""
        return {name: values["higher_is_better"] for name, values in self.summary["metrics"].items()}

    @property
    def curves(self) -> dict[str, Sequence[float]]:
        """The columns that hold curves, and their axes."""
        return {name: curve["axis"] for name, curve in self.summary["curves"].items()}

    @property
    def is_original(self) -> bool:
        """Whether the explained network is the one that was written: not canonized, or by no part of the canonizer."""
        return not self.settings["canonize"] or self.settings["canonizer"].get("parts") == []

    @cached_property
    def twin_settings(self) -> dict[str, Any]:
        """What two cells must share to be compared: all settings but those of canonization, by dotted key."""
        settings = result_settings(self.settings)
        return dict(_flat({key: value for key, value in settings.items() if key not in ("canonize", "canonizer")}))

    @cached_property
    def sample_id(self) -> Int64[np.ndarray, " n"]:
        """The samples, ascending; the rows of all columns are in this order."""
        return np.asarray(np.sort(self._column("sample_id").to_numpy()))

    def column(self, name: str) -> Float[np.ndarray, " n"]:
        """A column of numbers; what is not defined is NaN."""
        values = self._column(name).cast("float64").to_numpy()[self._order]
        return np.asarray(np.where(np.isfinite(values), values, np.nan))

    def curve(self, name: str) -> Float[np.ndarray, "n steps"]:
        """A column of curves."""
        return np.asarray(np.stack(self._column(name).to_numpy())[self._order])

    @cached_property
    def maps(self) -> Mapping[str, Shaped[np.ndarray, "..."]] | None:
        """``maps.npz``, or nothing if no maps were kept."""
        path = self.folder / "maps.npz"
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) if path.is_file() else None

    @cached_property
    def _order(self) -> Int64[np.ndarray, " n"]:
        return np.asarray(self._column("sample_id").to_numpy().argsort(kind="stable"))

    def _column(self, name: str) -> Any:
        return pq.read_table(self.folder / "samples.parquet", columns=[name])[name]


@dataclass(frozen=True)
class Pair:
    """A cell and its twin on the original network.

    Attributes:
        original: of the network as written.
        canonized: of the canonized network.
        variant: the settings in which this pair differs from others of the same data, model, method and state.
        rows: of the images that both have: their places in ``original`` and in ``canonized``.
    """

    original: Cell
    canonized: Cell
    variant: str = ""

    @cached_property
    def rows(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        _, first, second = np.intersect1d(self.original.sample_id, self.canonized.sample_id, return_indices=True)
        return first, second

    @property
    def sample_id(self) -> Int64[np.ndarray, " n"]:
        return np.asarray(self.original.sample_id[self.rows[0]])

    def columns(self, name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """A column of the original and of the canonized cell, image by image."""
        return self.original.column(name)[self.rows[0]], self.canonized.column(name)[self.rows[1]]

    def image(self, name: str) -> Float[np.ndarray, " n"]:
        """A column that describes the images, and so is the same in both."""
        return np.asarray(self.original.column(name)[self.rows[0]])


@dataclass(frozen=True)
class Study:
    """All that was found in some folders."""

    folders: Sequence[Path]
    cells: Sequence[Cell]
    pairs: Sequence[Pair]
    problems: Sequence[Problem]


def read_study(folders: Sequence[Path]) -> Study:
    """Reads all cells below some folders and pairs them.

    Raises:
        UserError: if a folder does not exist, or no complete cell is in any of them.
    """
    cells: dict[str, Cell] = {}
    problems: list[Problem] = []
    for folder in _cell_folders(folders):
        found = read_cell(folder)
        if isinstance(found, Problem):
            problems.append(found)
        elif found.name in cells:
            problems.append(_duplicate(cells[found.name], found))
        else:
            cells[found.name] = found
    if not cells:
        found_instead = "; ".join(f"{p.cell}: {p.kind}, {p.reason}" for p in problems[:3]) or "none"
        raise UserError(
            f"folder: expected complete cells in {', '.join(map(repr, map(str, folders)))}, got {found_instead}. "
            "Give the folder of a study, as multirun/paper."
        )
    ordered = [cells[name] for name in sorted(cells)]
    pairs, refused = pair_cells(ordered)
    return Study(folders, ordered, pairs, [*problems, *missing_cells(ordered), *refused])


def _cell_folders(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders below some folders that hold a config, or Hydra's if it came no further, in order.

    Nothing below a cell is a cell.
    """
    seen = set()
    for top in folders:
        if not top.is_dir():
            raise UserError(f"folder: expected an existing folder, got {str(top)!r}.")
        for folder, below, files in os.walk(top):
            below[:] = sorted(set(below) - {"wandb"})  # whose runs have a config.yaml of their own
            if "config.yaml" in files or ".hydra" in below:
                below.clear()
                path = Path(folder).resolve()
                if path not in seen:
                    seen.add(path)
                    yield path


def read_cell(folder: Path) -> Cell | Problem:
    """A cell's results, checked, or what is wrong with them."""
    name = folder.name
    for file in ("samples.parquet", "summary.json"):
        if not (folder / file).is_file():
            return Problem("incomplete", name, f"has no {file}; run the same command again")
    try:
        cell = Cell(
            folder,
            yaml.safe_load((folder / "config.yaml").read_text()),
            json.loads((folder / "summary.json").read_text()),
        )
        if missing := cell._column("sample_id").null_count:
            return Problem("damaged", name, f"{missing} rows have no sample_id")
        rows, distinct = len(cell.sample_id), len(np.unique(cell.sample_id))
        _ = [cell.column(column) for column in (*COLUMNS, *cell.metrics)]
        for curve, axis in cell.curves.items():
            if cell.curve(curve).shape != (rows, len(axis)):
                return Problem("damaged", name, f"{curve} has not the {len(axis)} steps that summary.json names")
        if not rows == distinct == cell.summary["images"]:
            return Problem("damaged", name, f"{rows} rows of {distinct} samples, summary.json tells of another number")
        _ = cell.name, cell.state, cell.is_original, cell.twin_settings, [cell.summary[key] for key in SUMMARY]
        if cell.maps is not None:
            _ = [cell.maps[key] for key in MAPS]
    except Exception as error:  # whatever a damaged file makes its reader raise
        return Problem("damaged", name, f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())})")
    return cell


def _duplicate(kept: Cell, other: Cell) -> Problem:
    same = np.array_equal(kept.sample_id, other.sample_id) and all(
        np.array_equal(kept.column(name), other.column(name), equal_nan=True) for name in kept.metrics
    )
    told = "the same results" if same else "other results, which are left out; delete one of them"
    return Problem("duplicate", kept.name, f"{other.folder} has {told}; {kept.folder} is used")


def missing_cells(cells: Sequence[Cell]) -> list[Problem]:
    """The cells that a study's grid of networks, methods and states lacks."""
    there = {(cell.data, cell.model, cell.method, cell.state) for cell in cells}
    networks = sorted({(data, model) for data, model, *_ in there})
    methods, states = (sorted({cell[axis] for cell in there}) for axis in (2, 3))
    grid = product(networks, methods, sorted({"original", *states}))
    lacking = [(*network, method, state) for network, method, state in grid if (*network, method, state) not in there]
    return [Problem("missing", "-".join(cell), "not computed, or not complete") for cell in lacking]


def pair_cells(cells: Sequence[Cell]) -> tuple[list[Pair], list[Problem]]:
    """Pairs each canonized cell with the original one of the same settings.

    Returns:
        The pairs, and why cells of the same data, model and method are no pair.
    """
    pairs, problems = [], []
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.data, cell.model, cell.method].append(cell)
    for group in groups.values():
        originals = [cell for cell in group if cell.is_original]
        twins, used = [], []
        for canonized in (cell for cell in group if not cell.is_original):
            # of two equal originals, that with canonize=false
            found = sorted(originals, key=lambda cell: (len(_differing(cell, canonized)), cell.settings["canonize"]))
            if not found:
                continue  # listed as missing
            used.append(found[0])
            if keys := _differing(found[0], canonized):
                reason = f"not compared with {found[0].name}: they differ in {', '.join(keys)}"
                problems.append(Problem("refused", canonized.name, reason))
            elif reason := _not_same_images(pair := Pair(found[0], canonized)):
                problems.append(Problem("refused", canonized.name, f"not compared with {found[0].name}: {reason}"))
            else:
                twins.append(pair)
                problems += _notes(pair)
        pairs += _named(twins)
        problems += _alone(originals, used)
    return pairs, problems


def _alone(originals: Sequence[Cell], used: Sequence[Cell]) -> Iterator[Problem]:
    """The originals whose settings no canonized cell of the same data, model and method has."""
    for cell in originals if used else ():  # if there is no canonized cell, it is listed as missing
        if keys := min((_differing(cell, other) for other in used), key=len):
            where = ", ".join(f"{key}={cell.twin_settings.get(key)}" for key in keys)
            yield Problem("missing", cell.name, f"has no canonized twin: none was computed with {where}")


def _named(pairs: Sequence[Pair]) -> list[Pair]:
    """Gives pairs of the same data, model, method and state the settings in which they differ as a name."""
    named = []
    for pair in pairs:
        others = [other for other in pairs if other.canonized.state == pair.canonized.state]
        settings = _all_settings(pair.canonized)
        keys = sorted({k for other in others for k in _differing_keys(settings, _all_settings(other.canonized))})
        named.append(replace(pair, variant=", ".join(f"{key}={settings.get(key)}" for key in keys)))
    return named


def _differing(cell: Cell, other: Cell) -> list[str]:
    """The settings in which two cells differ, canonization aside."""
    return _differing_keys(cell.twin_settings, other.twin_settings)


def _all_settings(cell: Cell) -> dict[str, Any]:
    """All settings on which results depend, how it was canonized included, by dotted key."""
    return dict(_flat(result_settings(cell.settings)))


def _differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]


def _not_same_images(pair: Pair) -> str:
    """Why the two cells of a pair cannot have seen the same images and the same network, or nothing."""
    if not len(pair.sample_id):
        return "they have no sample in common"
    for name in ("label", "target", "box_fraction"):
        if not np.array_equal(*pair.columns(name)):
            return f"the same samples have another {name}"
    original, canonized = pair.columns("probability")
    if not np.allclose(original, canonized, rtol=0, atol=SAME_FUNCTION):
        return "the networks give other probabilities for the same images"
    return ""


def _notes(pair: Pair) -> list[Problem]:
    """What a reader has to know of a pair that is compared."""
    notes = []
    alone = len(pair.original.sample_id) + len(pair.canonized.sample_id) - 2 * len(pair.sample_id)
    if alone:
        notes.append(f"{alone} samples are in one of the two cells only, and left out")
    versions = [cell.summary["versions"] for cell in (pair.original, pair.canonized)]
    if others := [name for name in versions[0] if versions[0][name] != versions[1].get(name)]:
        notes.append(f"computed by another version of {', '.join(others)} than {pair.original.name}")
    return [Problem("note", pair.canonized.name, note) for note in notes]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
