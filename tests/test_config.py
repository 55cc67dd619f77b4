"""Every YAML composes and builds what it names; mistakes in them are told."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from canonxai.assemble import build_explainers, build_metrics, build_trainer
from canonxai.attribution import Method
from canonxai.config import CONF, Canonizer, Data, build, cell_name, check_groups, state
from canonxai.config import Method as MethodSchema
from canonxai.errors import UserError
from canonxai.metrics import Metric
from canonxai.models.build import build_network
from canonxai.models.torchvision import preprocessing

YAMLS = sorted(CONF.rglob("*.yaml"))


def options(group):
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


EMBEDDED = ["resnet18", "vgg16_bn", "densenet121", "efficientnet_b0"]  #: with weights for scenes


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_begins_with_a_line_that_says_what_it_is(path):
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ") and len(first) < 110


@pytest.mark.parametrize("name", options("method"))
def test_every_method_builds_and_is_named_as_its_file(config, name):
    cfg = config(f"method={name}")
    assert cfg.method.name == name
    assert isinstance(build(cfg.method, "method", MethodSchema), Method)


@pytest.mark.parametrize("name", options("metric"))
def test_every_metric_builds_and_its_columns_are_described(config, name):
    metrics = build_metrics(config(f"metric=[{name}]", *(["metric.name=Complexity"] if name == "quantus" else [])))
    assert list(metrics) == [name] or (name == "followup" and len(metrics) == 6)
    assert all(isinstance(metric, Metric) for metric in metrics.values())
    assert all(column.description for metric in metrics.values() for column in metric.columns.values())


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("data", ["scenes", "imagenet"])
def test_every_model_builds_for_every_data_set_and_names_a_canonizer_that_fits(config, name, data):
    cfg = config(f"model={name}", f"data={data}")
    check_groups(cfg)
    network = build_network(cfg.model, cfg.data.label_space, trained=False).eval()
    canonizer = build(cfg.canonizer, "canonizer", Canonizer)
    instances = canonizer.apply(network)
    assert len(instances) > (10 if name in ("resnet18", "vgg16_bn") else 0)
    for instance in instances:
        instance.remove()


ZOOS = {
    "torchvision": ["model.name=resnet50"],
    "timm": ["model.name=mobilenetv3_small_050"],
    "vit_b_16": [],
    "custom": ["model.net._target_=canonxai.models.narrow.resnet18", "+model.net.num_classes=1000"],
}


@pytest.mark.parametrize("zoo", sorted(set(options("model")) - set(EMBEDDED)))
def test_every_zoo_builds_a_network_and_names_its_preprocessing(config, zoo):
    cfg = config(f"model={zoo}", *ZOOS[zoo], "data=imagenet")
    check_groups(cfg)
    network = build_network(cfg.model, cfg.data.label_space, trained=False).eval()
    side = 64 if zoo != "vit_b_16" else 224
    assert network(torch.zeros(1, 3, side, side)).shape == (1, 1000)
    assert cfg.data.resize == cfg.model.preprocessing.resize > 200
    assert cfg.data.std == cfg.model.preprocessing.std


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_preprocessing_is_that_of_the_official_weights(config, name):
    cfg = config(f"model={name}", "data=imagenet")
    assert cfg.model.variants.imagenet.weights == "IMAGENET1K_V1"
    assert dict(cfg.model.preprocessing) == dataclasses.asdict(preprocessing(name, "IMAGENET1K_V1"))


@pytest.mark.parametrize("name", options("data"))
def test_every_data_set_composes(config, name):
    cfg = config(f"data={name}")
    check_groups(cfg)
    assert cfg.data.name == name
    if name == "scenes":
        assert len(build(cfg.data, "data", Data)) == 256


@pytest.mark.parametrize("name", [name for name in options("trainer") if name != "gpu"])
def test_every_trainer_builds(config, name):
    assert build_trainer(config(f"trainer={name}")).num_devices == 1


@pytest.mark.parametrize("name", options("logger"))
def test_every_logger_composes(config, name):
    assert config(f"logger={name}").logger._target_.startswith("canonxai.results.loggers.")


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_sweeps_over_options_that_exist(config, name):
    path = CONF / "experiment" / f"{name}.yaml"
    params = OmegaConf.load(path).hydra.sweeper.params
    for key in ("model", "method"):
        assert set(str(params.get(key, "resnet18")).replace(" ", "").split(",")) <= set(
            options("model") + options("method")
        )
    assert config(f"experiment={name}").study == name


def test_the_paper_is_the_studys_grid():
    params = OmegaConf.load(CONF / "experiment" / "paper.yaml").hydra.sweeper.params
    sizes = [len(value.split(",")) for value in params.values()]
    assert sizes == [2, 13, 2]  # models, the study's 12 methods and the random floor, states


def test_the_default_is_the_model_exactly_as_written(config):
    assert build_explainers([config("canonize=false")], {}, 10)[0].canonizers == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["canonize=false"], "original"),
        (["canonize=true"], "canonized"),
        (["canonize=true", "canonizer.parts=[]"], "no_parts"),
        (["canonize=true", "canonizer.parts=[merge_bn]"], "merge_bn"),
        (["canonize=true", "canonizer.parts=[merge_bn,sum]"], "merge_bn+sum"),
    ],
)
def test_the_state_says_what_was_done(config, overrides, expected):
    assert state(config(*overrides)) == expected


def test_cells_share_a_name_only_if_they_compute_the_same(config):
    same = [
        "study=other", "save_maps=3", "trainer=cpu", "logger=csv", "data.batch_size=7", "data.num_workers=2",
        "perturbation.batch_size=9", "perturbation.batch_size=auto", "perturbation.channels_last=false",
        "perturbation.winograd=false", "perturbation.compile=true", "perturbation.verify=3",
        "perturbation.tolerance=0.1", "perturbation.precision='32'",
    ]  # fmt: skip
    assert {cell_name(config(override)) for override in same} == {cell_name(config())}
    different = [
        "seed=1", "target=predicted", "precision=32", "perturbation.precision=64", "perturbation.precision=bf16",
        "perturbation.network=original", "data.size=3", "canonize=true",
        "method.epsilon=1", "method=ebp", "model=vgg16_bn", "model.checkpoint=x", "metric=[distance]",
        "metric.input_perturbation.steps=3",
    ]  # fmt: skip
    assert len({cell_name(config(override)) for override in different} | {cell_name(config())}) == len(different) + 1


def test_a_name_of_a_config_leads_no_cell_out_of_its_study(config):
    cfg = config()
    cfg.data.name, cfg.model.name = "../../out", "/etc/x"  # which the command line refuses before
    name = cell_name(cfg)
    assert Path(name).name == name and name.startswith("..-..-out--etc-x-lrp_eps-")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+method.foo=1"], "method.foo: .* takes no such argument, only epsilon, stabilizer, zero_params"),
        (["method.epsilon=abc"], "method.epsilon: .*'abc'"),
        (["method.epsilon=-1"], "method.epsilon: expected a number > 0, got -1.0"),
        (
            ["method._target_=canonxai.nothing.Here"],
            "method._target_: expected the dotted path .*canonxai.nothing.Here.*No module named 'canonxai.nothing'",
        ),
        (["method._target_=canonxai.errors"], "method._target_: expected .* class or function, .* .it is a module"),
        (["canonizer.parts=[sum,foo]", "canonize=true"], "canonizer.parts: .*merge_bn, sum.*foo"),
        (["canonizer=none", "canonize=true"], "canonizer: expected one, got none for model=resnet18"),
        (["canonizer.verify=0", "canonize=true"], "canonizer.verify: expected an integer >= 1"),
        (["canonizer.tolerance=0", "canonize=true"], "canonizer.tolerance: expected a number > 0"),
        (["perturbation.batch_size=0"], "perturbation.batch_size: expected an integer >= 1, or auto, got 0"),
        (["perturbation.batch_size=many"], "perturbation.batch_size: expected an integer >= 1, or auto, got 'many'"),
        (["perturbation.precision=16"], "perturbation.precision: expected one of 32, 64, tf32, bf16, fp16, got '16'"),
        (["perturbation.network=merged"], "perturbation.network: expected one of fused, original, got 'merged'"),
        (["data.mean=[1,2]"], r"data.mean: expected three numbers in \[0, 1\]"),
        (["data.std=[1,0,1]"], "data.std: expected three numbers > 0"),
        (["data.batch_size=abc"], "data.batch_size: .*'abc'"),
        (["~method.title"], "method.title: expected a value, got none"),
    ],
)
def test_mistakes_name_the_argument_and_what_was_expected(config, overrides, message):
    cfg = config(*overrides)
    with pytest.raises(UserError, match=message):
        check_groups(cfg)
        build_explainers([cfg], {}, 10)


def test_an_argument_without_default_must_be_given():
    node = OmegaConf.create({"_target_": "canonxai.models.checkpoint.read_metadata"})
    with pytest.raises(UserError, match="thing.path: expected a value, as canonxai.models.checkpoint.read_metadata"):
        build(node, "thing")


def test_help_and_cfg_do_not_import_torch():
    code = "import sys; from canonxai.cli import main; main(); assert 'torch' not in sys.modules"
    for flags in (["--cfg", "job"], ["--help"]):
        subprocess.run([sys.executable, "-c", code, *flags], check=True, capture_output=True)


def test_the_configs_are_found_beside_the_package_or_above_it():
    assert (CONF / "config.yaml").is_file()
    assert Path(CONF).is_absolute()


@pytest.mark.parametrize("zoo", ["torchvision", "timm"])
def test_a_config_with_the_preprocessing_of_a_zoo_can_be_shown_resolved(config, zoo):
    """As ``--cfg job --resolve`` does, before any check."""
    cfg = config(f"model={zoo}", *ZOOS[zoo], "data=imagenet")
    OmegaConf.resolve(cfg)
    preprocessing = OmegaConf.to_container(cfg.model.preprocessing)
    assert preprocessing == {key: OmegaConf.to_container(cfg.data)[key] for key in preprocessing}
