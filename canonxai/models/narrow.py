"""torchvision's networks of the study and two more at a fraction of their size, for the embedded benchmark.

They are built of torchvision's own blocks, so that a canonizer written for torchvision's networks applies unchanged.
Each builder takes ``weights`` as torchvision's builders do: the name of a file in ``canonxai/models/weights``, or
``None`` for random weights.
"""

from typing import Any, TypeVar

from torch import nn
from torchvision.models import VGG, DenseNet, EfficientNet, ResNet
from torchvision.models.efficientnet import _efficientnet_conf
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import cfgs, make_layers

from canonxai.models.checkpoint import WEIGHTS, load_weights

Net = TypeVar("Net", bound=nn.Module)


class NarrowResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with all its channel counts multiplied by ``width``."""

    def __init__(self, layers: list[int], width: float, num_classes: int) -> None:
        super().__init__(BasicBlock, layers, num_classes=num_classes)
        channels = [round(width * c) for c in (64, 128, 256, 512)]
        self.inplanes = channels[0]
        self.conv1 = nn.Conv2d(3, channels[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.layer1 = self._make_layer(BasicBlock, channels[0], layers[0])
        self.layer2 = self._make_layer(BasicBlock, channels[1], layers[1], stride=2)
        self.layer3 = self._make_layer(BasicBlock, channels[2], layers[2], stride=2)
        self.layer4 = self._make_layer(BasicBlock, channels[3], layers[3], stride=2)
        self.fc = nn.Linear(channels[3], num_classes)
        for module in self.modules():  # as torchvision initialises its own
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18(weights: str | None = None, num_classes: int = 10, width: float = 0.25) -> NarrowResNet:
    """ResNet18 with ``width`` times its channels."""
    return _load(NarrowResNet([2, 2, 2, 2], width, num_classes), weights)


def vgg16_bn(weights: str | None = None, num_classes: int = 10, width: float = 0.25, hidden: int = 256) -> VGG:
    """VGG-16 with BatchNorm with ``width`` times its channels, and a classifier for images of 64 x 64 pixels.

    torchvision's classifier is made for 7 x 7 positions and 4,096 units; here 2 x 2 positions and ``hidden`` units.
    """
    channels: list[Any] = [c if isinstance(c, str) else round(width * c) for c in cfgs["D"]]
    model = VGG(make_layers(channels, batch_norm=True), num_classes=num_classes)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(
        nn.Linear(4 * channels[-2], hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, num_classes),
    )
    return _load(model, weights)


def densenet121(weights: str | None = None, num_classes: int = 10, growth_rate: int = 12) -> DenseNet:
    """DenseNet of 23 dense layers instead of 58, each of ``growth_rate`` channels instead of 32."""
    model = DenseNet(growth_rate, block_config=(3, 6, 8, 6), num_init_features=2 * growth_rate, num_classes=num_classes)
    return _load(model, weights)


def efficientnet_b0(weights: str | None = None, num_classes: int = 10, size: float = 0.5) -> EfficientNet:
    """EfficientNet-B0 with ``size`` times its channels and layers."""
    stages, _ = _efficientnet_conf("efficientnet_b0", width_mult=size, depth_mult=size)
    return _load(EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0, num_classes=num_classes), weights)


def _load(model: Net, weights: str | None) -> Net:
    if weights is not None:
        load_weights(model, WEIGHTS / weights)
    return model
