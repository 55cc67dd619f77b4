"""Canonizes any network that torch.fx can trace."""

from canonxai.canonizers.graph.canonizer import GraphCanonizer, rewrites
from canonxai.canonizers.graph.fuse import fused
from canonxai.canonizers.graph.record import Rewrite

__all__ = ["GraphCanonizer", "Rewrite", "fused", "rewrites"]
