"""Rewrites a network into a functionally identical one that attribution rules understand."""

from canonxai.canonizers.agreement import Agreement, Agreements, canonization_agreement, logit_agreement
from canonxai.canonizers.graph import GraphCanonizer, Rewrite, fused, rewrites
from canonxai.canonizers.merge import ExactMergeBatchNorm
from canonxai.canonizers.networks import ResNetCanonizer, VGGCanonizer
from canonxai.canonizers.transformer import TransformerCanonizer

__all__ = [
    "Agreement",
    "Agreements",
    "ExactMergeBatchNorm",
    "GraphCanonizer",
    "ResNetCanonizer",
    "Rewrite",
    "TransformerCanonizer",
    "VGGCanonizer",
    "canonization_agreement",
    "fused",
    "logit_agreement",
    "rewrites",
]
