"""The benchmarks: ways take turns, differences are told, and each benchmark runs; never how long anything takes."""

import dataclasses
import doctest
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import quantus
import torch

from benchmarks import attribution, harness, metrics, networks, perturbation, processes
from benchmarks.__main__ import NAMES
from benchmarks.harness import Result, Settings, Target, agree, speedup, turns
from benchmarks.parts import NETWORK, Parts
from canonxai.config import CONF
from tests.conftest import ROOT


def settings(tmp_path, quick=True):
    return Settings(quick, torch.device("cpu"), tmp_path)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


def test_doctests():
    assert doctest.testmod(harness).failed == 0


def test_ways_take_turns_forwards_and_backwards_and_the_first_round_does_not_count():
    clock, order = Clock(), []

    def way(name, first, others):
        def run():
            clock.passes(others if name in order else first)
            order.append(name)
            return name.upper()

        return run

    seconds, results = turns({"a": way("a", 100, 1), "b": way("b", 100, 2)}, 3, clock)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [1, 1, 1], "b": [2, 2, 2]}
    assert results == {"a": "A", "b": "B"}


def test_speedup_is_the_median_ratio_within_each_repeat():
    seconds = {"fast": [1.0, 10.0, 3.0], "slow": [2.0, 30.0, 12.0]}
    assert speedup(seconds, "fast", "slow") == 3
    assert speedup(seconds, "slow", "fast") == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [1.1, float("nan"), float("inf")])
def test_results_that_differ_are_told(value):
    results = {"first": torch.tensor([-1.0, 2.0]), "second": torch.tensor([-1.0, 2.0 - 1e-9])}
    assert agree("maps", results, 1e-6)["second"] < 1e-6
    with pytest.raises(RuntimeError, match=r"^maps: third differs from first by \S+, more than 1e-06"):
        agree("maps", results | {"third": torch.tensor([-1.0, value])}, 1e-6)


@pytest.mark.parametrize(
    ("value", "comparison", "met"), [(1.4, ">=", True), (1.39, ">=", False), (1.4, "<=", True), (1.41, "<=", False)]
)
def test_a_target_is_met_or_missed(value, comparison, met):
    assert Target("speed", value, comparison, 1.4).met is met


def test_a_result_is_written_by_device(tmp_path):
    result = Result("title", [{"way": "a", "rate": 1.0}], [Target("rate", 1.0, ">=", 2)])
    path = harness.write("speed", result, settings(tmp_path))
    assert path.parent.parent == tmp_path and path.name == "speed.json"
    content = json.loads(path.read_text())
    assert content["targets"] == [{"what": "rate", "value": 1.0, "comparison": ">=", "limit": 2, "met": False}]


def test_a_part_within_another_does_not_count_for_the_outer_one():
    clock = Clock()
    parts = Parts(clock)
    clock.passes(100)  # before anything is watched
    with parts.part("outer"):
        clock.passes(1)
        with parts.part(NETWORK):
            clock.passes(2)
            with parts.part("inner"), parts.part(NETWORK), parts.part(NETWORK):
                clock.passes(4)
            clock.passes(8)
        with parts.part("inner"):
            clock.passes(16)
        clock.passes(32)
    clock.passes(100)
    expected = {("outer", False): 33, ("outer", True): 10, ("inner", True): 4, ("inner", False): 16}
    assert {key: value for key, value in parts.seconds.items() if value} == expected


def test_a_watched_call_is_a_part_once_and_returns_what_it_did():
    class Owner:
        def double(self, value):
            clock.passes(1)
            return 2 * value

    clock = Clock()
    parts = Parts(clock)
    parts.watch(Owner, "double", "doubling")
    parts.watch(Owner, "double", "again")
    assert Owner().double(3) == 6
    assert dict(parts.seconds) == {("doubling", False): 1}


def test_peak_memory_is_that_of_the_process_alone(tmp_path):
    held = np.ones(300_000_000 // 8)  # what a child inherits must not be taken for its own
    (tmp_path / "little.py").write_text("")
    (tmp_path / "much.py").write_text("x = b'1' * 100_000_000")
    little, much = (processes.measured(name, [], tmp_path, PYTHONPATH=str(tmp_path)) for name in ("little", "much"))
    assert held.nbytes > 299e6 and little.megabytes < 60
    assert 80 < much.megabytes - little.megabytes < 120


def test_a_process_that_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ValueError: it is wrong"):
        (tmp_path / "wrong.py").write_text("raise ValueError('it is wrong')")
        processes.measured("wrong", [], tmp_path, PYTHONPATH=str(tmp_path))


@pytest.fixture
def embedded():
    return networks.networks(quick=True)[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["pixel_flipping", "plain_loop"])
def test_perturbation_refuses_to_compare_different_work(way, embedded, tmp_path, monkeypatch):
    """The other way gets other noise, and the times are not told."""
    other = getattr(perturbation, way)
    changed = lambda model, batch, maps, noise, work: other(model, batch, maps, noise.flip(0), work)  # noqa: E731
    monkeypatch.setattr(perturbation, way, changed)
    work = perturbation.Work(images=2, steps=2, batch_size=3, repeats=1)
    with pytest.raises(RuntimeError, match=r"^resnet18, 64 x 64: (quantus|loop) differs from canonxai by"):
        perturbation.measure(embedded, work, settings(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("way", "name"), [("plain_loop", "gbp"), ("with_captum", "ig")])
def test_attribution_refuses_to_compare_different_maps(way, name, embedded, tmp_path, monkeypatch):
    other = getattr(attribution, way)
    wrong = {"plain_loop": "gradient", "with_captum": "ixg"}[way]
    monkeypatch.setattr(attribution, way, lambda model, name, *rest: other(model, wrong, *rest))
    with pytest.raises(RuntimeError, match=rf"^resnet18, 64 x 64, {name}: canonxai differs from (zennit|captum) by"):
        attribution.measure(embedded, embedded.build().requires_grad_(False), name, settings(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("column", ["localization", "region_perturbation_morf_curve", "complexity"])
def test_metrics_refuses_to_compare_different_scores(column, embedded, tmp_path):
    batch = metrics.explained(embedded.build().requires_grad_(False), 2, 64, settings(tmp_path))
    (case,) = (case for case in metrics.cases(64, 41, 2) if case.column == column)
    metrics.measure(case, batch, settings(tmp_path))
    other = dataclasses.replace(case, theirs=(lambda: quantus.Sparseness(normalise=False),))
    with pytest.raises(RuntimeError, match=r"^\w+: canonxai differs from quantus by|must match"):
        metrics.measure(other, batch, settings(tmp_path))


def test_every_metric_of_canonxai_is_measured_or_told_why_not():
    measured = {case.column for case in metrics.cases(64, 41, 2)}
    shipped = {path.stem for path in (CONF / "metric").glob("*.yaml")} - {"followup", "quantus"}
    renamed = {"max_sensitivity": "sensitivity"}
    assert {renamed.get(name, name.removesuffix("_morf_curve")) for name in measured} | set(
        metrics.NOT_MEASURED
    ) == shipped


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All benchmarks in one process, as little as shows that they run; they fail if results differ."""
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = {path.stem: path.read_text() for path in folder.glob("*/*.json")}
    assert not any(str(path) in text for path in (ROOT, sys.prefix, folder.parent) for text in texts.values())
    return {name: json.loads(text) for name, text in texts.items()}, done.stdout


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("perturbation", {"floor", "canonxai", "quantus", "loop", "of floor", "x Quantus", "x loop"}),
        ("attribution", {"method", "canonxai", "zennit", "captum", "x zennit", "x captum"}),
        ("metrics", {"metric", "canonxai", "quantus", "x Quantus", "results"}),
        ("grid", {"images/s", "GFLOP/image", "of peak", "hours"}),
        ("cell", {"share of", "embedded study"}),
        ("growth", {"run", "seconds", "peak MB", "of base"}),
        ("load", {"run", "seconds", "megabytes"}),
        ("devices", {"processes", "times one"}),
        ("loading", {"way", "images/s per core", "relative"}),
    ],
)
def test_each_benchmark_runs_and_tells_what_on(name, keys, results):
    contents, output = results
    assert set(contents) == set(NAMES)
    content = contents[name]
    assert content["benchmark"] == name and content["quick"]
    assert {"machine", "versions", "title", "rows", "targets", "details"} <= set(content)
    assert {"device", "processor", "threads"} <= set(content["machine"])
    assert {"torch", "quantus", "zennit", "captum"} <= set(content["versions"])
    assert all(keys <= set(row) for row in content["rows"])
    assert content["title"] in output
    for target in content["targets"]:
        assert target["what"] in output.replace("\n", " ")


def test_the_shares_of_a_run_are_whole(results):
    rows = results[0]["cell"]["rows"]
    shares = {row["share of"]: row["embedded study"] for row in rows}
    assert sum(list(shares.values())[:-2]) == pytest.approx(1)
    expected = {
        "attribution: network",
        "perturbation: network",
        "perturbation",
        "loading",
        "metrics",
        "writing",
        "report",
    }
    assert all(shares[part] > 0 for part in expected)
