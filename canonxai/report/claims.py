"""Claims as explicit tests, read from a small YAML, and what the study's cells say to them.

A claim is a text and some tests; each test is one of the expectations below with its arguments. A test looks at every
data set and model of the study, and finds it confirmed, refuted or undecided, always by a 95 % interval of differences
that are paired by image. What was not computed is undecided: absence of data confirms nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from jaxtyping import Float
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonxai.config import CONF
from canonxai.errors import UserError, check, check_choice
from canonxai.report.cells import Cell, Pair, Study
from canonxai.report.comparison import ALPHA, Comparison, Statistics
from canonxai.report.statistics import Interval, differences
from canonxai.results.summary import STRATA

TOO_FEW = "too few images"


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
    """One test on one network, method and metric."""

    verdict: Verdict
    network: str
    method: str
    metric: str
    figures: str


@dataclass(frozen=True)
class Answer:
    """A claim and what was found."""

    name: str
    text: str
    findings: Sequence[Finding] = field(repr=False)

    @property
    def verdict(self) -> Verdict:
        return overall([finding.verdict for finding in self.findings])

    @property
    def figures(self) -> str:
        """How many of the tests are confirmed."""
        confirmed = sum(finding.verdict is Verdict.confirmed for finding in self.findings)
        return f"{confirmed} of {len(self.findings)} tests confirmed"


class Evidence:
    """What the tests look at: the fully canonized cells of a study with their twins, and all comparisons."""

    def __init__(self, study: Study, comparisons: Sequence[Comparison], statistics: Statistics) -> None:
        self.cells, self.statistics = study.cells, statistics
        self.pairs = [pair for pair in study.pairs if pair.canonized.state == "canonized"]
        self._p = {(c.data, c.model, c.method, c.state, c.variant, c.metric, c.stratum): c.p_holm for c in comparisons}

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Data set and model, of all cells."""
        return sorted({(cell.data, cell.model) for cell in self.cells})

    def of(self, network: tuple[str, str], method: str) -> list[Pair]:
        """The pairs of a method on a network; several if the study varies other settings."""
        return [
            p for p in self.pairs if (p.canonized.data, p.canonized.model, p.canonized.method) == (*network, method)
        ]

    def p_holm(self, pair: Pair, metric: str, stratum: str) -> float | None:
        cell = pair.canonized
        return self._p.get((cell.data, cell.model, cell.method, cell.state, pair.variant, metric, stratum))


@dataclass
class Expectation(ABC):
    """A test: what is expected of some methods and metrics, over the images of one stratum."""

    methods: list[str] = MISSING
    metrics: list[str] = MISSING
    stratum: str = "all"

    def findings(self, evidence: Evidence) -> list[Finding]:
        """One for every network, method and metric, and for every pair of them that the study varies."""
        found = []
        for network in evidence.networks:
            for method in self.methods:
                for metric in self.metrics:
                    pairs = [p for p in evidence.of(network, method) if metric in p.canonized.metrics]
                    if not pairs:
                        found.append(Finding(Verdict.undecided, "/".join(network), method, metric, "not computed"))
                    for pair in pairs:
                        verdict, figures = self.judge(pair, metric, evidence)
                        where = f"{'/'.join(network)} ({pair.variant})" if pair.variant else "/".join(network)
                        found.append(Finding(verdict, where, pair.canonized.title, metric, figures))
        return found

    @abstractmethod
    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        """What the data say for one pair and metric, and the figures."""

    def difference(self, pair: Pair, metric: str) -> Float[np.ndarray, " n"]:
        """Canonized minus original, NaN outside of the stratum."""
        inside = pair.image("box_fraction") < STRATA[self.stratum]
        return np.where(inside, differences(*pair.columns(metric)), np.nan)


@dataclass
class Equal(Expectation):
    """The mean difference lies within +-tolerance: confirmed if its interval does, refuted if that lies outside."""

    tolerance: float = MISSING

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        return _between(*_interval(self.difference(pair, metric), pair, evidence), -self.tolerance, self.tolerance)


@dataclass
class Better(Expectation):
    """Canonized is better by more than ``margin``; the paired test, Holm-corrected, has to agree."""

    margin: float = 0.0

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        sign = _direction(pair.canonized, metric)
        verdict, figures = _above(*_interval(sign * self.difference(pair, metric), pair, evidence), self.margin)
        p = evidence.p_holm(pair, metric, self.stratum)
        if p is not None:
            figures += f", p = {p:.2g}"
        agrees = p is not None and p < ALPHA
        return (verdict if agrees or verdict is not Verdict.confirmed else Verdict.undecided), figures


@dataclass
class Most(Expectation):
    """The change is larger than that of every other method on the same images.

    ``change`` is ``absolute``, the size of the mean difference, or ``gain``, how much better canonized is. Compared
    image by image with each of ``others``, or with all methods of the study.
    """

    CHANGES: ClassVar[tuple[str, ...]] = ("absolute", "gain")

    change: str = "absolute"
    others: list[str] | None = None

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        network = (pair.canonized.data, pair.canonized.model)
        methods = self.others or sorted({cell.method for cell in evidence.cells} - {pair.canonized.method})
        change = self._change(pair, metric)
        verdicts, rivals, missing = [], [], []
        for method in methods:
            twins = [p for p in evidence.of(network, method) if metric in p.canonized.metrics and _same_run(p, pair)]
            if not twins:
                verdicts.append(Verdict.undecided)
                missing.append(method)
            for other in twins:
                _, mine, others = np.intersect1d(pair.sample_id, other.sample_id, return_indices=True)
                contrast = np.full(len(pair.sample_id), np.nan)
                contrast[mine] = change[mine] - self._change(other, metric)[others]
                verdict, figures = _above(*_interval(contrast, pair, evidence), 0.0)
                verdicts.append(verdict)
                mean = np.nanmean(contrast) if np.isfinite(contrast).any() else np.inf
                rivals.append((float(mean), f"{figures} more than {other.canonized.title}"))
        parts = [_mean(change)]
        if rivals:
            parts.append(f"nearest: {min(rivals)[1]}")
        if missing or not rivals:
            parts.append(f"not computed: {', '.join(missing) or 'any other method'}")
        return overall(verdicts), "; ".join(parts)

    def _change(self, pair: Pair, metric: str) -> Float[np.ndarray, " n"]:
        difference = self.difference(pair, metric)
        if self.change == "gain":
            return _direction(pair.canonized, metric) * difference
        return difference * (np.sign(np.nanmean(difference)) if np.isfinite(difference).any() else 1)


@dataclass
class MostIn(Expectation):
    """The gain is larger for the images of ``stratum`` than for the others."""

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        gain = _direction(pair.canonized, metric) * differences(*pair.columns(metric))
        defined = ~np.isnan(gain)
        inside = pair.image("box_fraction") < STRATA[self.stratum]
        gain, inside, label = gain[defined], inside[defined], pair.image("label")[defined]
        if not inside.any() or inside.all():
            return Verdict.undecided, f"no images on both sides of {self.stratum}"
        contrast = float(gain[inside].mean() - gain[~inside].mean())
        verdict, figures = _above(contrast, evidence.statistics.contrast(gain, inside, label), 0.0)
        return verdict, f"{_mean(gain[inside])} there, {_mean(gain[~inside])} elsewhere: {figures}"


@dataclass
class AtFloor(Expectation):
    """Without canonization, the maps are no better than those of ``floor`` by more than ``tolerance``."""

    floor: str = "random"
    tolerance: float = MISSING

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        cell = pair.original
        floors = [
            other
            for other in evidence.cells
            if other.is_original and (other.data, other.model, other.method) == (cell.data, cell.model, self.floor)
            and _run_settings(other) == _run_settings(cell) and metric in other.metrics
        ]  # fmt: skip
        if not floors:
            return Verdict.undecided, f"{self.floor} not computed"
        both = Pair(floors[0], cell)
        above = _direction(cell, metric) * self.difference(both, metric)
        mean, interval = _interval(above, both, evidence)
        verdict, figures = _above(mean, interval, self.tolerance)
        opposite = {Verdict.confirmed: Verdict.refuted, Verdict.refuted: Verdict.confirmed}
        return opposite.get(verdict, verdict), f"original {figures} above {floors[0].title}"


@dataclass
class Mixed(Expectation):
    """Some get better and some do not: confirmed where both are found, refuted if all get better or none does.

    Judged over all networks, methods and metrics at once, each as by :class:`Better`. One of which that is undecided
    is no evidence: that an effect is not significant does not show that there is none.
    """

    def findings(self, evidence: Evidence) -> list[Finding]:
        single = Better(methods=self.methods, metrics=self.metrics, stratum=self.stratum)
        found = single.findings(evidence)
        if any(finding.figures.startswith(("not computed", TOO_FEW)) for finding in found):
            verdict = Verdict.undecided
        else:
            seen = {finding.verdict for finding in found}
            verdict = Verdict.undecided
            if {Verdict.confirmed, Verdict.refuted} <= seen:
                verdict = Verdict.confirmed
            elif Verdict.undecided not in seen and len(found) > 1:
                verdict = Verdict.refuted
        words = {Verdict.confirmed: "better", Verdict.refuted: "not better", Verdict.undecided: "undecided"}
        return [
            Finding(verdict, f.network, f.method, f.metric, f"{words[f.verdict]}: {f.figures}") for f in found
        ]  # fmt: skip

    def judge(self, pair: Pair, metric: str, evidence: Evidence) -> tuple[Verdict, str]:
        raise NotImplementedError("judged over all pairs at once")


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


def read_claims(name: str) -> Claims:
    """Claims from a YAML file, by its path or by its name in ``conf/claims``.

    Raises:
        UserError: if there is no such file, or it is not as ``conf/claims/icip2022.yaml``.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / "claims" / f"{name}.yaml"
    known = ", ".join(sorted(file.stem for file in (CONF / "claims").glob("*.yaml")))
    check(path.is_file(), "report.claims", f"a YAML file or one of {known}", name)
    try:
        content = yaml.safe_load(path.read_text())
        texts = {str(key): str(claim["text"]) for key, claim in content["claims"].items()}
        tests = {str(key): list(map(dict, claim["tests"])) for key, claim in content["claims"].items()}
        title = str(content["title"])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, UnicodeDecodeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"report.claims: expected {path} to be as conf/claims/icip2022.yaml, got {reason}.") from error
    return Claims(title, texts, {key: [_expectation(f"{path}, {key}", t) for t in tests[key]] for key in tests})


def _expectation(where: str, arguments: dict[str, Any]) -> Expectation:
    kind = arguments.pop("expect", None)
    check_choice(f"{where}, expect", kind, list(Claims.EXPECTATIONS))
    expectation_type = Claims.EXPECTATIONS[kind]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(expectation_type), arguments)
        expectation: Expectation = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{where}, {kind}: {str(error).partition(chr(10))[0]}, got {arguments}.") from error
    check_choice(f"{where}, stratum", expectation.stratum, [s for s in STRATA if kind != "most_in" or s != "all"])
    if isinstance(expectation, Most):
        check_choice(f"{where}, change", expectation.change, Most.CHANGES)
    if isinstance(expectation, Equal | AtFloor):
        check(expectation.tolerance >= 0, f"{where}, tolerance", "a number >= 0", expectation.tolerance)
    check(bool(expectation.methods and expectation.metrics), f"{where}, {kind}", "methods and metrics", arguments)
    return expectation


def _run_settings(cell: Cell) -> dict[str, Any]:
    """What cells of several methods share if they saw the same images."""
    return {key: value for key, value in cell.twin_settings.items() if not key.startswith("method.")}


def _same_run(pair: Pair, other: Pair) -> bool:
    return _run_settings(pair.original) == _run_settings(other.original)


def _direction(cell: Cell, metric: str) -> int:
    return -1 if cell.metrics[metric] is False else 1


def _interval(values: Float[np.ndarray, " n"], pair: Pair, evidence: Evidence) -> tuple[float, Interval]:
    """The mean of what is defined and its interval."""
    defined = ~np.isnan(values)
    mean = float(values[defined].mean()) if defined.any() else np.nan
    return mean, evidence.statistics.interval(values[defined], pair.image("label")[defined])


def _figures(mean: float, interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return TOO_FEW
    return f"{mean:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def _mean(values: Float[np.ndarray, " n"]) -> str:
    return f"{np.nanmean(values):+.3g}" if np.isfinite(values).any() else "undefined"


def _above(mean: float, interval: Interval, limit: float) -> tuple[Verdict, str]:
    figures = _figures(mean, interval)
    if interval.low is None or interval.high is None:
        return Verdict.undecided, figures
    if interval.low > limit:
        return Verdict.confirmed, figures
    return (Verdict.refuted if interval.high <= limit else Verdict.undecided), figures


def _between(mean: float, interval: Interval, low: float, high: float) -> tuple[Verdict, str]:
    figures = _figures(mean, interval)
    if interval.low is None or interval.high is None:
        return Verdict.undecided, figures
    if low <= interval.low and interval.high <= high:
        return Verdict.confirmed, figures
    return (Verdict.refuted if interval.low > high or interval.high < low else Verdict.undecided), figures


def flat(answers: Sequence[Answer]) -> Iterator[dict[str, str]]:
    """A row for every finding, for tables."""
    for answer in answers:
        for f in answer.findings:
            yield {
                "claim": answer.name, "text": answer.text, "claim_verdict": answer.verdict.value,
                "network": f.network, "method": f.method, "metric": f.metric, "verdict": f.verdict.value,
                "figures": f.figures,
            }  # fmt: skip
