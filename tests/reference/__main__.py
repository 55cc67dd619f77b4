"""Writes ``docs/references.md``: ``python -m tests.reference``, or ``make references``."""

import warnings
from importlib.metadata import version
from pathlib import Path

import quantus

from tests.metrics.batches import METRICS
from tests.metrics.unusual import ONE_CLASS, UNDEFINED
from tests.reference import (
    methods_captum,
    methods_formulas,
    methods_zennit,
    metrics_loops,
    metrics_quantus,
    quantus_adapter,
    statistics,
)
from tests.reference.comparison import Comparison

PATH = Path(__file__).parent.parent.parent / "docs" / "references.md"
LIBRARIES = ("zennit", "captum", "quantus", "scipy", "scikit-learn", "scikit-image", "torch", "numpy")
PARTS = {
    "Methods": [*methods_zennit.COMPARISONS, *methods_captum.COMPARISONS, *methods_formulas.COMPARISONS],
    "Metrics": [*metrics_quantus.COMPARISONS, *metrics_loops.COMPARISONS],
    "Statistics": [*statistics.COMPARISONS],
}
MAPS = ("one pixel", "huge", "tiny", "negative", "constant", "zero")
MISSING = {"Methods": ("Captum", methods_captum.MISSING), "Metrics": ("Quantus", metrics_quantus.MISSING)}
HEADER = """# References

Written by `make references`; the tests compute each row again, and hold it against what is allowed and against this
table. Everything is computed in float64 on small networks and images, several cases in a row. The *largest
difference* is that of all values of all cases, relative to the reference's largest value of the case (of each
image, for methods); 0 is equal to the bit. What a note says was done, so that both sides compute the same, is where
their definitions differ."""


UNUSUAL = """## Unusual maps and images

What each metric says of a map or an image that is no everyday one: *null* is not defined, which is stored, counted
and left out of means; all else is a number. A map with NaN or infinity, or of another shape than its image, reaches
no metric: it stops the run with a message that names what is wrong, and what was computed before is kept. Of a map
that is finite, but whose sum over channels float64 does not hold, every value is null. Where a metric needs further
maps (of noisy inputs, another class, a random network, the original network), and one of them is
not finite, its value is null."""


def unusual() -> list[str]:
    """What is tested of each metric in ``tests/metrics/test_every_metric.py``."""
    undefined = {
        f"{kind} map" if kind in MAPS else kind: names for kind, names in UNDEFINED.items() if kind != "random"
    }
    undefined["one class only"] = ONE_CLASS
    return [
        f"| metric | {' | '.join(undefined)} |",
        "| --- |" + " :-: |" * len(undefined),
        *(f"| {name} | {' | '.join('null' * (name in names) for names in undefined.values())} |" for name in METRICS),
    ]


def table(comparisons: list[Comparison], differences: list[float]) -> list[str]:
    """The rows of a part."""
    rows = sorted(zip(comparisons, differences, strict=True), key=lambda row: row[0].subject)
    return [
        "| what | compared with | largest difference | allowed | note |",
        "| --- | --- | ---: | ---: | --- |",
        *(
            f"| {one.subject} | {one.reference} | {found:.0e} | {one.tolerance:.0e} | {one.note} |".replace(
                "0e+00", "0"
            )
            for one, found in rows
        ),
    ]


def rows_of(text: str) -> dict[str, list[str]]:
    """What a table says of each comparison: largest difference, tolerance, note."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    rows = [row for row in rows if len(row) == 5 and row[0] not in ("what", "---")]  # of other tables they are not
    return {f"{what}, {reference}": told for what, reference, *told in rows}


def only_in_quantus() -> str:
    """The metrics of Quantus that no native one is compared with."""
    compared = {one.reference.removeprefix("Quantus' ") for one in metrics_quantus.COMPARISONS}
    every = {kind.__name__ for kinds in quantus.AVAILABLE_METRICS.values() for kind in kinds.values()}
    return f"Metrics that only Quantus has: {', '.join(sorted(every - compared))}."


def main() -> None:
    warnings.simplefilter("ignore")  # those of Quantus
    lines = [HEADER, "", f"Versions: {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}."]
    for part, comparisons in PARTS.items():
        lines += ["", f"## {part}", "", *table(comparisons, [one.difference() for one in comparisons])]
        if part in MISSING:
            library, reasons = MISSING[part]
            lines += ["", f"Not compared with {library}: {'; '.join(f'{k} ({v})' for k, v in reasons.items())}."]
        if part == "Metrics":
            lines += ["", only_in_quantus(), "", quantus_adapter.MEANING, "", *quantus_adapter.rows()]
    PATH.write_text("\n".join([*lines, "", UNUSUAL, "", *unusual(), ""]))


if __name__ == "__main__":
    main()
