"""Several methods on one loaded batch: the same cells as separate runs."""

import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest

from canonxai.data.scenes import Scenes
from canonxai.errors import UserError
from canonxai.models.evaluator import Evaluator
from canonxai.report.cells import read_study
from canonxai.run import run_together
from tests.test_targets import EVIL

CELL = ["data.size=6", "data.batch_size=4", "data.num_workers=0", "trainer=cpu", "save_maps=2"]
METRICS = ["metric=[localization,input_perturbation,distance]", "metric.input_perturbation.steps=3"]
METHODS = ["ixg", "lrp_eps", "random"]


@pytest.mark.parametrize("canonize", [True, False])
def test_cells_are_those_of_separate_runs(main, tmp_path, canonize):
    overrides = [*CELL, *METRICS, f"canonize={canonize}"]
    main(*overrides, f"method=[{','.join(METHODS)}]", "study=together")
    for method in METHODS:
        main(*overrides, f"method={method}", "study=alone")
    alone = sorted(path.parent for path in tmp_path.glob("multirun/alone/*/samples.parquet"))
    assert len(alone) == len(METHODS)
    for folder in alone:
        other = tmp_path / "multirun/together" / folder.name
        assert pq.read_table(other / "samples.parquet").equals(pq.read_table(folder / "samples.parquet"))
        for file in ("rules.csv", "maps.png"):
            assert (other / file).read_bytes() == (folder / file).read_bytes()
        summary = json.loads((other / "summary.json").read_text())
        assert (summary["together"], summary["cell"]) == (len(METHODS), folder.name)


def test_a_batch_is_loaded_and_evaluated_unperturbed_once(config, tmp_path, monkeypatch):
    counts = Counter()
    load, forward = Scenes.__getitem__, Evaluator.forward
    monkeypatch.setattr(Scenes, "__getitem__", lambda *a: counts.update(["loaded"]) or load(*a))
    monkeypatch.setattr(Evaluator, "forward", lambda *a: counts.update(["evaluated"]) or forward(*a))
    overrides = [*CELL, "run.resume=false", "metric=[localization]"]
    cells = [(config(*overrides, f"method={method}"), tmp_path / method) for method in ("ixg", "random")]
    run_together(cells[:1])
    alone = dict(counts)
    counts.clear()
    run_together(cells)
    assert counts["evaluated"] == alone["evaluated"]
    assert counts["loaded"] == alone["loaded"] + 1  # the first sample, for the table of rules


def test_a_method_that_gives_no_map_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr("canonxai.attribution.random_map.RandomMap.__call__", lambda *_: None)
    told = r"^method=random: expected a float tensor of shape \(4, channels, 64, 64\), .*Method\), got None\.$"
    with pytest.raises(UserError, match=told):
        run_together([(config(*CELL, "method=random"), tmp_path)])


def test_a_method_that_fails_stops_no_other(config, tmp_path, monkeypatch, caplog):
    def fail(self, query, canonizers=()):
        raise UserError("method: it failed.")

    monkeypatch.setattr("canonxai.attribution.random_map.RandomMap.__call__", fail)
    cells = [(config(*CELL, f"method={method}"), tmp_path / method) for method in ("random", "ixg", "gradient")]
    with pytest.raises(UserError, match="method: expected all to succeed, got errors of 1 of 3"):
        run_together(cells)
    assert "random: method: it failed." in caplog.text
    assert [(tmp_path / name / "summary.json").exists() for name in ("random", "ixg", "gradient")] == [
        False,
        True,
        True,
    ]


def test_an_error_of_someone_s_own_method_stops_no_other(config, tmp_path, monkeypatch):
    def fail(self, query, canonizers=()):
        raise RuntimeError("a bug")

    monkeypatch.setattr("canonxai.attribution.random_map.RandomMap.__call__", fail)
    cells = [(config(*CELL, f"method={method}"), tmp_path / method) for method in ("random", "ixg")]
    with pytest.raises(RuntimeError, match="a bug"):
        run_together(cells)
    assert (tmp_path / "ixg/summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["method=[1,ixg]"], "command line: expected names of options"),
        (["method=[ixg,lrp_eps]", "method.epsilon=1e-3"], "method=ixg, of ixg, lrp_eps: .*'epsilon'"),
    ],
)
def test_mistakes_in_a_list_are_told_in_one_line(main, capfd, arguments, expected):
    with pytest.raises(SystemExit):
        main(*CELL, *arguments)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
    assert re.search(expected, line), line


def test_a_name_that_is_there_twice_counts_once_and_any_folder_can_be_reported(main, tmp_path):
    for canonize in (True, False):
        main(*CELL, "method=[ixg,random,ixg]", f"canonize={canonize}", "hydra.run.dir=out", "metric=[localization]")
    study = read_study([tmp_path / "out"])
    assert len(study.cells) == 4 and len(study.pairs) == 2 and not study.problems


def test_a_sweep_of_lists_ends_with_the_report(main, tmp_path):
    main("-m", *CELL, "method=[ixg,random]", "canonize=true,false", "study=sweep")
    study = read_study([tmp_path / "multirun/sweep"])
    assert len(study.cells) == 4 and len(study.pairs) == 2 and not study.problems
    assert (tmp_path / "multirun/sweep/report/report.html").is_file()


def test_each_target_of_a_list_is_looked_at(cli, tmp_path):
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / "conf/method/evil.yaml").write_text("{name: evil, title: evil, _target_: evil.Evil}")
    done = cli("method=[evil,random]", *CELL, "--config-dir", "conf")
    assert done.returncode == 1 and "method._target_: expected a class" in done.stderr
    assert not (tmp_path / "imported").exists()
