"""How far the metrics themselves can be relied on: random floor, agreement between metrics, share of the method.

After Tomsett et al., AAAI 2020, "Sanity checks for saliency metrics", and Hedström et al., TMLR 2023, "The
meta-evaluation problem in explainable AI". A metric that a random map passes, that ranks methods unlike every other, or
that tells images apart rather than methods, is a weak judge, whatever its means say.

All of it is of one *panel*: the methods of one network in one state on the same images. Methods are compared image by
image; images that not all cells of a panel have are left out.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int8

from canonxai.config import differing_keys, flat, result_settings
from canonxai.report.cells import Cell, Study
from canonxai.report.comparison import Statistics, effect
from canonxai.report.statistics import Interval, differences, holm, p_value, permutations

RANDOM = "random"  #: the method that every other one must beat
#: columns that are the same for every random map, as it depends on neither input nor network: no floor for any method
FIXED = (
    "max_sensitivity", "avg_sensitivity", "local_lipschitz",
    "random_logit", "parameter_randomization", "efficient_mprt",
    *(f"quantus_{name}" for name in (
        "max_sensitivity", "avg_sensitivity", "local_lipschitz_estimate", "continuity", "relative_input_stability",
        "relative_output_stability", "relative_representation_stability", "random_logit", "mprt",
        "model_parameter_randomisation", "efficient_mprt", "smooth_mprt", "input_invariance",
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """Cells of several methods, of the same network in the same state, on the same images and with the same settings.

    Attributes:
        data: of all cells.
        model: of all cells.
        state: of all cells.
        variant: the settings in which other panels of the same data, model and state differ.
        cells: in the order of the literature; one of each method, or several that differ in its parameters.
        names: of the cells, titles of their methods, which are all different.
    """

    data: str
    model: str
    state: str
    variant: str
    cells: Sequence[Cell]
    names: Sequence[str]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells it from others, as in the rows of the tables."""
        return self.data, self.model, self.state, self.variant

    @property
    def name(self) -> str:
        """The panel as a heading."""
        return ", ".join(part for part in (f"{self.model} on {self.data}", self.state, self.variant) if part)

    @property
    def metrics(self) -> dict[str, bool | None]:
        """The metrics of any cell, and whether higher is better."""
        return {name: way for cell in self.cells for name, way in cell.metrics.items()}

    @property
    def directed(self) -> list[str]:
        """The metrics with a direction."""
        return [name for name, higher_is_better in self.metrics.items() if higher_is_better is not None]

    @property
    def floored(self) -> dict[str, bool | None]:
        """The metrics for which a random map is a floor."""
        return {name: way for name, way in self.metrics.items() if name not in FIXED}

    @property
    def methods(self) -> list[int]:
        """The places of the cells that are no random maps."""
        return [place for place, cell in enumerate(self.cells) if cell.method != RANDOM]

    def scores(self, metric: str) -> Float[np.ndarray, "images cells"]:
        """A metric of each image and cell; NaN where it is not defined, or a cell has not computed it."""
        columns = [
            cell.column(metric)[rows] if metric in cell.metrics else np.full(rows.sum(), np.nan)
            for cell, rows in zip(self.cells, self._rows, strict=True)
        ]
        return np.stack(columns, 1)

    @property
    def label(self) -> Float[np.ndarray, " images"]:
        """The class of each image."""
        return np.asarray(self.cells[0].column("label")[self._rows[0]])

    @cached_property
    def _rows(self) -> list[Bool[np.ndarray, " n"]]:
        """Which rows of each cell are of images that all of them have."""
        common = reduce(np.intersect1d, (cell.sample_id for cell in self.cells))
        return [np.isin(cell.sample_id, common) for cell in self.cells]


@dataclass(frozen=True)
class Floor:
    """One row of ``reliability_floor``: a method against a random map, image by image; of metrics not :data:`FIXED`.

    ``difference`` is the method's value minus that of the random map, the mean over images where both are defined, with
    its 95 % interval; ``p_holm`` is corrected for all rows. ``effect`` says whether the method is ``better``, ``worse``
    or ``equal``, or cannot be told apart, ``undecided``; ``no direction`` where neither more nor less is better.
    """

    data: str
    model: str
    state: str
    variant: str
    metric: str
    method: str
    title: str
    higher_is_better: bool | None
    images: int
    undefined: int
    random: float | None = None
    value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect: str = "undefined"


@dataclass(frozen=True)
class Agreement:
    """One row of ``reliability_agreement``: whether two metrics rank the methods alike.

    ``tau`` is Kendall's tau-b of the methods by their means over images, ``tau_per_image`` the mean of that by each
    single image's values; 1 is the same order, -1 the reverse, 0 no relation. Both metrics are turned so that more is
    better; random maps are left out, as a floor that all metrics know would make them agree.
    """

    data: str
    model: str
    state: str
    variant: str
    metric: str
    other: str
    methods: int
    tau: float | None
    tau_per_image: float | None
    images: int


@dataclass(frozen=True)
class Variance:
    """One row of ``reliability_variance``: what a metric's values depend on, see :func:`variance_shares`.

    Over the images for which all methods but random maps are defined; ``undefined`` counts the others.
    """

    data: str
    model: str
    state: str
    variant: str
    metric: str
    methods: int
    images: int
    undefined: int
    method: float | None
    image: float | None
    rest: float | None
    partial: float | None


Row = TypeVar("Row", Floor, Agreement, Variance)


@dataclass(frozen=True)
class Shares:
    """Shares of a metric's variance, in [0, 1]; ``None`` where there is none.

    Attributes:
        method: eta^2 of the methods.
        image: eta^2 of the images.
        rest: what neither explains: the methods' differences that are not the same on all images.
        partial: partial eta^2 of the methods, method / (method + rest).
    """

    method: float | None
    image: float | None
    rest: float | None
    partial: float | None


@dataclass(frozen=True)
class Reliability:
    """What a study says of its metrics.

    Attributes:
        panels: what is judged together.
        floor: each panel x metric x method, without :data:`FIXED` metrics.
        agreement: each panel x pair of metrics with a direction.
        variance: each panel x metric.
    """

    panels: Sequence[Panel]
    floor: Sequence[Floor]
    agreement: Sequence[Agreement]
    variance: Sequence[Variance]

    def of(self, panel: Panel, rows: Sequence[Row]) -> list[Row]:
        """The rows of a panel."""
        return [row for row in rows if (row.data, row.model, row.state, row.variant) == panel.place]


def reliability(study: Study, statistics: Statistics, order: Sequence[str]) -> Reliability:
    """All of it.

    Args:
        study: the cells.
        statistics: how differences are judged.
        order: of the methods.
    """
    found = panels(study, order)
    tests = sum(way is not None for panel in found for way in panel.floored.values() for _ in _floored(panel))
    rows = [row for panel in found for row in _floors(panel, statistics, permutations(tests))]
    corrected = holm([row.p for row in rows])
    floor = [
        replace(row, p_holm=p, effect=effect(row.difference, Interval(row.low, row.high), p, row.higher_is_better))
        for row, p in zip(rows, corrected, strict=True)
    ]
    agreement = [row for panel in found for row in _agreements(panel)]
    return Reliability(found, floor, agreement, [row for panel in found for row in _variances(panel)])


def panels(study: Study, order: Sequence[str]) -> list[Panel]:
    """The cells that share all settings but those of the method; those without a common image are no panel."""
    groups: dict[tuple[str, str, str, str], list[Cell]] = defaultdict(list)
    for cell in study.cells:
        groups[cell.data, cell.model, cell.state, json.dumps(_shared(cell), sort_keys=True, default=str)].append(cell)
    places: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
    for *place, settings in groups:
        places[tuple(place)].append(json.loads(settings))
    differing = {  # what is not the same in all of a place, whichever they are compared with
        place: sorted({key for other in others for key in differing_keys(others[0], other)})
        for place, others in places.items()
    }
    found = []
    for (data, model, state, settings), cells in sorted(groups.items()):
        own, keys = json.loads(settings), differing[data, model, state]
        variant = ", ".join(f"{key}={own.get(key)}" for key in keys)
        cells = sorted(cells, key=lambda cell: (order.index(cell.method), cell.name))
        if len(reduce(np.intersect1d, (cell.sample_id for cell in cells))):
            found.append(Panel(data, model, state, variant, cells, _names(cells)))
    return found


def _shared(cell: Cell) -> dict[str, object]:
    """What the cells of a panel have in common: all settings but the method's, and an original's canonizer."""
    settings = cell.twin_settings if cell.is_original else flat(result_settings(cell.settings))
    return {key: value for key, value in settings.items() if not key.startswith("method.")}


def _names(cells: Sequence[Cell]) -> list[str]:
    """The titles of methods; with the parameters in which those of one title differ."""
    names = []
    for cell in cells:
        others = [other for other in cells if other.title == cell.title]
        keys = sorted({key for other in others for key in differing_keys(cell.twin_settings, other.twin_settings)})
        told = ", ".join(f"{key.removeprefix('method.')}={cell.twin_settings.get(key)}" for key in keys)
        names.append(f"{cell.title} ({told})" if told else cell.title)
    return names


def _floored(panel: Panel) -> list[tuple[int, int]]:
    """Each method and the random map; nothing if there is none."""
    floors = [place for place in range(len(panel.cells)) if place not in panel.methods]
    return [(place, floors[0]) for place in panel.methods] if floors else []


def _floors(panel: Panel, statistics: Statistics, draws: int) -> Iterator[Floor]:
    for metric, higher_is_better in panel.floored.items():
        scores = panel.scores(metric)
        for place, floor in _floored(panel):
            cell = panel.cells[place]
            difference = differences(scores[:, floor], scores[:, place])
            used = ~np.isnan(difference)
            row = Floor(
                *panel.place,
                metric,
                cell.method,
                panel.names[place],
                higher_is_better,
                int(used.sum()),
                int((~used).sum()),
            )
            if used.any():
                interval = statistics.interval(difference[used], panel.label[used])
                row = replace(
                    row, random=float(scores[used, floor].mean()), value=float(scores[used, place].mean()),
                    difference=float(difference[used].mean()), low=interval.low, high=interval.high,
                    p=None if higher_is_better is None else p_value(difference[used], statistics.test, draws),
                )  # fmt: skip
            yield row


def _agreements(panel: Panel) -> Iterator[Agreement]:
    turned = {
        metric: panel.scores(metric)[:, panel.methods] * (1 if higher_is_better else -1)
        for metric, higher_is_better in panel.metrics.items()
        if higher_is_better is not None
    }
    for metric, other in combinations(turned, 2):
        first, second = turned[metric], turned[other]
        defined = ~np.isnan(first) & ~np.isnan(second)  # the same images for both
        first, second = np.where(defined, first, np.nan), np.where(defined, second, np.nan)
        means = (np.ma.masked_invalid(scores).mean(0).filled(np.nan)[None] for scores in (first, second))
        per_image = kendall_tau(first, second)
        counted = per_image[~np.isnan(per_image)]
        yield Agreement(
            *panel.place, metric, other, int(defined.any(0).sum()),
            _number(kendall_tau(*means)[0]), float(counted.mean()) if len(counted) else None, len(counted),
        )  # fmt: skip


def _variances(panel: Panel) -> Iterator[Variance]:
    for metric in panel.metrics:
        scores = panel.scores(metric)[:, panel.methods]
        scores = scores[:, ~np.isnan(scores).all(0)]  # a method for which nothing is defined is left out
        complete = scores[~np.isnan(scores).any(1)]
        shares = variance_shares(complete)
        yield Variance(
            *panel.place, metric, scores.shape[1], len(complete), len(scores) - len(complete),
            shares.method, shares.image, shares.rest, shares.partial,
        )  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def kendall_tau(
    first: Float[np.ndarray, "images methods"], second: Float[np.ndarray, "images methods"]
) -> Float[np.ndarray, " images"]:
    """Kendall's tau-b of each image: whether two metrics order the methods alike (Kendall 1945, for equal values).

    With s_mn the sign of the difference of the methods m and n::

        tau_b = sum_{m<n} s_mn t_mn / sqrt(sum_{m<n} s_mn^2  sum_{m<n} t_mn^2)

    scipy's ``kendalltau``, for many images at once.

    Returns:
        In [-1, 1], over the methods for which both are defined; NaN where all of them are equal to one of the metrics.

    >>> kendall_tau(np.array([[1.0, 2.0, 3.0]]), np.array([[0.1, 0.3, 0.2]])).round(3).tolist()
    [0.333]
    """
    defined = ~np.isnan(first) & ~np.isnan(second)
    s, t = (_signs(np.where(defined, scores, np.nan)) for scores in (first, second))
    common = (s * t).sum(1, dtype=np.int64)
    ties = np.sqrt(np.abs(s).sum(1, dtype=np.int64) * np.abs(t).sum(1, dtype=np.float64))
    return np.asarray(np.divide(common, ties, out=np.full(len(first), np.nan), where=ties > 0))


def _signs(scores: Float[np.ndarray, "images methods"]) -> Int8[np.ndarray, "images pairs"]:
    """The order of each pair of methods; 0 where one is not defined, as for equal ones."""
    first, second = np.triu_indices(scores.shape[1], 1)
    signs = np.sign(scores[:, first] - scores[:, second])
    return np.asarray(np.nan_to_num(signs), np.int8)


def variance_shares(scores: Float[np.ndarray, "images methods"]) -> Shares:
    """How much of a metric's variance methods and images explain: a two-way decomposition without replication.

    Each value y_im is the sum of the mean, an effect of the image, an effect of the method, and a rest, whose sums of
    squares add up::

        SS_total  = sum_im (y_im - y_..)^2          SS_method = images sum_m (y_.m - y_..)^2
        SS_image  = methods sum_i (y_i. - y_..)^2   SS_rest   = SS_total - SS_method - SS_image

    and eta^2 = SS_method / SS_total (Cohen 1973, "Eta-squared and partial eta-squared in fixed factor ANOVA designs").
    Low where images differ more than methods do: then only paired comparisons, as this report's, can find anything; the
    partial eta^2 = SS_method / (SS_method + SS_rest) is what these see.

    Args:
        scores: all defined.

    Returns:
        Nothing where there are fewer than two images or methods, or all values are equal.
    """
    images, methods = scores.shape
    if min(images, methods) < 2:
        return Shares(None, None, None, None)
    centred = scores - scores.mean()
    total = (centred**2).sum()
    if total <= scores.size * (1e-12 * np.abs(scores).max()) ** 2:  # rounding
        return Shares(None, None, None, None)
    method, image = centred.mean(0), centred.mean(1)
    rest = float(((centred - method - image[:, None]) ** 2).sum() / total)
    of_method, of_image = float(images * (method**2).sum() / total), float(methods * (image**2).sum() / total)
    return Shares(of_method, of_image, rest, of_method / (of_method + rest) if of_method + rest > 0 else None)
