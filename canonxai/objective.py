"""What a search for parameters maximises: means of metrics over all images.

The mean of a metric of which lower is better is taken negative, so that more is always better; and the other way round
for a sweeper that minimises, as Optuna's does by default.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from canonxai.errors import UserError, check
from canonxai.metrics import Column


def check_objective(names: Sequence[str], columns: Mapping[str, Column]) -> None:
    """Looks at the names of objectives before anything is computed.

    Raises:
        UserError: if one is no column of a metric, or has no direction.
    """
    directed = [name for name, column in columns.items() if column.higher_is_better is not None]
    for name in names:
        check(name in directed, "objective", f"columns of the metrics with a direction, {', '.join(directed)}", name)


def objective(
    summaries: Sequence[Mapping[str, Any] | None], names: Sequence[str], directions: Any = "maximize"
) -> float | list[float]:
    """The objectives of a trial, as Optuna's sweeper takes them: a number, or a list of several.

    Args:
        summaries: that of the one cell that a trial is; ``None`` if parts of it are lacking.
        names: columns of its metrics.
        directions: ``maximize`` or ``minimize``, of each objective if there are several.

    Raises:
        UserError: if the trial is not one complete cell, a mean is not defined, or directions are fewer than names.
    """
    check(len(summaries) == 1, "objective", "one method a trial", f"{len(summaries)}")
    (summary,) = summaries
    if summary is None:
        raise UserError("objective: expected a complete cell, got a shard of it. Leave out data.shard.")
    directions = [directions] if isinstance(directions, str | Enum) else list(directions)
    expected = f"a direction of each of {len(names)} objectives"
    check(len(directions) == len(names), "hydra.sweeper.direction", expected, directions, "Use hydra/sweeper=search.")
    values = []
    for name, direction in zip(names, directions, strict=True):
        metric = summary["metrics"][name]
        mean = metric["strata"]["all"]["mean"]
        check(mean is not None, "objective", f"a mean of {name}", "one that is not defined for any image")
        is_turned = metric["higher_is_better"] == str(direction).endswith("minimize")
        values.append(-mean if is_turned else mean)
    return values[0] if len(values) == 1 else values
