"""The README's study, generated: ``python -m canonxai.report.readme REPORT README``."""

import argparse
import re
import shutil
import sys
from pathlib import Path

from canonxai.errors import UserError, told
from canonxai.report.tables import rows_of

BEGIN, END = "<!-- study: written by make docs, not by hand -->", "<!-- end of study -->"
PICTURES = ("localization", "difference-input_perturbation", "curves-perturbation_curve")


def study_text(report: Path) -> str:
    """The claims and the table of a report, as Markdown.

    Args:
        report: the folder of a report.
    """
    claims = {row["claim"]: row for row in rows_of(report / "claims.parquet")}
    lines = ["| claim | | tests confirmed |", "| --- | --- | --- |"]
    for name, row in claims.items():
        confirmed = row["claim_figures"].removesuffix(" tests confirmed")
        lines.append(f"| {name}: {row['text']} | {row['claim_verdict']} | {confirmed} |")
    return "\n".join(lines) + "\n\n" + (report / "comparison.md").read_text().strip()


def update(report: Path, readme: Path) -> None:
    """Puts a report's text between the README's marks, and its pictures into ``docs`` beside it.

    Raises:
        UserError: if the README has no marks.
    """
    text = readme.read_text()
    block = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not block.search(text):
        raise UserError(f"README: expected the marks {BEGIN!r} and {END!r} in {str(readme)!r}, got none.")
    readme.write_text(block.sub(lambda _: f"{BEGIN}\n{study_text(report)}\n{END}", text))
    pictures = [report / "figures" / f"{name}.png" for name in PICTURES]
    pictures += sorted((report / "figures").glob("heatmaps-*.png"))[:1]
    for picture in pictures:
        shutil.copy(picture, readme.parent / "docs" / f"{re.sub(r'-[0-9]+$', '', picture.stem)}.png")


@told
def main(arguments: list[str] | None = None) -> None:
    """Puts a report into a README."""
    parser = argparse.ArgumentParser(prog="python -m canonxai.report.readme")
    parser.add_argument("report", type=Path, help="the folder of a report")
    parser.add_argument("readme", type=Path)
    chosen = parser.parse_args(arguments)
    update(chosen.report, chosen.readme)


if __name__ == "__main__":
    sys.exit(main(None))
