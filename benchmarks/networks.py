"""The networks and images that perturbation and attribution are measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.utils.data import default_collate
from zennit.canonizers import Canonizer
from zennit.torchvision import ResNetCanonizer as ZennitResNetCanonizer
from zennit.torchvision import VGGCanonizer as ZennitVGGCanonizer

from canonxai.canonizers import ResNetCanonizer, VGGCanonizer
from canonxai.data.base import Batch
from canonxai.data.scenes import Scenes
from canonxai.models import narrow, torchvision
from canonxai.models.normalization import Normalization


@dataclass(frozen=True)
class Network:
    """A network that is measured.

    Attributes:
        name: of torchvision.
        side: of the images in pixels; 224 for the full width, 64 for the embedded ones.
        build: makes it, in evaluation mode.
        canonizer: canonxai's.
        zennit_canonizer: zennit's own for it.
    """

    name: str
    side: int
    build: Callable[[], nn.Module]
    canonizer: Callable[..., Canonizer]
    zennit_canonizer: Callable[[], Canonizer]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.side} x {self.side}"

    @property
    def is_embedded(self) -> bool:
        return self.side == 64

    @property
    def is_heavy(self) -> bool:
        """Whether a CPU evaluates only a few images a second."""
        return not self.is_embedded and self.name == "vgg16_bn"


def full_width(name: str) -> nn.Module:
    """A network of torchvision with random weights, its BatchNorm's statistics those of real images."""
    torch.manual_seed(0)
    model = torchvision.model(name).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics become those of the one batch
    with torch.no_grad():
        model(inputs(scenes(8, 224)["image"]))
    return model.eval()


def networks(quick: bool) -> list[Network]:
    """The study's two networks in their full width and in the embedded one; the embedded ones alone for a quick run."""
    resnet, vgg = (ResNetCanonizer, ZennitResNetCanonizer), (VGGCanonizer, ZennitVGGCanonizer)
    embedded = [
        Network("resnet18", 64, lambda: narrow.resnet18("scenes_resnet18.safetensors").eval(), *resnet),
        Network("vgg16_bn", 64, lambda: narrow.vgg16_bn("scenes_vgg16_bn.safetensors").eval(), *vgg),
    ]
    full = [
        Network("resnet18", 224, lambda: full_width("resnet18"), *resnet),
        Network("vgg16_bn", 224, lambda: full_width("vgg16_bn"), *vgg),
    ]
    return embedded if quick else full + embedded


def scenes(count: int, side: int) -> Batch:
    """Scenes of the embedded benchmark in any size."""
    dataset = Scenes(size=count, side=side)
    batch: Batch = default_collate([dataset[index] for index in range(count)])
    batch["place"], batch["excluded"] = torch.arange(count), []
    return batch


def on(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


@cache
def normalization(device: torch.device) -> Normalization:
    """That of the embedded benchmark."""
    return Normalization([0.5] * 3, [0.5] * 3).to(device)


def inputs(image: UInt8[Tensor, "batch 3 height width"], dtype: torch.dtype = torch.float32) -> Tensor:
    """What the network gets."""
    return normalization(image.device)(image, dtype)
