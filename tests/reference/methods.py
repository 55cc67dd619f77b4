"""The methods of ``conf/method``, and networks and images to explain."""

from functools import cache

import torch
from omegaconf import OmegaConf
from torch import Tensor
from zennit.canonizers import Canonizer

from canonxai import config
from canonxai.attribution import Method
from tests.networks import CANONIZERS, network, query

METHODS = sorted(path.stem for path in (config.CONF / "method").glob("*.yaml"))
NETWORKS = ("resnet18", "vgg16_bn")


def method(name: str, **arguments: object) -> Method:
    """A method with the parameters of its YAML, but for some."""
    node = OmegaConf.load(config.CONF / "method" / f"{name}.yaml")
    return config.build(OmegaConf.merge(node, arguments), "method", config.Method)


def canonizers(net: str, canonize: bool) -> list[Canonizer]:
    """What makes the state of a network."""
    return [CANONIZERS[net]()] if canonize else []


@cache
def attribution(name: str, net: str, canonize: bool) -> Tensor:
    """The map as the explainer asks for it: of a frozen model, without gradients."""
    with torch.no_grad():
        return method(name)(query(network(net).requires_grad_(False)), canonizers(net, canonize))
