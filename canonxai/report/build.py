"""Folders of cells -> everything that a report consists of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from canonxai.config import Report as Options
from canonxai.errors import check
from canonxai.files import write_errors
from canonxai.progress import output_console
from canonxai.report.cells import read_study
from canonxai.report.claims import read_claims
from canonxai.report.comparison import Comparison, Statistics
from canonxai.report.figures import draw_all
from canonxai.report.html import write_html
from canonxai.report.report import Report, distinctions, format_difference, format_number, order
from canonxai.report.tables import write_tables


def build_report(
    folders: Sequence[Path], output: Path, options: Options | None = None, wandb: Mapping[str, Any] | None = None
) -> Report:
    """Reads the cells below ``folders`` and writes tables, figures and ``report.html`` to ``output``.

    Args:
        folders: of one study or several.
        output: a folder, made if need be.
        options: how to compare.
        wandb: options of the logger, if the comparison is to become a Weights & Biases run.

    Raises:
        UserError: if there is no complete cell, an option is wrong, or ``output`` cannot be written to.
    """
    options = options or Options()
    claims = read_claims(options.claims)
    report = Report(read_study(folders), Statistics(options.test, options.resample), claims)
    inside = [folder for folder in (output, *output.parents) if _is_cell(folder)]
    check(not inside, "output", "a folder that is no cell's", str(output), "Choose another one by --output.")
    links = [str(folder) for folder in (output, output / "figures") if folder.is_symlink()]
    check(not links, "output", "a folder, as a link may lead anywhere", links, "Remove it, or choose one by --output.")
    with write_errors(
        lambda reason: (
            f"output: expected to write to {str(output)!r}, got: {reason}. "
            "Free space or choose another folder by --output."
        )
    ):
        output.mkdir(parents=True, exist_ok=True)
        write_tables(report, output)
        figures = draw_all(report, output / "figures", options.samples)
        write_html(report, output / "report.html", figures)
    if wandb is not None:
        from canonxai.report.wandb import log_report

        log_report(report, output, **wandb)
    return report


def _is_cell(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and any((folder / name).exists() for name in ("samples.parquet", "parts"))


def print_report(report: Report, output: Path, console: Console | None = None) -> None:
    """The claims and the comparison over all images, for the terminal, or 140 letters wide for a file."""
    console = console or output_console(140)
    for problem in report.problems:
        console.print(Text(f"{problem.kind}: {problem.cell}: {problem.reason}"), soft_wrap=True)
    methods = order(report.comparisons)
    rows = [row for row in report.comparisons if row.stratum == "all" and row.higher_is_better is not None]
    rows.sort(key=lambda row: (row.metric, row.data, row.model, methods.index(row.method), row.state, row.variant))
    if rows:
        console.print(_comparison_table(rows))
    claims = Table("claim", "verdict", "figures", title="Claims", title_justify="left")
    for answer in report.answers:
        claims.add_row(Text(f"{answer.name}: {answer.text}"), answer.verdict.value, answer.figures)
    console.print(claims)
    console.print(Text(report.sentence))
    console.print(Text(f"report: {output.resolve() / 'report.html'}"), soft_wrap=True)


def _comparison_table(rows: Sequence[Comparison]) -> Table:
    table = Table(title="Canonized against original, all images", title_justify="left")
    keys = ["metric", "model", *distinctions(rows)]
    for column in (*keys, "method"):
        table.add_column(column, overflow="fold")
    for column in ("original", "canonized", "difference", "p (Holm)"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("effect")
    for row in rows:
        table.add_row(
            *(Text(getattr(row, key)) for key in keys), Text(row.title), format_number(row.original),
            format_number(row.canonized), Text(format_difference(row)),
            "–" if row.p_holm is None else f"{row.p_holm:.1e}", row.effect,
        )  # fmt: skip
    return table
