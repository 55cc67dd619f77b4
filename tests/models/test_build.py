"""The network that a config names, with the weights that it names."""

import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from canonxai.errors import UserError
from canonxai.models import narrow
from canonxai.models.build import build_network as build_for
from canonxai.models.checkpoint import WEIGHTS, load_weights

MODELS = ["resnet18", "vgg16_bn", "densenet121", "efficientnet_b0"]


@pytest.fixture
def model(config):
    """Composes a config with overrides."""
    return config


def build_network(cfg, trained=True):
    return build_for(cfg.model, cfg.data.label_space, trained)


def same(state, expected):
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def parameters(network):
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


@pytest.fixture
def no_downloads(monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)


@pytest.mark.usefixtures("no_downloads")
@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_network_is_the_variant_of_the_label_space(model, name):
    with torch.device("meta"):
        scenes = build_network(model(f"model={name}"), trained=False)
        imagenet = build_network(model(f"model={name}", "data.label_space=imagenet"), trained=False)
        narrow_one, full = getattr(narrow, name)(), get_model(name)
    assert parameters(scenes) == parameters(narrow_one)
    assert parameters(imagenet) == parameters(full)
    assert type(imagenet) is type(full)


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_network_is_random(model, name):
    torch.manual_seed(0)
    networks = [build_network(model(f"model={name}"), trained=False) for _ in range(2)]
    assert not same(networks[0].state_dict(), networks[1].state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_of_scenes_are_those_of_the_package(model, name):
    expected = getattr(narrow, name)()
    load_weights(expected, WEIGHTS / f"scenes_{name}.safetensors")
    assert same(build_network(model(f"model={name}")).state_dict(), expected.state_dict())


@pytest.mark.parametrize("save, suffix", [(save_file, "safetensors"), (torch.save, "pt")])
def test_a_checkpoint_overrides_the_weights(model, save, suffix, tmp_path):
    other = narrow.resnet18()
    save(other.state_dict(), tmp_path / f"a.{suffix}")
    built = build_network(model("model=resnet18", f"model.checkpoint={tmp_path}/a.{suffix}"))
    assert same(built.state_dict(), other.state_dict())


@pytest.mark.usefixtures("no_downloads")
def test_a_checkpoint_of_the_full_width_needs_no_download(model, tmp_path):
    full = get_model("resnet18")
    torch.save(full.state_dict(), tmp_path / "a.pth")
    cfg = model("model=resnet18", "data.label_space=imagenet", f"model.checkpoint={tmp_path}/a.pth")
    assert same(build_network(cfg).state_dict(), full.state_dict())


def test_a_checkpoint_is_not_read_for_an_untrained_network(model):
    build_network(model("model=resnet18", "model.checkpoint=/nowhere.pt"), trained=False)


def test_a_checkpoint_of_another_model_is_refused(model, tmp_path):
    torch.save(narrow.vgg16_bn().state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="does not fit NarrowResNet"):
        build_network(model("model=resnet18", f"model.checkpoint={tmp_path}/a.pt"))


@pytest.mark.parametrize("trained", [True, False])
def test_an_unknown_label_space_gets_the_choices(model, trained):
    with pytest.raises(
        UserError, match=r"^model=resnet18: expected data whose label_space is one of scenes, imagenet, got birds\."
    ):
        build_network(model("model=resnet18", "data.label_space=birds"), trained)


def test_a_network_of_ones_own_needs_no_variant(model, tmp_path):
    other = narrow.resnet18(num_classes=3)
    torch.save(other.state_dict(), tmp_path / "a.pt")
    network = "{_target_: canonxai.models.narrow.resnet18, num_classes: 3}"
    cfg = model("data.label_space=birds", f"model.net={network}", f"model.checkpoint={tmp_path}/a.pt")
    assert same(build_network(cfg).state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.net._target_=torchvision.models.resnet18"], True),
        (["model.net._target_=canonxai.models.narrow.resnet18", "+model.net.weights=null"], True),
        (["model.net._target_=torchvision.models.resnet18", "model.checkpoint={}"], False),
        (
            ["model.net._target_=canonxai.models.narrow.resnet18", "+model.net.weights=scenes_resnet18.safetensors"],
            False,
        ),
    ],
)
def test_random_weights_are_told(model, tmp_path, caplog, overrides, told):
    torch.save(get_model("resnet18").state_dict(), tmp_path / "a.pt")
    cfg = model("model=custom", *(override.replace("{}", f"{tmp_path}/a.pt") for override in overrides))
    build_network(cfg, trained=False)
    assert "weights" not in caplog.text
    build_network(cfg)
    assert ("random" in caplog.text) == told


@pytest.mark.usefixtures("no_downloads")
@pytest.mark.parametrize("name", MODELS)
def test_official_weights_without_a_network_point_to_a_local_file(model, name):
    with pytest.raises(UserError, match=r"IMAGENET1K_V1.*model\.checkpoint=PATH") as error:
        build_network(model(f"model={name}", "data.label_space=imagenet"))
    assert "no network" in str(error.value)


def test_official_weights_are_torchvisions_checked_and_run_no_code(model, monkeypatch):
    official, asked = get_model("resnet18").state_dict(), {}

    def download(url, **options):
        asked.update(options, url=url)
        return official

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    network = build_network(model("model=resnet18", "data.label_space=imagenet"))
    assert same(network.state_dict(), official)
    assert asked["url"].endswith("resnet18-f37072fd.pth")
    assert asked["check_hash"] and asked["weights_only"]


@pytest.mark.parametrize("space", ["scenes", "imagenet"])
def test_unknown_weights_are_named(model, space):
    cfg = model("data.label_space=" + space, f"model.variants.{space}.weights=NONE_SUCH")
    with pytest.raises(UserError, match="NONE_SUCH"):
        build_network(cfg)
