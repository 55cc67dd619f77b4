"""torchvision's classification networks with their official weights and the preprocessing that belongs to these."""

from difflib import get_close_matches
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from canonxai.errors import UserError, check
from canonxai.models.preprocessing import Preprocessing

#: as torchvision builds them when it is given official weights; the first changes what the network computes
_OFFICIAL: dict[str, dict[str, Any]] = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}


def model(name: str, weights: str | None = None, num_classes: int = 1000) -> nn.Module:
    """A classification network of torchvision's.

    Args:
        name: as ``resnet18``, one of ``torchvision.models.list_models(module=torchvision.models)``.
        weights: as ``IMAGENET1K_V1``, or ``DEFAULT`` for the best; downloaded once into torch's cache, their hash
            checked and no code in them run. ``None`` for random weights.
        num_classes: outputs, >= 1; 1,000 with official weights.

    Raises:
        UserError: if there is no such network, or it has no such weights.
        OSError: if the weights cannot be downloaded.
    """
    _check_name(name)
    official = _OFFICIAL.get(name, {})
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes, **official)
    if weights is not None:
        entry = _weights(name, weights)
        trained = len(entry.meta["categories"] or ())
        hint = "For your own, model.net.weights=null and model.checkpoint=PATH."
        check(num_classes == trained, "model.net.num_classes", f"the {trained} of weights={weights}", num_classes, hint)
        network.load_state_dict(entry.get_state_dict(progress=False, check_hash=True, weights_only=True))
    return network


def preprocessing(name: str, weights: str | None = None) -> Preprocessing:
    """What the weights were evaluated with; for random weights that of the network's best ones.

    Raises:
        UserError: if there is no such network, or it has no such weights.
    """
    _check_name(name)
    preset = _weights(name, weights or "DEFAULT").transforms()
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=list(preset.mean),
        std=list(preset.std),
    )


def _check_name(name: str) -> None:
    known = list_models(module=torchvision.models)
    if name not in known:
        near = ", ".join(get_close_matches(name, known, 5)) or "none is near"
        raise UserError(f"model.name: expected a classification network of torchvision ({near}), got {name!r}.")


def _weights(name: str, weights: str) -> Any:
    choices = get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(f"model.net.weights: expected one of {', '.join(choices.__members__)}, got {weights!r}.")
    return choices[weights]
