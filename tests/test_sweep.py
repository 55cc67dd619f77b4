"""The sweeps of Weights & Biases: that its agent's commands are the cells of the experiments, and that they run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb import wandb_agent

from canonxai.config import CONF, cell_name
from canonxai.report.cells import read_study
from canonxai.run import run
from canonxai.targets import ENVIRONMENT, allow
from tests.conftest import ROOT

SWEEPS = {"paper": 52, "parts": 20}


def sweep_config(name):
    return yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())


def grid(name):
    """The points that the server hands to agents, each a value of every parameter."""
    parameters = sweep_config(name)["parameters"]
    for values in product(*(parameter["values"] for parameter in parameters.values())):
        yield {key: {"value": value} for key, value in zip(parameters, values, strict=True)}


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """What the agent starts for a point of a sweep: its own code up to the process, which is not started."""
    started = []

    class Process:
        def __init__(self, command, env, **options):
            started.append((command, env))

    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SWEEP_ID", "WANDB_DIR"):
        monkeypatch.setenv(name, "abc123")  # so that what the agent sets is undone
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    monkeypatch.chdir(tmp_path)

    def start(name, point):
        config = sweep_config(name)
        one = wandb_agent.Agent.__new__(wandb_agent.Agent)
        one._sweep_command, one._run_processes = config["command"], {}
        one._function = one._in_jupyter = one._forward_signals = None
        one._command_run({"run_id": "run42", "program": config["program"], "args": point})
        return started.pop()

    return start


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_has_the_cells_of_its_experiment(name, agent, config):
    sweep = {}
    for point in grid(name):
        command, _ = agent(name, point)
        assert command[:4] == ["/usr/bin/env", "python", "-m", "canonxai"]
        cfg = config(*command[4:])
        assert cfg.study == name and cfg.logger["_target_"] == "canonxai.results.loggers.wandb_logger"
        sweep[cell_name(cfg)] = command
    experiment = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    parser = OverridesParser.create()
    axes = [
        list(parser.parse_override(f"{key}={' '.join(str(value).split())}").sweep_string_iterator())
        for key, value in experiment["hydra"]["sweeper"]["params"].items()
    ]
    keys = list(experiment["hydra"]["sweeper"]["params"])
    cells = {cell_name(config(f"experiment={name}", *map("{}={}".format, keys, values))) for values in product(*axes)}
    assert set(sweep) == cells and len(cells) == len(list(grid(name))) == SWEEPS[name]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_a_grid_of_values_only(name):
    """Nothing that the agent writes in another way than Hydra reads it: null as None, lists with quotes."""
    content = sweep_config(name)
    assert (content["method"], content["program"], content["project"]) == ("grid", "canonxai", "canonxai")
    for parameter in content["parameters"].values():
        assert set(parameter) == {"values"} and all(isinstance(value, str | bool) for value in parameter["values"])


def test_every_file_of_a_sweep_is_tested():
    assert {path.stem for path in (CONF / "sweep").iterdir()} == set(SWEEPS)


def test_a_command_of_the_agent_runs_and_its_run_keeps_the_point(agent, tmp_path):
    point = {"model": {"value": "resnet18"}, "method": {"value": "ixg"}, "canonize": {"value": True}}
    assert point in list(grid("paper"))
    command, environment = agent("paper", point)
    small = ["data.size=4", "logger.mode=offline", "save_maps=2", "metric.input_perturbation.steps=2"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    told = subprocess.run(
        [*command, *small],
        env=environment | {"HOME": str(tmp_path / "home"), "PATH": path},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    (folder,) = (tmp_path / "multirun" / "paper").glob("scenes-resnet18-ixg-canonized-*")
    assert json.loads((folder / "summary.json").read_text())["images"] == 4
    (run,) = (folder / "wandb").glob("offline-run-*-run42")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    (record,) = (record["run"] for record in records if record["type"] == "run")
    assert (record["run_id"], record["sweep_id"], record["run_group"]) == ("run42", "abc123", "paper")
    config = record["config"]["update"]
    for later in (record["config"]["update"] for record in records if record["type"] == "config"):
        config |= later
    # what the server looks for to know which points of the grid are done
    assert {key: {"value": config[key]} for key in point} == point
    # and what workspaces group by, in a sweep and without
    assert config["cell"] == {"model": "resnet18", "method": "ixg", "state": "canonized"}
    assert config["data"]["size"] == 4


#: of each cell: two images cannot be read, and each takes so long to load that the agents meet
TINY = ["data._target_=tests.tiny.Images", "data.size=6", "data.batch_size=2", "trainer=cpu", "save_maps=2"]
TINY += ["metric=[localization,input_perturbation]", "metric.input_perturbation.steps=2"]
ALLOW = "allow_targets=[tests.tiny.Images]"
STARTED_TWICE = "folder: expected no other process at work on this cell, got one"


def test_agents_beside_each_other_on_one_study_do_not_collide(agent, config, tmp_path, monkeypatch):
    """Both are given both points: the first at the very same time, the second when the other may have computed it."""
    points = [
        {"model": {"value": "resnet18"}, "method": {"value": "ixg"}, "canonize": {"value": c}} for c in (True, False)
    ]
    commands = [agent("paper", point) for point in points]
    small = [*TINY, "+data.pause=0.4", "logger.mode=offline", ALLOW]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def work(number):
        """One agent: a point after the other, whatever becomes of each."""
        own = {"HOME": str(tmp_path / "home"), "PATH": path, "PYTHONPATH": str(ROOT), "WANDB_RUN_ID": f"run{number}"}
        ended = []
        for command, environment in commands:
            ended.append(
                subprocess.run(
                    [*command, *small],
                    env=environment | own,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
            )
        return ended

    with ThreadPoolExecutor() as pool:
        for ended in pool.map(work, range(2)):
            for done in ended:
                assert done.returncode == 0 or (done.returncode == 1 and STARTED_TWICE in done.stderr), done.stderr
                assert "Traceback" not in done.stderr
    study = read_study([tmp_path / "multirun" / "paper"])
    assert study.problems == [] and [len(pair.sample_id) for pair in study.pairs] == [4]
    assert sorted(cell.state for cell in study.cells) == ["canonized", "original"]
    monkeypatch.setenv(ENVIRONMENT, "")
    allow([ALLOW])
    for cell in study.cells:
        canonize = f"canonize={str(not cell.is_original).lower()}"
        run(config("experiment=paper", "model=resnet18", "method=ixg", canonize, *TINY), tmp_path / cell.state)
        alone = (tmp_path / cell.state / "samples.parquet").read_bytes()
        assert (cell.folder / "samples.parquet").read_bytes() == alone
