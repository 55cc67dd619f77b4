"""Loggers: what they are told, and that none of them stops, delays or betrays a run.

Those that start Weights & Biases do so in a process of their own, which is this file as a program.
"""

import csv
import io
import json
import logging
import os
import pty
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image
from pytorch_lightning.loggers import CSVLogger

from canonxai.errors import UserError
from canonxai.results.loggers import Cell, close, csv_logger, has_key, log_results, no_logger, scalars, wandb_logger

KEY = "a1" * 20
MEAN = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 9, "undefined": 1}
NONE = {"mean": None, "low": None, "high": None, "n": 0, "undefined": 2}
SUMMARY = {
    "images": 10,
    "accuracy": 0.875,
    "probability": 0.625,
    "relevance": {"mean_total": 1.5, "max_abs": 20.0},
    "metrics": {"localization": {"higher_is_better": True, "strata": {"all": MEAN, "box < 25 %": NONE}}},
    "curves": {"perturbation_curve": {"axis": [0.0, 0.125, 0.25], "mean": [0.75, 0.5, 0.375]}},
}
FIGURES = {
    "images": 10.0,
    "accuracy": 0.875,
    "probability": 0.625,
    "relevance/mean_total": 1.5,
    "relevance/max_abs": 20.0,
    "localization/all": 0.5,
    "localization/all/low": 0.25,
    "localization/all/high": 0.75,
    "localization/all/n": 9.0,
    "localization/all/undefined": 1.0,
    "localization/box < 25 %/n": 0.0,
    "localization/box < 25 %/undefined": 2.0,
}
CELLS = ("done", "left_open", "failed")
SETTINGS = {"seed": 3, "data": {"name": "scenes", "size": 10}}


def cell(folder):
    folder.mkdir(parents=True)
    Image.linear_gradient("L").save(folder / "maps.png")
    return Cell("paper", folder.name, folder, SETTINGS, ("resnet18", "lrp_eps", "canonized"))


def log_cells(folder, *names):
    """Cells one after another; that named ``left_open`` leaves its logger open, that named ``failed`` fails."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for name in names:
        started = cell(folder / name)
        logger = wandb_logger(started, mode="auto", timeout=2)
        log_results(logger, started, SUMMARY)
        if name != "left_open":
            close(logger, failed=name == "failed")


def program(folder, *names, **environment):
    """Logs cells of these names at a terminal, where Weights & Biases can prompt, without any settings of the user."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    home = {"HOME": str(folder / "home"), "NETRC": str(folder / "home" / ".netrc"), "TMPDIR": str(folder)}
    command = [sys.executable, __file__, str(folder / "cells"), *names]
    terminal, side = pty.openpty()
    streams = dict.fromkeys(["stdin", "stdout", "stderr"], side)
    try:
        subprocess.run(command, env=inherited | home | environment, **streams, timeout=120, check=True)
        return " ".join(os.read(terminal, 1 << 16).decode().split())
    finally:
        os.close(side)
        os.close(terminal)


@cache
def records(run):
    """What a run's log holds, by kind of record, as Weights & Biases itself reads it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    found = {}
    for record in map(json.loads, lines):
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What a machine without a key says, and the folder of its cells."""
    folder = tmp_path_factory.mktemp("offline")
    return program(folder, *CELLS), folder / "cells"


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory):
    """The same for a key of a server that is not there."""
    folder = tmp_path_factory.mktemp("unreachable")
    return program(folder, "done", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9"), folder / "cells"


def run_of(folder):
    (run,) = (folder / "wandb").glob("offline-run-*")
    return run


def test_without_a_key_runs_are_offline_and_the_log_says_how_to_upload_them(offline):
    text, folder = offline
    for name in CELLS:
        assert f"to upload this run later: wandb sync {run_of(folder / name)}" in text
        assert [path.name for path in (folder / name / "wandb").glob("run-*")] == []
    assert "WARNING" not in text


def test_the_run_knows_its_study_cell_and_settings(offline):
    for name in ("done", "left_open"):
        (run, *_) = records(run_of(offline[1] / name))["run"]
        assert (run["project"], run["run_group"], run["job_type"]) == ("canonxai", "paper", "cell")
        assert run["display_name"] == name
        assert run["tags"] == ["resnet18", "lrp_eps", "canonized"]
        assert SETTINGS.items() <= run["config"]["update"].items()
        assert run["config"]["update"]["cell"] == {"model": "resnet18", "method": "lrp_eps", "state": "canonized"}


def test_two_cells_of_one_process_are_two_runs_and_each_is_ended(offline):
    cells = [records(run_of(offline[1] / name)) for name in CELLS]
    assert len({found["run"][0]["run_id"] for found in cells}) == 3
    assert [found["exit"][0]["exit_code"] for found in cells] == [0, 0, 1]


def summary_of(run):
    return {key: value for record in records(run)["summary"] for key, value in record["update"].items()}


def test_the_run_has_the_figures_of_the_summary(offline):
    assert FIGURES.items() <= summary_of(run_of(offline[1] / "done")).items()


def test_the_run_has_the_curve_as_a_table_and_the_picture_of_the_maps(offline):
    folder = offline[1] / "done"
    media, summary = run_of(folder) / "files" / "media", summary_of(run_of(folder))
    (table,), (image,) = media.glob("table/perturbation_curve*.json"), media.glob("images/maps*.png")
    assert json.loads(table.read_text())["data"] == [[0.0, 0.75], [0.125, 0.5], [0.25, 0.375]]
    assert json.loads(table.read_text())["columns"] == ["fraction", "f"]
    with Image.open(image) as logged, Image.open(folder / "maps.png") as written:
        assert logged.tobytes() == written.tobytes()
    assert summary["perturbation_curve_table._type"] == "table-file"
    assert summary["maps._type"] == "image-file"


def test_where_the_server_does_not_answer_runs_go_offline_with_all_their_figures(unreachable):
    text, folder = unreachable
    assert "WARNING W&B: could not go online within 2 s" in text
    assert f"to upload this run later: wandb sync {run_of(folder / 'done')}" in text
    assert FIGURES.items() <= summary_of(run_of(folder / "done")).items()


def test_a_mode_in_the_environment_is_followed(tmp_path):
    text = program(tmp_path, "done", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_MODE="offline")
    assert "could not go online" not in text
    assert f"wandb sync {run_of(tmp_path / 'cells' / 'done')}" in text


def test_the_key_is_in_no_file(unreachable):
    folder = unreachable[1].parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and any(path.suffix == ".log" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^logger\.mode: expected one of auto, online, offline, got 'on'\.$"):
        wandb_logger(cell(tmp_path / "a"), mode="on")


def test_what_weights_and_biases_refuses_is_told_in_one_line(tmp_path):
    script = (
        "import sys; from pathlib import Path; from canonxai.results.loggers import Cell, wandb_logger\n"
        "folder = Path(sys.argv[1]); folder.mkdir()\n"
        "wandb_logger(Cell('s', 'c', folder, {}, ()), project=sys.argv[2])"
    )
    for project, environment, message in (
        (
            "a/b",
            {},
            "canonxai.errors.UserError: logger: expected options that W&B takes, got: Invalid project name 'a/b'",
        ),
        (
            "a",
            {"WANDB_BASE_URL": "nonsense"},
            "canonxai.errors.UserError: WANDB_*: expected settings that W&B takes, got: ",
        ),
    ):
        command = [sys.executable, "-c", script, str(tmp_path / project.replace("/", "-")), project]
        told = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
        assert told.returncode == 1
        assert told.stderr.strip().splitlines()[-1].startswith(message)


@pytest.mark.parametrize(
    "netrc, found",
    [
        (None, False),
        ("", False),
        ("machine api.wandb.ai login user password " + KEY, True),
        ("machine api.other.ai login user password " + KEY, False),
        ("no netrc at all", False),
    ],
)
def test_a_key_is_found_in_the_netrc_file_of_its_server(netrc, found, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    assert has_key("https://api.wandb.ai") is found
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key("https://api.wandb.ai")


def test_a_key_is_found_in_the_home_folder(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not has_key("http://localhost:8080")
    (tmp_path / ".netrc").write_text("machine localhost login user password " + KEY)
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key("http://localhost:8080")


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # Lightning's, of a folder that is not empty
def test_the_csv_logger_writes_the_figures_beside_the_results(tmp_path):
    started = cell(tmp_path / "study" / "cell")
    logger = csv_logger(started)
    log_results(logger, started, SUMMARY)
    close(logger)
    (row,) = csv.DictReader(io.StringIO((started.folder / "metrics.csv").read_text()))
    assert {name: float(row[name]) for name in FIGURES} == FIGURES
    assert (started.folder / "maps.png").exists()


def test_figures_that_are_not_defined_are_left_out():
    assert scalars(SUMMARY) == FIGURES


def test_a_logger_that_fails_is_told_and_does_not_stop_the_run(tmp_path, caplog):
    logger = Mock(CSVLogger)
    logger.log_metrics.side_effect = ConnectionError("gone")
    log_results(logger, cell(tmp_path / "a"), SUMMARY)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "ConnectionError: gone" in record.message


def test_no_logger_is_nothing(tmp_path):
    assert no_logger(cell(tmp_path / "a")) is None


if __name__ == "__main__":
    log_cells(Path(sys.argv[1]), *sys.argv[2:])
