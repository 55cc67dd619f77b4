"""Localization by box size, original and canonized: the study's Figure 3."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canonxai.report.cells import Pair
from canonxai.report.comparison import Comparison
from canonxai.report.figures import grid
from canonxai.report.figures.style import CANONIZED, HATCH, ORIGINAL, intervals, words
from canonxai.report.report import Report
from canonxai.results.summary import STRATA, is_in

INCHES = 0.3  #: the height of a method
KNOWS_NOTHING = "mean box fraction"


def draw(report: Report, metric: str = "localization") -> Iterator[tuple[str, Figure]]:
    """Bars of each method's mean localization with 95 % intervals, as the study's Figure 3.

    Rows are models, columns strata of box size. The dashed line is the mean box fraction of a stratum's images: what a
    map gets that knows nothing.

    Args:
        report: what is drawn; one picture for each data set and state.
        metric: another share of relevance to draw.
    """
    rows = [row for row in report.comparisons if row.metric == metric and row.difference is not None]
    for (data, state), chosen in grid.grouped(rows, "data", "state").items():
        networks = grid.grouped(chosen, "model", "variant")
        titles = [grid.methods(report, members) for members in networks.values()]
        strata = [stratum for stratum in STRATA if any(row.stratum == stratum for row in chosen)]
        twins = grid.grouped(report.study.pairs, "data", "state")[data, state]
        pairs = grid.grouped(twins, "model", "variant")

        heights = [max(INCHES * (len(methods) + 0.2), 1.0) for methods in titles]
        size = (2.6 * len(strata) + 1.3, sum(heights) + 0.5 * len(heights) + 0.8)
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(
            len(networks), len(strata), sharex=True, sharey="row", squeeze=False, height_ratios=heights
        )
        for line, (network, members), methods, height in zip(axes, networks.items(), titles, heights, strict=True):
            line[0].set_ylabel(grid.network(*network), fontsize=8)
            line[0].set_yticks(range(len(methods)), methods.values())
            line[0].set_ylim((len(methods) - 1 + height / INCHES) / 2, (len(methods) - 1 - height / INCHES) / 2)
            boxes = _box_fraction(pairs[network])
            for panel, stratum in zip(line, strata, strict=True):
                bars = [row for row in members if row.stratum == stratum]
                _bars(panel, bars, list(methods), state)
                box = boxes[is_in(stratum, boxes)]
                if len(box):
                    panel.axvline(box.mean(), color="black", linestyle="--", linewidth=1, label=KNOWS_NOTHING)
                panel.set_title(f"{stratum}, n = {_count(bars)}", fontsize=9)
        axes[0, 0].set_xlim(left=0)
        figure.supxlabel(f"{words(metric)} on {data}, mean and 95 % interval", fontsize=10)
        known = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
        names = [name for name in ("original", state, KNOWS_NOTHING) if name in known]
        figure.legend([known[name] for name in names], names, loc="outside upper center", ncols=3, frameon=False)
        yield f"{metric}{grid.suffix(report, data, state)}", figure


def _bars(axes: Axes, rows: Sequence[Comparison], methods: Sequence[str], state: str) -> None:
    middle = np.array([methods.index(row.method) for row in rows], float)
    original, canonized = (np.array([getattr(r, key) for r in rows], float) for key in ("original", "canonized"))
    line: dict[str, Any] = {"height": 0.4, "edgecolor": "black", "linewidth": 0.5}
    axes.barh(middle - 0.2, original, color=ORIGINAL, hatch=HATCH["original"], label="original", **line)
    axes.barh(middle + 0.2, canonized, color=CANONIZED, hatch=HATCH["canonized"], label=state, **line)
    intervals(axes, middle - 0.2, [row.original_low for row in rows], [row.original_high for row in rows])
    intervals(axes, middle + 0.2, [row.canonized_low for row in rows], [row.canonized_high for row in rows])


def _box_fraction(pairs: Sequence[Pair]) -> Float[np.ndarray, " n"]:
    """Of each image with an object that any of the pairs has."""
    boxes = {sample: box for p in pairs for sample, box in zip(p.sample_id, p.image("box_fraction"), strict=True)}
    return np.array([box for box in boxes.values() if box > 0], float)


def _count(rows: Sequence[Comparison]) -> str:
    """How many images; from-to where some values are not defined."""
    images = sorted({row.images for row in rows})
    return "–".join(map(str, dict.fromkeys([*images[:1], *images[-1:]]))) or "0"
