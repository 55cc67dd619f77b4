"""timm's networks by name, and their own preprocessing."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from canonxai.data.geometry import Geometry
from canonxai.errors import UserError
from canonxai.models.normalization import Normalization
from canonxai.models.timm import model, preprocessing

#: bilinear and bicubic, several crops, a squashed one, other means
NAMES = [
    *("resnet18.a1_in1k", "resnet50", "densenet121", "tf_efficientnet_b0.ns_jft_in1k", "mobilenetv3_small_050"),
    *("vit_tiny_patch16_224", "convnext_atto", "inception_v3.tf_in1k", "xcit_nano_12_p16_224", "regnetx_002"),
    *("eva02_tiny_patch14_336.mim_in22k_ft_in1k", "mixnet_s", "ghostnet_100"),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_preprocessing_is_that_of_timms_own_evaluation(name):
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config)
    found = preprocessing(name)
    geometry = Geometry(found.resize, found.crop, found.fit, found.interpolation)
    normalize = Normalization(found.mean, found.std)
    rng = np.random.default_rng(0)
    for size in ((40, 31), (23, 50)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        torch.testing.assert_close(normalize(geometry.image(image)), transform(image), rtol=0, atol=1e-5)


def test_a_network_is_timms():
    network = model("mobilenetv3_small_050", weights=False, num_classes=7).eval()
    assert type(network) is type(timm.create_model("mobilenetv3_small_050"))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"^model\.name: .*resnet50.*got 'resnet51'\."):
        model("resnet51", weights=False)
    with pytest.raises(
        UserError, match=r"^model\.name: expected one of .*resnet18\.a1_in1k.*got 'resnet18\.no_such'\."
    ):
        preprocessing("resnet18.no_such")
    with pytest.raises(UserError, match=r"^model\.net\.num_classes: expected the 21843 of the weights"):
        model("mixer_b16_224.goog_in21k")
