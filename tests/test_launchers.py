"""Cells beside each other: by joblib and submitit for real, by SLURM as far as it can be without a cluster."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from canonxai.run import run
from canonxai.targets import ENVIRONMENT, allow
from tests import slurm
from tests.conftest import ROOT
from tests.killed import results
from tests.tiny import CELL

METHODS = ("ixg", "gradient")


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """What the command line allows where these cells are computed in this process."""
    monkeypatch.setenv(ENVIRONMENT, "")
    allow(CELL)


@pytest.fixture
def start(tmp_path):
    """Starts the tiny cell, for two methods, by a launcher."""
    started = []

    def begin(launcher, *overrides, **environment):
        command = [sys.executable, "-m", "canonxai", "-m", *CELL, f"hydra/launcher={launcher}"]
        command += [f"method={','.join(METHODS)}", *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def alone(config, tmp_path, monkeypatch):
    """The results of the cells, each computed in this process."""

    def compute(*overrides):
        found = []
        for method in METHODS:
            run(config(*CELL, *overrides, f"method={method}"), tmp_path / method)
            found.append(results(tmp_path / method))
        return found

    return compute


def found(folder: Path):
    """The results of the cells in a study."""
    return [results(next(folder.glob(f"multirun/default/*-{method}-*"))) for method in METHODS]


def wait_for_parts(folder: Path, process):
    until = time.monotonic() + 120
    while len({path.parent for path in folder.glob("multirun/default/*/parts/part-*")}) < len(METHODS):
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", ["processes", "submitit_local"])
def test_cells_beside_each_other_are_those_computed_alone(start, alone, tmp_path, launcher):
    process = start(launcher)
    printed, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert found(tmp_path) == alone()
    assert (tmp_path / "multirun/default/report/report.html").is_file() and "report: " in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_cells_beside_each_other_after_a_batch_of_each(start, alone, tmp_path, number):
    pause = "+data.pause=0.2"
    process = start("processes", "hydra.launcher.n_jobs=2", pause)
    wait_for_parts(tmp_path, process)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C does
    else:
        process.send_signal(number)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 75, told
    assert told.count("the same command goes on") == 1 and "Traceback" not in told
    assert not list(tmp_path.glob("multirun/default/*/summary.json"))
    process = start("processes", pause)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told
    assert told.count("resume: ") == 2
    assert found(tmp_path) == alone(pause)


def test_a_slurm_job_that_is_preempted_is_queued_again_and_goes_on(start, alone, tmp_path):
    """SLURM's commands stand for themselves; submitit, the signal and the job are real."""
    slurm.install(tmp_path / "bin")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(tmp_path)}
    pause = "+data.pause=0.2"
    process = start("slurm", pause, "hydra.launcher.partition=gpu", **environment)
    wait_for_parts(tmp_path, process)
    jobs = [path for path in Path("/proc").glob("[0-9]*/cmdline") if is_job(path, tmp_path)]
    for job in jobs:
        os.kill(int(job.parent.name), signal.SIGTERM)  # as SLURM does first
        os.kill(int(job.parent.name), signal.SIGUSR2)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told
    assert len(jobs) == 2
    logs = [path.read_text() for path in tmp_path.glob("multirun/default/.submitit/*/*_log.err")]
    assert [("Requeued job" in log or "requeu" in log.lower(), "resume: " in log) for log in logs] == [(True, True)] * 2
    assert found(tmp_path) == alone(pause)
    (script,) = tmp_path.glob("multirun/default/.submitit/*/*.sh")
    asked = script.read_text()
    for flag in ("--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=8", "--signal=USR2@120", "--time=240"):
        assert flag in asked


def is_job(path: Path, folder: Path) -> bool:
    """Whether a process computes cells of a study."""
    try:
        command = path.read_bytes()
    except OSError:
        return False
    return b"submitit.core._submit" in command and str(folder).encode() in command and b"srun" not in command


def test_a_machine_without_slurm_is_told_in_a_line(start):
    process = start("slurm")
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "hydra/launcher: " in told and "srun" in told and "Traceback" not in told


def test_a_launcher_that_is_not_installed_is_named_with_what_to_do(cli):
    done = cli("-m", "hydra/launcher=nope", "method=ixg,gradient")
    assert done.returncode == 1
    assert "expected one of processes, ray_cluster, slurm, or that of an installed plugin" in done.stderr
    assert "pip install 'canonxai[slurm]'" in done.stderr


@pytest.mark.parametrize("text", [
    "launcher: {setup: [touch owned]}", "launcher: {additional_parameters: {wrap: touch owned}}",
])  # fmt: skip
def test_a_config_of_a_stranger_gives_a_launcher_no_commands(cli, tmp_path, text):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/evil.yaml").write_text(
        f"# @package _global_\ndefaults: [override /hydra/launcher: submitit_slurm]\nhydra: {{{text}}}\n"
    )
    done = cli("-m", f"--config-dir={tmp_path}", "experiment=evil", "method=ixg,gradient")
    assert done.returncode == 1
    assert "hydra.launcher." in done.stderr and "command line" in done.stderr


def test_presets_are_told_with_their_line_in_the_help(cli):
    told = cli("--help").stdout
    for name in ("processes", "slurm", "ray_cluster"):
        line = next(line for line in told.splitlines() if line.strip().startswith(name))
        assert len(line.split()) > 4


def test_every_preset_is_yaml_with_a_base():
    for path in (ROOT / "conf/hydra/launcher").glob("*.yaml"):
        assert OmegaConf.load(path).defaults[1] == "_self_"
