"""A network whose layers forget what they learned, from the output on, until a block ends."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonxai import random
from canonxai.metrics.base import Explanation, heatmap, once_per_images, once_per_map
from canonxai.models.snapshot import restored
from canonxai.random import Stream


def layers(network: nn.Module) -> list[nn.Module]:
    """The layers that have parameters of their own, from the output to the input, in the order of definition."""
    found = [module for module in network.modules() if hasattr(module, "reset_parameters")]
    return [layer for layer in reversed(found) if any(True for _ in layer.parameters(recurse=False))]


@contextmanager
def randomized(batch: Explanation, count: int) -> Iterator[None]:
    """The first ``count`` of :func:`layers` have new parameters within the block.

    The network's own parameters are put back, the very same objects.
    """
    with restored(batch.network):
        for place, layer in enumerate(layers(batch.network)[:count]):
            fresh = fresh_layer(batch, place)
            layer._parameters.update(fresh._parameters)
            layer._buffers.update(fresh._buffers)
        yield


@once_per_images
def fresh_layer(batch: Explanation, place: int) -> nn.Module:
    """A copy of one of :func:`layers` with new parameters, drawn as when it was made.

    They are drawn on the CPU, one generator a layer, so that they depend on the seed and the layer's place alone.
    """
    layer = layers(batch.network)[place]
    with torch.random.fork_rng(devices=[]):
        drawn = random.bits(batch.seed, Stream.PARAMETERS, torch.tensor([place]), 1)
        torch.default_generator.manual_seed(int(drawn))
        fresh: Any = copy.deepcopy(layer).cpu()
        fresh.reset_parameters()
        fresh.to(next(layer.parameters()).device)
    module: nn.Module = fresh
    return module


@once_per_map
def randomized_map(batch: Explanation, count: int) -> Float[Tensor, "batch height width"]:
    """The channel-summed maps of the network whose first ``count`` of :func:`layers` are random."""
    with randomized(batch, count):
        return heatmap(batch.explain(batch.input, batch.target, batch.sample_id))
