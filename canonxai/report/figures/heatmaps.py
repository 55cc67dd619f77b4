"""Maps of single images, original and canonized: the study's Figure 2."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from canonxai.errors import check
from canonxai.metrics.distance import cosine_distance
from canonxai.report.cells import Cell, Pair
from canonxai.report.figures import grid
from canonxai.report.report import Report, format_number

SIDE = 0.8  #: of a map, in inches
#: blue to red through grey, ever lighter: the sign can be read in grey print and by the colour-blind
_BLUE_TO_RED = ["#00145c", "#1d56c8", "#949494", "#ff8f6b", "#ffece0"]
RELEVANCE = LinearSegmentedColormap.from_list("relevance", _BLUE_TO_RED, N=255)  # odd: zero is the middle one


def draw(report: Report, samples: Sequence[int] | None = None, count: int = 3) -> Iterator[tuple[str, Figure]]:
    """Grids of heatmaps, models and states x methods, as the study's Figure 2.

    The first column is the image with its box. Light and red speaks for the class, dark and blue against it, grey is
    zero, each map on its own scale; a cross marks its maximum. In the corner of a canonized map is its cosine distance
    to the original one.

    Args:
        report: what is drawn; one picture for each sample of the same data settings. Only cells with ``maps.npz`` take
            part, only samples that all of these hold.
        samples: which samples; those with the largest mean distance if not given.
        count: how many samples if they are not given, >= 0.

    Raises:
        UserError: if a sample is in no data set's maps.
    """
    check(count >= 0, "count", "an integer >= 0", count)
    with_maps = [pair for pair in report.study.pairs if pair.original.maps and pair.canonized.maps]
    of_images: dict[str, list[Pair]] = defaultdict(list)
    for pair in with_maps:
        of_images[pair.images].append(pair)
    stored = [(pairs, _common(pairs)) for pairs in of_images.values()]
    available = sorted({sample for _, common in stored for sample in common})
    for sample in samples or ():
        kept = ", ".join(map(str, available)) or "no maps"
        hint = "Only the first maps of a cell are kept; save_maps=N keeps N."
        check(sample in available, "samples", f"one of those whose maps all cells kept ({kept})", sample, hint)
    names = _names([pairs[0] for pairs, _ in stored])
    for (pairs, common), name in zip(stored, names, strict=True):
        titles = grid.methods(report, pairs)
        if not titles:
            continue
        data = pairs[0].original.data
        suffix = grid.suffix(report, data) + re.sub(r"[^\w.=-]+", "-", f"-{name}" if name else "")
        chosen = _most_different(pairs, common)[:count] if samples is None else dict.fromkeys(samples)
        for sample in chosen:
            if sample in common:
                title = f"{data} ({name})" if name else data
                yield f"heatmaps-{sample}{suffix}", _figure(title, pairs, titles, sample)


def _names(pairs: Sequence[Pair]) -> list[str]:
    """The data settings in which each pair differs from others of the same data set."""
    names = []
    for pair in pairs:
        settings = json.loads(pair.images)
        others = [json.loads(other.images) for other in pairs if other.original.data == pair.original.data]
        keys = sorted(key for key in settings if any(other.get(key) != settings[key] for other in others))
        names.append(", ".join(f"{key}={settings[key]}" for key in keys))
    return names


def _figure(data: str, pairs: Sequence[Pair], titles: dict[str, str], sample: int) -> Figure:
    networks = grid.grouped(pairs, "model", "variant")
    states = {key: ["original", *_states(members)] for key, members in networks.items()}
    rows, columns = sum(map(len, states.values())), len(titles) + 1
    figure = Figure((SIDE * columns + 0.5, SIDE * rows + 0.8), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for panel, title in zip(axes[0, 1:], titles.values(), strict=True):
        panel.set_title(grid.broken(title), fontsize=8)

    lines = iter(axes)
    for key, members in networks.items():
        for state in states[key]:
            line = next(lines)
            line[1].set_ylabel(state, fontsize=8)
            if state == "original":
                cell = members[0].original
                _image(line[0], _map(cell, "image", sample), _map(cell, "box", sample))
                line[0].set_ylabel(grid.network(*key), fontsize=8)
            for panel, method in zip(line[1:], titles, strict=True):
                at = [p for p in members if p.canonized.method == method and state in ("original", p.canonized.state)]
                if at and state == "original":
                    _heatmap(panel, _map(at[0].original, "heatmap", sample))
                elif at:
                    heatmap = _map(at[0].canonized, "heatmap", sample)
                    _heatmap(panel, heatmap)
                    _corner(panel, _distances(at[0], [sample])[0], heatmap)
    label = int(_map(pairs[0].original, "label", sample))
    figure.suptitle(f"{data}, image {sample} of class {label}", fontsize=10)
    return figure


def _states(pairs: Sequence[Pair]) -> list[str]:
    """The full canonization first."""
    return sorted({pair.canonized.state for pair in pairs}, key=lambda state: (state != "canonized", state))


def _common(pairs: Sequence[Pair]) -> list[int]:
    """The samples whose maps all cells have."""
    cells = [cell for pair in pairs for cell in (pair.original, pair.canonized)]
    stored = (maps["sample_id"].tolist() for cell in cells if (maps := cell.maps))
    return sorted(set.intersection(*map(set, stored)))


def _most_different(pairs: Sequence[Pair], samples: Sequence[int]) -> list[int]:
    """By falling mean distance over all pairs; one that is not defined, as of an empty map, counts as 0."""
    mean = np.nan_to_num([_distances(pair, samples) for pair in pairs]).mean(0)
    return [samples[i] for i in np.argsort(-mean, kind="stable")]


def _distances(pair: Pair, samples: Sequence[int]) -> Float[np.ndarray, " n"]:
    original, canonized = (
        torch.from_numpy(_maps(cell, "heatmap", samples)) for cell in (pair.original, pair.canonized)
    )
    return cosine_distance(original, canonized).numpy()


def _map(cell: Cell, name: str, sample: int) -> Shaped[np.ndarray, "..."]:
    return np.asarray(_maps(cell, name, [sample])[0])


def _maps(cell: Cell, name: str, samples: Sequence[int]) -> Shaped[np.ndarray, "n ..."]:
    """An array of ``maps.npz`` for some samples, in their order."""
    maps = cell.maps
    assert maps is not None
    stored = maps["sample_id"].tolist()
    return np.asarray(maps[name][[stored.index(sample) for sample in samples]])


def _image(axes: Axes, image: UInt8[np.ndarray, "3 height width"], box: Bool[np.ndarray, "height width"]) -> None:
    axes.imshow(image.transpose(1, 2, 0))
    if box.any() and not box.all():
        axes.contour(box, levels=[0.5], colors="black", linewidths=2.2)
        axes.contour(box, levels=[0.5], colors="yellow", linewidths=1)


def _heatmap(axes: Axes, heatmap: Float[np.ndarray, "height width"]) -> None:
    limit = np.abs(heatmap).max() or 1.0
    axes.imshow(heatmap, cmap=RELEVANCE, vmin=-limit, vmax=limit)
    axes.spines[:].set(visible=True, color="0.6", linewidth=0.5)
    if heatmap.any():
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        outline = [withStroke(linewidth=2.2, foreground="white")]
        axes.plot(x, y, "x", color="black", markersize=4.5, markeredgewidth=1, path_effects=outline, clip_on=False)


def _corner(axes: Axes, distance: float, heatmap: Float[np.ndarray, "height width"]) -> None:
    """Tells the distance in the lower right corner, or in the left one if the maximum is there."""
    text = format_number(None if np.isnan(distance) else float(distance))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    (height, width), (y, x) = heatmap.shape, np.unravel_index(heatmap.argmax(), heatmap.shape)
    place, side = (0.03, "left") if y > height / 2 and x > width / 2 else (0.97, "right")
    axes.text(place, 0.04, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=6, bbox=box)
