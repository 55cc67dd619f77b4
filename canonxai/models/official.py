"""torchvision's full-width classification networks with their official weights."""

from torch import nn
from torchvision.models import get_model, get_model_weights


def torchvision_model(name: str, weights: str | None = None) -> nn.Module:
    """A network of torchvision's, by the name that ``torchvision.models.get_model`` knows.

    Args:
        name: as ``resnet18``.
        weights: as ``IMAGENET1K_V1``, downloaded once into torch's cache, its hash checked and no code in it run;
            ``None`` for random weights.

    Raises:
        KeyError: for weights that the network does not have.
        OSError: if the weights cannot be downloaded.
    """
    model: nn.Module = get_model(name, weights=None)
    if weights is not None:
        state = get_model_weights(name)[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
        model.load_state_dict(state)
    return model
