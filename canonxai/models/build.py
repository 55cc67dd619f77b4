"""The network that a model config names, with the weights that it names."""

import logging

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError
from torch import nn

from canonxai.config import build
from canonxai.data.paths import user_path
from canonxai.errors import UserError
from canonxai.models.checkpoint import load_weights

log = logging.getLogger(__name__)


def build_network(cfg: DictConfig, label_space: str, trained: bool = True) -> nn.Module:
    """Builds ``model.net`` with its own weights, or with those of ``model.checkpoint``, or untrained.

    Args:
        cfg: the ``model`` node.
        label_space: what the data set's labels mean.
        trained: whether to load weights at all.

    Raises:
        UserError: if the outputs mean something else than the labels, or the weights cannot be had or do not fit.
    """
    mean = cfg.get("label_space")
    if mean not in (None, label_space):
        raise UserError(
            f"model.label_space: expected that of the data, {label_space}, got {mean}, the classes of the outputs. For "
            f"a network of your own: model.label_space={label_space} model.net.num_classes=N model.net.weights=null "
            "model.checkpoint=PATH."
        )
    try:
        net = cfg.net
    except InterpolationKeyError as error:
        known = ", ".join(cfg.get("variants", {}))
        raise UserError(
            f"model={cfg.name}: expected data whose label_space is one of {known}, got {label_space}. For a network of "
            "your own classes see model=torchvision, model=timm and model=custom."
        ) from error
    if "weights" in net and (cfg.get("checkpoint") is not None or not trained):
        net = OmegaConf.merge(net, {"weights": False if net.weights is True else None})
    try:
        model: nn.Module = build(net, "model.net")
    except (OSError, KeyError) as error:
        raise UserError(
            f"model.net.weights: {net.get('weights')!r} could not be had ({error}). "
            "Give a local file by model.checkpoint=PATH."
        ) from error
    if trained and cfg.get("checkpoint") is not None:
        load_weights(model, user_path(cfg.checkpoint))
    elif trained and "weights" in net and not net.weights:
        log.warning("model: random weights, as model.net.weights=%s and model.checkpoint=null", net.weights)
    elif trained and "weights" not in net:
        told = "model: model.checkpoint=null, so the weights are random unless %s loads some"
        log.warning(told, net["_target_"])
    return model
