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
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float, Int64, Shaped

from canonxai.config import TOGETHER, differing_keys, flat, result_settings, state
from canonxai.data.images import MAX_PIXELS
from canonxai.errors import UserError
from canonxai.results.cell import FILE, Plan, merge
from canonxai.results.store import COLUMNS

NAMES = ("study", "cell", "data", "model", "method", "title", "state")  #: what the report needs of ``summary.json``
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  #: 8 times as fast, where there is a compiled one
SAME_FUNCTION = 1e-3  #: how far the probabilities of two cells on one image may be apart if their network is the same
Place = tuple[str, str, str, str]  #: of a cell in the grid: data, model, method, state


@dataclass(frozen=True)
class Problem:
    """What stands in the way of a comparison.

    Attributes:
        kind: ``damaged``, ``incomplete``, ``duplicate``, ``missing``, ``refused`` (a pair), ``unknown`` (a name in a
            claim) or ``note``.
        cell: which cell, or what else.
        reason: what is wrong, in a sentence.
        place: of a cell that cannot be used, in the grid, where its config tells it.
    """

    kind: str
    cell: str
    reason: str
    place: Place | None = None


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
    def place(self) -> Place:
        return self.data, self.model, self.method, self.state

    @property
    def metrics(self) -> dict[str, bool | None]:
        """The columns of the metrics, and whether higher is better."""
        return {name: values["higher_is_better"] for name, values in self.summary["metrics"].items()}

    @property
    def objective(self) -> list[str]:
        """The columns that a search looked for the best of, if this is one of its trials; else none."""
        names = self.settings.get("objective")
        return [name for name in names if self.metrics.get(name) is not None] if isinstance(names, list) else []

    @property
    def curves(self) -> dict[str, Sequence[float]]:
        """The columns that hold curves, and their axes."""
        return {name: curve["axis"] for name, curve in self.summary["curves"].items()}

    @property
    def is_original(self) -> bool:
        """Whether the explained network is the one that was written: not canonized, or by no part of the canonizer."""
        return not self.settings["canonize"] or self.settings["canonizer"].get("parts") == []

    @cached_property
    def result_settings(self) -> dict[str, Any]:
        """All settings on which results depend, how it was canonized included, by dotted key."""
        return flat(result_settings(self.settings))

    @cached_property
    def twin_settings(self) -> dict[str, Any]:
        """What two cells must share to be compared: all settings but those of canonization, by dotted key."""
        settings = self.result_settings
        return {key: value for key, value in settings.items() if key.partition(".")[0] not in ("canonize", "canonizer")}

    @cached_property
    def twin_settings_as_text(self) -> str:
        """The same for two cells only if :attr:`twin_settings` are."""
        return json.dumps(self.twin_settings, sort_keys=True, default=str)

    @cached_property
    def sample_id(self) -> Int64[np.ndarray, " n"]:
        """The samples, ascending; the rows of all columns are in this order."""
        return np.asarray(self._numbers["sample_id"].to_numpy())

    def column(self, name: str) -> Float[np.ndarray, " n"]:
        """A column of numbers; what is not defined is NaN."""
        values = self._numbers[name].cast("float64").to_numpy()
        return np.asarray(np.where(np.isfinite(values), values, np.nan))

    def curve(self, name: str) -> Float[np.ndarray, "n steps"]:
        """A column of curves."""
        curves = self._read(["sample_id", name])[name].combine_chunks()
        lengths = pc.unique(pc.list_value_length(curves)).to_pylist()
        _expect(len(lengths) == 1, f"{name} has curves of {lengths} steps")
        return np.asarray(curves.flatten().to_numpy(zero_copy_only=False).reshape(len(curves), -1))

    @property
    def maps(self) -> Mapping[str, Shaped[np.ndarray, "..."]] | None:
        """``maps.npz``, or nothing if no maps were kept, or they are damaged; read each time, as they are large."""
        return self._read_maps() if self._has_maps and not self.damage_of_maps else None

    @cached_property
    def damage_of_maps(self) -> str:
        """What is wrong with ``maps.npz``, or nothing."""
        if not self._has_maps:
            return ""
        try:
            shapes = self._shapes_of_maps()
            n, _, height, width = shapes["image"]
            names = ["box", "heatmap", "image", "label", "sample_id"]
            _expect(sorted(shapes) == names, f"there are {sorted(shapes)}, not {names}")
            _expect(shapes["image"] == (n, 3, height, width), "the images are not of three channels")
            _expect(height * width <= MAX_PIXELS, f"{height} x {width} pixels are more than {MAX_PIXELS}")
            _expect(n <= len(self.sample_id), f"there are {n} images of {len(self.sample_id)} samples")
            for name in ("box", "heatmap"):
                _expect(shapes[name] == (n, height, width), f"the images and the {name} have other shapes")
            for name in ("sample_id", "label"):
                _expect(shapes[name] == (n,), f"there are {n} images, but another number of {name}")
            maps = self._read_maps()
            _ = [maps[name].shape for name in shapes]
            _expect(np.isin(maps["sample_id"], self.sample_id).all(), "they are of other samples")
        except Exception as error:  # whatever a damaged file makes its reader raise
            return _damage(self.folder / "maps.npz", error)
        return ""

    @cached_property
    def _has_maps(self) -> bool:
        return (self.folder / "maps.npz").is_file()

    def _read_maps(self) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        maps: Mapping[str, Shaped[np.ndarray, "..."]]
        maps = np.load(io.BytesIO((self.folder / "maps.npz").read_bytes()), allow_pickle=False)
        return maps

    def _shapes_of_maps(self) -> dict[str, tuple[int, ...]]:
        """As their headers tell, before anything has to fit into memory."""
        shapes = {}
        with ZipFile(self.folder / "maps.npz") as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    np.lib.format.read_magic(file)
                    shape, _, kind = np.lib.format.read_array_header_1_0(file)
                    _expect(kind.kind in "biuf", f"{name} holds no numbers")
                    shapes[name.removesuffix(".npy")] = shape
        return shapes

    @cached_property
    def _numbers(self) -> pa.Table:
        return self._read([*COLUMNS, *self.metrics])

    def _read(self, columns: list[str]) -> pa.Table:
        return pq.read_table(self.folder / "samples.parquet", columns=columns).sort_by("sample_id")


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

    @cached_property
    def images(self) -> str:
        """The data set and its settings, which choose the images: a sample is the same in all pairs that share them."""
        settings = {key: value for key, value in self.original.twin_settings.items() if key.startswith("data.")}
        return json.dumps(settings, sort_keys=True, default=str)

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

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Data set and model, of all cells, those that cannot be used among them."""
        places = {cell.place for cell in self.cells} | {problem.place for problem in self.problems if problem.place}
        return sorted({(data, model) for data, model, *_ in places})


def read_study(folders: Sequence[Path]) -> Study:
    """Reads all cells below some folders and pairs them.

    Raises:
        UserError: if a folder does not exist, or no complete cell is in any of them.
    """
    copies: dict[str, list[Cell]] = defaultdict(list)
    cells: list[Cell] = []
    problems: list[Problem] = []
    unusable: dict[Path, Problem] = {}
    for folder in _merged(list(_cell_folders(folders)), problems):
        found = read_cell(folder)
        if isinstance(found, Problem):
            unusable[folder] = found
        else:
            copies[found.name].append(found)
    problems += [problem for folder, problem in unusable.items() if _planned(folder) not in copies]
    for _, same in sorted(copies.items()):
        cell, *others = same
        if different := [other for other in others if not _same_results(cell, other)]:
            told = f"has other results in {cell.folder} and in {different[0].folder}: left out, delete all but one"
            problems.append(Problem("duplicate", cell.name, told, cell.place))
            continue
        told = f"has the same results; {cell.folder} is used"
        problems += [Problem("duplicate", cell.name, f"{other.folder} {told}") for other in others]
        cells.append(cell)
        if cell.damage_of_maps:
            problems.append(Problem("damaged", cell.name, f"{cell.damage_of_maps}; its other results are used"))
    if not cells:
        found_instead = "; ".join(f"{p.cell}: {p.kind}, {p.reason}" for p in problems[:3]) or "none"
        raise UserError(
            f"folder: expected complete cells in {', '.join(map(repr, map(str, folders)))}, got {found_instead}. "
            "Give the folder of a study, as multirun/paper."
        )
    pairs, refused = pair_cells(cells)
    return Study(folders, cells, pairs, [*problems, *missing_cells(cells, problems), *refused])


def _merged(folders: Sequence[Path], problems: list[Problem]) -> Iterator[Path]:
    """The folders of cells; shards of one cell that were computed in several are completed in the first."""
    shards: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if (folder / "parts" / FILE).is_file() and not (folder / "summary.json").is_file():
            shards[folder.name].append(folder)
    others: set[Path] = set()
    for name, same in shards.items():
        try:
            if len(same) > 1 and merge(same):
                others |= set(same[1:])
                told = f"its shards in {', '.join(map(str, same))} make it complete; the results are in the first"
                problems.append(Problem("note", name, told))
        except Exception as error:  # whatever a damaged file makes its reader raise
            kind = "incomplete" if isinstance(error, UserError) else "damaged"
            problems.append(Problem(kind, name, f"its shards cannot be merged: {error}"))
    yield from (folder for folder in folders if folder not in others)


def _planned(folder: Path) -> str:
    """The name of the cell that a folder has a share of, or nothing."""
    try:
        return str(Plan.read(folder).about["cell"])
    except Exception:  # whatever a damaged file makes its reader raise
        return ""


def _cell_folders(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders below some folders that hold a config, or Hydra's if it came no further, in order.

    Nothing below a cell is a cell.
    """
    seen = set()
    for top in folders:
        if not top.is_dir():
            raise UserError(f"folder: expected an existing folder, got {str(top)!r}.")
        for folder, below, files in os.walk(top):
            below[:] = sorted(set(below) - {"wandb", TOGETHER})  # which have a config.yaml or Hydra's, but are no cells
            is_job = ".hydra" in below
            below[:] = [name for name in below if name != ".hydra"]
            together = any((Path(folder) / name / "config.yaml").is_file() for name in below)
            if "config.yaml" in files or (is_job and not together):
                below.clear()
                path = Path(folder).resolve()
                if path not in seen:
                    seen.add(path)
                    yield path


def read_cell(folder: Path) -> Cell | Problem:
    """A cell's results, checked, or what is wrong with them; damaged maps are told by the cell."""
    name = folder.name
    for file in ("samples.parquet", "summary.json"):
        if not (folder / file).is_file():
            return Problem("incomplete", name, f"has no {file}; run the same command again", _place(folder))
    try:
        path = folder / "config.yaml"
        settings = _settings(path)
        _ = Cell(folder, settings, {}).is_original, result_settings(settings)
        path = folder / "summary.json"
        cell = Cell(folder, settings, json.loads(path.read_text()))
        _check_summary(cell)
        path = folder / "samples.parquet"
        _check_samples(cell)
    except Exception as error:  # whatever a damaged file makes its reader raise
        return Problem("damaged", name, _damage(path, error), _place(folder))
    return cell


def _settings(path: Path) -> Any:
    """A recorded config as it stands: no value refers to a variable, or, many times over, to other values."""
    _expect(path.is_file(), "no file")  # but a pipe, say, which would never end
    text = path.read_text()
    is_alias = (isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, SAFE_LOADER))
    _expect("*" not in text or not any(is_alias), "aliases, which no recorded config has")
    return yaml.load(text, SAFE_LOADER)


class _DamageError(Exception):
    """What is wrong with a file that can be read."""


def _expect(condition: bool | np.bool_, otherwise: str) -> None:
    if not condition:
        raise _DamageError(otherwise)


def _damage(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{path}: " + (
        reason if isinstance(error, _DamageError) else f"not readable ({type(error).__name__}: {reason})"
    )


def _place(folder: Path) -> Place | None:
    """Which place of the grid a cell was meant for, whatever came of it."""
    try:
        settings = _settings(folder / "config.yaml")
        is_original = Cell(folder, settings, {}).is_original
        data, model, method = (str(settings[group]["name"]) for group in ("data", "model", "method"))
        return data, model, method, "original" if is_original else state(settings)
    except Exception:  # as it is damaged, too
        return None


def _check_summary(cell: Cell) -> None:
    for key in NAMES:
        _expect(isinstance(cell.summary[key], str), f"expected {key} to be text, got {cell.summary[key]!r}")
    _expect(isinstance(cell.summary["versions"], dict), f"expected versions by name, got {cell.summary['versions']!r}")
    for metric, direction in cell.metrics.items():
        known = direction is None or isinstance(direction, bool)
        _expect(known, f"expected higher_is_better of {metric} to be true, false or null, got {direction!r}")
    _ = [len(axis) for axis in cell.curves.values()]


def _check_size(cell: Cell) -> None:
    """Looks at how much ``samples.parquet`` tells it holds, before it has to fit into memory."""
    path = cell.folder / "samples.parquet"
    about, size = pq.read_metadata(path), path.stat().st_size
    _expect(about.num_rows <= size, f"{about.num_rows} rows in {size} bytes")  # each has a sample_id of its own
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            most = group.num_rows * len(cell.curves.get(name, [0]))
            _expect(column.num_values <= most, f"{name} has {column.num_values} values in {group.num_rows} rows")


def _check_samples(cell: Cell) -> None:
    _check_size(cell)
    missing = cell._numbers["sample_id"].null_count
    _expect(not missing, f"{missing} rows have no sample_id")
    rows, distinct, told = len(cell.sample_id), len(np.unique(cell.sample_id)), cell.summary["images"]
    _expect(rows == distinct == told, f"{rows} rows of {distinct} samples, summary.json tells of {told}")
    _ = [cell.column(column) for column in (*COLUMNS, *cell.metrics)]
    for curve, axis in cell.curves.items():
        is_whole = cell.curve(curve).shape == (rows, len(axis))
        _expect(is_whole, f"{curve} has not the {len(axis)} steps that summary.json names")


def _same_results(cell: Cell, other: Cell) -> bool:
    """Whether two copies of a cell have the same results up to the rounding of float64."""
    return (
        np.array_equal(cell.sample_id, other.sample_id)
        and cell.metrics == other.metrics
        and all(
            np.allclose(cell.column(name), other.column(name), rtol=1e-9, atol=1e-12, equal_nan=True)
            for name in (*COLUMNS, *cell.metrics)
        )
    )


def missing_cells(cells: Sequence[Cell], problems: Sequence[Problem] = ()) -> list[Problem]:
    """The cells that a study's grid of networks, methods and states lacks, those of ``problems`` among them."""
    there = {cell.place for cell in cells}
    meant = there | {problem.place for problem in problems if problem.place}
    networks, methods = sorted({place[:2] for place in meant}), sorted({place[2] for place in meant})
    states = ["original", *(sorted({place[3] for place in meant} - {"original"}) or ["canonized"])]
    lacking = [p for network, *rest in product(networks, methods, states) if (p := (*network, *rest)) not in there]
    return [Problem("missing", "-".join(place), "has no results that can be used", place) for place in lacking]


def pair_cells(cells: Sequence[Cell]) -> tuple[list[Pair], list[Problem]]:
    """Pairs each canonized cell with the original one of the same settings.

    Returns:
        The pairs, and why cells of the same data, model and method are no pair. Trials of a search have other
        parameters in each state but for those that it began with; what has no twin of them is counted, no more.
    """
    pairs, problems = [], []
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.data, cell.model, cell.method].append(cell)
    for group in groups.values():
        originals = [cell for cell in group if cell.is_original]
        originals.sort(key=lambda cell: bool(cell.settings["canonize"]))  # of two equal ones, that with canonize=false
        by_settings = {cell.twin_settings_as_text: cell for cell in reversed(originals)}
        twins, used = [], []
        for canonized in (cell for cell in group if not cell.is_original):
            original = by_settings.get(canonized.twin_settings_as_text)
            if original is None:
                if not originals:
                    continue  # listed as missing
                original = min(originals, key=lambda cell: len(_differing(cell, canonized)))
            used.append(original)
            if (keys := _differing(original, canonized)) and canonized.objective:
                continue
            if keys:
                reason = f"not compared with {original.name}: they differ in {', '.join(keys)}"
                problems.append(Problem("refused", canonized.name, reason))
            elif reason := _not_same_images(pair := Pair(original, canonized)):
                problems.append(Problem("refused", canonized.name, f"not compared with {original.name}: {reason}"))
            else:
                twins.append(pair)
                problems += _notes(pair)
        pairs += _named(twins)
        problems += _alone([cell for cell in originals if not cell.objective], used)
        problems += _trials(group, twins)
    return pairs, problems


def _trials(group: Sequence[Cell], pairs: Sequence[Pair]) -> Iterator[Problem]:
    """How many trials of a search are in no pair, where it was made in several states."""
    paired = {cell.name for pair in pairs for cell in (pair.original, pair.canonized)}
    trials = [cell for cell in group if cell.objective]
    alone = [cell for cell in trials if cell.name not in paired]
    if alone and len({cell.state for cell in trials}) > 1:
        told = f"{len(alone)} of {len(trials)} have no twin of the same parameters; the Pareto fronts compare them"
        yield Problem("note", f"trials of {alone[0].method} on {alone[0].model}", told)


def _alone(originals: Sequence[Cell], used: Sequence[Cell]) -> Iterator[Problem]:
    """The originals whose settings no canonized cell of the same data, model and method has."""
    twins = {cell.folder for cell in used}
    for cell in originals if used else ():  # if there is no canonized cell, it is listed as missing
        if cell.folder in twins:
            continue
        if keys := min((_differing(cell, other) for other in used), key=len):
            where = ", ".join(f"{key}={cell.twin_settings.get(key)}" for key in keys)
            yield Problem("missing", cell.name, f"has no canonized twin: none was computed with {where}")


def _named(pairs: Sequence[Pair]) -> list[Pair]:
    """Gives pairs of the same data, model, method and state the settings in which they differ as a name."""
    keys: dict[str, list[str]] = {}
    for state_ in {pair.canonized.state for pair in pairs}:
        first, *others = (pair.canonized.result_settings for pair in pairs if pair.canonized.state == state_)
        keys[state_] = sorted({key for other in others for key in differing_keys(first, other)})
    settings = [[f"{k}={_short(p.canonized.result_settings.get(k))}" for k in keys[p.canonized.state]] for p in pairs]
    return [replace(pair, variant=", ".join(told)) for pair, told in zip(pairs, settings, strict=True)]


def _short(value: Any) -> str:
    """A setting in a variant's name; of what a search drew, four digits."""
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def _differing(cell: Cell, other: Cell) -> list[str]:
    """The settings in which two cells differ, canonization aside."""
    return differing_keys(cell.twin_settings, other.twin_settings)


def _not_same_images(pair: Pair) -> str:
    """Why the two cells of a pair cannot have seen the same images and the same network, or nothing."""
    first, second = (
        {**{name: [direction] for name, direction in cell.metrics.items()}, **cell.curves}
        for cell in (pair.original, pair.canonized)
    )
    if others := differing_keys(first, second):
        return f"they tell of other metrics, or of another direction: {', '.join(others)}"
    if not len(pair.sample_id):
        return "they have no sample in common"
    for name in ("label", "target", "box_fraction", "probability"):
        columns = pair.columns(name)
        if undefined := int(np.isnan(columns).any(0).sum()):
            return f"{name} is not defined for {undefined} of {len(pair.sample_id)} samples"
        if name != "probability" and not np.array_equal(*columns):
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
