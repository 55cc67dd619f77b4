"""What a report holds, computed once; tables, figures, page and dashboard are views of it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from canonxai.report.cells import Pair, Problem, Study
from canonxai.report.claims import Answer, Claims, Evidence
from canonxai.report.comparison import Comparison, Result, Statistics, comparisons, results, warnings
from canonxai.report.reliability import Reliability, reliability

DRAWN, NETWORKS = 60, 12  #: pairs, and networks, in the figures: hundreds of panels say nothing, and take minutes


@dataclass(frozen=True)
class Report:
    """A study and what it says.

    Attributes:
        study: its cells, pairs and problems.
        statistics: how differences are judged.
        claims: the claims that are tested.
    """

    study: Study
    statistics: Statistics
    claims: Claims

    @cached_property
    def results(self) -> list[Result]:
        """Each cell x metric x stratum."""
        return results(self.study, self.statistics)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each pair x metric x stratum."""
        return comparisons(self.study, self.statistics)

    @cached_property
    def reliability(self) -> Reliability:
        """What the study says of its metrics."""
        return reliability(self.study, self.statistics, order(self.results))

    @cached_property
    def problems(self) -> list[Problem]:
        """Of the cells, of the names in the claims, and of the test."""
        problems = [*self.study.problems, *self.claims.unknown(self.study), *warnings(self.study, self.statistics)]
        if len(drawn := self.drawn.study.pairs) < len(pairs := self.study.pairs):
            told = f"show {len(drawn)} of {len(pairs)} pairs, the first networks; all are in the tables and report.html"
            problems.append(Problem("note", "figures", told))
        return problems

    @cached_property
    def drawn(self) -> "Report":
        """What the figures show: at most :data:`DRAWN` pairs, of whole networks, as they are in this study."""
        networks: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
        for pair in self.study.pairs:
            networks[pair.canonized.data, pair.canonized.model, pair.variant].append(pair)
        chosen: list[Pair] = []
        for pairs in list(networks.values())[:NETWORKS]:
            if not chosen or len(chosen) + len(pairs) <= DRAWN:
                chosen += pairs[:DRAWN]
        if len(chosen) == len(self.study.pairs):
            return self
        places = {(*pair.canonized.place, pair.variant) for pair in chosen}
        shown = {(pair.canonized.data, pair.canonized.model) for pair in chosen}
        cells = [cell for cell in self.study.cells if (cell.data, cell.model) in shown]
        part = replace(self, study=replace(self.study, pairs=chosen, cells=cells))
        rows = [c for c in self.comparisons if (c.data, c.model, c.method, c.state, c.variant) in places]
        vars(part)["comparisons"] = rows  # which are corrected for all tests of the study
        return part

    @cached_property
    def answers(self) -> list[Answer]:
        """What the study says to each claim."""
        return self.claims.answers(Evidence(self.study, self.comparisons, self.statistics))

    @property
    def name(self) -> str:
        """The study's name, or names."""
        return ", ".join(dict.fromkeys(str(cell.summary["study"]) for cell in self.study.cells))

    @property
    def sentence(self) -> str:
        """The study in a sentence."""
        counted = [row for row in self.comparisons if row.stratum == "all" and row.higher_is_better is not None]
        pairs = f"{_plural(len(self.study.pairs), 'pair')} of canonized and original maps"
        if not counted and self.study.pairs:
            return f"{pairs}, but no metric of which more or less is better."
        if not counted:
            return "No canonized cell has an original twin: there is nothing to compare."
        effects = [row.effect for row in counted]
        parts = ", ".join(f"{effects.count(effect)} {effect}" for effect in dict.fromkeys(sorted(effects)))
        largest = max(counted, key=lambda row: abs(row.difference or 0))
        return (
            f"{pairs}, {_plural(len(counted), 'comparison')} over all images: {parts}. The largest: "
            f"{largest.metric} of {largest.title} on {', '.join(_where(largest, counted))}, "
            f"{format_number(largest.original)} → {format_number(largest.canonized)} ({format_difference(largest)})."
        )


def _where(row: Comparison, rows: Sequence[Comparison]) -> list[str]:
    """The model, and what else tells a row from others."""
    return [row.model, *(getattr(row, key) for key in distinctions(rows) if getattr(row, key))]


def distinctions(rows: Sequence[Comparison]) -> list[str]:
    """Which of data set, state and variant are several."""
    return [key for key in ("data", "state", "variant") if len({getattr(row, key) for row in rows}) > 1]


def order(rows: Sequence[Comparison] | Sequence[Result]) -> list[str]:
    """The methods of some rows in the order of the literature: gradients, backpropagation, LRP; random last."""
    methods = {row.method for row in rows}
    return sorted(methods, key=lambda name: (LITERATURE.index(name) if name in LITERATURE else NEW, name))


LITERATURE = (
    "gradient", "ixg", "ig", "smoothgrad", "gbp", "deconvnet", "ebp", "lrp_eps", "lrp_eps_plus", "lrp_eps_plus_flat",
    "lrp_eps_a2b1", "lrp_eps_a2b1_flat", "lrp_eps_gamma_box", "lrp_eps_gamma_flat", "lrp_groups", "random",
)  # fmt: skip
NEW = len(LITERATURE) - 1.5  #: where methods of one's own stand: before the random floor


def format_number(value: float | None) -> str:
    """Three decimals; a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}"


def format_difference(row: Comparison) -> str:
    """``+0.421 [0.400, 0.443]``."""
    if row.difference is None:
        return "–"
    interval = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.difference:+.3f}{interval}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
