"""The tables of a report on disk: what they hold, and that every format can be read."""

import csv
import re

import pyarrow.parquet as pq
import pytest

from canonxai.files import no_formula
from canonxai.report.cells import read_study
from canonxai.report.claims import read_claims
from canonxai.report.comparison import Statistics
from canonxai.report.report import Report
from canonxai.report.tables import _tex, latex, markdown, write_tables
from tests.report.study import write_cell, write_study


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return Report(read_study([folder]), Statistics(), read_claims("icip2022"))


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(report, folder)
    return folder


def test_results_have_a_row_for_each_cell_metric_and_stratum(report, folder):
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    keys = [(row["cell"], row["metric"], row["stratum"]) for row in rows]
    assert len(set(keys)) == len(keys) == sum(3 * len(cell.metrics) for cell in report.study.cells)
    assert rows == [vars(row) for row in report.results]


def test_comparison_has_a_row_for_each_pair_metric_and_stratum(report, folder):
    rows = pq.read_table(folder / "comparison.parquet").to_pylist()
    assert len(rows) == sum(3 * len(pair.canonized.metrics) for pair in report.study.pairs)
    assert rows == [vars(row) for row in report.comparisons]


@pytest.mark.parametrize("name", ["results", "comparison", "claims"])
def test_csv_says_the_same_as_parquet(folder, name):
    with (folder / f"{name}.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    expected = pq.read_table(folder / f"{name}.parquet").to_pylist()
    assert len(read) == len(expected) > 0
    for row, told in zip(expected, read, strict=True):
        for key, value in row.items():
            if isinstance(value, float):
                assert float(told[key]) == value
            else:
                assert told[key] == (
                    "" if value is None else str(value).lower() if value in (True, False) else str(no_formula(value))
                )


def test_a_stranger_s_title_is_no_formula_of_a_spreadsheet(tmp_path):
    title = '=HYPERLINK("https://evil.example")'
    for canonize in (False, True):
        write_cell(tmp_path / "study", canonize=canonize, title=title)
    write_tables(Report(read_study([tmp_path / "study"]), Statistics(), read_claims("icip2022")), tmp_path)
    for name in ("results", "comparison"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            assert {row["title"] for row in csv.DictReader(file)} == {f"'{title}"}
        assert set(pq.read_table(tmp_path / f"{name}.parquet")["title"].to_pylist()) == {title}


def test_claims_are_told_with_every_finding(report, folder):
    rows = pq.read_table(folder / "claims.parquet").to_pylist()
    assert len(rows) == sum(len(answer.findings) for answer in report.answers)
    assert {row["claim"]: row["claim_verdict"] for row in rows} == {a.name: a.verdict.value for a in report.answers}
    assert {row["claim"]: row["claim_figures"] for row in rows} == {a.name: a.figures for a in report.answers}


def test_markdown_has_the_means_and_marks_what_is_better(report):
    text = markdown(report)
    rows = [r for r in report.comparisons if r.metric == "localization" and r.stratum == "all"]
    assert {row.effect for row in rows} >= {"better", "equal"}
    for row in rows:
        block = text.split(f"{row.model} on {row.data}, original → canonized:")[1].split("original → canonized")[0]
        (line,) = [line for line in block.splitlines() if line.startswith(f"| {row.title} |")]
        mark = {"better": "**", "worse": "*"}.get(row.effect, "")
        assert line.split("|")[2].strip() == f"{mark}{row.original:.3f} → {row.canonized:.3f}{mark}"


def test_latex_has_the_differences_and_their_intervals(report):
    text = latex(report)
    for row in report.comparisons:
        if (row.metric, row.stratum) == ("localization", "all") and row.effect == "better":
            assert rf"$\mathbf{{{row.difference:+.3f}}}\;[{row.low:.3f}, {row.high:.3f}]$" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == len({r.model for r in report.comparisons})
    columns = {len(re.findall(r"(?<!\\)&", line)) for line in text.splitlines() if line.endswith(r"\\")}
    assert columns == {4}
    assert all(ord(character) < 128 for character in text)


@pytest.mark.parametrize("name", ["results", "claims"])
def test_latex_has_every_row_of_a_table(report, folder, name):
    text = (folder / f"{name}.tex").read_text()
    spec = re.search(r"begin{longtable}{(.*)}", text)[1]
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    head, *rows = [re.split(r"(?<!\\) & ", line) for line in lines]
    assert {len(row) for row in [head, *rows]} == {len(re.sub(r"{.*?}", "", spec))}
    assert all(ord(character) < 128 for character in text) and "U+" not in text
    if name == "claims":
        assert [row[0::2] for row in rows] == [[a.name, a.verdict.value] for a in report.answers]
    else:
        means = dict(zip(head, zip(*rows, strict=True), strict=True))["mean"]
        assert means == tuple("--" if row.mean is None else f"{row.mean:.6g}" for row in report.results)
        assert {row[head.index("stratum")] for row in rows} >= {"all", r"box \textless{} 25 \%"}


def test_names_of_strangers_are_text_in_one_cell_of_markdown(tmp_path):
    for canonize in (False, True):
        write_cell(tmp_path, "resnet18", "ebp", canonize, title="<b>x|y\n# z", summary={"model": "<i>\nm"})
    text = markdown(Report(read_study([tmp_path]), Statistics(), read_claims("icip2022")))
    assert text.startswith("&lt;i&gt; m on scenes, original → canonized:\n")
    assert r"| &lt;b&gt;x\|y # z | " in text and "<" not in text.replace("< 25", "")


def test_names_of_strangers_are_escaped_in_latex():
    assert _tex(r"50 % of a_b & \input{x} $#^~") == (
        r"50 \% of a\_b \& \textbackslash{}input\{x\} \$\#\textasciicircum{}\textasciitilde{}"
    )
    assert _tex("a\n\n\x07b 中é") == r"a b \texttt{U+4E2D}\texttt{U+00E9}"
    assert _tex("a < b > c") == r"a \textless{} b \textgreater{} c"
    assert _tex("LRP-ε,α2β1,♭") == r"LRP-$\varepsilon$,$\alpha$2$\beta$1,$\flat$"
