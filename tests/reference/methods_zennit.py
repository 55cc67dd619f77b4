"""The methods against zennit, called directly: its attributor, its composite with the documented defaults."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from zennit.attribution import Gradient, IntegratedGradients
from zennit.canonizers import Canonizer
from zennit.composites import (
    DeconvNet,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
    NameLayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import Epsilon, Flat, Gamma
from zennit.types import Convolution, Linear

from canonxai import random
from canonxai.attribution import Query
from canonxai.random import Stream
from tests.networks import network, query
from tests.reference.comparison import Comparison, Pairs
from tests.reference.methods import METHODS, NETWORKS, attribution, canonizers

Direct = Callable[[Query, Sequence[Canonizer]], Tensor]


def propagate(query: Query, attributor: Gradient) -> Tensor:
    return attributor(query.input.clone(), torch.eye(10).double()[query.target])[1]


def lrp(composite: Callable[[Query], Composite]) -> Direct:
    def direct(query: Query, canonizers: Sequence[Canonizer]) -> Tensor:
        rules = composite(query)
        rules.canonizers = canonizers
        return propagate(query, Gradient(query.model, rules))

    return direct


def gamma_box(query: Query, **arguments: Any) -> Composite:
    return EpsilonGammaBox(query.low[None], query.high[None], gamma=0.25, **arguments)


def gamma_flat(query: Query, **arguments: Any) -> Composite:
    return EpsilonGammaBox(0, 0, gamma=0.25, first_map=[(Linear, Flat())], **arguments)


def gammas(query: Query, low: float = 0.25, middle: float = 0.25, high: float = 0.25) -> Composite:
    """The rules by the place of each convolution in the order of definition."""
    convolutions = [name for name, module in query.model.named_modules() if isinstance(module, Convolution)]
    third = len(convolutions) / 3
    by_place = {name: (low, middle, high)[int(place / third)] for place, name in enumerate(convolutions)}
    fully_connected = (Linear, Epsilon(1e-6))
    name_map = [((name,), Gamma(gamma)) for name, gamma in by_place.items()]
    return NameLayerMapComposite(name_map, [*layer_map_base(), fully_connected])


gradient = lrp(lambda query: Composite())


def integrated_gradients(query: Query, canonizers: Sequence[Canonizer]) -> Tensor:
    return propagate(query, IntegratedGradients(query.model, Composite(canonizers=canonizers), n_iter=20))


def smoothgrad(query: Query, canonizers: Sequence[Canonizer]) -> Tensor:
    images = query.input
    deviation = torch.stack([0.1 * (image.max() - image.min()) for image in images])[:, None, None, None]
    total = gradient(query, canonizers)
    for i in range(1, 20):
        noise = random.normal(query.seed, Stream.SMOOTHGRAD, query.sample_id * 20 + i, tuple(images.shape[1:]))
        total = total + gradient(dataclasses.replace(query, input=images + deviation * noise), canonizers)
    return total / 20


DIRECT: dict[str, Direct] = {
    "gradient": gradient,
    "ixg": lambda query, canonizers: query.input * gradient(query, canonizers),
    "ig": integrated_gradients,
    "smoothgrad": smoothgrad,
    "gbp": lrp(lambda query: GuidedBackprop()),
    "deconvnet": lrp(lambda query: DeconvNet()),
    "ebp": lrp(lambda query: ExcitationBackprop(stabilizer=1e-6)),
    "lrp_eps": lrp(lambda query: EpsilonPlus(layer_map=[(Linear, Epsilon(1e-6))])),
    "lrp_eps_plus": lrp(lambda query: EpsilonPlus(epsilon=1e-6, stabilizer=1e-6)),
    "lrp_eps_plus_flat": lrp(lambda query: EpsilonPlusFlat(epsilon=1e-6, stabilizer=1e-6)),
    "lrp_eps_a2b1": lrp(lambda query: EpsilonAlpha2Beta1(epsilon=1e-6, stabilizer=1e-6)),
    "lrp_eps_a2b1_flat": lrp(lambda query: EpsilonAlpha2Beta1Flat(epsilon=1e-6, stabilizer=1e-6)),
    "lrp_eps_gamma_box": lrp(gamma_box),
    "lrp_eps_gamma_flat": lrp(gamma_flat),
    "lrp_groups": lrp(gammas),
    "random": lambda query, canonizers: random.normal(query.seed, Stream.RANDOM_MAP, query.sample_id, (3, 32, 32)),
}
NOTES = {
    "lrp_eps": "zennit has no composite of it: its epsilon rule in every convolution and linear layer",
    "lrp_eps_gamma_flat": "zennit has no composite of it: EpsilonGammaBox with the flat rule in the first layer",
    "lrp_groups": "zennit has no composite of it: its gamma rule in each convolution, epsilon in linear layers",
    "smoothgrad": "zennit's gradient of each noisy copy: its own SmoothGrad draws from the global generator, so that "
    "a map depends on the batch that it is in",
    "random": "standard normal values, no method of zennit's",
}


def compared(name: str) -> Pairs:
    """ResNet18 and VGG-16-BN, as written and canonized; maps that are zero would prove nothing."""
    for net in NETWORKS:
        for canonize in (False, True):
            direct = DIRECT[name](query(network(net)), canonizers(net, canonize))
            assert direct.isfinite().all() and (direct.flatten(1).abs().amax(1) > 0).all()
            yield attribution(name, net, canonize), direct


COMPARISONS = [
    Comparison(name, "a direct draw" if name == "random" else "zennit", 0, partial(compared, name), NOTES.get(name, ""))
    for name in METHODS
]
