"""Rewrites a network into a functionally identical one that attribution rules understand."""

from canonxai.canonizers.agreement import Agreement, canonization_agreement, logit_agreement
from canonxai.canonizers.merge import ExactMergeBatchNorm
from canonxai.canonizers.networks import ResNetCanonizer, VGGCanonizer

__all__ = [
    "Agreement",
    "ExactMergeBatchNorm",
    "ResNetCanonizer",
    "VGGCanonizer",
    "canonization_agreement",
    "logit_agreement",
]
