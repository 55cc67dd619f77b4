"""The network that a model config names, with the weights that it names."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from torch import nn

from canonxai.config import build
from canonxai.errors import UserError
from canonxai.models.checkpoint import load_weights


def build_network(cfg: DictConfig, trained: bool = True) -> nn.Module:
    """Builds ``model.network`` with its own weights, or with those of ``model.checkpoint``, or untrained.

    Args:
        cfg: the ``model`` node.
        trained: whether to load weights at all.

    Raises:
        UserError: if the model has no variant for the data set's labels, or the weights cannot be had or do not fit.
    """
    try:
        network = cfg.network
    except InterpolationResolutionError as error:
        raise UserError(
            f"model={cfg.name}: expected data whose label_space is one of {', '.join(cfg.variants)}. Add a variant to "
            "the model's YAML, or give model.network and model.checkpoint."
        ) from error
    if "weights" in network and (cfg.checkpoint is not None or not trained):
        network = OmegaConf.merge(network, {"weights": None})
    try:
        model: nn.Module = build(network, "model.network")
    except (OSError, KeyError) as error:
        raise UserError(
            f"model.network.weights: {network.get('weights')!r} could not be had ({error}). "
            "Give a local file by model.checkpoint=PATH."
        ) from error
    if cfg.checkpoint is not None and trained:
        load_weights(model, Path(cfg.checkpoint))
    return model
