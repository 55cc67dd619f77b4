"""Every comparison with a reference, and that ``docs/references.md`` tells of it what is true."""

import math
from pathlib import Path

import numpy as np
import pytest

from canonxai.config import CONF
from canonxai.metrics.quantus import OF_SEVERAL_IMAGES
from tests.reference import quantus_adapter
from tests.reference.__main__ import MISSING, PARTS, PATH, UNUSUAL, main, rows_of, table, unusual
from tests.reference.comparison import Comparison, difference

ALL = [comparison for comparisons in PARTS.values() for comparison in comparisons]
DOCUMENTED = rows_of(PATH.read_text())
ROUNDING = 1e-12  #: below which another processor's rounding may make any difference of a figure
pytestmark = pytest.mark.filterwarnings("ignore")  # Quantus warns of much


@pytest.mark.parametrize("comparison", ALL, ids=str)
def test_the_difference_is_within_the_tolerance_and_of_the_documented_size(comparison):
    found = comparison.difference()
    assert found <= comparison.tolerance
    told, tolerance, note = DOCUMENTED[str(comparison)]
    assert (float(tolerance), note) == (pytest.approx(comparison.tolerance, rel=0.5), comparison.note)
    assert float(told) <= comparison.tolerance
    assert found <= 10 * float(told) + ROUNDING and float(told) <= 10 * found + ROUNDING


def test_the_table_is_of_these_comparisons():
    names = [str(comparison) for comparison in ALL]
    assert sorted(DOCUMENTED) == sorted(names) and len(set(names)) == len(names)


def test_the_table_of_unusual_maps_and_images_is_the_one_that_is_tested():
    assert PATH.read_text().endswith("\n".join([UNUSUAL, "", *unusual(), ""]))


def test_the_table_of_quantus_metrics_is_what_the_adapter_gives():
    assert "\n".join(["", quantus_adapter.MEANING, "", *quantus_adapter.rows(), ""]) in PATH.read_text()
    assert {*quantus_adapter.NOTES, *quantus_adapter.ARGUMENTS, *OF_SEVERAL_IMAGES} <= set(quantus_adapter.kinds())
    answers = {row.split(" | ")[1] for row in quantus_adapter.rows()[2:]}
    assert answers == {"yes", "curve=mean", "group", "group, curve=mean"}  # none fails


@pytest.mark.parametrize(("group", "part"), [("method", "Methods"), ("metric", "Metrics")])
def test_every_method_and_metric_is_compared_with_each_reference_or_told_why_not(group, part):
    """A YAML that is added without a comparison fails here."""
    names = {p.stem for p in (CONF / group).glob("*.yaml") if "\ndefaults:" not in f"\n{p.read_text()}"}
    names -= {"quantus"}  # which gives Quantus' own, see tests/metrics/test_quantus.py
    compared = {}
    for comparison in PARTS[part]:
        library = comparison.reference.partition("'")[0]
        compared.setdefault(library, set()).add(comparison.subject.partition(":")[0])
    library, reasons = MISSING[part]
    assert compared[library].isdisjoint(reasons)
    assert names - compared[library] - set(reasons) <= {"random"}
    others = set.union(*(subjects for other, subjects in compared.items() if other != library))
    by_quantus_alone = {"energy_pointing_game", "parameter_randomization", "random_logit"}
    assert names - others == (by_quantus_alone if part == "Metrics" else set())


@pytest.mark.parametrize(
    ("computed", "reference", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 3.0], [1.0, 4.0], 0.25),
        ([[-1.0]], [[1.0]], 2),
        ([1e-3, 0], [0, 0], 1e-3),
        (math.nan, math.nan, 0),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([math.inf, 1.0], [math.inf, 1.0], 0),
        ([math.inf], [-math.inf], math.inf),
        ([math.inf], [math.nan], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
    ],
)
def test_a_difference_is_seen(computed, reference, expected):
    assert difference(computed, reference) == expected


def test_the_largest_difference_of_all_cases_counts_and_nothing_is_no_comparison():
    cases = [([1.0], [1.0]), ([1.5], [1.0]), (np.zeros(3), np.zeros(3))]
    assert Comparison("a", "b", 0, lambda: cases).difference() == 0.5
    with pytest.raises(AssertionError, match="a, b: nothing was compared"):
        Comparison("a", "b", 0, lambda: []).difference()


def test_the_command_writes_the_table(monkeypatch, tmp_path):
    few = [Comparison("x", "y", 1e-3, lambda: [([1.0], [1.0005])], "a note"), Comparison("a", "y", 0, lambda: [(1, 1)])]
    monkeypatch.setattr("tests.reference.__main__.PARTS", {"Methods": few})
    monkeypatch.setattr("tests.reference.__main__.PATH", tmp_path / "table.md")
    main()
    text = Path(tmp_path / "table.md").read_text()
    assert rows_of(text) == {"x, y": ["5e-04", "1e-03", "a note"], "a, y": ["0", "0", ""]}
    assert text.index("| a |") < text.index("| x |")
    assert all(line.count("|") == 6 for line in table(few, [0.0, 0.0]))
