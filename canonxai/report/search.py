"""What a search for parameters found: its trials in each state, and which of them are on the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from canonxai.config import differing_keys
from canonxai.report.cells import Cell, Study


@dataclass(frozen=True)
class Search:
    """The trials of one data set, model and method.

    Attributes:
        trials: cells with objectives, of all states.
    """

    trials: Sequence[Cell]

    @property
    def objectives(self) -> list[str]:
        """The columns whose best is looked for."""
        return list(dict.fromkeys(name for cell in self.trials for name in cell.objective))

    @property
    def parameters(self) -> list[str]:
        """The settings in which trials differ, by dotted key."""
        first, *others = (cell.twin_settings for cell in self.trials)
        return sorted({key for other in others for key in differing_keys(first, other)})

    def states(self, objectives: Sequence[str]) -> dict[str, list[Cell]]:
        """The trials that have all of some objectives, by state: original, canonized, then others."""
        found: dict[str, list[Cell]] = {}
        order = {"original": "", "canonized": " "}  # which come before any name
        for cell in sorted(self.trials, key=lambda cell: order.get(cell.state, cell.state)):
            if set(objectives) <= set(cell.objective):
                found.setdefault(cell.state, []).append(cell)
        return found


def searches(study: Study) -> list[Search]:
    """All that a study has."""
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in study.cells:
        if cell.objective:
            found.setdefault((cell.data, cell.model, cell.method), []).append(cell)
    return [Search(trials) for _, trials in sorted(found.items())]


def front_rows(study: Study) -> list[dict[str, Any]]:
    """A row for each trial on the front of its state over all objectives: place, cell, its means, its parameters."""
    rows = []
    for search in searches(study):
        for state, trials in search.states(search.objectives).items():
            values = means(trials, search.objectives)
            for place in np.flatnonzero(on_front(trials, search.objectives)):
                cell = trials[place]
                row: dict[str, Any] = {"data": cell.data, "model": cell.model, "method": cell.method, "state": state}
                row |= {"cell": cell.name, **dict(zip(search.objectives, values[place].tolist(), strict=True))}
                rows.append(row | {key: cell.twin_settings.get(key) for key in search.parameters})
    return rows


def means(trials: Sequence[Cell], objectives: Sequence[str]) -> Float[np.ndarray, "trials objectives"]:
    """Over all images where they are defined; NaN if there is none."""
    columns = [[cell.column(name) for name in objectives] for cell in trials]
    return np.array([[np.nanmean(c) if np.isfinite(c).any() else np.nan for c in row] for row in columns])


def on_front(trials: Sequence[Cell], objectives: Sequence[str]) -> Bool[np.ndarray, " trials"]:
    """Which trials no other is at least as good as in all objectives and better than in one; all must be defined."""
    values = means(trials, objectives) * [1.0 if trials[0].metrics[name] else -1.0 for name in objectives]
    defined = np.isfinite(values).all(1)
    defined[defined] = pareto_front(values[defined])
    return np.asarray(defined)


def pareto_front(values: Float[np.ndarray, "n metrics"]) -> Bool[np.ndarray, " n"]:
    """Which rows no other row dominates: is nowhere less and somewhere more.

    >>> pareto_front(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist()
    [True, True, False, True]
    """
    at_least = (values[:, None] >= values).all(2)
    more = (values[:, None] > values).any(2)
    return np.asarray(~(at_least & more).any(0))
