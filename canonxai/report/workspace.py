"""``python -m canonxai.report.workspace --entity ENTITY``: a saved Weights & Biases workspace of a project's cells.

Canonized and original cells side by side, by model and method, with the tables of the report run and the maps.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from canonxai.errors import UserError, check, told
from canonxai.results.loggers import has_key, wandb_settings
from canonxai.results.summary import STRATA

GROUPS = ("cell.model", "cell.method", "cell.state")  #: of the config that every cell is logged with
RUNS = 500  #: how many runs or groups of them a panel shows


def build_workspace(entity: str, project: str = "canonxai", study: str | None = None, name: str | None = None) -> Any:
    """The workspace, not yet saved.

    Args:
        entity: the user or team.
        project: the project's name.
        study: the only study whose runs are shown; ``None`` for all.
        name: of the workspace.

    Raises:
        UserError: if ``wandb-workspaces`` is not installed, or does not take a name.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError("workspace: expected wandb-workspaces. pip install 'canonxai[workspaces]'") from error
    check(study is None or not set(study) & set("'\"\\"), "--study", "a name without quotes and backslashes", study)
    try:
        return ws.Workspace(
            entity=entity,
            project=project,
            name=name or f"Canonization: {study or project}",
            sections=_sections(),
            settings=ws.WorkspaceSettings(max_runs=RUNS),
            runset_settings=ws.RunsetSettings(
                filters=f"Metric('Group') == '{study}'" if study is not None else "",
                groupby=[ws.Config(key) for key in GROUPS],
                order=[ws.Ordering(ws.Metric("Name"))],
                pinned_columns=["summary:localization/all", "summary:input_perturbation/all"],
            ),
        )
    except ValueError as error:  # pydantic's
        raise UserError(f"workspace: expected names that W&B takes, got: {' '.join(str(error).split())}") from error


def _sections() -> list[Any]:
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws

    def section(name: str, panels: list[Any], columns: int = 3) -> Any:
        layout = ws.SectionLayoutSettings(columns=columns, rows=-(-len(panels) // columns))
        return ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout)

    def bars(metric: str) -> list[Any]:
        """A bar for every model, method and state, as the runs are grouped, over the images of each stratum."""
        return [
            wr.BarPlot(
                title=f"{metric}, {stratum}",
                metrics=[f"{metric}/{stratum}"],
                orientation="v",
                max_runs_to_show=RUNS,
                max_bars_to_show=RUNS,
            )
            for stratum in STRATA
        ]

    curve = wr.CustomChart(
        query={"summaryTable": {"tableKey": "perturbation_curve_table"}},
        chart_name="wandb/line/v0",
        chart_fields={"x": "fraction", "y": "f"},
        chart_strings={"title": "perturbation_curve, mean over images"},
    )
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("claims", "comparison")]
    page, maps = (
        wr.MediaBrowser(title=key, media_keys=[key], num_columns=n) for key, n in (("report", 1), ("maps", 2))
    )
    return [
        section("Localization", bars("localization")),
        section("Input perturbation", [*bars("input_perturbation"), curve], columns=2),
        section("Claims and comparison", [*tables, page], columns=1),
        section("Maps", [maps], columns=1),
    ]


def spec(workspace: Any) -> str:
    """A workspace as JSON, as it is sent to the server; ``wandb_workspaces`` reads it back."""
    view = workspace._to_model()  # there is no public way that needs no server
    return str(view.model_dump_json(by_alias=True, exclude_none=True, indent=2))


def save(workspace: Any) -> str:
    """Saves a workspace.

    Returns:
        Its address.

    Raises:
        UserError: if no key is configured, or the workspace could not be saved.
    """
    server = wandb_settings().base_url
    check(has_key(server), "WANDB_API_KEY", f"a key for {server}", None, "Use wandb login, or --dry-run PATH.")
    try:
        return str(workspace.save().url)
    except Exception as error:  # of many kinds: the transport's, the server's, W&B's own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"workspace: expected {server} to save it, got {reason}") from error


@told
def main(arguments: list[str] | None = None) -> None:
    """Saves the workspace."""
    parser = argparse.ArgumentParser(
        prog="python -m canonxai.report.workspace", description="Saves a Weights & Biases workspace for comparisons."
    )
    parser.add_argument("--entity", required=True, help="the user or team that the project belongs to")
    parser.add_argument("--project", default="canonxai")
    parser.add_argument("--study", help="show only this study's runs")
    parser.add_argument("--name", help="of the workspace")
    parser.add_argument("--dry-run", type=Path, metavar="PATH", help="write it as JSON instead; needs no key")
    chosen = parser.parse_args(arguments)
    workspace = build_workspace(chosen.entity, chosen.project, chosen.study, chosen.name)
    if chosen.dry_run is None:
        print(save(workspace))
    else:
        chosen.dry_run.write_text(spec(workspace))


if __name__ == "__main__":
    sys.exit(main(None))
