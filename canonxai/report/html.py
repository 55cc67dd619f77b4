"""``report.html``: the whole report as one file that needs no network.

Titles, names, paths and settings may come from strangers. Jinja escapes them, the page's script inserts them as text
only, and the page's content security policy allows no script but the two that are inlined here, by their hashes.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from canonxai.files import durable
from canonxai.metrics.distance import cosine_distance
from canonxai.report.cells import Cell, Pair, Study
from canonxai.report.comparison import ALPHA, Comparison, columns, count_tests
from canonxai.report.figures.style import CANONIZED, COLOURS, ORIGINAL
from canonxai.report.report import Report, order
from canonxai.report.statistics import differences, mean_curve, permutations
from canonxai.results.statistics import RESAMPLES

LONGEST_SIDE = 160  #: of a map, in pixels
POINTS = 2_000  #: images of one pair in the scatter plot; fewer if there are many pairs
POINTS_IN_ALL = 500_000
MAPS_IN_ALL = 5_000  #: of a cell, at least one
OPEN_PROBLEMS = 5  #: more are collapsed
_MISSING = object()


def write_html(report: Report, path: Path, figures: Sequence[Path] = ()) -> None:
    """Writes the page.

    Args:
        report: what it shows.
        path: of the page.
        figures: PNG files to be embedded under their names.
    """
    environment = Environment(
        loader=PackageLoader("canonxai.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    source = _sources(environment)
    page = environment.get_template("report.html").render(
        report=report,
        study=report.study,
        images=_count_images(report.study.cells),
        open_problems=OPEN_PROBLEMS,
        style=Markup(source["css"]),
        scripts=[Markup(source["plotly"]), Markup(source["js"])],
        hashes=[_sha256(source["plotly"]), _sha256(source["js"])],
        data=_data(report),
        figures=[(png.stem, _uri(png.read_bytes())) for png in figures],
        settings=yaml.safe_dump(_common(report.study), allow_unicode=True, sort_keys=False),
        versions=_versions(report.study.cells),
        resamples=RESAMPLES,
        permutations=permutations(count_tests(report.study)),
        alpha=ALPHA,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable(path) as file:
        file.write(page.encode(errors="backslashreplace"))


def _sources(environment: Environment) -> dict[str, str]:
    """The scripts and the style, as they are."""
    assert environment.loader is not None
    own = {kind: environment.loader.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js")}
    every = {**own, "plotly": get_plotlyjs()}
    return {kind: source.replace("\r\n", "\n") for kind, source in every.items()}  # as browsers do before they hash


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _data(report: Report) -> dict[str, Any]:
    """What the page's script draws, as JSON."""
    methods = {method: place for place, method in enumerate(order(report.results))}

    def place(row: Comparison | Cell, variant: str) -> tuple[str, str, int, str, str]:
        return row.data, row.model, methods[row.method], row.state, variant

    entries = sorted(_entries(report.study), key=lambda entry: place(entry.cell, entry.variant))
    limit = min(POINTS, POINTS_IN_ALL // max(1, len(report.study.pairs)))
    maps = _Maps(max(1, MAPS_IN_ALL // len(report.study.cells)))
    sets: dict[bytes, dict[str, Any]] = {}
    told = [
        {
            **{key: getattr(entry.cell, key) for key in ("data", "model", "method", "title", "state")},
            "variant": entry.variant,
            "curves": _curves(entry),
            "images": _images(entry.pair, limit, sets) if entry.pair else None,
            "maps": maps.of(entry),
        }
        for entry in entries
    ]
    return {
        "methods": list(methods),
        "rows": columns(sorted(report.comparisons, key=lambda row: place(row, row.variant)), Comparison),
        "entries": told,
        "image_sets": list(sets.values()),
        "samples": maps.samples,
        "pictures": maps.pictures,
        "original": ORIGINAL,
        "canonized": CANONIZED,
        "colours": [*COLOURS[:-1], "#888888"],  # black cannot be seen on a dark page
    }


@dataclass(frozen=True)
class _Entry:
    """A pair, or a cell without a twin."""

    original: Cell | None
    canonized: Cell | None
    pair: Pair | None = None

    @property
    def cell(self) -> Cell:
        cell = self.canonized or self.original
        assert cell is not None
        return cell

    @property
    def variant(self) -> str:
        return self.pair.variant if self.pair else ""

    @property
    def by_state(self) -> dict[str, Cell | None]:
        return {"original": self.original, "canonized": self.canonized}


def _entries(study: Study) -> list[_Entry]:
    paired = {cell.name for pair in study.pairs for cell in (pair.original, pair.canonized)}
    alone = [cell for cell in study.cells if cell.name not in paired]
    return [
        *(_Entry(pair.original, pair.canonized, pair) for pair in study.pairs),
        *(_Entry(cell, None) if cell.is_original else _Entry(None, cell) for cell in alone),
    ]


def _curves(entry: _Entry) -> dict[str, Any]:
    """The mean curves, over the images that both cells of a pair have."""
    rows: dict[str, Any] = dict(zip(("original", "canonized"), entry.pair.rows, strict=True)) if entry.pair else {}
    return {
        name: {
            "axis": _numbers(axis),
            **{
                state: _numbers(mean_curve(cell.curve(name)[rows.get(state, slice(None))]))
                for state, cell in entry.by_state.items()
                if cell is not None and name in cell.curves
            },
        }
        for name, axis in entry.cell.curves.items()
    }


def _images(pair: Pair, limit: int, sets: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
    """Each metric's differences for evenly chosen images; the images, shared by many pairs, are kept in ``sets``."""
    chosen = np.unique(np.linspace(0, len(pair.sample_id) - 1, limit).astype(int))
    samples, box = pair.sample_id[chosen], pair.image("box_fraction")[chosen]
    key = samples.tobytes() + box.tobytes()
    sets.setdefault(
        key, {"id": samples.tolist(), "box": _numbers(np.where(box > 0, box, np.nan)), "of": len(pair.sample_id)}
    )
    return {
        "set": list(sets).index(key),
        "difference": {name: _numbers(differences(*pair.columns(name))[chosen]) for name in pair.canonized.metrics},
    }


def _numbers(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Rounded, as JSON knows them."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


class _Maps:
    """The kept maps of cells as small pictures, and the samples that they belong to.

    Args:
        limit: how many maps of a cell, the first ones.

    Attributes:
        samples: each image once, though all cells of a study keep it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.samples: list[dict[str, Any]] = []
        self._pictures: dict[str, int] = {}
        self._places: dict[tuple[str, int, str], int] = {}
        self._read: dict[Path, dict[int, tuple[Float[np.ndarray, "h w"], int]]] = {}

    @property
    def pictures(self) -> list[str]:
        """The maps as PNG in base64; equal ones, as of methods that canonization cannot change, once."""
        return list(self._pictures)

    def of(self, entry: _Entry) -> dict[int, dict[str, Any]]:
        """By sample: the picture of each state, its place in ``pictures``, and the cosine distance of the maps."""
        found = {state: self._maps_of(cell) for state, cell in entry.by_state.items() if cell}
        shared: dict[int, dict[str, Any]] = {}
        for state, maps in found.items():
            for place, (_, picture) in maps.items():
                shared.setdefault(place, {})[state] = picture
        for place in set.intersection(*map(set, found.values())) if len(found) == 2 else ():
            original, canonized = (torch.from_numpy(maps[place][0])[None] for maps in found.values())
            shared[place]["distance"] = _numbers(cosine_distance(original, canonized).tolist())[0]
        return shared

    def _maps_of(self, cell: Cell) -> dict[int, tuple[Float[np.ndarray, "h w"], int]]:
        """A cell's maps and their pictures, by sample."""
        if cell.folder not in self._read:
            names = ("sample_id", "label", "image", "box", "heatmap")
            maps = cell.maps
            arrays = [maps[name][: self._limit] for name in names] if maps else []
            self._read[cell.folder] = {
                self._place(cell.data, *sample): (heatmap, self._picture(heatmap))
                for *sample, heatmap in zip(*arrays, strict=True)
            }
        return self._read[cell.folder]

    def _picture(self, heatmap: Float[np.ndarray, "h w"]) -> int:
        """A map's place in ``pictures``."""
        return self._pictures.setdefault(encode_map(heatmap), len(self._pictures))

    def _place(
        self, data: str, sample_id: np.integer[Any], label: np.integer[Any], image: UInt8[np.ndarray, "c h w"],
        box: Bool[np.ndarray, "h w"],
    ) -> int:  # fmt: skip
        """A sample's place in ``samples``."""
        key = (data, int(sample_id), hashlib.sha256(image.tobytes() + box.tobytes()).hexdigest())
        if key not in self._places:
            self._places[key] = len(self.samples)
            picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1)).squeeze())
            self.samples.append(
                {
                    "data": data,
                    "id": int(sample_id),
                    "label": int(label) if label >= 0 else None,
                    "image": _png(picture),
                    "size": [image.shape[2], image.shape[1]],
                    "outline": outline(box),
                }
            )
        return self._places[key]


def encode_map(heatmap: Float[np.ndarray, "height width"]) -> str:
    """A map as a small PNG in base64: red is positive, blue negative, white 0, to its own scale."""
    from matplotlib import colormaps

    height, width = heatmap.shape
    picture = Image.fromarray(np.nan_to_num(heatmap.astype(np.float32), posinf=0, neginf=0))
    if (longest := max(height, width)) > LONGEST_SIDE:
        size = (max(1, width * LONGEST_SIDE // longest), max(1, height * LONGEST_SIDE // longest))
        picture = picture.resize(size, Image.Resampling.BOX)
    values = np.asarray(picture)
    limit = np.abs(values).max() or 1.0
    indexed = Image.fromarray(np.round(127 * (values / limit) + 127).astype(np.uint8)).convert("L")
    indexed.putpalette(colormaps["seismic"](np.linspace(0, 1, 255), bytes=True)[:, :3].tobytes())
    return _png(indexed)


def outline(box: Bool[np.ndarray, "height width"]) -> str:
    """The edges of a mask as an SVG path.

    >>> import numpy as np
    >>> outline(np.array([[False, True, True]]))
    'M1 0h2M1 1h2M1 0v1M3 0v1'
    """
    return "".join(
        f"M{edge} {start}v{length}" if is_vertical else f"M{start} {edge}h{length}"
        for is_vertical, mask in ((False, box), (True, box.T))
        for edge, changed in enumerate(np.diff(np.pad(mask, ((1, 1), (0, 0))), axis=0))
        for start, length in _runs(changed)
    )


def _runs(values: Bool[np.ndarray, " n"]) -> Iterable[tuple[int, int]]:
    """Where values are true: starts and lengths."""
    steps = np.flatnonzero(np.diff(np.pad(values, 1)))
    return ((int(start), int(end - start)) for start, end in zip(steps[::2], steps[1::2], strict=True))


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _count_images(cells: Iterable[Cell]) -> int:
    """Different images; the same number in two data sets is two images."""
    samples: dict[str, set[int]] = {}
    for cell in cells:
        samples.setdefault(cell.data, set()).update(cell.sample_id.tolist())
    return sum(map(len, samples.values()))


def _common(study: Study) -> dict[str, Any]:
    """The settings that all cells share."""
    return reduce(_shared, (dict(cell.settings) for cell in study.cells))


def _shared(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    for key, value in first.items():
        other = second.get(key, _MISSING)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if both := _shared(value, other):
                shared[key] = both
        elif value == other:
            shared[key] = value
    return shared


def _versions(cells: Iterable[Cell]) -> dict[str, str]:
    """Of each program, and the devices; several if the cells differ."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for name, version in {"device": cell.summary.get("device"), **cell.summary["versions"]}.items():
            found.setdefault(name, {})[str(version or "unknown")] = None
    return {name: ", ".join(versions) for name, versions in found.items()}
