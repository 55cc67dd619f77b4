"""What canonization changes, by method and model: the study's Figure 4 for every metric that has a direction."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from canonxai.report.figures import grid
from canonxai.report.figures.style import COLOURS, MARKERS, intervals, words
from canonxai.report.report import Report


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Each method's mean difference, canonized minus original, over all images with its 95 % interval.

    As the study's Figure 4, of input perturbation, and the same of each metric for which higher or lower is better.
    Models stand side by side, with an arrow in the direction that is better.

    Args:
        report: what is drawn; one picture for each metric, data set and state.
    """
    rows = [row for row in report.comparisons if row.stratum == "all" and row.higher_is_better is not None]
    rows = [row for row in rows if row.difference is not None]
    for (metric, data, state), chosen in grid.grouped(rows, "metric", "data", "state").items():
        titles = grid.methods(report, chosen)
        networks = grid.grouped(chosen, "model", "variant")
        height = 0.18 + 0.12 * len(networks)

        figure = Figure((6.5, height * len(titles) + 1.4), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for i, (network, members) in enumerate(networks.items()):
            offset = (i - (len(networks) - 1) / 2) * 0.7 / len(networks)
            y = np.array([list(titles).index(row.method) + offset for row in members])
            difference = np.array([row.difference for row in members], float)
            intervals(axes, y, [row.low for row in members], [row.high for row in members])
            axes.plot(
                difference, y, MARKERS[(i + i // len(MARKERS)) % len(MARKERS)],
                color=COLOURS[i % len(COLOURS)], markeredgecolor="black", markeredgewidth=0.5, markersize=5, zorder=4,
                label=grid.network(*network),
            )  # fmt: skip
        for line in range(1, len(titles)):
            axes.axhline(line - 0.5, color="0.85", linewidth=0.6, zorder=0)
        axes.set_yticks(range(len(titles)), titles.values())
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlabel(f"{words(metric)} on {data}: {state} − original, mean and 95 % interval")
        better = "{0} is better →" if chosen[0].higher_is_better else "← {0} is better"
        axes.set_title(better.format(state), fontsize=9, loc="right" if chosen[0].higher_is_better else "left")
        figure.legend(loc="outside upper center", ncols=min(len(networks), 3), frameon=False)
        yield f"difference-{metric}{grid.suffix(report, data, state)}", figure
