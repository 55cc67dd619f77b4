"""What a search found: the trials of both states over two metrics, and their Pareto fronts."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from canonxai.report.cells import Cell
from canonxai.report.figures.style import CANONIZED, COLOURS, MARKERS, ORIGINAL, words
from canonxai.report.report import Report

#: the lines of the fronts, so that grey print tells them apart, too
LINES = ("-", "--", ":", "-.")


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Each trial's mean of one objective against that of another, and the front of each state.

    A trial is on the front of its state if none is at least as good in both metrics and better in one.

    Args:
        report: what is drawn; one picture for each data set, model, method and two objectives of its searches.
    """
    searches: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in report.study.cells:
        if len(cell.objective) > 1:
            searches.setdefault((cell.data, cell.model, cell.method), []).append(cell)
    for (data, model, method), trials in sorted(searches.items()):
        for first, second in combinations(dict.fromkeys(name for cell in trials for name in cell.objective), 2):
            states: dict[str, list[Cell]] = {}
            for cell in trials:
                if {first, second} <= set(cell.objective):
                    states.setdefault(cell.state, []).append(cell)
            title = f"{trials[0].title} on {model}, {data}"
            yield f"pareto-{first}-{second}-{data}-{model}-{method}", _figure(title, first, second, states)


def _figure(title: str, first: str, second: str, states: dict[str, list[Cell]]) -> Figure:
    figure = Figure((4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    others = [colour for colour in COLOURS if colour not in (ORIGINAL, CANONIZED)]
    for place, state in enumerate(sorted(states, key=lambda state: (state != "original", state != "canonized", state))):
        colour = {"original": ORIGINAL, "canonized": CANONIZED}.get(state) or others[place % len(others)]
        means = np.array([[_mean(cell, name) for name in (first, second)] for cell in states[state]])
        means = means[np.isfinite(means).all(1)]
        if not len(means):
            continue
        marker = MARKERS[place % len(MARKERS)]
        x, y = means.T
        axes.scatter(x, y, s=14, marker=marker, facecolor="none", edgecolor=colour, linewidth=0.8, alpha=0.8)
        better = [1.0 if states[state][0].metrics[name] else -1.0 for name in (first, second)]
        front = means[pareto_front(means * better)]
        front = front[np.argsort(front[:, 0])]
        axes.plot(
            front[:, 0], front[:, 1], LINES[place % len(LINES)], color=colour, marker=marker, markersize=5,
            linewidth=1.3, drawstyle="steps-pre" if better[0] > 0 else "steps-post",  # what was reached, and no more
            label=f"{state}: {len(front)} of {len(means)} trials",
        )  # fmt: skip
    metrics = next(iter(states.values()))[0].metrics
    axes.set_xlabel(f"{words(first)} ({'higher' if metrics[first] else 'lower'} is better)", fontsize=9)
    axes.set_ylabel(f"{words(second)} ({'higher' if metrics[second] else 'lower'} is better)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8, title="Pareto front", title_fontsize=8)
    return figure


def _mean(cell: Cell, name: str) -> float:
    """Over all images; NaN where it is not defined."""
    values = cell.column(name)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def pareto_front(values: Float[np.ndarray, "n metrics"]) -> Bool[np.ndarray, " n"]:
    """Which rows no other row dominates: is nowhere less and somewhere more.

    >>> pareto_front(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist()
    [True, True, False, True]
    """
    at_least = (values[:, None] >= values).all(2)
    more = (values[:, None] > values).any(2)
    return np.asarray(~(at_least & more).any(0))
