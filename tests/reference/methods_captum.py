"""The methods against Captum, where it has the same rules; all in float64."""

from functools import partial
from unittest import mock

import torch
from captum.attr import LRP, NoiseTunnel, Saliency
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from torch import nn

from benchmarks.attribution import WITHOUT_CAPTUM, with_captum
from canonxai import random
from canonxai.attribution.lrp import LRPEpsilonPlus
from canonxai.random import Stream
from tests.networks import network, query
from tests.reference.comparison import Comparison, Comparisons, Pairs
from tests.reference.methods import NETWORKS, attribution, canonizers, method
from tests.reference.methods_formulas import classifier

COMPARISONS = Comparisons("Captum")
#: what Captum calls a method, and where it differs
NAMES = {
    "gradient": ("Saliency", 1e-12, "Captum's with abs=False"),
    "ixg": ("InputXGradient", 1e-12, ""),
    "ig": ("IntegratedGradients", 1e-7, "Captum's by the right Riemann sum, method=riemann_right, as zennit's; its "
    "steps "
           "are rounded to float32"),
    "gbp": ("GuidedBackprop", 1e-12, ""),
    "deconvnet": ("Deconvolution", 1e-12, ""),
}  # fmt: skip
#: methods that Captum has none of, and why
MISSING = {name: reason for name, reason in WITHOUT_CAPTUM.items() if name != "lrp_eps_plus"}


def compared(name: str) -> Pairs:
    """Captum explains the network as written, canonxai also the canonized one, which must not matter."""
    for net in NETWORKS:
        image = query(network(net))
        expected = with_captum(network(net), name, 20, [(image.input, image.target)])()
        for canonize in (False, True):
            yield from zip(attribution(name, net, canonize), expected, strict=True)


COMPARISONS += [
    Comparison(name, f"Captum's {theirs}", tolerance, partial(compared, name), note)
    for name, (theirs, tolerance, note) in NAMES.items()
]


@COMPARISONS(
    "smoothgrad", 1e-12, "Captum is given canonxai's noise, and the gradient itself as the copy without noise, "
    "which zennit and canonxai have; its standard deviation is an absolute number, theirs a share of the image's range",
    "Captum's NoiseTunnel of Saliency",
)  # fmt: skip
def smoothgrad() -> Pairs:
    for net in NETWORKS:
        image, model = query(network(net)), network(net)
        spread = image.input.amax((1, 2, 3)) - image.input.amin((1, 2, 3))
        shape = tuple(image.input.shape[1:])
        names = [image.sample_id * 20 + copy for copy in range(1, 20)]
        noise = torch.stack([random.normal(image.seed, Stream.SMOOTHGRAD, name, shape) for name in names], 1)
        noise = (0.1 * spread.view(-1, 1, 1, 1, 1) * noise).flatten(0, 1)
        with mock.patch.object(torch, "normal", lambda mean, deviation, noise=noise: noise.view_as(deviation)):
            tunnel = NoiseTunnel(Saliency(model))
            noisy = tunnel.attribute(image.input.clone(), target=image.target, nt_samples=19, abs=False)
        clean = Saliency(model).attribute(image.input.clone(), target=image.target, abs=False)
        yield from zip(attribution("smoothgrad", net, False), (19 * noisy + clean) / 20, strict=True)


@COMPARISONS(
    "lrp_eps", 1e-6, "of the network with BatchNorm merged; Captum starts with the logit, canonxai with 1, and adds "
    "1e-9 in max-pooling; on ResNet its LRP refuses ReLUs that are used twice", "Captum's LRP, EpsilonRule",
)  # fmt: skip
def lrp_epsilon() -> Pairs:
    image = query(network("vgg16_bn"))
    expected = with_captum(network("vgg16_bn"), "lrp_eps", 0, [(image.input, image.target)])()
    yield from zip(method("lrp_eps")(image, canonizers("vgg16_bn", True)), expected, strict=True)


@COMPARISONS(
    "lrp_eps_plus", 1e-6, "of images without negative values and a network without biases: Captum's rule takes "
    "positive "
    "weights alone for positive contributions, and leaves biases as they are", "Captum's LRP, Alpha1_Beta0_Rule",
)  # fmt: skip
def lrp_epsilon_plus() -> Pairs:
    for pool in (True, False):
        image = query(classifier(pool, bias=False), size=8)
        image.input.abs_()
        expected_model = classifier(pool, bias=False)
        for module in expected_model:
            module.rule = Alpha1_Beta0_Rule() if isinstance(module, nn.Conv2d) else EpsilonRule(1e-9)
            if isinstance(module, nn.ReLU):
                del module.rule
        expected = LRP(expected_model).attribute(image.input.clone(), target=image.target)
        logit = image.model(image.input).gather(1, image.target[:, None])[..., None, None]
        yield from zip(LRPEpsilonPlus(epsilon=1e-9, stabilizer=1e-9)(image), (expected / logit).detach(), strict=True)
