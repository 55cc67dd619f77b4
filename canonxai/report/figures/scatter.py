"""Which images canonization helps: differences against box size."""

from collections.abc import Iterator
from textwrap import fill

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from canonxai.report.cells import Pair
from canonxai.report.figures import grid
from canonxai.report.figures.style import CANONIZED, words
from canonxai.report.report import Report
from canonxai.report.statistics import differences

POINTS = 10_000  #: images in a panel, of which each is an object in the PDF


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Each image's difference, canonized minus original, against its box fraction, a panel for each method.

    It shows image by image, for at most :data:`POINTS` evenly chosen ones, what the study's Figures 3 and 4 average.
    Methods that canonization changes on no image are named in the title instead.

    Args:
        report: what is drawn; one picture for each metric that has a direction, data set, model and state.
    """
    for (data, model, state), pairs in grid.grouped(report.study.pairs, "data", "model", "state").items():
        titles = grid.methods(report, pairs)
        for metric in dict.fromkeys(
            m for p in pairs for m, better in p.canonized.metrics.items() if better is not None
        ):
            members = [pair for pair in pairs if metric in pair.canonized.metrics]
            members.sort(key=lambda pair: list(titles).index(pair.canonized.method))
            points = {_title(pair): _points(pair, metric) for pair in members}
            drawn = {title: values for title, values in points.items() if values[1].any()}
            if not drawn:
                continue
            figure, (block,) = grid.panels([len(drawn)])
            for axes, (title, (box, difference)) in zip(block, drawn.items(), strict=True):
                axes.axhline(0, color="black", linewidth=0.8)
                some = np.linspace(0, len(box) - 1, min(POINTS, len(box))).astype(int)
                axes.scatter(box[some], difference[some], s=7, color=CANONIZED, alpha=0.5, linewidth=0)
                axes.set_title(title, fontsize=9)
            unchanged = [title for title, (_, difference) in points.items() if len(difference) and title not in drawn]
            block[0].set_xlim(left=0)
            figure.suptitle(_heading(f"{model} on {data}", unchanged, 12 * figure.get_figwidth()), fontsize=9)
            figure.supxlabel("box fraction", fontsize=10)
            figure.supylabel(f"{words(metric)}, {state} − original", fontsize=10)
            state_suffix = f"-{state}" if state != "canonized" else ""
            yield f"scatter-{metric}-{data}-{model}{state_suffix}", figure


def _title(pair: Pair) -> str:
    return grid.network(pair.canonized.title, pair.variant)


def _points(pair: Pair, metric: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Box fractions and differences of the images with an object for which both maps' metrics are defined."""
    difference, box = differences(*pair.columns(metric)), pair.image("box_fraction")
    drawn = ~np.isnan(difference) & (box > 0)
    return box[drawn], difference[drawn]


def _heading(where: str, unchanged: list[str], width: float) -> str:
    names = "; ".join(title.replace("\n", " ") for title in unchanged)
    return fill(f"{where}; no difference on any image: {names}" if unchanged else where, int(width))
