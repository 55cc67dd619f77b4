"""timm's networks with their pretrained weights and the preprocessing that belongs to these; timm is optional."""

import math
from difflib import get_close_matches
from typing import Any

from torch import nn

from canonxai.errors import UserError, check
from canonxai.models.preprocessing import Preprocessing

try:
    import timm
except ImportError as missing:
    raise UserError(
        "model: expected timm to be installed, got none. Install it by pip install 'canonxai[timm]'."
    ) from missing


def model(name: str, weights: bool = True, num_classes: int = 1000) -> nn.Module:
    """A network of timm's.

    Args:
        name: as ``resnet50`` or ``resnet50.a1_in1k``, see ``timm.list_models()``.
        weights: whether to take the pretrained ones, downloaded once into the hub's cache.
        num_classes: outputs, >= 1; with pretrained weights as many as these have.

    Raises:
        UserError: if there is no such network, or its weights are for other classes.
        OSError: if the weights cannot be downloaded.
    """
    trained = _config(name).num_classes
    hint = "For your own, model.net.weights=false and model.checkpoint=PATH."
    fits = not weights or num_classes == trained
    check(fits, "model.net.num_classes", f"the {trained} of the weights of {name}", num_classes, hint)
    try:
        network: nn.Module = timm.create_model(name, pretrained=weights, num_classes=num_classes)
    except RuntimeError as error:  # timm's for a network without pretrained weights
        raise UserError(f"model.net.weights: {' '.join(str(error).split())}. Or false.") from error
    return network


def preprocessing(name: str, weights: bool = True) -> Preprocessing:
    """What the pretrained weights were evaluated with.

    Raises:
        UserError: if there is no such network, or its images are not made as :class:`Preprocessing` can say.
    """
    config = timm.data.resolve_data_config(pretrained_cfg=_config(name).to_dict())
    channels, height, width = config["input_size"]
    resize = math.floor(height / config["crop_pct"])
    fit = {"center": "crop", "squash": "stretch" if resize == height else None}.get(config["crop_mode"])
    if channels != 3 or height != width or fit is None:
        raise UserError(f"model.name: expected a network of square RGB images, got {name!r}, which takes {config}.")
    return Preprocessing(
        resize=resize,
        crop=height,
        fit=fit,
        interpolation=config["interpolation"],
        mean=list(config["mean"]),
        std=list(config["std"]),
    )


def _config(name: str) -> Any:
    """What timm knows of a network's pretrained weights."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = ", ".join(get_close_matches(name, timm.list_models(), 5)) or "none is near"
        raise UserError(f"model.name: expected a network of timm ({near}), got {name!r}.")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise UserError(f"model.name: expected one of {known}, got {name!r}.") from error
    return config
