"""How the output falls while pixels are replaced in the order of a map: the curves behind the study's Figure 4."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canonxai.report.figures import grid
from canonxai.report.figures.style import CANONIZED, ORIGINAL, words
from canonxai.report.report import Report
from canonxai.report.statistics import mean_curve


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Mean perturbation curves f(xₖ) of original and canonized maps, a panel for each model and method.

    They are what the study's Figure 4 averages. Bands are pointwise 95 % intervals of the mean, its value plus and
    minus 1.96 standard errors, at each step over the images where it is defined.

    Args:
        report: what is drawn; one picture for each kind of curve, data set and state.
    """
    for (data, state), pairs in grid.grouped(report.study.pairs, "data", "state").items():
        for name in dict.fromkeys(name for pair in pairs for name in pair.canonized.curves):
            chosen = [pair for pair in pairs if name in pair.original.curves and name in pair.canonized.curves]
            titles = grid.methods(report, chosen)
            networks = grid.grouped(chosen, "model", "variant")
            if not titles:
                continue
            figure, blocks = grid.panels([len(grid.grouped(members, "method")) for members in networks.values()])
            for block, (network, members) in zip(blocks, networks.items(), strict=True):
                for first in block[:: grid.COLUMNS]:
                    first.set_ylabel(grid.network(*network), fontsize=8)
                by_method = grid.grouped(members, "method")
                for axes, method in zip(block, (m for m in titles if (m,) in by_method), strict=True):
                    pair = by_method[method,][0]
                    cells = {"original": pair.original, state: pair.canonized}
                    for (label, cell), rows in zip(cells.items(), pair.rows, strict=True):
                        axis = np.asarray(cell.curves[name], float)
                        _curve(axes, axis, cell.curve(name)[rows], label, label == "original")
                    axes.set_title(titles[method], fontsize=9)
                    handles = axes.get_legend_handles_labels()
            figure.supxlabel(f"share replaced\n{data}; bands: mean ± 1.96 standard errors", fontsize=10)
            figure.supylabel(f"{words(name)} f(xₖ)", fontsize=10)
            figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
            yield f"curves-{name}{grid.suffix(report, data, state)}", figure


def _curve(
    axes: Axes,
    axis: Float[np.ndarray, " steps"],
    curves: Float[np.ndarray, "n steps"],
    label: str,
    original: bool,
) -> None:
    mean, colour = mean_curve(curves), ORIGINAL if original else CANONIZED
    defined = np.ma.masked_invalid(curves)
    n = defined.count(0)
    if (n > 1).any():
        error = (1.96 * defined.std(0, ddof=1) / np.sqrt(n)).filled(np.nan)
        axes.fill_between(axis, mean - error, mean + error, color=colour, alpha=0.35, linewidth=0)
    style: dict[str, Any] = {"linestyle": "--", "zorder": 4} if original else {"linestyle": "-", "zorder": 3}
    axes.plot(axis, mean, color=colour, linewidth=1.5, label=label, **style)
