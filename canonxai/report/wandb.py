"""The comparison as a Weights & Biases run of its own, in the group of the study's cells."""

import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from canonxai.report.claims import flat
from canonxai.report.comparison import Comparison, Result, columns
from canonxai.report.report import Report
from canonxai.results.loggers import start_run

log = logging.getLogger(__name__)
TABLES = (".csv", ".md", ".parquet", ".tex")


def log_report(
    report: Report,
    folder: Path,
    project: str = "canonxai",
    entity: str | None = None,
    mode: str = "auto",
    timeout: int = 10,
) -> None:
    """Logs a report that was written; what then fails is told, not raised, as the report is on disk.

    Args:
        report: what the study says.
        folder: where its tables, ``figures/*.png`` and ``report.html`` are; the run's own files go there, too.
        project: the project's name.
        entity: the user or team; ``None`` for the default one.
        mode: as of :func:`canonxai.results.loggers.wandb_logger`.
        timeout: seconds to wait for the server before the run goes offline.

    Raises:
        UserError: if ``mode`` is unknown, or W&B refuses the project's name or a setting of the environment.
    """
    run = start_run(
        folder,
        project,
        entity,
        mode,
        timeout,
        group=report.name,
        name=f"{report.name}-report",
        job_type="report",
        config={"statistics": asdict(report.statistics), "claims": report.claims.title},
    )
    failed = True
    try:
        try:
            _log(run, report, folder)
            failed = False
        finally:
            run.finish(exit_code=int(failed))
    except Exception as error:  # whatever W&B raises, the report is on disk
        log.warning("W&B: the report is in %s, but could not be logged (%s: %s)", folder, type(error).__name__, error)


def _log(run: Any, report: Report, folder: Path) -> None:
    import wandb

    media: dict[str, Any] = {name: _table(values) for name, values in _tables(report).items()}
    media |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("figures/*.png"))}
    page = folder / "report.html"
    if page.is_file():
        media["report"] = wandb.Html(str(page), inject=False)
    run.log(media)
    run.summary.update(figures(report))
    artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", f"{report.name}-report"), type="report")
    for path in sorted(path for path in folder.iterdir() if path.suffix in TABLES):
        artifact.add_file(str(path))
    if artifact.manifest.entries:
        run.log_artifact(artifact)


def figures(report: Report) -> dict[str, float | str]:
    """The differences over all images as ``<model>/<method>/<metric>/difference``, verdicts as ``claims/<name>``.

    The data set, where there are several, precedes the model; a state that is not ``canonized`` and the settings in
    which pairs of a name differ follow the method.
    """
    several = len({row.data for row in report.comparisons}) > 1
    found: dict[str, float | str] = {f"claims/{answer.name}": answer.verdict.value for answer in report.answers}
    for row in report.comparisons:
        if row.stratum == "all" and row.difference is not None:
            state = "" if row.state == "canonized" else row.state
            parts = (row.data if several else "", row.model, row.method, state, row.variant, row.metric, "difference")
            found["/".join(filter(None, parts))] = row.difference
    return found


def _tables(report: Report) -> dict[str, dict[str, list[Any]]]:
    findings = list(flat(report.answers))
    return {
        "comparison": columns(report.comparisons, Comparison),
        "results": columns(report.results, Result),
        "claims": {
            "name": [answer.name for answer in report.answers],
            "text": [answer.text for answer in report.answers],
            "verdict": [answer.verdict.value for answer in report.answers],
            "figures": [answer.figures for answer in report.answers],
        },
        "findings": {name: [row[name] for row in findings] for name in findings[0]} if findings else {},
    }


def _table(values: dict[str, list[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(values), data=[list(row) for row in zip(*values.values(), strict=True)])
