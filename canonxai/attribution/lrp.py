"""Layer-wise relevance propagation: the target's relevance is handed down layer by layer, in proportion.

    R_i = sum_j  z_ij / (sum_i' z_i'j + eps sign(.))  R_j,    z_ij = x_i w_ij    (the epsilon rule)

Bach et al., PLoS ONE 2015, "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
propagation"; composites of rules after Montavon et al., 2019, "Layer-wise relevance propagation: an overview", and
Kohlbrenner et al., IJCNN 2020. The relevance put in at the output is 1, as zennit's users do it: maps are those of the
logit up to the factor 1 / f_c, so a negative logit turns the signs round compared with starting from f_c.

All are zennit's composites where it has them. In each, activations and BatchNorm pass relevance on unchanged, and sums
and average pools hand it on in proportion; that is why BatchNorm has to be merged first, or be given another rule, see
``canonxai.attribution.batchnorm``. Transformers have rules in ``canonxai.attribution.transformer``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zennit.canonizers import Canonizer
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    NameLayerMapComposite,
    SpecialFirstLayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite, Hook
from zennit.rules import Epsilon, Flat, Gamma
from zennit.types import Convolution, Linear

from canonxai.attribution.base import Method, Query
from canonxai.attribution.batchnorm import BATCHNORM_RULES, batchnorm_map
from canonxai.attribution.transformer import ATTENTION_SHARES, transformer_map
from canonxai.errors import check, check_choice


def check_rule_arguments(epsilon: float = 1e-6, stabilizer: float = 1e-6, zero_params: list[str] | None = None) -> None:
    """Raises a UserError for an argument of a rule that is out of its range."""
    check(0 < epsilon < math.inf, "method.epsilon", "a number > 0", epsilon)
    check(0 < stabilizer < math.inf, "method.stabilizer", "a number > 0", stabilizer)
    allowed = "null or a list of weight, bias"
    check(set(zero_params or ()) <= {"weight", "bias"}, "method.zero_params", allowed, zero_params)


@dataclass(eq=False)
class LRP(Method):
    """What all composites of LRP share.

    Args:
        epsilon: of the epsilon rule: added to each pre-activation, with its sign, > 0.
        stabilizer: the same for all other rules, > 0.
        zero_params: parameters that count as zero, of ``weight`` and ``bias``; ``[bias]`` keeps the bias from absorbing
            relevance.
        batchnorm_rule: of each BatchNorm that is not merged: ``pass``, ``epsilon`` or ``omega``.
        attention: whether attention is ``constant`` or gets relevance as in ``attnlrp``.

    Raises:
        UserError: if an argument is out of its range.
    """

    epsilon: float = 1e-6
    stabilizer: float = 1e-6
    zero_params: list[str] | None = None
    batchnorm_rule: str = "pass"
    attention: str = "constant"

    def __post_init__(self) -> None:
        check_rule_arguments(self.epsilon, self.stabilizer, self.zero_params)
        check_choice("method.batchnorm_rule", self.batchnorm_rule, BATCHNORM_RULES)
        check_choice("method.attention", self.attention, ATTENTION_SHARES)

    @property
    def _layer_map(self) -> list[tuple[Any, Hook | None]]:
        """What goes before the layer map of zennit's composites."""
        return [
            *batchnorm_map(self.batchnorm_rule, self.epsilon, self.stabilizer, self.zero_params),
            *transformer_map(self.attention, self.epsilon, self.zero_params),
        ]

    @property
    def _arguments(self) -> dict[str, object]:
        return {
            "epsilon": self.epsilon,
            "stabilizer": self.stabilizer,
            "zero_params": self.zero_params,
            "layer_map": self._layer_map,
        }


class LRPEpsilon(LRP):
    """The epsilon rule in every linear layer."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        rule = Epsilon(self.epsilon, zero_params=self.zero_params)
        layer_map = [*self._layer_map, *layer_map_base(self.stabilizer), (Linear, rule)]
        return LayerMapComposite(layer_map, canonizers=list(canonizers))


class LRPEpsilonPlus(LRP):
    """The z+ rule in convolutions, epsilon in fully connected layers."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return EpsilonPlus(canonizers=list(canonizers), **self._arguments)


class LRPEpsilonPlusFlat(LRP):
    """As :class:`LRPEpsilonPlus`, with the flat rule in the first layer."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return EpsilonPlusFlat(canonizers=list(canonizers), **self._arguments)


class LRPEpsilonAlpha2Beta1(LRP):
    """The alpha-beta rule with alpha = 2, beta = 1 in convolutions, epsilon in fully connected layers."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return EpsilonAlpha2Beta1(canonizers=list(canonizers), **self._arguments)


class LRPEpsilonAlpha2Beta1Flat(LRP):
    """As :class:`LRPEpsilonAlpha2Beta1`, with the flat rule in the first layer."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return EpsilonAlpha2Beta1Flat(canonizers=list(canonizers), **self._arguments)


@dataclass(eq=False)
class LRPGamma(LRP):
    """What the composites with the gamma rule share.

    Args:
        gamma: how much positive weights are favoured, >= 0.
    """

    gamma: float = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.gamma < math.inf, "method.gamma", "a number >= 0", self.gamma)


class LRPEpsilonGammaBox(LRPGamma):
    """The gamma rule in convolutions, epsilon in fully connected layers, and the box rule (z^B) in the first layer.

    The box is the range that normalised pixels can take, by the data's mean and standard deviation.
    """

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        low, high = (bound.expand_as(query.input) for bound in (query.low, query.high))
        return EpsilonGammaBox(low, high, gamma=self.gamma, canonizers=list(canonizers), **self._arguments)


class LRPEpsilonGammaFlat(LRPGamma):
    """The gamma rule in convolutions, epsilon in fully connected layers, and the flat rule in the first layer."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        shared = {"stabilizer": self.stabilizer, "zero_params": self.zero_params}
        layer_map = [
            *self._layer_map,
            *layer_map_base(self.stabilizer),
            (Convolution, Gamma(self.gamma, **shared)),
            (Linear, Epsilon(self.epsilon, zero_params=self.zero_params)),
        ]
        return SpecialFirstLayerMapComposite(layer_map, [(Linear, Flat(**shared))], canonizers=list(canonizers))


@dataclass(eq=False)
class LRPGroups(LRP):
    """The gamma rule in convolutions, with a gamma for each third of them, and epsilon in fully connected layers.

    Convolutions are counted in the order of definition. Rules by depth, to be chosen by a search, as in Pahde et al.,
    CVPR-W 2023, "Optimizing explanations by network canonization and hyperparameter search".

    Args:
        gamma_low: how much positive weights are favoured in the third next to the input, >= 0.
        gamma_middle: the same in the second third.
        gamma_high: and in the third next to the output.
    """

    gamma_low: float = field(default=0.25, kw_only=True)
    gamma_middle: float = field(default=0.25, kw_only=True)
    gamma_high: float = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma_low", "gamma_middle", "gamma_high"):
            check(0 <= getattr(self, name) < math.inf, f"method.{name}", "a number >= 0", getattr(self, name))

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        shared = {"stabilizer": self.stabilizer, "zero_params": self.zero_params}
        layers = [name for name, module in query.model.named_modules() if isinstance(module, Convolution)]
        groups: list[list[str]] = [[], [], []]
        for place, name in enumerate(layers):
            groups[3 * place // len(layers)].append(name)
        rules = [Gamma(gamma, **shared) for gamma in (self.gamma_low, self.gamma_middle, self.gamma_high)]
        layer_map = [
            *self._layer_map,
            *layer_map_base(self.stabilizer),
            (Linear, Epsilon(self.epsilon, zero_params=self.zero_params)),
        ]
        name_map = list(zip(map(tuple, groups), rules, strict=True))
        return NameLayerMapComposite(name_map, layer_map, canonizers=list(canonizers))
