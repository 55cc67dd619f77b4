"""Small networks, one for each pattern that a graph canonizer must know, with BatchNorms far from the identity."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.networks import randomize

IMAGE = (2, 4, 9, 8)


class Network(nn.Module):
    """Layers by name, and a function of them and the input as forward pass."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x).flatten(1)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten())


def conv(inputs: int = 4, outputs: int = 6, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **options)


bn, relu = nn.BatchNorm2d, nn.ReLU


class Wide(nn.Module):
    """Three times the channels, by functions that are not linear."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.abs(), x.exp(), x.tanh()], 1)


class ForgetfulNorm(nn.BatchNorm2d):
    """Loses its running statistics when :func:`built`."""


class PaddedConvolution(nn.Conv2d):
    """Linear, by a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 1, 0, 1)))


class Rectified(nn.Conv2d):
    """Linear in its parameters up to a factor, but not in its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Standardized(nn.Conv2d):
    """Linear in its input, not in its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std((1, 2, 3), keepdim=True), self.bias)


class Optional(nn.Module):
    """Branches on arguments that have defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(), bn(6)

    def forward(self, x: Tensor, skip: Tensor | None = None, double: bool = False, power: int = 2) -> Tensor:
        y = self.bn(self.conv(x)) ** power
        y = y * 3 if skip is None else y + skip
        return (y * 2 if double else y).flatten(1)


def hooked(module: nn.Module) -> nn.Module:
    """With a hook that changes the output."""
    module.register_forward_hook(lambda module, input, output: output.sin())
    return module


#: BatchNorms merged left: builder and input shape
LEFT = {
    "padded": lambda: chain(conv(padding=1), bn(6), relu()),
    "without bias": lambda: chain(conv(bias=False), bn(6)),
    "strided": lambda: chain(conv(stride=2, padding=1), bn(6)),
    "dilated": lambda: chain(conv(dilation=2, padding=2), bn(6)),
    "reflected": lambda: chain(conv(padding=1, padding_mode="reflect"), bn(6)),
    "grouped": lambda: chain(conv(groups=2), bn(6)),
    "depthwise": lambda: chain(conv(4, 8, groups=4), bn(8)),
    "transposed": lambda: chain(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), bn(6)),
    "grouped transposed": lambda: chain(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), bn(6)),
    "its size is asked": lambda: Network(lambda m, x: m.bn(y := m.conv(x)).view(y.size(0), -1), conv=conv(), bn=bn(6)),
    "two in a row": lambda: chain(conv(), bn(6), bn(6)),
    "behind dropout": lambda: chain(conv(), nn.Dropout2d(), nn.Identity(), bn(6)),
    "without affine": lambda: chain(conv(), bn(6, affine=False)),
    "frozen": lambda: chain(conv(), FrozenBatchNorm2d(6)),
    "synchronised": lambda: chain(conv(), nn.SyncBatchNorm(6)),
    "several consumers": lambda: Network(
        lambda m, x: (y := m.bn(m.conv(x))) + m.after(y).relu(), conv=conv(), bn=bn(6), after=conv(6, 6, 1)
    ),
    "linear": lambda: chain(nn.Flatten(), nn.Linear(288, 5), nn.BatchNorm1d(5)),
    "linear of a mean": lambda: Network(
        lambda m, x: m.bn(m.fc(m.conv(x).mean((2, 3)) * 2)), conv=conv(), fc=nn.Linear(6, 5), bn=nn.BatchNorm1d(5)
    ),
    "linear of a view": lambda: Network(
        lambda m, x: m.bn(m.fc(x.view(x.size(0), 288).relu())), fc=nn.Linear(288, 5), bn=nn.BatchNorm1d(5)
    ),
    "by keyword": lambda: Network(lambda m, x: m.bn(input=m.conv(input=x)), conv=conv(), bn=bn(6)),
    "of a class that pads": lambda: chain(PaddedConvolution(4, 6, 3), bn(6)),
}

#: merged left, but with functions that have no rule
FUNCTIONAL = {
    "weight read by a function": lambda: Network(
        lambda m, x: F.conv_transpose2d(m.bn(m.conv(x)).relu(), m.conv.weight), conv=conv(), bn=bn(6)
    ),
    "optional argument": lambda: Optional(),
}

#: merged right
RIGHT = {
    "first of all": lambda: chain(bn(4), conv()),
    "zero padding": lambda: chain(bn(4), conv(padding=1)),
    "zero padding, strided": lambda: chain(bn(4), conv(size=4, padding=2, stride=3, dilation=2)),
    "same padding": lambda: chain(bn(4), conv(size=5, padding="same")),
    "circular padding": lambda: chain(bn(4), conv(padding=2, padding_mode="circular")),
    "grouped, padded": lambda: chain(bn(4), conv(groups=2, padding=1)),
    "depthwise, padded": lambda: chain(bn(4), conv(4, 8, groups=4, padding=1)),
    "transposed": lambda: chain(bn(4), nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1)),
    "grouped transposed": lambda: chain(bn(4), nn.ConvTranspose2d(4, 6, 3, groups=2)),
    "two before a convolution": lambda: chain(bn(4), bn(4), conv(padding=1)),
    "average pool": lambda: chain(bn(4), nn.AvgPool2d(3, 2, ceil_mode=True), conv(padding=1)),
    "average pool that counts no padding": lambda: chain(bn(4), nn.AvgPool2d(3, 2, 1, count_include_pad=False), conv()),
    "head": lambda: chain(bn(4), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(24, 3)),
    "mean": lambda: Network(lambda m, x: m.fc(m.bn(x).mean([2, 3])), bn=bn(4), fc=nn.Linear(4, 3)),
    "view": lambda: Network(lambda m, x: m.fc((y := m.bn(x)).view(y.size(0), -1)), bn=bn(4), fc=nn.Linear(288, 3)),
    "by keyword": lambda: Network(lambda m, x: m.conv(input=m.bn(x)), bn=bn(4), conv=conv(padding=1)),
    "two convolutions": lambda: Network(lambda m, x: m.a(y := m.bn(x)) + m.b(y), bn=bn(4), a=conv(), b=conv()),
    "around a convolution": lambda: chain(bn(4), conv(padding=1), bn(6)),
    "of features": lambda: chain(nn.Flatten(), nn.BatchNorm1d(288), nn.Linear(288, 3)),
    "in one dimension": lambda: chain(nn.Flatten(2), nn.BatchNorm1d(4), nn.Conv1d(4, 3, 5, padding=2)),
    "in three dimensions": lambda: chain(nn.Unflatten(3, (4, 2)), nn.BatchNorm3d(4), nn.Conv3d(4, 3, 3, padding=1)),
}


class PreActivationBlock(nn.Module):
    """Of a ResNet-v2: two convolutions read the same ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.bn2, self.relu = bn(4), bn(6), relu(inplace=True)
        self.conv1, self.conv2, self.shortcut = conv(padding=1), conv(6, 6, padding=1), conv(4, 6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(x))
        shortcut = self.shortcut(out)
        out = self.conv2(self.relu(self.bn2(self.conv1(out))))
        out += shortcut
        return out


#: through a ReLU, whichever way it is done
PREACTIVATION = {
    "residual": lambda: chain(conv(4, 4, 1), PreActivationBlock(), bn(6), relu(), conv(6, 3, padding=1)),
    "max pool": lambda: chain(Wide(), bn(12), relu(), nn.MaxPool2d(2), conv(12)),
    "functional": lambda: Network(
        lambda m, x: m.conv(F.relu(m.bn(m.wide(x)))), wide=Wide(), bn=bn(12), conv=conv(12, padding=1)
    ),
    "head": lambda: Network(
        lambda m, x: m.fc(F.adaptive_avg_pool2d(F.relu(m.bn(m.wide(x)), inplace=True), 1).flatten(1)),
        wide=Wide(), bn=bn(12), fc=nn.Linear(12, 3),
    ),
}  # fmt: skip


def dense(m: Any, x: Tensor) -> Tensor:
    features = [m.pool(m.conv0(m.stem(x).relu())), x.abs()[..., :4, :4]]
    for i in (1, 2):
        norm, conv = getattr(m, f"bn{i}"), getattr(m, f"conv{i}")
        features.append(conv(F.relu(norm(torch.cat(features, 1)))))
    return m.bn3(torch.cat(features, 1)).relu()


#: a BatchNorm whose input is a concatenation, or a layer that others read, too
SPLIT = {
    "two BatchNorms": lambda: Network(
        lambda m, x: m.a(y := m.conv(x)).sigmoid() + m.b(y).tanh(), conv=conv(padding=1), a=bn(6), b=bn(6)
    ),
    "skip": lambda: Network(lambda m, x: m.bn(y := m.conv(x)).sigmoid() + y, conv=conv(), bn=bn(6)),
    "twice the same": lambda: Network(
        lambda m, x: m.bn(torch.cat([y := m.conv(x), y], 1)).tanh(), conv=conv(), bn=bn(12)
    ),
    "grouped": lambda: Network(
        lambda m, x: m.bn(torch.cat([m.a(x), m.b(x)], dim=1)).tanh(),
        a=conv(groups=2), b=conv(4, 4, groups=4), bn=bn(10),
    ),
    "a constant added": lambda: Network(
        lambda m, x: m.bn(torch.cat([m.a(x), x + 1], 1)).tanh(), a=conv(padding=1), bn=bn(10)
    ),
    "features": lambda: Network(
        lambda m, x: m.bn(torch.cat([m.a(x.flatten(1)), m.b(x.flatten(1))], 1)).tanh(),
        a=nn.Linear(288, 3), b=nn.Linear(288, 2), bn=nn.BatchNorm1d(5),
    ),
    "dense": lambda: Network(
        dense, stem=conv(4, 4), conv0=conv(4, 5), pool=nn.AdaptiveAvgPool2d(4), bn1=bn(9), conv1=conv(9, 3, padding=1),
        bn2=bn(12), conv2=conv(12, 3, padding=1), bn3=bn(15),
    ),
}  # fmt: skip

#: one BatchNorm or one convolution used repeatedly
SHARED = {
    "BatchNorm": lambda: Network(lambda m, x: m.bn(m.a(x)) * m.bn(m.b(x)), a=conv(), b=conv(), bn=bn(6)),
    "convolution": lambda: Network(
        lambda m, x: m.b(m.conv(m.a(m.conv(x)).relu())), conv=conv(4, 4, padding=1), a=bn(4), b=bn(4)
    ),
    "both": lambda: Network(
        lambda m, x: m.bn(m.conv(m.bn(m.conv(x)).relu())), conv=conv(4, 4, padding=1), bn=bn(4)
    ),
    "after and before": lambda: Network(
        lambda m, x: m.conv(m.bn(x)).relu() + m.conv(x), conv=conv(4, 4, padding=1), bn=bn(4)
    ),
}  # fmt: skip

#: nothing to merge into; the reason that is given
LEFT_ALONE = {
    "after a sum": (lambda: Network(lambda m, x: m.bn(m.conv(x) + x.abs()), conv=conv(4, 4, 1), bn=bn(4)), "add"),
    "after a maximum": (lambda: chain(nn.MaxPool2d(2), bn(4)), "0 (MaxPool2d)"),
    "before another activation": (lambda: chain(bn(4), nn.SiLU(), conv()), "input"),
    "max pool of negative scales": (lambda: chain(bn(4), nn.MaxPool2d(2), conv()), "goes to"),
    "padded average": (lambda: chain(bn(4), nn.AvgPool2d(2, padding=1), conv()), "goes to"),
    "without statistics": (lambda: chain(conv(), ForgetfulNorm(6)), "running statistics"),
    "features elsewhere": (lambda: chain(nn.Linear(8, 4), bn(4)), "another dimension"),
    "rectified convolution": (lambda: chain(Rectified(4, 6, 3), bn(6)), "Rectified is not that of a linear layer"),
    "standardized convolution": (lambda: chain(Standardized(4, 6, 3), bn(6)), "not that of a linear layer"),
    "rows as channels": (lambda: chain(nn.Flatten(1, 2), nn.Linear(8, 36), nn.BatchNorm1d(36)), "not known"),
    "channels as features": (
        lambda: chain(nn.Flatten(2), nn.Linear(72, 4), nn.Sigmoid(), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        "not known",
    ),
    "hook on the BatchNorm": (lambda: chain(conv(), hooked(bn(6))), "hooks"),
    "hook on the convolution": (lambda: chain(hooked(conv()), bn(6)), "hooks"),
    "hook on the ReLU": (lambda: chain(Wide(), bn(12), hooked(relu()), conv(12)), "no ReLU alone"),
    "hook on the pool": (lambda: chain(bn(4), hooked(nn.AvgPool2d(2)), conv()), "goes to 1 (AvgPool2d)"),
    "slices of unknown sizes": (
        lambda: Network(
            lambda m, x: m.bn(torch.cat([m.glu(m.a(x)), x.flip(1), m.b(x)], 1)),
            a=conv(padding=1),
            glu=nn.GLU(1),
            b=conv(4, 5, padding=1),
            bn=bn(12),
        ),
        "sizes of the slices",
    ),
    "weight that is computed": (
        lambda: chain(nn.utils.parametrizations.weight_norm(conv()), bn(6)),
        "other parameters",
    ),
}


def built(build: Callable[[], nn.Module], seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The network with random statistics, some of them extreme, and an input, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = randomize(build())
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d):
                for buffer in (module.weight, module.bias, module.running_mean):
                    buffer.normal_()
                module.running_var.uniform_(0.2, 2)
            if isinstance(module, ForgetfulNorm):
                module.running_mean = module.running_var = None
            if isinstance(module, nn.SyncBatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 2)
            if getattr(module, "affine", False):
                with torch.no_grad():
                    module.weight[2::5] = 0
                    module.weight[3::6] = 1e-11
        return model, torch.randn(IMAGE, dtype=torch.float64)
