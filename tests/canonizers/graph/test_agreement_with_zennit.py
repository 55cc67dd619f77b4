"""On VGG and ResNet, maps are those under the canonizers that are made for them."""

import pytest
from hydra.utils import instantiate

from canonxai.canonizers import GraphCanonizer
from canonxai.config import CONF
from tests.networks import CANONIZERS, network, query

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
PARTS = {"resnet18": [None, ["merge_bn"], ["sum"]], "vgg16_bn": [None], "resnet50": [None]}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("architecture", CANONIZERS)
def test_maps_of_every_method_are_those_under_the_canonizers_for_the_architecture(name, architecture, config):
    method = instantiate({k: v for k, v in config(f"method={name}").method.items() if k not in ("name", "title")})
    asked = query(network(architecture), batch=1)
    for parts in PARTS[architecture]:
        expected, got = (method(asked, [canonizer(parts)]) for canonizer in (CANONIZERS[architecture], GraphCanonizer))
        scale = expected.abs().amax((1, 2, 3), keepdim=True)
        assert ((got - expected) / scale).abs().max() < 1e-9
