"""A search for parameters: what a trial returns, both states as processes, and what the report shows of them."""

import numpy as np
import pytest
import yaml
from hydra.errors import MissingConfigException
from pyarrow.parquet import read_table

from canonxai.cli import message
from canonxai.config import cell_name, flat
from canonxai.errors import UserError
from canonxai.metrics import Column
from canonxai.objective import check_objective, objective
from canonxai.report.cells import Cell, read_study
from canonxai.report.search import means, on_front, pareto_front
from tests.conftest import ROOT
from tests.tiny import CELL

SUMMARY = {
    "metrics": {
        "up": {"higher_is_better": True, "strata": {"all": {"mean": 0.75}, "box < 50 %": {"mean": 0.1}}},
        "down": {"higher_is_better": False, "strata": {"all": {"mean": 0.25}}},
        "undefined": {"higher_is_better": True, "strata": {"all": {"mean": None}}},
    }
}


@pytest.mark.parametrize(
    ("names", "directions", "expected"),
    [
        (["up"], "maximize", 0.75),
        (["down"], "maximize", -0.25),
        (["up"], "minimize", -0.75),
        (["down"], ["minimize"], 0.25),
        (["up", "down"], ["maximize", "maximize"], [0.75, -0.25]),
        (["down", "up"], ["minimize", "maximize"], [0.25, 0.75]),
    ],
)
def test_objectives_are_means_over_all_images_turned_to_the_sweeps_direction(names, directions, expected):
    assert objective([SUMMARY], names, directions) == expected


@pytest.mark.parametrize(
    ("summaries", "names", "directions", "told"),
    [
        ([SUMMARY, SUMMARY], ["up"], "maximize", "objective: expected one method a trial, got '2'"),
        ([None], ["up"], "maximize", "objective: expected a complete cell, got a shard"),
        ([SUMMARY], ["undefined"], "maximize", "objective: expected a mean of undefined"),
        ([SUMMARY], ["up", "down"], "minimize", r"hydra\.sweeper\.direction: expected a direction of each of 2"),
    ],
)
def test_a_trial_without_objectives_is_told(summaries, names, directions, told):
    with pytest.raises(UserError, match=told):
        objective(summaries, names, directions)


def test_objectives_are_looked_at_before_anything_is_computed():
    columns = {"up": Column("", higher_is_better=True), "none": Column("")}
    check_objective(["up"], columns)
    for name in ("none", "upp"):
        with pytest.raises(UserError, match=rf"^objective: expected columns of .* a direction, up, got '{name}'"):
            check_objective([name], columns)


def test_the_objective_is_no_setting_of_a_cell(config):
    assert cell_name(config("objective=[localization]")) == cell_name(config())


def test_a_front_has_what_no_other_dominates():
    values = np.random.default_rng(0).normal(size=(60, 2)).round(1)  # with equal ones
    expected = [not any((a >= b).all() and (a > b).any() for a in values) for b in values]
    assert pareto_front(values).tolist() == expected and 1 < sum(expected) < 30


class Trial(Cell):
    """A cell of one image for which each metric is defined, if at all."""

    def column(self, name):
        return np.array([self.settings[name], np.nan])


@pytest.mark.parametrize(
    ("is_more_better", "expected"), [(False, [True, True, False, True]), (True, [False, False, False, True])]
)
def test_a_front_heeds_directions_and_leaves_out_what_is_not_defined(is_more_better, expected):
    directions = {"up": {"higher_is_better": True}, "down": {"higher_is_better": is_more_better}}
    down = [1, 2, np.nan, 3]
    trials = [
        Trial(ROOT, {"up": up, "down": value}, {"metrics": directions})
        for up, value in zip([1, 2, 3, 3], down, strict=True)
    ]
    assert on_front(trials, ["up", "down"]).tolist() == expected
    np.testing.assert_array_equal(means(trials, ["down"])[:, 0], down)


def test_the_sweeper_that_is_not_installed_is_told_with_what_to_do():
    error = MissingConfigException("", missing_cfg_file="hydra/sweeper/optuna")
    assert "pip install 'canonxai[optuna]'" in message(error)


@pytest.fixture
def search(cli):
    """Three trials, of which two are drawn at random, for two metrics."""

    def run(*overrides):
        tiny = [override for override in CELL if not override.startswith(("canonize=", "metric=", "method="))]
        sampler = ["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.n_startup_trials=2"]
        return cli("-m", "experiment=search", *tiny, *sampler, *overrides, PYTHONPATH=str(ROOT))

    return run


def test_a_search_in_both_states_and_its_report(search, tmp_path):
    for overrides in (
        ["canonize=true"],
        ["canonize=false", "hydra.sweeper.n_trials=1", "hydra.sweeper.sampler.seed=7"],
        ["canonize=false", "hydra.sweeper.n_trials=2"],
    ):
        done = search(*overrides)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun/search"
    study = read_study([folder])
    assert [cell.state for cell in study.cells].count("canonized") == 3 and len(study.cells) == 6
    assert {problem.kind for problem in study.problems} <= {"note"}
    assert len(study.pairs) == 2  # of the same seed
    assert len({pair.variant for pair in study.pairs}) == 2
    assert all("method.gamma_low=" in pair.variant for pair in study.pairs)
    assert any("2 of 6 have no twin" in problem.reason for problem in study.problems)
    (figure,) = (folder / "report/figures").glob("*.png")
    assert figure.name == "pareto-localization-input_perturbation-scenes-custom-lrp_groups.png"
    results = read_table(folder / "report/results.parquet").to_pylist()
    means = {
        name: {row["cell"]: row["mean"] for row in results if row["metric"] == name and row["stratum"] == "all"}
        for name in ("localization", "input_perturbation")
    }
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())["solutions"]
    paired = [pair.original.name for pair in study.pairs]  # the trials of the last search
    values = np.array([[means[name][cell] for name in means] for cell in paired])
    assert sorted(tuple(one["values"]) for one in found) == sorted(map(tuple, values[pareto_front(values)].tolist()))
    front = read_table(folder / "report/pareto.parquet").to_pylist()
    for state in ("original", "canonized"):
        trials = [cell for cell in study.cells if cell.state == state]
        values = np.array([[means[name][cell.name] for name in means] for cell in trials])
        expected = {trials[place].name for place in np.flatnonzero(pareto_front(values))}
        assert {row["cell"] for row in front if row["state"] == state} == expected
    settings = {cell.name: flat(cell.settings) for cell in study.cells}
    for row in front:
        assert all(row[name] == pytest.approx(mean[row["cell"]]) for name, mean in means.items())
        parameters = {key: value for key, value in row.items() if key.startswith("method.")}
        assert set(parameters) == {f"method.{key}" for key in ("epsilon", "gamma_low", "gamma_middle", "gamma_high")}
        assert parameters == {key: settings[row["cell"]][key] for key in parameters}
    assert len((folder / "report/pareto.csv").read_text().splitlines()) == 1 + len(front)
    done = search("canonize=false", "hydra.sweeper.n_trials=2")
    assert done.stdout.count("complete before") == 2  # the same seed finds the same trials


def test_optunas_own_preset_and_one_objective(search, tmp_path):
    done = search(
        "hydra/sweeper=optuna", "objective=[localization]", "hydra.sweeper.direction=minimize", "canonize=true"
    )
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "multirun/search/optimization_results.yaml").read_text())["best_value"]
    study = read_study([tmp_path / "multirun/search"])
    assert -best == pytest.approx(max(np.nanmean(cell.column("localization")) for cell in study.cells))


def test_an_objective_that_is_no_metric_is_told(search):
    done = search("objective=[localization,distance]", "canonize=true")
    assert done.returncode == 1 and "objective: expected columns of the metrics" in done.stderr
    assert "Traceback" not in done.stderr
