"""The workspace: that what it shows is what runs are logged with, and that saving it never asks.

Nothing here reaches a server. The runs are a cell's, from the command line, and its report's, from this file as a
program.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from canonxai.errors import UserError
from canonxai.report import workspace
from canonxai.report.workspace import build_workspace, main, spec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb-workspaces
KEY = "a1" * 20


@pytest.fixture
def no_key(tmp_path, monkeypatch):
    """A machine on which nobody has logged in."""
    for name in [name for name in os.environ if name.startswith(("WANDB", "NETRC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The logs of a cell's run and of its report's, by job type."""
    folder = tmp_path_factory.mktemp("runs")
    cell = "canonize=true data.size=4 save_maps=2 study=small logger=wandb logger.mode=offline hydra.run.dir=cell"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
    for command in (["-m", "canonxai", *cell.split()], [__file__, "cell", "report"]):
        subprocess.run(
            [sys.executable, *command], cwd=folder, env=inherited | {"HOME": str(folder / "home")},
            capture_output=True, timeout=300, check=True,
        )  # fmt: skip
    found = {}
    for run in folder.glob("*/wandb/offline-run-*"):
        inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
        lines = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
        logged = [json.loads(line) for line in lines]
        (record,) = (record["run"] for record in logged if record["type"] == "run")
        for name in ("summary", "config"):
            updates = [later[name]["update"] for later in logged if later["type"] == name]
            record[name] = {
                key: value
                for update in [record.get(name, {}).get("update", {}), *updates]
                for key, value in update.items()
            }
        found[record["job_type"]] = record
    return found


@pytest.fixture(scope="module")
def view():
    """The workspace of a study as JSON."""
    return json.loads(spec(build_workspace("me", "canonxai", "small")))


def sections(view):
    return {s["name"]: s["panels"] for s in view["spec"]["section"]["panelBankConfig"]["sections"]}


def kind(panels, view_type):
    return [panel["config"] for panel in panels if panel["viewType"] == view_type]


def test_the_bars_are_figures_that_a_cell_logs(view, runs):
    for name, metric in (("Localization", "localization"), ("Input perturbation", "input_perturbation")):
        bars = kind(sections(view)[name], "Bar Chart")
        strata = ["all", "box < 50 %", "box < 25 %"]
        assert [bar["metrics"] for bar in bars] == [[f"{metric}/{stratum}"] for stratum in strata]
        assert runs["cell"]["summary"].keys() >= {bar["metrics"][0] for bar in bars}
        assert {bar["limit"] for bar in bars} == {bar["barLimit"] for bar in bars} == {500}
        assert "groupBy" not in str(bars)  # as the runs are grouped


def test_the_curve_is_drawn_as_a_cell_logs_it(view, runs):
    (curve,) = kind(sections(view)["Input perturbation"], "Vega2")
    (query,) = curve["userQuery"]["queryFields"]
    (table,) = (field for field in query["fields"] if field["name"] == "summaryTable")
    (key,) = (argument["value"] for argument in table["args"])
    assert runs["cell"]["summary"][f"{key}._type"] == "table-file"
    drawn = runs["cell"]["config"]["_wandb.visualize.perturbation_curve"]["panel_config"]
    assert drawn["userQuery"]["queryFields"][0]["fields"][-1]["args"] == table["args"]
    for setting in ("panelDefId", "transform"):
        assert curve[setting] == drawn[setting]
    assert curve["fieldSettings"].items() <= drawn["fieldSettings"].items()


def test_the_tables_and_the_page_are_those_of_the_report_run(view, runs):
    panels = sections(view)["Claims and comparison"]
    tables = [panel["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"] for panel in kind(panels, "Weave")]
    assert tables == ["claims", "comparison"]
    assert [runs["report"]["summary"][f"{name}._type"] for name in tables] == ["table-file"] * 2
    (page,) = kind(panels, "Media Browser")
    assert page["mediaKeys"] == ["report"] and runs["report"]["summary"]["report._type"] == "html-file"


def test_the_maps_are_a_cells(view, runs):
    (maps,) = kind(sections(view)["Maps"], "Media Browser")
    assert maps["mediaKeys"] == ["maps"] and runs["cell"]["summary"]["maps._type"] == "image-file"


def runset(view):
    (found,) = view["spec"]["section"]["runSets"]
    return found


def test_runs_are_grouped_by_what_cells_are_configured_with(view, runs):
    config = runs["cell"]["config"]
    groups = []
    for key in runset(view)["grouping"]:
        first, value, second = key["name"].split(".")  # W&B keeps {"cell": {"value": {"model": ...}}}
        assert (key["section"], value) == ("config", "value")
        groups.append(config[first][second])
    assert groups == ["resnet18", "lrp_eps", "canonized"]
    assert view["spec"]["section"]["settings"]["maxRuns"] == 500
    pinned = {name.removeprefix("summary:") for name in runset(view)["runFeed"]["columnPinned"]} - {"run:displayName"}
    assert pinned and pinned <= runs["cell"]["summary"].keys()


def test_only_the_runs_of_the_study_are_shown(view, runs):
    (condition,) = runset(view)["filters"]["filters"]
    assert condition["key"] == {"section": "run", "name": "group"}
    assert condition["op"] in ("=", "==") and not condition.get("disabled")
    for run in runs.values():
        assert condition["value"] == run["run_group"] == "small"
    everything = json.loads(spec(build_workspace("me")))
    assert runset(everything)["filters"]["filters"] == []


def test_the_package_reads_it_back():
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    text = spec(build_workspace("me", "mine", "paper", "name"))
    view = View.model_validate_json(text)
    assert (view.entity, view.project, view.display_name) == ("me", "mine", "name")
    assert json.loads(spec(Workspace._from_model(view))) == json.loads(text)


def test_a_dry_run_needs_no_key_and_no_server(no_key, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workspace, "save", None)
    path = tmp_path / "view.json"
    assert main(["--entity", "me", "--project", "mine", "--study", "paper", "--dry-run", str(path)]) == 0
    view = json.loads(path.read_text())
    assert (view["entity"], view["project"], view["displayName"]) == ("me", "mine", "Canonization: paper")
    assert capsys.readouterr() == ("", "")
    assert main(["--entity", "me", "--dry-run", str(tmp_path / "no" / "view.json")]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 2]")


def mistake(capsys, *arguments):
    assert main(["--entity", "me", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_without_a_key_nothing_is_asked(no_key, capsys, monkeypatch):
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", None)
    assert "error: WANDB_API_KEY: expected a key for http" in mistake(capsys)


def test_what_the_server_says_is_told_in_one_line(no_key, capsys, monkeypatch):
    def save(workspace):
        raise ValueError("no such\nproject")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", save)
    told = mistake(capsys)
    assert told.endswith("to save it, got ValueError: no such project\n") and KEY not in told


def test_the_address_of_what_was_saved_is_printed(no_key, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", lambda workspace: workspace)
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.url", "https://server/me/canonxai?nw=1")
    assert main(["--entity", "me"]) == 0
    assert capsys.readouterr().out == "https://server/me/canonxai?nw=1\n"


def test_without_the_package_the_line_says_how_to_install_it(no_key, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "wandb_workspaces.workspaces", raising=False)
    assert mistake(capsys).endswith("pip install 'canonxai[workspaces]'\n")


@pytest.mark.parametrize("options", [["--study", "a'b"], ["--study", "a\\b"], ["--name", "\N{GRINNING FACE}"]])
def test_names_that_cannot_be_are_refused(options, no_key, capsys):
    assert "expected" in mistake(capsys, *options, "--dry-run", "never.json")
    assert not Path("never.json").exists()


def test_a_full_error_can_be_asked_for(no_key, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError):
        main(["--entity", "me"])


def log_its_report(cell, folder):
    from canonxai.report.cells import read_study
    from canonxai.report.claims import read_claims
    from canonxai.report.comparison import Statistics
    from canonxai.report.report import Report
    from canonxai.report.wandb import log_report

    folder.mkdir()
    (folder / "report.html").write_text("<html></html>")
    log_report(Report(read_study([cell]), Statistics(), read_claims("icip2022")), folder)


if __name__ == "__main__":
    log_its_report(*map(Path, sys.argv[1:]))
