"""The study's figures and a search's, one file each; every ``draw`` yields names and matplotlib figures of a report."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from matplotlib import rc_context

from canonxai.files import file_name
from canonxai.report.figures import curves, heatmaps, localization, pareto, perturbation, reliability, scatter
from canonxai.report.figures.style import save
from canonxai.report.report import Report


def draw_all(report: Report, folder: Path, samples: Sequence[int] | None = None) -> list[Path]:
    """Writes all figures of a report as PDF and PNG; figures of an earlier report are removed.

    Args:
        report: what is drawn, see :attr:`Report.drawn`.
        folder: where to.
        samples: of the heatmaps; ``None`` for the most different ones.

    Returns:
        The PNGs, in the order of the study.
    """
    for old in (*folder.glob("*.png"), *folder.glob("*.pdf")):
        old.unlink()
    study = without_trials(report).drawn
    figures = chain(
        heatmaps.draw(study, samples),
        localization.draw(study),
        perturbation.draw(study),
        curves.draw(study),
        scatter.draw(study),
        reliability.draw(study),
        pareto.draw(report),
    )
    paths = []
    with rc_context({"text.parse_math": False}):  # a $ in a name is a letter
        for name, figure in figures:
            name = file_name(name)  # of which parts are names that strangers gave
            save(figure, folder / name)
            paths.append(folder / f"{name}.png")
    return paths


def without_trials(report: Report) -> Report:
    """The report without a search's trials, which are too many for a line or a row each."""
    cells = [cell for cell in report.study.cells if not cell.objective]
    pairs = [pair for pair in report.study.pairs if not pair.canonized.objective]
    if len(cells) == len(report.study.cells):
        return report
    return replace(report, study=replace(report.study, pairs=pairs, cells=cells))
