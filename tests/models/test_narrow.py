"""The embedded benchmark's networks are torchvision's, only narrower, and their weights are as good as recorded."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.models.resnet import BasicBlock

from canonxai.data.scenes import Scenes
from canonxai.models.checkpoint import WEIGHTS, read_metadata
from canonxai.models.narrow import densenet121, efficientnet_b0, resnet18, vgg16_bn
from canonxai.models.normalization import Normalization

BUILDERS = {
    "resnet18": resnet18,
    "vgg16_bn": vgg16_bn,
    "densenet121": densenet121,
    "efficientnet_b0": efficientnet_b0,
}
TRAINED = {name: WEIGHTS / f"scenes_{name}.safetensors" for name in BUILDERS}


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def kinds(model):
    return [(name, type(module)) for name, module in model.named_modules() if name]


@pytest.mark.parametrize("name, count", [
    ("resnet18", 703_386), ("vgg16_bn", 1_122_586), ("densenet121", 236_617), ("efficientnet_b0", 663_530),
])  # fmt: skip
def test_narrow_networks_have_so_many_parameters(name, count):
    assert sum(parameter.numel() for parameter in BUILDERS[name]().parameters()) == count


@pytest.mark.parametrize("name", BUILDERS)
def test_output_is_a_logit_a_class(name):
    model = BUILDERS[name](num_classes=7).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_resnet_at_full_width_is_torchvisions():
    ours, theirs = resnet18(width=1.0), models.resnet18(num_classes=10)
    assert shapes(ours) == shapes(theirs)
    assert kinds(ours) == kinds(theirs)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(image), theirs.eval()(image))


def test_vgg_at_full_width_has_torchvisions_features():
    with torch.device("meta"):
        ours, theirs = vgg16_bn(width=1.0), models.vgg16_bn(num_classes=10)
    assert shapes(ours.features) == shapes(theirs.features)
    assert kinds(ours) == kinds(theirs)


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0"])
def test_smaller_networks_are_made_of_torchvisions_modules(name):
    narrow, full = BUILDERS[name](), models.get_model(name)
    assert type(narrow) is type(full)
    assert {type(module) for module in narrow.modules()} == {type(module) for module in full.modules()}


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn"])
def test_modules_are_of_torchvisions_classes_and_in_its_places(name):
    with torch.device("meta"):
        narrow, full = BUILDERS[name](), models.get_model(name)
    assert kinds(narrow) == kinds(full)
    assert isinstance(narrow, type(full))
    assert type(narrow).forward is type(full).forward


def test_resnet_is_made_of_torchvisions_blocks():
    blocks = [module for module in resnet18().modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 8
    assert {type(block) for block in blocks} == {BasicBlock}
    assert [block.conv1.out_channels for block in blocks] == [16, 16, 32, 32, 64, 64, 128, 128]


def test_resnet_is_initialised_as_torchvisions():
    torch.manual_seed(0)
    ours, theirs = resnet18(width=1.0), models.resnet18(num_classes=10)
    for mine, yours in zip(ours.modules(), theirs.modules(), strict=True):
        if isinstance(mine, nn.Conv2d):
            assert float(mine.weight.detach().std()) == pytest.approx(float(yours.weight.detach().std()), rel=0.05)
            assert float(mine.weight.detach().mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("path", TRAINED.values(), ids=TRAINED)
def test_weights_are_small_and_say_how_they_were_made(path):
    assert path.stat().st_size < 3_000_000
    metadata = read_metadata(path)
    assert metadata.keys() >= {"accuracy", "test_size", "seed", "recipe"}
    assert int(metadata["seed"]) >= 0
    assert int(metadata["test_size"]) >= 1000
    assert json.loads(metadata["recipe"]).keys() >= {"samples", "batch_size", "learning_rate", "optimizer"}


def test_no_file_of_weights_is_there_that_no_model_uses():
    assert set(WEIGHTS.iterdir()) == set(TRAINED.values())


@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_trained_weights_are_as_accurate_on_fresh_scenes_as_recorded(name):
    recorded, size = float(read_metadata(TRAINED[name])["accuracy"]), 500
    assert recorded >= 0.95
    model = BUILDERS[name](weights=TRAINED[name].name).eval()
    normalize = Normalization(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    batches = DataLoader(Scenes("test", size=size, seed=123), batch_size=100)
    correct = sum(int((model(normalize(batch["image"])).argmax(1) == batch["label"]).sum()) for batch in batches)
    assert correct / size >= 0.92
    assert abs(correct / size - recorded) <= 3 * (recorded * (1 - recorded) / size) ** 0.5
