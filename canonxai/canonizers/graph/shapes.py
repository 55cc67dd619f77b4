"""What is known of the shapes of a network's values without running it."""

from typing import Any

from torch import nn
from torch.fx import Node
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
from torchvision.ops.misc import FrozenBatchNorm2d
from zennit.types import Activation, Convolution, Linear

from canonxai.canonizers.graph.affine import channels, is_batch_norm
from canonxai.canonizers.graph.functional import Mean, operation
from canonxai.canonizers.graph.hooks import has_hooks
from canonxai.canonizers.graph.network import Network


class Shapes:
    """Of the values of ``network``."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def sizes(self, parts: Any, total: int = 0) -> list[int]:
        """The channels of each of several values; empty if more than one is not known, or one without the total."""
        sizes = [self.channels(part) or 0 for part in parts]
        rest = total - sum(sizes)
        return [] if sizes.count(0) > (rest > 0) else [size or rest for size in sizes]

    def channels(self, value: Any) -> int | None:
        """How many channels a value has, as far as that is known without running the network."""
        module: Any = self.network.module(value)
        if isinstance(module, Linear):
            return channels(module)[1] if isinstance(module, Convolution) or self.is_flat(value) else None
        if is_batch_norm(module) and is_plain(module):
            size = next((v for v in (module.running_mean, module.weight) if v is not None), None)
            return None if size is None else len(size)
        if is_concatenation(value):
            return sum(self.sizes(value.args[0])) or None
        if isinstance(value, Node) and operation(value) in ("add", "mul"):
            sizes = [self.channels(v) for v in value.args if not isinstance(v, (int, float))]
            return None if None in sizes else max(size or 0 for size in sizes)
        return self.channels(value.args[0]) if _keeps_channels(module) else None

    def is_flat(self, value: Any) -> bool:
        """Whether a value is known to have no dimensions but the batch and features."""
        module: Any = self.network.module(value)
        if isinstance(module, nn.Flatten):
            return is_plain(module) and (module.start_dim, module.end_dim) == (1, -1)
        if isinstance(module, Mean):
            return not module.keepdim and len(module.dim) == 2 and self.is_map(value.args[0])
        if isinstance(value, Node) and operation(value) in ("view", "reshape"):
            sizes = value.args[1] if isinstance(value.args[-1], (tuple, list)) else value.args[1:]
            return isinstance(sizes, (tuple, list)) and len(sizes) == 2
        if is_concatenation(value) or (isinstance(value, Node) and operation(value) in ("add", "mul")):
            parts: Any = value.args[0] if is_concatenation(value) else value.args
            return all(self.is_flat(part) or isinstance(part, (int, float)) for part in parts)
        keeps = isinstance(module, nn.Linear) or is_batch_norm(module) or _keeps_channels(module)
        return keeps and not is_pool(module) and self.is_flat(value.args[0])

    def is_map(self, value: Any) -> bool:
        """Whether a value is known to have channels and two dimensions more."""
        module: Any = self.network.module(value)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) or (is_batch_norm(module) and dimensions(module) == 4):
            return True
        return _keeps_channels(module) and self.is_map(value.args[0])


def dimensions(batch_norm: nn.Module) -> int | None:
    """The dimensions of a BatchNorm's input; None if it may or may not have positions."""
    if isinstance(batch_norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
        return 4
    return 5 if isinstance(batch_norm, nn.BatchNorm3d) else None


def is_plain(module: Any) -> bool:
    """Whether a module computes what torch's own of its kind does: without the user's hooks or forward pass."""
    if not isinstance(module, nn.Module) or "forward" in vars(module) or has_hooks(module):
        return False
    return type(module).forward.__module__.startswith(("torch.nn", "torchvision.ops"))


def is_concatenation(value: Any) -> bool:
    """Whether a value is a concatenation of channels."""
    if not isinstance(value, Node) or operation(value) not in ("cat", "concat", "concatenate") or not value.args:
        return False
    dim: Any = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", value.kwargs.get("axis"))
    return bool(dim == 1) and isinstance(value.args[0], (list, tuple))


def _keeps_channels(module: Any) -> bool:
    """Whether a module is known to give as many channels, and dimensions, as it takes."""
    if is_pool(module):
        return not getattr(module, "return_indices", False)
    kinds = isinstance(module, (Activation, _DropoutNd)) and not isinstance(module, nn.MultiheadAttention)
    return kinds and is_plain(module)


def is_pool(module: Any) -> bool:
    """Whether a module pools, and does nothing else."""
    return isinstance(module, (_AvgPoolNd, _MaxPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)) and is_plain(module)
