"""What goes into which picture, and grids of small panels."""

from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canonxai.report.cells import Pair
from canonxai.report.comparison import Comparison
from canonxai.report.report import Report, order

COLUMNS = 5  #: panels in a line
Row = TypeVar("Row", Pair, Comparison)
Key = tuple[str, ...]


def grouped(rows: Iterable[Row], *names: str) -> dict[Key, list[Row]]:
    """Pairs or comparisons by what they share of data, model, method, title, state, variant and metric."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        cell = row.canonized if isinstance(row, Pair) else row
        key = tuple(str(getattr(row if name == "variant" else cell, name)) for name in names)
        groups.setdefault(key, []).append(row)
    return groups


def methods(report: Report, rows: Iterable[Row]) -> dict[str, str]:
    """The methods of some rows in the report's order, and their titles."""
    titles = {method: title for method, title in grouped(rows, "method", "title")}  # noqa: C416
    return {method: titles[method] for method in order(report.comparisons) if method in titles}


def network(model: str, variant: str) -> str:
    """How a model is labelled, and below it the settings that make the variant."""
    return "\n".join([model, fill(variant, 22)] if variant else [model])


def broken(title: str) -> str:
    """A method's title on two lines: the rule of its dense layers, and the others."""
    return title.replace(",", ",\n", 1)


def suffix(report: Report, data: str, state: str = "canonized") -> str:
    """Ends a picture's name: the data set if there are several, the state unless it is the full canonization."""
    several = len(grouped(report.study.pairs, "data")) > 1
    return (f"-{data}" if several else "") + (f"-{state}" if state != "canonized" else "")


def panels(counts: Sequence[int], width: float = 1.7, height: float = 1.45) -> tuple[Figure, Iterator[list[Axes]]]:
    """A picture of blocks below each other; all panels share their axes.

    Args:
        counts: how many panels each block has, > 0; they stand in lines of at most :data:`COLUMNS`.
        width: of a panel, in inches.
        height: of a panel, in inches.

    Returns:
        The picture, and the panels of each block.
    """
    columns = min(COLUMNS, max(counts))
    lines = [-(-count // columns) for count in counts]
    size = max(width * columns + 0.6, 4.0), max(height * sum(lines) + 0.8, 3.2)  # no label is longer
    figure = Figure(size, layout="constrained")
    grid = list(figure.subplots(sum(lines), columns, sharex=True, sharey=True, squeeze=False).flat)
    blocks = []
    for count, rows in zip(counts, lines, strict=True):
        block, grid = grid[: rows * columns], grid[rows * columns :]
        for unused in block[count:]:
            unused.remove()
        blocks.append(block[:count])
    for axes in {axes.get_subplotspec().colspan.start: axes for block in blocks for axes in block}.values():
        axes.tick_params(labelbottom=True)  # the lowest of its column
    return figure, iter(blocks)
