"""The command line as a process: what it prints, where it writes, how it fails."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from canonxai.cli import message
from canonxai.config import CONF
from canonxai.errors import UserError
from canonxai.results.store import Store

TINY = ("data.size=2", "trainer=cpu", "metric=[localization]")


def folders(path):
    """The folders of cells."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name != "report")


def test_one_cell_ends_with_a_table_and_the_folder(cli, tmp_path):
    done = cli("method=lrp_eps", "model=resnet18", "canonize=true", "data.size=3", "trainer=cpu", "logger=csv")
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path / "multirun" / "default")
    assert re.fullmatch(r"scenes-resnet18-lrp_eps-canonized-[0-9a-f]{8}", folder.name)
    assert f"results: {folder}" in done.stdout
    assert re.search(r"localization +│ +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \(3\)", done.stdout)
    assert "3/3" in done.stdout
    assert "warn" not in (done.stdout + done.stderr).lower(), done.stderr
    log = (folder / "canonxai.log").read_text()
    assert "rules: " in log
    assert "localization/all" in (folder / "metrics.csv").read_text()


def test_a_multirun_makes_a_folder_a_cell_and_goes_on_after_a_failure(cli, tmp_path):
    done = cli("-m", "method=gradient,lrp_eps", "canonize=true,false", "model.checkpoint=null,missing", *TINY)
    assert done.returncode == 1
    cells = folders(tmp_path / "multirun" / "default")
    assert len(cells) == 8
    complete = [cell for cell in cells if (cell / "samples.parquet").exists()]
    assert len({cell.name.rpartition("-")[0] for cell in complete}) == len(complete) == 4
    assert "Traceback" not in done.stderr
    assert done.stderr.count("model.checkpoint: expected a file, got 'missing', which does not exist.") >= 4


def test_a_multirun_without_failures_ends_with_zero(cli, tmp_path):
    done = cli("-m", "canonizer.parts=[],[merge_bn],[sum]", "canonize=true", "study=mine", *TINY)
    assert done.returncode == 0, done.stderr
    names = [cell.name.split("-")[3] for cell in folders(tmp_path / "multirun" / "mine")]
    assert names == ["merge_bn", "no_parts", "sum"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["method=foo"], "method: expected one of deconvnet, ebp, .*smoothgrad, got 'foo'"),
        (["model=foo"], "model: expected one of custom, .*resnet18, .*vgg16_bn, .*got 'foo'"),
        (["metric=[localisation]"], "metric: expected one of .*distance, .*localization, .*, got"),
        (["method.epsilonn=1"], "method.epsilonn: Key 'epsilonn' is not in struct"),
        (["sead=1"], "sead: Key 'sead' not in 'Config'"),
        (["canonize=banana"], "canonize: expected true or false, got 'banana'. See --cfg job for all keys"),
        (["method.epsilon=abc"], "method.epsilon: expected a number, got 'abc'."),
        (["study=../../elsewhere"], "study: expected a name, no path, got '../../elsewhere'."),
        (["-m", "study=.."], "study: expected a name, no path, got '..'."),
        (["seed=1.5"], "seed: expected an integer, got '1.5'."),
        (["target=best"], r"target: Invalid value 'best', expected one of \[label, predicted\]"),
        (["seed=-1"], r"seed: expected an integer >= 0, < 2\^63, got -1"),
        (["seed=99999999999999999999"], r"seed: expected an integer >= 0, < 2\^63, got 9+"),
        (["method.zero_params=bias"], r"method.zero_params: .*Write a list as method.zero_params=\[bias\]"),
        (["method.epsilon=inf"], "method.epsilon: expected a number > 0, got inf"),
        (["precision=16"], "precision: expected one of 32, 64, got 16"),
        (["save_maps=-1"], "save_maps: expected an integer >= 0, got -1"),
        (["metric=[]"], "metric: expected at least one metric"),
        (["method.epsilon=-1"], "method.epsilon: expected a number > 0, got -1.0"),
        (
            ["metric.input_perturbation.fraction=2"],
            r"metric.input_perturbation.fraction: expected a number in \(0, 1\], got 2.0",
        ),
        (["metric.input_perturbation.steps=0"], "metric.input_perturbation.steps: expected an integer >= 1, got 0"),
        (["data.size=0"], "data.size: expected an integer >= 1, got 0"),
        (["model.checkpoint=nowhere.pt"], "model.checkpoint: expected a file, got 'nowhere.pt'"),
        *(([f"model.checkpoint={path}"], f"got '{Path.home()}/no.pt'") for path in ("~/no.pt", '"~/no.pt"')),
        (["data=imagenet"], "data.root: expected a folder, got None. Give data.root=PATH"),
        (
            ["data=imagenet", "data.root=~/nowhere"],
            f"data.root: expected an existing folder, got '{Path.home()}/nowhere'",
        ),
        (["hydra.run.dir=/proc/nowhere"], "/proc/nowhere"),
        (["no_equal_sign"], "missing EQUAL"),
        (["allow_targets=mine.A"], "allow_targets: .* is not a ListConfig"),
        (["model=custom", "model.net._target_=my.Net"], r"model.net._target_: .*trust it, add 'allow_targets=\[my.Net"),
        (
            ["model=custom", "model.net._target_=canonxai.cli.Net", "allow_targets=[canonxai.cli.Net]"],
            "model.net._target_: .*got 'canonxai.cli.Net' .No mod",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(main, capfd, arguments, expected):
    with pytest.raises(SystemExit) as exit:
        main(*arguments)
    assert exit.value.code == 1
    output = "".join(capfd.readouterr())
    lines = [line for line in output.splitlines() if re.search("error", line, re.IGNORECASE)]
    assert len(lines) == 1, output
    assert re.search(expected, lines[0]), lines[0]
    assert "Traceback" not in output


def test_the_traceback_can_be_had(cli):
    done = cli("method.epsilon=-1", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UserError: method.epsilon: expected a number > 0, got -1.0." in done.stderr


def test_any_error_becomes_one_line():
    assert message(UserError("a\n  b")) == "a b"
    assert message(OSError(28, "No space left on device", "x")) == "[Errno 28] No space left on device: 'x'"


def test_help_has_a_line_for_each_option_of_each_group(cli):
    done = cli("--help")
    assert done.returncode == 0
    for path in CONF.rglob("*.yaml"):
        if path.parent not in (CONF, CONF / "hydra" / "help", CONF / "claims", CONF / "sweep"):
            assert re.search(rf"^  {path.stem} +\S", done.stdout, re.MULTILINE), path


def test_a_full_disk_stops_the_run_with_one_line_and_keeps_what_was_written(tmp_path, main, monkeypatch):
    """A limit on the size of a file, which only the picture exceeds, stands for a disk that fills up."""
    cell = ["data.size=4", "data.batch_size=1", "trainer=cpu", "metric=[localization]"]
    done = subprocess.run(
        [sys.executable, "-m", "canonxai", *cell],
        cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )  # fmt: skip
    assert done.returncode == 1
    (folder,) = folders(tmp_path / "multirun" / "default")
    errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert f"folder: expected to write to '{folder}'" in errors[0]
    assert "Traceback" not in done.stderr
    parts = [pq.read_table(path) for path in sorted((folder / "parts").glob("*.parquet"))]
    assert [part["sample_id"].to_pylist() for part in parts] == [[0], [1], [2], [3]]
    monkeypatch.setattr(Store, "write", None)  # nothing is computed again
    main(*cell)
    assert pq.read_table(folder / "samples.parquet")["sample_id"].to_pylist() == [0, 1, 2, 3]
    assert (folder / "maps.png").stat().st_size > 40_000


def test_one_cell_of_an_experiment_says_that_there_are_more(cli):
    assert "for all add -m" in cli("experiment=paper", "save_maps=0", *TINY).stderr
    assert "for all add -m" not in cli("save_maps=0", *TINY).stderr
