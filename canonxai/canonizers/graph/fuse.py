"""The form of a network in which it is fastest: each BatchNorm that alone follows a linear layer merged into it.

A canonizer also merges BatchNorms that do not, at the price of copies of layers or of biases that are maps, and writes
nowhere in place. Here a network does only what it did before, without the merged BatchNorms.
"""

import copy

import torch
from torch import nn

from canonxai.canonizers.graph.merge import fuse_batch_norms
from canonxai.canonizers.graph.network import Network
from canonxai.canonizers.graph.normalize import simplify
from canonxai.canonizers.graph.record import MERGED_LEFT


@torch.no_grad()
def fused(model: nn.Module) -> tuple[nn.Module, int]:
    """A fused copy of a network in evaluation mode, and how many BatchNorms are merged.

    Raises:
        UserError: if torch.fx cannot trace the network.
    """
    network = Network(copy.deepcopy(model))
    simplify(network)
    fuse_batch_norms(network)
    network.install()
    return network.root, sum(rewrite.action == MERGED_LEFT for rewrite in network.rewrites())
