"""The tables of a study: each cell's means, and each pair's differences, by metric and box size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from canonxai.errors import check_choice
from canonxai.report.cells import Pair, Problem, Study
from canonxai.report.statistics import (
    TESTS,
    Interval,
    cohens_d,
    differences,
    holm,
    interval_by_class,
    interval_of_contrast,
    interval_of_mean,
    p_value,
    permutations,
    probability_better,
)
from canonxai.results.statistics import Mean, mean_with_interval
from canonxai.results.summary import STRATA, is_in

RESAMPLE = ("image", "class")
ALPHA = 0.05


@dataclass(frozen=True)
class Statistics:
    """How differences are judged.

    Attributes:
        test: ``wilcoxon`` or ``sign_flip``, see :func:`canonxai.report.statistics.p_value`.
        resample: what the bootstrap draws: ``image`` (BCa), or ``class``, as images of a class are not independent.

    Raises:
        UserError: if one is none of these.
    """

    test: str = "wilcoxon"
    resample: str = "image"

    def __post_init__(self) -> None:
        check_choice("report.test", self.test, TESTS)
        check_choice("report.resample", self.resample, RESAMPLE)

    def interval(self, difference: Float[np.ndarray, " n"], label: Float[np.ndarray, " n"]) -> Interval:
        """The 95 % interval of the mean difference."""
        if self.resample == "class":
            return interval_by_class(difference, label.astype(np.int64))
        return interval_of_mean(difference)

    def mean(self, values: Float[np.ndarray, " n"], label: Float[np.ndarray, " n"]) -> Mean:
        """The mean of one state with its 95 % interval: by image the percentile interval that its summary has.

        By class there is no interval if an image has no label.
        """
        mean = mean_with_interval(values)
        if self.resample != "class":
            return mean
        defined = ~np.isnan(values)
        values, label = values[defined], label[defined]
        interval = Interval(None, None) if np.isnan(label).any() else interval_by_class(values, label.astype(np.int64))
        return mean._replace(low=interval.low, high=interval.high)

    def contrast(
        self, difference: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"], label: Float[np.ndarray, " n"]
    ) -> Interval:
        """The 95 % interval of the mean difference of the chosen images minus that of the others."""
        return interval_of_contrast(difference, chosen, label.astype(np.int64) if self.resample == "class" else None)


@dataclass(frozen=True)
class Result:
    """One row of ``results``: a metric of one cell over the images of one stratum."""

    data: str
    model: str
    method: str
    title: str
    state: str
    cell: str
    metric: str
    stratum: str
    higher_is_better: bool | None
    images: int
    undefined: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One row of ``comparison``: a metric of a canonized cell against its original twin over one stratum.

    ``difference`` is canonized minus original, the mean over the images for which both are defined, with its 95 %
    interval; ``p_holm`` is ``p`` corrected for all rows of the study. A metric without a direction has no test.
    """

    data: str
    model: str
    method: str
    title: str
    state: str
    variant: str
    metric: str
    stratum: str
    higher_is_better: bool | None
    images: int
    undefined: int
    original: float | None = None
    original_low: float | None = None
    original_high: float | None = None
    canonized: float | None = None
    canonized_low: float | None = None
    canonized_high: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    cohens_d: float | None = None
    probability_better: float | None = None
    effect: str = "undefined"


def results(study: Study, statistics: Statistics) -> list[Result]:
    """The means of every cell."""
    rows = []
    for cell in study.cells:
        box, label = cell.column("box_fraction"), cell.column("label")
        for metric, higher_is_better in cell.metrics.items():
            values = cell.column(metric)
            for stratum in STRATA:
                inside = is_in(stratum, box)
                mean = statistics.mean(values[inside], label[inside])
                rows.append(
                    Result(
                        cell.data, cell.model, cell.method, cell.title, cell.state, cell.name, metric, stratum,
                        higher_is_better, mean.n, mean.undefined, mean.mean, mean.low, mean.high,
                    )
                )  # fmt: skip
    return rows


def comparisons(study: Study, statistics: Statistics) -> list[Comparison]:
    """Every pair, metric and stratum, corrected for all of them."""
    draws = permutations(count_tests(study))
    rows = [row for pair in study.pairs for row in _of_pair(pair, statistics, draws)]
    corrected = holm([row.p for row in rows])
    return [_judged(replace(row, p_holm=p)) for row, p in zip(rows, corrected, strict=True)]


def count_tests(study: Study) -> int:
    """How many tests a study has, for which its p-values are corrected; fewer where nothing is defined."""
    return len(STRATA) * sum(way is not None for pair in study.pairs for way in pair.canonized.metrics.values())


def warnings(study: Study, statistics: Statistics) -> list[Problem]:
    """What stands in the way of a significant result, whatever the data."""
    tests = count_tests(study)
    draws = permutations(tests)
    if statistics.test != "sign_flip" or tests / (draws + 1) < ALPHA:
        return []
    told = f"cannot find an effect: {draws:,} permutations are too few for Holm's correction of {tests:,} tests"
    return [Problem("note", "report.test=sign_flip", f"{told}; take wilcoxon, or fewer cells")]


def _of_pair(pair: Pair, statistics: Statistics, draws: int) -> Iterator[Comparison]:
    box, label = pair.image("box_fraction"), pair.image("label")
    for metric, higher_is_better in pair.canonized.metrics.items():
        original, canonized = pair.columns(metric)
        for stratum in STRATA:
            inside = is_in(stratum, box)
            yield _compare(
                pair, metric, higher_is_better, stratum, inside, original, canonized, label, statistics, draws
            )


def _compare(
    pair: Pair,
    metric: str,
    higher_is_better: bool | None,
    stratum: str,
    inside: Bool[np.ndarray, " n"],
    original: Float[np.ndarray, " n"],
    canonized: Float[np.ndarray, " n"],
    label: Float[np.ndarray, " n"],
    statistics: Statistics,
    draws: int,
) -> Comparison:
    difference = differences(original, canonized)
    used = inside & ~np.isnan(difference)
    cell = pair.canonized
    row = Comparison(
        cell.data, cell.model, cell.method, cell.title, cell.state, pair.variant, metric, stratum, higher_is_better,
        images=int(used.sum()), undefined=int(inside.sum() - used.sum()),
    )  # fmt: skip
    if not used.any():
        return row
    difference = difference[used]
    before, after = (statistics.mean(values[used], label[used]) for values in (original, canonized))
    interval = statistics.interval(difference, label[used])
    tested: dict[str, Any] = {}
    if higher_is_better is not None:
        tested = {
            "p": p_value(difference, statistics.test, draws),
            "probability_better": probability_better(difference, higher_is_better),
        }
    return replace(
        row,
        original=before.mean, original_low=before.low, original_high=before.high,
        canonized=after.mean, canonized_low=after.low, canonized_high=after.high,
        difference=float(difference.mean()), low=interval.low, high=interval.high,
        cohens_d=cohens_d(difference), **tested,
    )  # fmt: skip


def _judged(row: Comparison) -> Comparison:
    return replace(row, effect=effect(row.difference, Interval(row.low, row.high), row.p_holm, row.higher_is_better))


def effect(difference: float | None, interval: Interval, p_holm: float | None, higher_is_better: bool | None) -> str:
    """A difference in words: of a metric with a direction, where the interval excludes 0 and so does the test."""
    if difference is None:
        return "undefined"
    if difference == interval.low == interval.high == 0:
        return "equal"
    if higher_is_better is None:
        return "no direction"
    if interval.low is None or interval.high is None or interval.low <= 0 <= interval.high or (p_holm or 0) >= ALPHA:
        return "undecided"
    return "better" if (interval.low > 0) == higher_is_better else "worse"


def columns(rows: Sequence[Result] | Sequence[Comparison], kind: type) -> dict[str, list[Any]]:
    """Rows as columns, by name."""
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(kind)}
