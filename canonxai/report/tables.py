"""The tables of a report as Parquet, CSV, LaTeX and Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from canonxai.files import durable, no_formula
from canonxai.report.claims import flat
from canonxai.report.comparison import Comparison, Result
from canonxai.report.reliability import Agreement, Floor, Variance
from canonxai.report.report import Report, format_number, order
from canonxai.report.search import front_rows

TYPES: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float | None: pa.float64(), bool | None: pa.bool_()}


def write_tables(report: Report, folder: Path) -> None:
    """Writes ``results``, ``comparison`` and ``claims`` as Parquet, CSV and LaTeX, and the study's table as Markdown.

    ``results`` is tidy, one row a cell x metric x stratum; ``comparison`` has one a pair x metric x stratum, of which
    LaTeX and Markdown show the study's; LaTeX's ``claims`` has one row a claim. What the metrics are worth is Parquet
    and CSV, see :mod:`canonxai.report.reliability`; and so is ``pareto``, the trials of searches that are on a front.
    """
    tables = {
        "results": _table(report.results, Result),
        "comparison": _table(report.comparisons, Comparison),
        "claims": pa.Table.from_pylist(list(flat(report.answers)), schema=CLAIMS),
        "reliability_floor": _table(report.reliability.floor, Floor),
        "reliability_agreement": _table(report.reliability.agreement, Agreement),
        "reliability_variance": _table(report.reliability.variance, Variance),
    }
    if front := front_rows(report.study):
        tables["pareto"] = _front_table(front)
    for name, table in tables.items():
        with durable(folder / f"{name}.parquet") as parquet, durable(folder / f"{name}.csv") as csv:
            pq.write_table(table, parquet)
            pa.csv.write_csv(_without_formulas(table), csv)
    answers = [(a.name, a.text, a.verdict.value, a.figures) for a in report.answers]
    texts = {
        "results.tex": longtable(
            "lllllllrrrrrr", RESULTS, [[getattr(row, c) for c in RESULTS] for row in report.results]
        ),
        "comparison.tex": latex(report),
        "comparison.md": markdown(report),
        "claims.tex": longtable("lp{6cm}lp{6cm}", ["claim", "text", "verdict", "figures"], answers),
    }
    for name, text in texts.items():
        with durable(folder / name) as file:
            file.write(text.encode())


_CLAIMS = "claim text claim_verdict claim_figures network method metric verdict figures"
RESULTS = [field.name for field in fields(Result) if field.name != "title"]  #: columns of LaTeX's ``results``
CLAIMS = pa.schema([(name, pa.string()) for name in _CLAIMS.split()])


def _table(rows: Sequence[Any], kind: type) -> pa.Table:
    schema = pa.schema([(field.name, TYPES[field.type]) for field in fields(kind)])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def _without_formulas(table: pa.Table) -> pa.Table:
    columns = [[no_formula(value) for value in column.to_pylist()] for column in table.columns]
    names = [no_formula(name) for name in table.column_names]
    return pa.table([pa.array(*pair) for pair in zip(columns, table.schema.types, strict=True)], names)


def _front_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of any keys; a column is of numbers, or else of text."""
    columns = {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    for key, values in columns.items():
        is_number = all(value is None or type(value) in (int, float) for value in values)
        columns[key] = [value if value is None else float(value) if is_number else str(value) for value in values]
    return pa.table(columns)


def network_of(row: Comparison) -> str:
    """Data set, model, state and variant of a row, as a heading."""
    variant = f", {row.variant}" if row.variant else ""
    state = "" if row.state == "canonized" else f", {row.state}"
    return f"{row.model} on {row.data}{state}{variant}"


def _blocks(report: Report) -> dict[str, dict[str, dict[tuple[str, str], Comparison]]]:
    """Comparisons by network, method, and (metric, stratum)."""
    blocks: dict[str, dict[str, dict[tuple[str, str], Comparison]]] = {}
    methods = order(report.comparisons)
    for row in sorted(report.comparisons, key=lambda row: methods.index(row.method)):
        blocks.setdefault(network_of(row), {}).setdefault(row.method, {})[row.metric, row.stratum] = row
    return dict(sorted(blocks.items()))


#: what the study's table shows: metric, stratum, heading
SHOWN = (
    ("localization", "all", "μ, all", r"$\mu$, all"),
    ("localization", "box < 25 %", "μ, box < 25 %", r"$\mu$, box $<$ 25\,\%"),
    ("input_perturbation", "all", "mean IP", "mean IP"),
    ("distance", "all", "cosine distance", "cosine distance"),
)


def markdown(report: Report) -> str:
    """The study's table: original → canonized; bold where canonized is better, italic where it is worse."""
    marks = {"better": "**", "worse": "*"}
    blocks = []
    for network, methods in _blocks(report).items():
        shown = [column for column in SHOWN if any(column[:2] in row for row in methods.values())]
        lines = [
            f"{_markdown(network)}, original → canonized:",
            "",
            "| method | " + " | ".join(c[2] for c in shown) + " |",
        ]
        lines.append("| --- |" + " --- |" * len(shown))
        for rows in methods.values():
            cells = []
            for metric, stratum, *_ in shown:
                row = rows.get((metric, stratum))
                mark = marks.get(row.effect, "") if row else ""
                cells.append(mark + (_change(row, " → ") if row else "") + mark)
            lines.append(f"| {_markdown(next(iter(rows.values())).title)} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def latex(report: Report) -> str:
    """The same with booktabs: differences with their intervals; bold where canonized is better, italic where worse."""
    marks = {"better": r"\mathbf", "worse": r"\mathit"}
    lines = [
        "% needs \\usepackage{booktabs}; difference canonized - original with its 95 % interval;",
        "% bold: better, italic: worse (interval excludes 0 and p < 0.05 after Holm's correction)",
    ]
    for network, methods in _blocks(report).items():
        shown = [column for column in SHOWN if any(column[:2] in row for row in methods.values())]
        lines += [f"% {_plain(network)}", rf"\begin{{tabular}}{{l{'r' * len(shown)}}}", r"\toprule"]
        lines.append("method & " + " & ".join(column[3] for column in shown) + r" \\")
        lines.append(r"\midrule")
        for rows in methods.values():
            cells = [_latex_cell(rows.get(column[:2]), marks) for column in shown]
            lines.append(f"{_tex(next(iter(rows.values())).title)} & " + " & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def longtable(spec: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Any table with longtable and booktabs, over as many pages as it takes; ``--`` where there is no value."""
    head = " & ".join(map(_tex, columns)) + r" \\"
    lines = ["% needs \\usepackage{booktabs,longtable}", rf"\begin{{longtable}}{{{spec}}}", r"\toprule", head]
    lines += [r"\midrule", r"\endhead"]
    lines += [" & ".join("--" if value is None else _tex(_text(value)) for value in row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _latex_cell(row: Comparison | None, marks: dict[str, str]) -> str:
    if row is None or row.difference is None:
        return "--"
    value = f"{row.difference:+.3f}"
    value = f"{marks[row.effect]}{{{value}}}" if row.effect in marks else value
    interval = "" if row.low is None or row.high is None else rf"\;[{row.low:.3f}, {row.high:.3f}]"
    return f"${value}{interval}$"


def _change(row: Comparison, arrow: str) -> str:
    if row.metric == "distance":
        return format_number(row.canonized)
    return f"{format_number(row.original)}{arrow}{format_number(row.canonized)}"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "ε": r"$\varepsilon$", "α": r"$\alpha$", "β": r"$\beta$",
    "γ": r"$\gamma$", "μ": r"$\mu$", "×": r"$\times$", "⁺": "$^+$", "♭": r"$\flat$", "→": r"$\to$",
    "<": r"\textless{}", ">": r"\textgreater{}", "–": "--",
}  # fmt: skip


def _tex(text: str) -> str:
    """Text that every LaTeX compiles; a character that it may not know is told by its code point."""
    known = (_TEX.get(c) or (c if c.isascii() else rf"\texttt{{U+{ord(c):04X}}}") for c in _plain(text))
    return "".join(known)


def _markdown(text: str) -> str:
    """Text in a cell of a table, without HTML."""
    return escape(_plain(text), quote=False).replace("|", r"\|")


def _plain(text: str) -> str:
    """In one line, of what can be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that was written."""
    return list(pq.read_table(table).to_pylist())
