"""The README's figures, generated: ``python -m canonxai.report.readme README REPORT ...``.

What a report says stands in the README between marks with the study's name, and its pictures in ``docs/STUDY``.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from canonxai.errors import UserError, check, told
from canonxai.report.tables import rows_of

BEGIN, END = "<!-- {}: written by make docs, not by hand -->", "<!-- end of {} -->"


def claims(report: Path) -> str:
    """The claims of a report, as Markdown."""
    rows = {row["claim"]: row for row in rows_of(report / "claims.parquet")}
    lines = ["| claim | | tests confirmed |", "| --- | --- | --- |"]
    for name, row in rows.items():
        confirmed = row["claim_figures"].removesuffix(" tests confirmed")
        lines.append(f"| {name}: {row['text']} | {row['claim_verdict']} | {confirmed} |")
    return "\n".join(lines)


def comparison(report: Path) -> str:
    """The table of a report, as Markdown."""
    return (report / "comparison.md").read_text().strip()


def update(readme: Path, report: Path) -> None:
    """Puts what a report says between the README's marks, and the pictures that the README shows beside it.

    Args:
        readme: with marks as :data:`BEGIN` and :data:`END`, of ``STUDY claims`` or ``STUDY comparison``.
        report: the folder of a report, ``STUDY/report``.

    Raises:
        UserError: if the README has no marks of the study, or shows a picture that the report does not have.
    """
    text, study, found = readme.read_text(), report.resolve().parent.name, False
    for write in (claims, comparison):
        begin, end = (mark.format(f"{study} {write.__name__}") for mark in (BEGIN, END))
        block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if block.search(text):
            written, found = f"{begin}\n{write(report)}\n{end}", True
            text = block.sub(lambda _, written=written: written, text)  # type: ignore[misc]
    if not found:
        expected = f"marks as {BEGIN.format(f'{study} comparison')!r}"
        raise UserError(f"README: expected {expected} in {str(readme)!r}, got none.")
    figures = report / "figures"
    pictures: dict[str, Path] = {}
    for name in re.findall(rf"\]\(docs/{re.escape(study)}/(.*?)\.png\)", text):
        candidates = [*figures.glob(f"{name}.png"), *sorted(figures.glob(f"{name}-*.png"))]
        check(bool(candidates), "README", f"pictures that are in {str(figures)!r}", f"{name}.png")
        pictures[name] = candidates[0]
    readme.write_text(text)
    to = readme.parent / "docs" / study
    for name, picture in pictures.items():
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, to / f"{name}.png")


@told
def main(arguments: list[str] | None = None) -> None:
    """Puts reports into a README."""
    parser = argparse.ArgumentParser(prog="python -m canonxai.report.readme")
    parser.add_argument("readme", type=Path)
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="the folder of a report")
    chosen = parser.parse_args(arguments)
    for report in chosen.reports:
        update(chosen.readme, report)


if __name__ == "__main__":
    sys.exit(main(None))
