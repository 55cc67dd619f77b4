"""The audit of a network: every BatchNorm, every function, every rule."""

import json

import pyarrow.csv
import pytest
from rich.console import Console

from canonxai.attribution.rules import Layer
from canonxai.audit import _is_moving, audit
from canonxai.canonizers.graph.affine import Affine
from canonxai.config import cell_name
from canonxai.errors import UserError


@pytest.fixture
def run(config, tmp_path):
    """Audits and returns the summary, the layers by name, and what was printed."""

    def call(*overrides):
        console = Console(record=True, width=200, quiet=True)
        cfg = config("samples=2", *overrides, name="audit")
        summary = audit(cfg, tmp_path, console)
        assert json.loads((tmp_path / "audit.json").read_text()) == summary
        rows = pyarrow.csv.read_csv(tmp_path / "layers.csv").to_pylist()
        return summary, {row["layer"]: row for row in rows}

    return call


@pytest.mark.parametrize("canonizer, add, merged", [
    ("resnet", "layer4.1.canonizer_sum", "merged"), ("graph", "canonized.iadd_7", ""),
])  # fmt: skip
def test_every_batch_norm_and_every_add_is_told(run, canonizer, add, merged):
    summary, layers = run("model=resnet18", f"canonizer={canonizer}")
    norms = [row for row in layers.values() if row["type"] == "BatchNorm2d"]
    assert len(norms) == 20
    assert {(row["original"], row["canonized"]) for row in norms} == {("Pass", merged)}
    assert layers[add]["canonized"] == "Norm"
    assert layers["fc"]["original"] == layers["fc"]["canonized"] == "Epsilon"
    assert layers["add"]["canonized"] == "" and layers["add"]["original"] == "gradient"
    assert summary["without_rule"] == summary["kept_batch_norms"] == []
    differences = summary["largest_relative_logit_difference"]
    assert max(differences["real, float64"], differences["random, float64"]) < 1e-12
    assert 0 < max(differences["real, float32"], differences["random, float32"]) < 1e-4


def test_a_layer_without_a_rule_stands_out(run):
    summary, layers = run("model=resnet18", "canonizer.parts=[merge_bn]")
    assert summary["without_rule"] == ["add"]
    assert not layers["add"]["ruled"]
    assert "no rule" in layers["add"]["note"]


def test_what_is_left_is_told(run):
    summary, _ = run("model=resnet18", "canonizer.parts=[sum]")
    assert len(summary["kept_batch_norms"]) == 20


def test_gradient_methods_need_no_rules(run):
    assert run("model=vgg16_bn", "method=gradient")[0]["without_rule"] == []


def test_the_command_runs_on_a_network_of_torchvision(cli, tmp_path):
    arguments = ["model.net.weights=null", "data=photographs", "data.resize=64", "data.crop=64", "samples=1"]
    done = cli("model=torchvision", "model.name=densenet121", "canonizer=graph", *arguments, module="canonxai.audit")
    assert done.returncode == 0, done.stderr
    assert "every layer of the canonized network has a rule" in done.stdout
    assert "features.denseblock1.denselayer1.norm1" in done.stdout and "split" in done.stdout
    run = "multirun/audit/photographs-densenet121-lrp_eps_plus-canonized-*/rewrites.csv"
    assert len(list(tmp_path.glob(run))) == 1


def test_another_canonizer_has_another_folder(config):
    names = {cell_name(config(f"canonizer={name}", name="audit")) for name in ("graph", "resnet")}
    names.add(cell_name(config("canonizer.parts=[sum]", name="audit")))
    assert len(names) == 3 and any("-sum-" in name for name in names)


def test_arithmetic_with_sizes_needs_no_rule(run):
    tiny = ["data=photographs", "data.resize=64", "data.crop=64", "model.net.weights=null"]
    summary, layers = run(*tiny, "model=torchvision", "model.name=swin_t", "canonizer=transformer")
    assert summary["without_rule"] == []
    assert not {"eq", "_assert", "floordiv"} & set(layers)


def test_a_model_without_canonizer_is_a_mistake(cli):
    done = cli("canonizer=none", module="canonxai.audit")
    assert done.returncode == 1
    assert "canonizer: expected one" in done.stderr and "Traceback" not in done.stderr


def test_a_network_whose_function_changes_is_an_error_after_everything_was_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "canonxai.canonizers.merge.batch_norm_affine", lambda norm: Affine(norm.weight.double() + 1, norm.bias.double())
    )
    with pytest.raises(UserError, match=r"^canonizer: expected a relative difference of logits up to .*, got \d"):
        run("model=resnet18")
    assert (tmp_path / "layers.csv").is_file()


def test_it_is_told_where_each_batch_norm_went_and_that_layer_norm_cannot_go(run):
    _, layers = run("model=resnet18")
    assert layers["layer1.0.bn2"]["note"] == "merged left: layer1.0.conv2"
    tiny = ["data=photographs", "data.resize=32", "data.crop=32"]
    _, layers = run(
        "model=torchvision", "model.name=convnext_tiny", "model.net.weights=null", "canonizer=transformer", *tiny
    )
    norms = [row for row in layers.values() if "LayerNorm" in row["type"]]
    assert norms and all("cannot be merged" in row["note"] for row in norms)


def test_a_wrong_name_is_told_in_a_line(cli):
    done = cli("model=torchvision", "model.name=nope", "data=photographs", module="canonxai.audit")
    assert done.returncode == 1
    assert "] - model.name: expected a classification network of torchvision" in done.stderr
    assert "interpolation" not in done.stderr


def test_what_passes_relevance_on_as_it_is_needs_no_rule(run):
    """A merged BatchNorm is the identity, and what ReLU sets to zero has no relevance under z+."""
    summary, layers = run("model=resnet18", "method=ebp")
    assert summary["without_rule"] == []
    assert layers["bn1"]["note"] == "merged left: conv1" and layers["relu"]["conserved_canonized"] == pytest.approx(1)
    summary, layers = run("model=efficientnet_b0", "method=ebp")
    assert "no rule: each factor gets the relevance times the other" in layers["mul"]["note"]
    assert summary["without_rule"] and all(layers[name]["type"] == "SiLU" for name in summary["without_rule"])


def test_a_name_says_nothing_of_a_rule():
    """Modules are judged by their type, functions by their name."""
    layers = [("pad_block.norm", "LayerNorm", 1, "gradient"), ("relu", "Softplus", 1, "gradient")]
    assert not any(_is_moving(Layer(*layer)) for layer in layers)
    layers = [("pad_block", "MaxPool2d", 1, "gradient"), ("pad", "function", 1, "gradient"), ("act", "ReLU", 1, "")]
    assert all(_is_moving(Layer(*layer)) for layer in layers)


def test_several_methods_are_refused(cli):
    done = cli("method=[ixg,lrp_eps]", module="canonxai.audit")
    assert done.returncode == 1 and "method: expected one method for each audit" in done.stderr
