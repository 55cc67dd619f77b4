"""A user's own network, in a module of the user's own, with its checkpoint, its normalisation and its class order."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from canonxai.models import narrow
from canonxai.models.checkpoint import WEIGHTS, load_weights

MODULE = """
from canonxai.models.narrow import resnet18


def build(width: float):
    return resnet18(width=width)
"""
CELL = ["data.size=16", "method=ixg", "metric=localization", "canonizer=resnet", "canonize=true"]


@pytest.fixture
def custom(tmp_path, main, monkeypatch):
    """Runs the network of the embedded benchmark as a user's own, its outputs in the opposite order."""
    network = narrow.resnet18()
    load_weights(network, WEIGHTS / "scenes_resnet18.safetensors")
    backwards = {
        name: value.flip(0) if name.startswith("fc.") else value for name, value in network.state_dict().items()
    }
    torch.save(backwards, tmp_path / "own.pt")
    (tmp_path / "someones_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def run(study, *overrides):
        main(*CELL, f"study={study}", *overrides)
        (cell,) = (tmp_path / "multirun" / study).iterdir()
        summary = json.loads((cell / "summary.json").read_text())
        return summary, pq.read_table(cell / "samples.parquet").to_pydict(), (cell / "canonxai.log").read_text()

    own = [
        "allow_targets=[someones_networks.build]",
        "model=custom",
        "model.net._target_=someones_networks.build",
        "+model.net.width=0.25",
    ]
    return lambda study, *more: run(study, *own, f"model.checkpoint={tmp_path}/own.pt", *more), run


def test_the_order_of_the_outputs_can_be_told(custom):
    own, run = custom
    told, samples, log = own("told", "model.classes=[9,8,7,6,5,4,3,2,1,0]")
    expected, reference, _ = run("reference", "model=resnet18")
    assert told["accuracy"] == expected["accuracy"] > 0.9
    assert samples["localization"] == pytest.approx(reference["localization"], rel=1e-6)
    assert samples["label"] == [9 - label for label in reference["label"]]
    assert "no better than chance" not in log


def test_a_wrong_order_is_noticed(custom):
    own, _ = custom
    summary, _, log = own("silent")
    assert summary["accuracy"] < 0.2
    assert "of the first 16 images, no better than chance" in log


def test_classes_that_the_network_has_not_are_counted(custom):
    own, _ = custom
    names = ["9", "8", "7", "6", "5", "4", "3", "2", "1", "none"]
    summary, samples, _ = own("fewer", f"model.classes=[{','.join(names)}]")
    assert summary["excluded"] == 16 - len(samples["label"]) > 0
    assert 9 not in samples["label"]


def test_the_number_of_outputs_is_checked(custom, capsys):
    own, _ = custom
    with pytest.raises(SystemExit):
        own("short", "model.classes=[0,1,2]")
