"""Small networks whose BatchNorms are as far from the identity as training can take them, in float64, and images."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

from canonxai.attribution import Query
from canonxai.canonizers import ResNetCanonizer, VGGCanonizer
from canonxai.models.narrow import resnet18, vgg16_bn

torch.set_num_threads(1)  # for such small networks two threads only wait for each other

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BUILDERS = {
    "resnet18": partial(resnet18, width=0.125),
    "vgg16_bn": partial(vgg16_bn, width=0.125, hidden=32),
    "resnet50": partial(ResNet, Bottleneck, [1, 1, 1, 1], num_classes=10),
}
CANONIZERS = {"resnet18": ResNetCanonizer, "vgg16_bn": VGGCanonizer, "resnet50": ResNetCanonizer}


def randomize(model: nn.Module) -> nn.Module:
    """Draws BatchNorm's statistics and parameters and all biases; some gammas are negative, some next to nothing."""
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.2, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                with torch.no_grad():
                    module.weight[::4] *= -1
                    module.weight[1::7] *= 1e-3
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, 0, 0.3)
    return model.double().eval()


@cache
def _network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return randomize(BUILDERS[name]())


def network(name: str) -> nn.Module:
    """A fresh copy of one of ``BUILDERS``' networks."""
    return copy.deepcopy(_network(name))


def query(model: nn.Module, batch: int = 3, size: int = 32) -> Query:
    """Random images with mean and standard deviation as of ImageNet, each with a target and an id of its own."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double().view(2, 3, 1, 1)
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target, sample_id = torch.tensor([1, 0, 2])[:batch], torch.tensor([11, 5, 802])[:batch]
    return Query(model, (image - mean) / std, target, (0 - mean) / std, (1 - mean) / std, sample_id, seed=4)


@contextmanager
def untouched(model: nn.Module, input: Tensor) -> Iterator[None]:
    """Asserts that the block leaves everything about the model as it was, also if it raises."""
    before, output = _everything(model), model(input)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        assert _everything(model) == before
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert torch.equal(model(input), output)


def _everything(model: nn.Module) -> dict[str, object]:
    """Modules, their attributes, and the very parameters, buffers and hooks, in their order."""
    return {name: {key: _identities(value) for key, value in vars(m).items()} for name, m in model.named_modules()}


def _identities(value: object) -> object:
    return [(key, id(item)) for key, item in value.items()] if isinstance(value, dict) else (id(value), repr(value))


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """One minus the cosine of each sample."""
    return 1 - nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
