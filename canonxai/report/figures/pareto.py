"""What a search found: the trials of both states over two metrics, and their Pareto fronts."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from canonxai.report.cells import Cell
from canonxai.report.figures.style import CANONIZED, COLOURS, MARKERS, ORIGINAL, words
from canonxai.report.report import Report
from canonxai.report.search import means, on_front, searches

#: the lines of the fronts, so that grey print tells them apart, too
LINES = ("-", "--", ":", "-.")


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Each trial's mean of one objective against that of another, and the front of each state.

    Args:
        report: what is drawn; one picture for each data set, model, method and two objectives of its searches.
    """
    for search in searches(report.study):
        one = search.trials[0]
        for first, second in combinations(search.objectives, 2):
            title = f"{one.title} on {one.model}, {one.data}"
            name = f"pareto-{first}-{second}-{one.data}-{one.model}-{one.method}"
            yield name, _figure(title, first, second, search.states([first, second]))


def _figure(title: str, first: str, second: str, states: dict[str, list[Cell]]) -> Figure:
    figure = Figure((4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    others = [colour for colour in COLOURS if colour not in (ORIGINAL, CANONIZED)]
    metrics = next(iter(states.values()))[0].metrics
    for place, (state, trials) in enumerate(states.items()):
        colour = {"original": ORIGINAL, "canonized": CANONIZED}.get(state) or others[place % len(others)]
        points = means(trials, [first, second])
        defined = np.isfinite(points).all(1)
        if not defined.any():
            continue
        marker = MARKERS[place % len(MARKERS)]
        x, y = points[defined].T
        axes.scatter(x, y, s=14, marker=marker, facecolor="none", edgecolor=colour, linewidth=0.8, alpha=0.8)
        front = points[on_front(trials, [first, second])]
        front = front[np.argsort(front[:, 0])]
        axes.plot(
            front[:, 0], front[:, 1], LINES[place % len(LINES)], color=colour, marker=marker, markersize=5,
            linewidth=1.3, drawstyle="steps-pre" if metrics[first] else "steps-post",  # what was reached, and no more
            label=f"{state}: {len(front)} of {defined.sum()} trials",
        )  # fmt: skip
    axes.set_xlabel(f"{words(first)} ({'higher' if metrics[first] else 'lower'} is better)", fontsize=9)
    axes.set_ylabel(f"{words(second)} ({'higher' if metrics[second] else 'lower'} is better)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8, title="Pareto front", title_fontsize=8)
    return figure
