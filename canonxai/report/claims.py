"""Claims as explicit tests, read from a small YAML, and what the study's cells say to them.

A claim is a text and some tests; each test is one of the expectations below with its arguments. A test looks at every
data set and model of the study, and finds it confirmed, refuted or undecided, always by a 95 % interval of differences
that are paired by image. Absence of data confirms nothing: what has no results is undecided, and so is what rests on
fewer than :data:`MIN_IMAGES` images or is undefined for a larger share than :data:`MAX_UNDEFINED`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float, Int64
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonxai.config import CONF
from canonxai.errors import UserError, check, check_choice
from canonxai.report.cells import Cell, Pair, Problem, Study
from canonxai.report.comparison import ALPHA, Comparison, Statistics
from canonxai.report.statistics import Interval, differences
from canonxai.results.summary import STRATA, is_in

MIN_IMAGES = 30  #: with fewer, bootstrap intervals are too narrow (Hesterberg 2015); a test may ask for more
MAX_UNDEFINED = 0.1  #: share of the images; with more, those that are left may be another kind of images
NO_RESULTS = "no results"


class Verdict(str, Enum):
    """What the data say to a claim."""

    confirmed = "confirmed"
    refuted = "refuted"
    undecided = "undecided"


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Refuted if one is, confirmed if all are and there are any, else undecided."""
    if Verdict.refuted in verdicts:
        return Verdict.refuted
    return Verdict.confirmed if verdicts and set(verdicts) == {Verdict.confirmed} else Verdict.undecided


@dataclass(frozen=True)
class Finding:
    """One test on one network, method and metric.

    Attributes:
        verdict: a :class:`Verdict`; the effect, as ``better``, where the test is about a set and this is one of it.
        network: data set and model.
        method: its title.
        metric: the column.
        figures: what the verdict rests on.
    """

    verdict: str
    network: str
    method: str
    metric: str
    figures: str

    @property
    def says(self) -> str:
        """The verdict in a word."""
        return self.verdict.value if isinstance(self.verdict, Verdict) else self.verdict


@dataclass(frozen=True)
class Answer:
    """A claim and what was found."""

    name: str
    text: str
    findings: Sequence[Finding] = field(repr=False)

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each test; the members of a set have none of their own."""
        return [finding.verdict for finding in self.findings if isinstance(finding.verdict, Verdict)]

    @property
    def verdict(self) -> Verdict:
        return overall(self.verdicts)

    @property
    def figures(self) -> str:
        """How many of the tests are confirmed."""
        return f"{self.verdicts.count(Verdict.confirmed)} of {len(self.verdicts)} tests confirmed"


class Group(NamedTuple):
    """How many images a mean is over, and for how many more the value is not defined."""

    n: int
    undefined: int


@dataclass(frozen=True)
class Estimate:
    """A mean of paired differences with its interval, or the difference of the means of two groups.

    Attributes:
        mean: NaN without images.
        interval: of 95 %.
        groups: the images.
        min_images: how many each group needs to decide anything.
    """

    mean: float
    interval: Interval
    groups: Sequence[Group]
    min_images: int

    @property
    def lack(self) -> str:
        """Why this decides nothing, or nothing."""
        if min(group.n for group in self.groups) < self.min_images:
            return f"fewer than {self.min_images} images"
        if any(group.undefined > MAX_UNDEFINED * sum(group) for group in self.groups):
            return f"undefined for more than {MAX_UNDEFINED:.0%}"
        return "no interval" if None in self.interval else ""

    def above(self, limit: float) -> Verdict:
        """Confirmed if the whole interval is above, refuted if none of it."""
        if self.lack or self.interval.low is None or self.interval.high is None:
            return Verdict.undecided
        if self.interval.low > limit:
            return Verdict.confirmed
        return Verdict.refuted if self.interval.high <= limit else Verdict.undecided

    def within(self, tolerance: float) -> Verdict:
        """Equivalence: confirmed if the whole interval is within +-tolerance, refuted if none of it.

        That is stricter than two one-sided tests at 5 % (Schuirmann 1987), which need the 90 % interval to be within.
        """
        if self.lack or self.interval.low is None or self.interval.high is None:
            return Verdict.undecided
        if -tolerance <= self.interval.low and self.interval.high <= tolerance:
            return Verdict.confirmed
        is_outside = self.interval.low > tolerance or self.interval.high < -tolerance
        return Verdict.refuted if is_outside else Verdict.undecided

    def __str__(self) -> str:
        """``+0.421 [+0.4, +0.443] (n = 256, 0 undefined)``."""
        low, high = self.interval
        interval = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
        images = " + ".join(str(group.n) for group in self.groups)
        undefined = sum(group.undefined for group in self.groups)
        lack = f": {self.lack}" if self.lack else ""
        return f"{_number(self.mean)}{interval} (n = {images}, {undefined} undefined{lack})"


class Evidence:
    """What the tests look at: the fully canonized cells of a study with their twins, and all comparisons."""

    def __init__(self, study: Study, comparisons: Sequence[Comparison], statistics: Statistics) -> None:
        self.cells, self.networks, self.statistics = study.cells, study.networks, statistics
        self.pairs = [pair for pair in study.pairs if pair.canonized.state == "canonized"]
        self._rows = {(c.data, c.model, c.method, c.state, c.variant, c.metric, c.stratum): c for c in comparisons}

    def of(self, network: tuple[str, str], method: str, metric: str) -> list[Pair]:
        """The pairs of a method on a network; several if the study varies other settings."""
        cells = ((pair, pair.canonized) for pair in self.pairs)
        return [p for p, c in cells if (c.data, c.model, c.method) == (*network, method) and metric in c.metrics]

    def row(self, pair: Pair, metric: str, stratum: str) -> Comparison:
        """What the table says of a pair."""
        key = (*pair.canonized.place, pair.variant, metric, stratum)
        return self._rows[key]


@dataclass
class Expectation(ABC):
    """A test: what is expected of some methods and metrics, over the images of one stratum.

    Attributes:
        methods: by name.
        metrics: columns.
        stratum: of box size.
        min_images: how many images any verdict needs, at least :data:`MIN_IMAGES`.
    """

    methods: list[str] = MISSING
    metrics: list[str] = MISSING
    stratum: str = "all"
    min_images: int = MIN_IMAGES

    @property
    def rivals(self) -> Sequence[str]:
        """Other methods with which these are compared."""
        return ()

    @property
    def needs_direction(self) -> bool:
        """Whether it is about a metric of which more or less is better."""
        return True

    def findings(self, evidence: Evidence) -> list[Finding]:
        """One for every network, method and metric, and for every pair of them that the study varies."""
        found = []
        for network, method, metric in product(evidence.networks, self.methods, self.metrics):
            pairs = evidence.of(network, method, metric)
            if not pairs:
                found.append(Finding(Verdict.undecided, "/".join(network), method, metric, NO_RESULTS))
            for pair in pairs:
                verdict: str
                if self.needs_direction and pair.canonized.metrics[metric] is None:
                    verdict, figures = Verdict.undecided, f"neither more nor less {metric} is better"
                else:
                    verdict, figures = self.judge(pair, metric, evidence)
                where = f"{'/'.join(network)} ({pair.variant})" if pair.variant else "/".join(network)
                found.append(Finding(verdict, where, pair.canonized.title, metric, figures))
        return found

    @abstractmethod
    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        """What the data say for one pair and metric, and the figures."""

    def estimate(self, values: Float[np.ndarray, " n"], pair: Pair, evidence: Evidence) -> Estimate:
        """The mean of a value for each image of a pair, over the stratum."""
        inside = is_in(self.stratum, pair.image("box_fraction"))
        values, label = values[inside], pair.image("label")[inside]
        defined = ~np.isnan(values)
        interval = evidence.statistics.interval(values[defined], label[defined])
        return Estimate(_mean(values), interval, [_group(values)], self.min_images)

    def mean_difference(self, pair: Pair, metric: str, evidence: Evidence, sign: int = 1) -> Estimate:
        """The mean difference, or its negative, as the table of comparisons has it."""
        row = evidence.row(pair, metric, self.stratum)
        mean = np.nan if row.difference is None else sign * row.difference
        interval = Interval(*(None if end is None else sign * end for end in (row.low, row.high)[::sign]))
        return Estimate(mean, interval, [Group(row.images, row.undefined)], self.min_images)

    def gain(self, pair: Pair, metric: str, evidence: Evidence) -> Estimate:
        """How much better canonized is."""
        return self.mean_difference(pair, metric, evidence, _direction(pair.canonized, metric))


@dataclass
class Equal(Expectation):
    """The mean difference lies within +-tolerance: confirmed if its interval does, refuted if that lies outside."""

    tolerance: float = MISSING

    @property
    def needs_direction(self) -> bool:
        return False

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        estimate = self.mean_difference(pair, metric, evidence)
        return estimate.within(self.tolerance), str(estimate)


@dataclass
class Better(Expectation):
    """Canonized is better by more than ``margin``; the paired test, Holm-corrected, has to agree."""

    margin: float = 0.0

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        gain = self.gain(pair, metric, evidence)
        verdict, p = gain.above(self.margin), evidence.row(pair, metric, self.stratum).p_holm
        if verdict is Verdict.confirmed and (p is None or p >= ALPHA):
            verdict = Verdict.undecided
        return verdict, _with_p(gain, p)


@dataclass
class Most(Expectation):
    """The change is larger than that of each of ``others`` on the same images; one without results leaves it undecided.

    ``change`` is ``absolute``, the size of the mean difference, or ``gain``, how much better canonized is.
    """

    CHANGES: ClassVar[tuple[str, ...]] = ("absolute", "gain")

    others: list[str] = MISSING
    change: str = "absolute"

    @property
    def rivals(self) -> Sequence[str]:
        return self.others

    @property
    def needs_direction(self) -> bool:
        return self.change == "gain"

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        network = (pair.canonized.data, pair.canonized.model)
        twins = {
            method: [other for other in evidence.of(network, method, metric) if _same_run(pair, other)]
            for method in self.others
        }
        sign, contrasts = self._sign(pair, metric, evidence), []
        for other in (other for others in twins.values() for other in others):
            theirs = self._sign(other, metric, evidence) * _difference(other, metric)
            contrast = sign * _difference(pair, metric) - _aligned(theirs, other.sample_id, pair.sample_id)
            contrasts.append((self.estimate(contrast, pair, evidence), other.canonized.title))

        parts = [str(self.mean_difference(pair, metric, evidence, sign))]
        if contrasts:
            nearest, title = min(contrasts, key=lambda contrast: np.nan_to_num(contrast[0].mean, nan=np.inf))
            parts.append(f"nearest: {nearest} more than {title}")
        if lacking := [f"{title} ({contrast.lack})" for contrast, title in contrasts if contrast.lack]:
            parts.append(f"too little of {', '.join(lacking)}")
        if missing := [method for method, others in twins.items() if not others]:
            parts.append(f"{NO_RESULTS} of {', '.join(missing)}")
        verdicts = [contrast.above(0.0) for contrast, _ in contrasts] + [Verdict.undecided] * len(missing)
        return overall(verdicts), "; ".join(parts)

    def _sign(self, pair: Pair, metric: str, evidence: Evidence) -> int:
        if self.change == "gain":
            return _direction(pair.canonized, metric)
        return -1 if (evidence.row(pair, metric, self.stratum).difference or 0) < 0 else 1


@dataclass
class MostIn(Expectation):
    """The gain is larger for the images of ``stratum`` than for the others that have an object."""

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        box = pair.image("box_fraction")
        there_is = box > 0
        gain = (_direction(pair.canonized, metric) * _difference(pair, metric))[there_is]
        inside, label, defined = is_in(self.stratum, box)[there_is], pair.image("label")[there_is], ~np.isnan(gain)
        interval = evidence.statistics.contrast(gain[defined], inside[defined], label[defined])
        there, elsewhere = gain[inside], gain[~inside]
        groups, means = [_group(there), _group(elsewhere)], [_mean(there), _mean(elsewhere)]
        contrast = Estimate(means[0] - means[1], interval, groups, self.min_images)
        return contrast.above(0.0), f"{_number(means[0])} there, {_number(means[1])} elsewhere: {contrast}"


@dataclass
class AtFloor(Expectation):
    """Without canonization, the maps are no better than those of ``floor`` by more than ``tolerance``."""

    floor: str = "random"
    tolerance: float = MISSING

    @property
    def rivals(self) -> Sequence[str]:
        return [self.floor]

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        cell = pair.original
        floors = [
            other
            for other in evidence.cells
            if other.is_original and other.place[:3] == (cell.data, cell.model, self.floor)
            and _run_settings(other) == _run_settings(cell) and other.metrics.get(metric) == cell.metrics[metric]
        ]  # fmt: skip
        if not floors:
            return Verdict.undecided, f"{NO_RESULTS} of {self.floor}"
        of_floor = _aligned(floors[0].column(metric), floors[0].sample_id, pair.sample_id)
        above = _direction(cell, metric) * differences(of_floor, pair.columns(metric)[0])
        estimate = self.estimate(above, pair, evidence)
        verdict = estimate.above(self.tolerance)
        opposite = {Verdict.confirmed: Verdict.refuted, Verdict.refuted: Verdict.confirmed}
        return opposite.get(verdict, verdict), f"original {estimate} above {floors[0].title}"


@dataclass
class Mixed(Expectation):
    """Some get better and some do not: confirmed where both are found, refuted if all get better or none does.

    One test over all networks, methods and metrics; each of these says ``better``, ``worse``, ``equal`` or
    ``undecided``, as the table of comparisons does. One that is undecided is no evidence: that an effect is not
    significant does not show that there is none. One without results, or with too few, leaves the test undecided.
    """

    def findings(self, evidence: Evidence) -> list[Finding]:
        found = super().findings(evidence)
        effects = Counter(finding.says for finding in found)
        is_complete = not any(isinstance(finding.verdict, Verdict) for finding in found)
        is_better, is_not = bool(effects["better"]), bool(effects["worse"] + effects["equal"])
        verdict = Verdict.undecided
        if is_complete and is_better and is_not:
            verdict = Verdict.confirmed
        elif is_complete and len(found) > 1 and not effects["undecided"]:
            verdict = Verdict.refuted
        names = (" and ".join(dict.fromkeys(f.method for f in found)), ", ".join(self.metrics))
        figures = ", ".join(f"{count} {effect}" for effect, count in sorted(effects.items()))
        return [Finding(verdict, "all", *names, figures), *(replace(f, verdict=f.says) for f in found)]

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[str, str]:
        gain, row = self.gain(pair, metric, evidence), evidence.row(pair, metric, self.stratum)
        return Verdict.undecided if gain.lack else row.effect, _with_p(gain, row.p_holm)


@dataclass(frozen=True)
class Claims:
    """Claims, in their order, and where they come from."""

    EXPECTATIONS: ClassVar[Mapping[str, type[Expectation]]] = {
        "equal": Equal, "better": Better, "most": Most, "most_in": MostIn, "at_floor": AtFloor, "mixed": Mixed,
    }  # fmt: skip

    title: str
    texts: Mapping[str, str]
    tests: Mapping[str, Sequence[Expectation]]

    def answers(self, evidence: Evidence) -> list[Answer]:
        """What the study says to each claim."""
        return [
            Answer(name, text, [finding for test in self.tests[name] for finding in test.findings(evidence)])
            for name, text in self.texts.items()
        ]

    def unknown(self, study: Study) -> list[Problem]:
        """The names of methods and metrics that neither a cell nor ``conf`` has: they may be misspelt."""
        methods, metrics = ({path.stem for path in (CONF / kind).glob("*.yaml")} for kind in ("method", "metric"))
        methods |= {cell.method for cell in study.cells} | {p.place[2] for p in study.problems if p.place}
        metrics |= {metric for cell in study.cells for metric in cell.metrics}
        found = {
            (name, kind, unknown): None
            for name, tests in self.tests.items()
            for test in tests
            for kind, named, known in (
                ("method", (*test.methods, *test.rivals), methods), ("metric", test.metrics, metrics)
            )
            for unknown in named
            if unknown not in known
        }  # fmt: skip
        return [
            Problem("unknown", name, f"no cell has the {kind} {unknown!r}, nor has conf")
            for name, kind, unknown in found
        ]


def read_claims(name: str) -> Claims:
    """Claims from a YAML file, by its path or by its name in ``conf/claims``.

    Raises:
        UserError: if there is no such file, or it is not as ``conf/claims/icip2022.yaml``.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / "claims" / f"{name}.yaml"
    known = ", ".join(sorted(file.stem for file in (CONF / "claims").glob("*.yaml")))
    check(path.is_file(), "report.claims", f"a YAML file or one of {known}", name)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))  # which refuses a key that stands twice
        wrong = _wrong(content)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if wrong:
        raise UserError(f"report.claims: expected {path} to be as conf/claims/icip2022.yaml, got {wrong}.")
    claims = {str(key): claim for key, claim in content["claims"].items()}
    check(len(claims) == len(content["claims"]), "report.claims", f"different names of claims in {path}", list(claims))
    tests = {key: [_expectation(f"{path}, {key}", test) for test in claim["tests"]] for key, claim in claims.items()}
    return Claims(str(content["title"]), {key: str(claim["text"]) for key, claim in claims.items()}, tests)


def _wrong(content: Any) -> str:
    """What is wrong with the content of a claims file, or nothing."""
    if not isinstance(content, dict) or content.get("title") is None:
        return "no title"
    if not isinstance(content.get("claims"), dict):
        return "no claims by name"
    for name, claim in content["claims"].items():
        if not isinstance(claim, dict) or claim.get("text") is None:
            return f"no text of {name}"
        if not isinstance(claim.get("tests"), list) or not all(isinstance(test, dict) for test in claim["tests"]):
            return f"no list of tests of {name}"
    return ""


def _expectation(where: str, arguments: dict[Any, Any]) -> Expectation:
    kind = arguments.pop("expect", None)
    check_choice(f"{where}, expect", kind, list(Claims.EXPECTATIONS))
    for key in ("methods", "metrics", "others"):
        got = arguments.get(key, [""])
        check(isinstance(got, list) and bool(got), f"{where}, {kind}, {key}", "a list of names, as [ebp]", got)
    expectation_type = Claims.EXPECTATIONS[kind]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(expectation_type), arguments)
        expectation: Expectation = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{where}, {kind}: {str(error).partition(chr(10))[0]}, got {arguments}.") from error
    check_choice(f"{where}, stratum", expectation.stratum, [s for s in STRATA if kind != "most_in" or s != "all"])
    if isinstance(expectation, Most):
        check_choice(f"{where}, change", expectation.change, Most.CHANGES)
    for key in ("tolerance", "margin"):
        got = getattr(expectation, key, 0)
        check(0 <= got < np.inf, f"{where}, {key}", "a finite number >= 0", got)
    least = expectation.min_images
    check(least >= MIN_IMAGES, f"{where}, min_images", f"an integer >= {MIN_IMAGES}", least)
    both = sorted({*expectation.methods} & {*expectation.rivals})
    check(not both, f"{where}, {kind}", "to compare methods with others than themselves", both)
    return expectation


def _run_settings(cell: Cell) -> dict[str, Any]:
    """What cells of several methods share if they saw the same images."""
    return {key: value for key, value in cell.twin_settings.items() if not key.startswith("method.")}


def _same_run(pair: Pair, other: Pair) -> bool:
    return _run_settings(pair.original) == _run_settings(other.original)


def _direction(cell: Cell, metric: str) -> int:
    return -1 if cell.metrics[metric] is False else 1


def _difference(pair: Pair, metric: str) -> Float[np.ndarray, " n"]:
    return differences(*pair.columns(metric))


def _aligned(
    values: Float[np.ndarray, " n"], of: Int64[np.ndarray, " n"], to: Int64[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Values of some samples in the order of others; NaN for those that have none."""
    aligned = np.full(len(to), np.nan)
    _, theirs, mine = np.intersect1d(of, to, return_indices=True)
    aligned[mine] = values[theirs]
    return aligned


def _group(values: Float[np.ndarray, " n"]) -> Group:
    undefined = int(np.isnan(values).sum())
    return Group(len(values) - undefined, undefined)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    """Of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:+.3g}"


def _with_p(estimate: Estimate, p: float | None) -> str:
    return f"{estimate}" if p is None else f"{estimate}, p = {p:.2g}"


def flat(answers: Sequence[Answer]) -> Iterator[dict[str, str]]:
    """A row for every finding, for tables."""
    for answer in answers:
        for f in answer.findings:
            yield {
                "claim": answer.name, "text": answer.text, "claim_verdict": answer.verdict.value,
                "claim_figures": answer.figures, "network": f.network, "method": f.method, "metric": f.metric,
                "verdict": f.says, "figures": f.figures,
            }  # fmt: skip
