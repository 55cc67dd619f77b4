"""One cell in numbers: ``summary.json`` and the table at the end of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from canonxai.metrics import Column
from canonxai.results.statistics import Mean, mean_with_interval
from canonxai.results.store import Store

#: images whose boxes cover less than this fraction, but those without an object; the study's strata
STRATA = {"all": np.inf, "box < 50 %": 0.5, "box < 25 %": 0.25}


def is_in(stratum: str, box_fraction: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which images are in a stratum: all, or those with an object that is smaller.

    >>> is_in("box < 50 %", np.array([0.0, 0.1, 0.5])).tolist()
    [False, True, False]
    """
    limit = STRATA[stratum]
    return np.asarray(np.isinf(limit) | (box_fraction > 0) & (box_fraction < limit))


def summarize(store: Store, columns: Mapping[str, Column]) -> dict[str, Any]:
    """What a complete cell says: accuracy, relevance, each metric by stratum, and mean curves.

    Args:
        store: a store that is finished.
        columns: those of its metrics.
    """

    def of(name: str) -> Float[np.ndarray, " n"]:  # one at a time, as each holds a number an image
        return _floats(store.read([name])[name])

    box_fraction, total = of("box_fraction"), mean_with_interval(of("relevance_total"))
    strata = {stratum: is_in(stratum, box_fraction) for stratum in STRATA}

    def by_stratum(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
        return {stratum: mean_with_interval(values[chosen])._asdict() for stratum, chosen in strata.items()}

    return {
        "images": len(box_fraction),
        "accuracy": float((of("label") == of("prediction")).mean()),
        "probability": float(of("probability").mean()),
        "relevance": {
            "mean_total": total.mean,
            "undefined": total.undefined,
            "max_abs": float(of("relevance_max").max()),
        },
        "metrics": {
            name: {"higher_is_better": column.higher_is_better, "strata": by_stratum(of(name))}
            for name, column in columns.items()
            if column.kind == "number"
        },
        "curves": {
            name: {"axis": list(column.axis), "mean": _mean_curve(store, name)}
            for name, column in columns.items()
            if column.kind == "curve"
        },
    }


def _floats(column: Any) -> Float[np.ndarray, " n"]:
    """A column as float64, null as NaN."""
    return np.asarray(column.cast("float64").to_numpy())


def _mean_curve(store: Store, name: str) -> list[float | None]:
    """The mean at each step over the images where it is defined, as are the means of numbers."""
    total: np.ndarray | float = 0.0
    defined: np.ndarray | int = 0
    for batch in store.batches([name]):
        curves = np.stack(batch.column(name).to_numpy(zero_copy_only=False))
        finite = np.isfinite(curves)
        total, defined = total + np.where(finite, curves, 0).sum(0), defined + finite.sum(0)
    return [
        float(value / n) if n and np.isfinite(value) else None
        for value, n in zip(np.atleast_1d(total), np.atleast_1d(defined), strict=True)
    ]


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """The table at the end of a run."""
    title = f"{summary['title']} on {summary['model']}, {summary['state']}, {summary['images']} images"
    table = Table(title=Text(title), title_justify="left", caption=Text(_caption(summary)), caption_justify="left")
    table.add_column("metric", overflow="fold")
    for stratum in STRATA:
        table.add_column(stratum, justify="right", no_wrap=True)
    for name, values in summary["metrics"].items():
        table.add_row(Text(name), *(format_mean(Mean(**values["strata"][stratum])) for stratum in STRATA))
    console.print(table)
    console.print(Text(f"results: {summary['folder']}"), soft_wrap=True)


def _caption(summary: Mapping[str, Any]) -> str:
    lines = [f"mean [95 % bootstrap interval] (n); accuracy {summary['accuracy']:.3f}, "
             f"{summary['images_per_second']:.0f} images/s"]  # fmt: skip
    if summary.get("excluded"):
        lines.append(f"{summary['excluded']} files or annotations left out, see excluded.csv")
    undefined = {name: values["strata"]["all"]["undefined"] for name, values in summary["metrics"].items()}
    lines += [f"{name}: not defined for {count} images, left out" for name, count in undefined.items() if count]
    if agreement := summary["agreement"]:
        worst = ", ".join(f"{values['max_rel']:.1e} in {dtype}" for dtype, values in agreement["difference"].items())
        lines.append(f"canonized = original logits up to {worst} (relative, {agreement['images']} images)")
    return "\n".join(lines)


def format_mean(mean: Mean) -> str:
    """``0.484 [0.461, 0.507] (256)``."""
    if mean.mean is None:
        return f"- ({mean.n})"
    interval = "" if mean.low is None else f" [{mean.low:.3f}, {mean.high:.3f}]"
    return f"{mean.mean:.3f}{interval} ({mean.n})"
