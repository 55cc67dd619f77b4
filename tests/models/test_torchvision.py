"""torchvision's networks by name, and their own preprocessing."""

import re

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from torchvision.models import get_model, get_model_weights, list_models

from canonxai.data.geometry import Geometry
from canonxai.errors import UserError
from canonxai.models.normalization import Normalization
from canonxai.models.torchvision import model, preprocessing

NAMES = list_models(module=torchvision.models)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_the_preprocessing_of_its_weights(name):
    """Image by image the same input as by ``weights.transforms()``, for a landscape and a portrait picture."""
    rng = np.random.default_rng(0)
    for weights in get_model_weights(name):
        found = preprocessing(name, weights.name)
        geometry = Geometry(found.resize, found.crop, found.fit, found.interpolation)
        normalize = Normalization(found.mean, found.std)
        for size in ((40, 31), (23, 50)):
            image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            expected = weights.transforms()(image)
            torch.testing.assert_close(normalize(geometry.image(image)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "inception_v3", "mobilenet_v3_small"])
def test_a_network_is_built_as_with_official_weights(name, monkeypatch):
    """Also where torchvision builds another network if it is given weights: these put the input on another scale."""
    random = get_model(name, weights=None, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))
    state = random.state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: state)
    official = get_model(name, weights="DEFAULT").eval()
    side = 75 if name == "inception_v3" else 64
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(name, "DEFAULT").eval()(image), official(image))


def test_random_weights_can_have_any_number_of_classes():
    network = model("shufflenet_v2_x0_5", None, num_classes=7).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_unknown_names_and_weights_are_told_with_what_there_is():
    with pytest.raises(UserError, match=r"^model\.name: .*resnet50.*got 'resnet51'\."):
        model("resnet51")
    with pytest.raises(UserError, match=r"^model\.name: .*got 'fcn_resnet50'"):
        preprocessing("fcn_resnet50")  # torchvision's, but no classifier
    with pytest.raises(UserError, match=r"^model\.net\.weights: expected one of IMAGENET1K_V1, .*got 'V9'\."):
        model("resnet50", "V9")
    with pytest.raises(UserError, match=re.escape("expected the 1000 of weights=DEFAULT, got 20.")):
        model("resnet18", "DEFAULT", num_classes=20)
