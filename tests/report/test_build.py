"""The report as a user gets it: by its own command, and at the end of a multirun."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from canonxai.report.__main__ import main as report
from canonxai.report.build import build_report, print_report
from tests.report.study import METHODS, MODELS, write_cell, write_study

FILES = {
    "report.html", "figures", "results.parquet", "results.csv", "results.tex", "comparison.parquet", "comparison.csv",
    "comparison.tex", "comparison.md", "claims.parquet", "claims.csv", "claims.tex",
    *(f"reliability_{name}.{kind}" for name in ("floor", "agreement", "variance") for kind in ("parquet", "csv")),
}  # fmt: skip
MULTIRUN = ("-m", "method=gradient,lrp_eps", "canonize=true,false", "data.size=8", "trainer=cpu", "save_maps=2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return folder


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_the_command_writes_tables_figures_and_page(study, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "canonxai.report", str(study), "--output", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert files(tmp_path / "out") == FILES
    assert f"report: {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "Traceback" not in done.stdout and "C1: Gradient" in done.stdout
    pictures = files(tmp_path / "out" / "figures")
    assert {f"{name.rpartition('.')[0]}.pdf" for name in pictures} <= pictures
    assert len(pictures) >= 10


def test_it_lies_beside_the_cells_by_default_and_is_not_taken_for_one(study, capsys):
    for _ in range(2):
        assert report([str(study)]) == 0
        assert files(study / "report") == FILES
    assert f"{len(METHODS) * len(MODELS)} pairs of canonized and original maps" in capsys.readouterr().out


def test_a_name_may_have_dots(tmp_path):
    """As those of timm."""
    for name in ("resnet18.a1_in1k", "resnet18.a2_in1k"):
        for canonize in (True, False):
            values = {"localization": np.linspace(0.2, 0.4, 8) + 0.1 * canonize}
            write_cell(tmp_path / "study", canonize=canonize, values=values, settings={"model.name": name})
    build_report([tmp_path / "study"], tmp_path / "out")
    pictures = files(tmp_path / "out" / "figures")
    for name in ("resnet18.a1_in1k", "resnet18.a2_in1k"):
        scatter = f"scatter-localization-scenes-{name}"
        assert {f"{scatter}.pdf", f"{scatter}.png"} <= pictures
        assert f">{scatter}<" in (tmp_path / "out" / "report.html").read_text()


def test_results_of_two_machines_are_one_study(tmp_path):
    for machine, canonize in (("a", True), ("b", False)):
        write_cell(tmp_path / machine, canonize=canonize, values={"localization": 0.5})
    assert report([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "both")]) == 0
    assert len(pq.read_table(tmp_path / "both" / "comparison.parquet")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "error: folder: expected complete cells in 'empty', got none. Give the folder of a study"),
        (["nowhere"], "error: folder: expected an existing folder, got 'nowhere'."),
        (["study", "--test", "t"], "error: report.test: expected one of wilcoxon, sign_flip, got 't'."),
        (["study", "--resample", "x"], "error: report.resample: expected one of image, class, got 'x'."),
        (["study", "--claims", "x"], "error: report.claims: expected a YAML file or one of icip2022, got 'x'."),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_cell(tmp_path / "study")
    assert report(arguments) == 1
    told = capsys.readouterr()
    assert told.err.startswith(message) and told.err.count("\n") == 1


def test_a_report_that_cannot_be_written_is_told_with_what_to_do(tmp_path, capsys):
    cell = write_cell(tmp_path / "study")
    (tmp_path / "file").write_text("")
    for output, message in (
        (
            tmp_path / "file",
            "error: output: expected to write to '.*file', got: .*. Free space .* --output.\n",
        ),
        (cell, "error: output: expected a folder that is no cell's, got '.*'. Choose another one by --output.\n"),
        (cell / "deep" / "er", "error: output: expected a folder that is no cell's, got .*\n"),
    ):
        before = files(cell)
        assert report([str(tmp_path / "study"), "--output", str(output)]) == 1
        assert re.fullmatch(message, capsys.readouterr().err)
        assert files(cell) == before


def test_a_stranger_s_links_have_nothing_written_elsewhere(study, tmp_path):
    mine, output = tmp_path / "mine.txt", tmp_path / "report"
    mine.write_text("mine")
    names = ["report.html", "results.csv", "results.parquet", "claims.tex", "comparison.md", "figures/localization.png"]
    (output / "figures").mkdir(parents=True)
    for name in names:
        (output / name).symlink_to(mine)
    report([str(study), "--output", str(output)])
    assert mine.read_text() == "mine"
    assert all((output / name).is_file() and not (output / name).is_symlink() for name in names)


@pytest.mark.parametrize("name", ["report", "report/figures"])
def test_a_link_is_no_output(study, tmp_path, capsys, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    assert report([str(study), "--output", str(tmp_path / "report")]) == 1
    assert (
        f"output: expected a folder, as a link may lead anywhere, got ['{tmp_path / name}']" in capsys.readouterr().err
    )
    assert not list((tmp_path / "elsewhere").iterdir())


def test_variants_states_and_data_are_told_apart_in_the_terminal(tmp_path, capsys):
    for seed in (0, 1):
        for canonize, value in ((False, 0.2), (True, 0.3 + 0.1 * seed)):
            values = {"localization": value + np.linspace(0, 0.01, 40)}
            write_cell(tmp_path, canonize=canonize, values=values, settings={"seed": seed})
    assert report([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if "localization" in line and "better" in line and "│" in line]
    assert ["seed=0" in row for row in rows] == [True, False] and ["seed=1" in row for row in rows] == [False, True]
    assert "on resnet18, data.seed=1, seed=1, 0.205 → 0.405" in " ".join(told.split())


def test_the_table_is_wide_where_there_is_no_terminal(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    made = build_report([study], study / "report")
    print_report(made, study / "report")
    rows = [
        line for line in capsys.readouterr().out.splitlines() if "input_perturbation" in line and "resnet18" in line
    ]
    assert len(rows) == len(METHODS) and all("[" in row for row in rows)


def test_names_that_no_cell_has_are_problems_of_the_report(study, tmp_path, capsys):
    test = "{expect: better, methods: [ebpp], metrics: [localization]}"
    (tmp_path / "c.yaml").write_text(f"title: t\nclaims: {{X: {{text: x, tests: [{test}]}}}}")
    assert report([str(study), "--output", str(tmp_path / "out"), "--claims", str(tmp_path / "c.yaml")]) == 0
    assert "unknown: X: no cell has the method 'ebpp'" in capsys.readouterr().out
    assert "no cell has the method &#39;ebpp&#39;" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_of_original_cells_alone_has_a_report_that_says_so(tmp_path, capsys):
    write_cell(tmp_path, canonize=False)
    assert report([str(tmp_path)]) == 0
    assert "No canonized cell has an original twin: there is nothing to compare." in capsys.readouterr().out
    assert len(pq.read_table(tmp_path / "report" / "results.parquet")) == 3


def test_a_damaged_cell_is_told_and_does_not_stop_the_others(tmp_path, capsys):
    for method in ("gradient", "ebp"):
        for canonize in (True, False):
            damaged = write_cell(tmp_path, method=method, canonize=canonize)
    path = damaged / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert report([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"damaged: {damaged.name}: {path}: not readable" in told
    assert "missing: scenes-resnet18-ebp-original" in told
    assert {row["method"] for row in pq.read_table(tmp_path / "report" / "comparison.parquet").to_pylist()} == {
        "gradient"
    }


def test_a_multirun_ends_with_the_report(cli, tmp_path):
    done = cli(*MULTIRUN, "study=mine", "report.claims=icip2022")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun" / "mine" / "report"
    assert files(folder) == FILES
    assert "report.html" in done.stdout
    assert "2 pairs of canonized and original maps" in done.stdout
    rows = pq.read_table(folder / "comparison.parquet").to_pylist()
    for row in rows:
        (cell,) = (tmp_path / "multirun" / "mine").glob(f"*-{row['method']}-canonized-*")
        summary = json.loads((cell / "summary.json").read_text())
        assert row["canonized"] == summary["metrics"][row["metric"]]["strata"][row["stratum"]]["mean"]


def test_a_multirun_with_failures_has_a_report_of_the_others(cli, tmp_path):
    done = cli(*MULTIRUN, "model.checkpoint=null,missing")
    assert done.returncode == 1
    assert len(pq.read_table(tmp_path / "multirun" / "default" / "report" / "comparison.parquet")) == 12


def test_a_multirun_can_do_without(cli, tmp_path):
    done = cli(*MULTIRUN, "method=gradient", "report=null")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "multirun" / "default" / "report").exists()


def test_a_wrong_claim_file_stops_no_cell(cli, tmp_path):
    done = cli(*MULTIRUN, "method=gradient", "report.claims=nowhere.yaml")
    assert "report: report.claims: expected a YAML file or one of icip2022, got 'nowhere.yaml'." in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "multirun" / "default").glob("*/samples.parquet"))) == 2


def test_a_multirun_that_logs_to_wandb_logs_the_comparison_too(cli, tmp_path):
    home = {name: "" for name in os.environ if name.startswith("WANDB")} | {"HOME": str(tmp_path)}
    done = cli(*MULTIRUN, "method=gradient", "logger=wandb", "logger.mode=offline", **home)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "multirun" / "default" / "report").glob("wandb/offline-run-*"))) == 1
