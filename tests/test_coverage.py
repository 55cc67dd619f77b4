from pathlib import Path

import pytest
import torch

from canonxai.canonizers import GraphCanonizer
from canonxai.coverage import FAMILIES, HEADER, TIMM, Coverage, main, measure, names, table

#: name: BatchNorms merged left, through a threshold, unused in evaluation mode; sums; gates
SMALL = {
    "vgg11_bn": (8, 0, 0, 0, 0),
    "resnet18": (20, 0, 0, 8, 0),
    "resnext50_32x4d": (53, 0, 0, 16, 0),
    "wide_resnet50_2": (53, 0, 0, 16, 0),
    "densenet121": (59, 1, 0, 0, 0),
    "googlenet": (57, 0, 2, 0, 3),
    "inception_v3": (94, 0, 2, 0, 3),
    "mobilenet_v2": (52, 0, 0, 10, 0),
    "mobilenet_v3_small": (34, 0, 0, 6, 9),
    "mnasnet0_5": (52, 0, 0, 10, 0),
    "shufflenet_v2_x0_5": (56, 0, 0, 0, 0),
    "efficientnet_b0": (49, 0, 0, 9, 16),
    "efficientnet_v2_s": (110, 0, 0, 35, 30),
    "regnet_x_400mf": (71, 0, 0, 22, 0),
    "regnet_y_400mf": (53, 0, 0, 16, 16),
}


DOCUMENTED = (Path(__file__).parent.parent / "docs" / "coverage.md").read_text().splitlines()


def check_exact(coverage: Coverage) -> None:
    """The network's row in the docs has the same counts, and differences of the same order: each machine rounds."""
    assert coverage.logits < 1e-12
    assert coverage.gradient < 1e-11
    assert coverage.restored
    row, *reason = list(table([coverage]))[2:]
    at = next(i for i, line in enumerate(DOCUMENTED) if line.startswith(f"| {coverage.name} |"))
    assert DOCUMENTED[at].split("|")[:11] == row.split("|")[:11]
    assert not reason or DOCUMENTED[at + 1] == reason[0]
    documented, measured = (line.split("|")[11:] for line in (DOCUMENTED[at], row))
    assert all(0.01 < float(documented[i]) / float(measured[i]) < 100 for i in (0, 1))
    assert documented[2] == measured[2]


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_each_family_is_canonized_exactly(name):
    coverage = measure(name, GraphCanonizer())
    check_exact(coverage)
    count = [rewrite.action for rewrite in coverage.rewrites].count
    unused = [rewrite.layer for rewrite in coverage.batch_norms if rewrite.action == "unused"]
    assert (count("merged left"), count("threshold"), len(unused), count("sum"), count("gate")) == SMALL[name]
    assert all("aux" in layer.lower() for layer in unused)
    assert not [rewrite for rewrite in coverage.batch_norms if rewrite.action == "kept"]


def test_densenet_by_thresholds():
    coverage = measure("densenet121", GraphCanonizer(preactivation="threshold"))
    assert max(coverage.logits, coverage.gradient) < 1e-11 and coverage.restored
    assert [rewrite.action for rewrite in coverage.batch_norms].count("threshold") == 62


def test_all_families_are_known():
    found = names(SMALL)
    assert found == list(SMALL)
    assert {"densenet201", "efficientnet_b7", "regnet_y_128gf", "vgg19_bn", "maxvit_t"} <= set(names(["*"]))


def test_the_table_counts_and_gives_reasons(capsys, tmp_path):
    assert main(["mobilenet_v3_small", "--output", str(tmp_path / "table.md")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == f"{HEADER}\n\n{printed}"
    assert "| mobilenet_v3_small | 34 | 34 | 0 | 0 | 0 | 0 | 0 | 6 | 9 | " in printed
    coverage = measure("mobilenet_v3_small", GraphCanonizer(["sum"]))
    assert any("34 kept, as features.0.1: part merge_bn is off" in line for line in table([coverage]))


@pytest.mark.parametrize("name", ["timm/resnetv2_50", "timm/ghostnet_100", "timm/rexnet_100"])
def test_networks_of_timm(name):
    check_exact(measure(name, GraphCanonizer()))


def test_the_documented_table_is_of_these_networks():
    networks = [row.split("|")[1].strip() for row in DOCUMENTED if row.startswith("| ") and not row.startswith("| |")]
    assert networks[2:] == names((*FAMILIES, *TIMM))
    figures = [row.split("|")[11:14] for row in DOCUMENTED if row.endswith(" to the bit |")]
    assert len(figures) == len(networks[2:])
    assert all(max(float(logits), float(gradient)) < 1e-11 for logits, gradient, _ in figures)


def test_unknown_names_are_told(capsys):
    assert main(["resnet17"]) == 1
    assert "error: name: expected a network of torchvision" in capsys.readouterr().err


def test_an_inexact_canonizer_would_be_seen(monkeypatch):
    real = torch.rsqrt
    monkeypatch.setattr("canonxai.canonizers.graph.affine.torch.Tensor.rsqrt", lambda x: real(x * (1 + 1e-8)))
    coverage = measure("mobilenet_v3_small", GraphCanonizer())
    assert coverage.logits > 1e-10
