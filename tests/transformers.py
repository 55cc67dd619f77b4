"""Small ViTs, Swin transformers and ConvNeXts of torchvision, in float64."""

import copy
from functools import cache, partial

import torch
from torch import nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vision_transformer import ConvStemConfig

_VIT = partial(VisionTransformer, 32, 8, 2, 4, 16, 32, num_classes=5)
BUILDERS = {
    "vit": _VIT,
    "vit_conv_stem": partial(_VIT, conv_stem_configs=[ConvStemConfig(8, 3, 4), ConvStemConfig(8, 3, 2)]),
    "swin": partial(SwinTransformer, [4, 4], 8, [2, 2], [2, 4], [3, 3], num_classes=5),
    "convnext": partial(ConvNeXt, [CNBlockConfig(8, 12, 2), CNBlockConfig(12, None, 2)], num_classes=5),
}


@cache
def _transformer(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = BUILDERS[name]()
        for parameter in model.parameters():  # some are zero at first, as ViT's head and all biases
            nn.init.normal_(parameter, std=0.3)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.3)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def transformer(name: str) -> nn.Module:
    """A fresh copy of one of ``BUILDERS``' networks, with random parameters."""
    return copy.deepcopy(_transformer(name))
