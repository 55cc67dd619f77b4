"""What Quantus 0.6.0 does for grey images, NumPy 1 or networks of one form alone, done for all.

ROAD and IROF replace places of channels, of which they take images to have one; here they replace whole pixels. IROF's
area and Continuity need names that NumPy 2 dropped. InputInvariance shifts the bias of the network's first
module, which must be a convolution that has one, in float32; here it is that of the first convolution or linear layer,
wherever it stands and with or without a bias; and all values of the inputs are shifted, where Quantus leaves out the
first. BatchSufficiency gives a batch the shape of an image. Of Consistency and RegionPerturbation it takes lower scores
for the better ones.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from torch import nn
from zennit.types import Linear

from canonxai.errors import UserError

OF_NUMPY_1 = {"trapz": "trapezoid", "NaN": "nan"}  #: names that NumPy 2 has others for


def is_higher_better(metric: Any) -> bool | None:
    """Whether higher scores of a metric of Quantus are better; ``None`` if neither."""
    name = type(metric).__name__
    if name == "RegionPerturbation":  # how far the output falls (Samek et al., 2017), by which order
        return {"morf": True, "lerf": False}.get(metric.order)
    # Consistency: how often images of the same explanation have the same prediction (Dasgupta et al., 2022)
    return name == "Consistency" or metric.score_direction.value == "higher"


def adapt(metric: Any, features: int) -> None:
    """Lets a metric of Quantus replace whole pixels of colour images, and shift all of their values.

    Args:
        metric: ROAD, IROF, InputInvariance, or another one, which is left as it is.
        features: values of an image.
    """
    name = type(metric).__name__
    if name == "ROAD":
        metric.perturb_func = of_pixels(metric.perturb_func)
        metric.a_size = features  # of which it takes percentages
    elif name == "IROF":
        metric.perturb_func = of_mask(metric.perturb_func)
    elif name == "InputInvariance" and metric.perturb_func.func.__name__ == "baseline_replacement_by_shift":
        metric.perturb_func = partial(of_all, input_shift=metric.perturb_func.keywords["input_shift"])


def of_pixels(perturb: Callable[..., Any]) -> Callable[..., Any]:
    """A perturbation of pixels, given places among the channel values, of a map that is repeated for each channel."""

    def perturb_pixels(arr: Shaped[np.ndarray, "c h w"], indices: Int64[np.ndarray, " n"], **options: Any) -> Any:
        return perturb(arr=arr, indices=np.unique(indices % arr[0].size), **options)

    return perturb_pixels


def of_mask(perturb: Callable[..., Any]) -> Callable[..., Any]:
    """A perturbation of all channels, given a mask of pixels."""

    def perturb_mask(arr: Shaped[np.ndarray, "n c h w"], mask: Bool[np.ndarray, "n 1 h w"], **options: Any) -> Any:
        return perturb(arr=arr, mask=np.broadcast_to(mask, arr.shape), **options)

    return perturb_mask


def of_all(arr: Shaped[np.ndarray, "c h w"], input_shift: float | int, **_: Any) -> Shaped[np.ndarray, "c h w"]:
    """An image whose values are all higher."""
    return arr + input_shift


def of_shifted(wrapper: Any, shift: float | int, shape: tuple[int, ...]) -> nn.Module:
    """A copy of a network that gives for inputs higher by ``shift`` what the network gives for the inputs.

    So it does up to the border, where zeros are padded to shifted inputs too.

    Args:
        wrapper: Quantus' own, of the network.
        shift: what is added to the inputs.
        shape: theirs; it does not matter.
    """
    network: nn.Module = copy.deepcopy(wrapper.model)
    layer: Any = next((module for module in network.modules() if isinstance(module, Linear)), None)
    if layer is None:
        raise UserError(
            "metric.name: expected a network with a convolution or linear layer, got none. "
            "InputInvariance of Quantus shifts its bias."
        )
    moved = -shift * layer.weight.detach().flatten(1).sum(1)
    layer.bias = nn.Parameter(moved if layer.bias is None else layer.bias.detach() + moved, requires_grad=False)
    return network


def of_batches(shape_input: Callable[..., Any]) -> Callable[..., Any]:
    """Quantus' reshaping of inputs, given the shape of an image for a batch of them, too."""

    def shape_batch(self: Any, x: np.ndarray, shape: tuple[int, ...], *rest: Any, **options: Any) -> Any:
        return shape_input(self, x, x.shape if x.shape[1:] == shape else shape, *rest, **options)

    return shape_batch


@contextmanager
def mended() -> Iterator[None]:
    """Within the block, Quantus works with NumPy 2, with batches, and with the first layer of any network."""
    from quantus.helpers.model.pytorch_model import PyTorchModel

    with ExitStack() as stack:
        stack.enter_context(replaced(PyTorchModel, "shape_input", of_batches(PyTorchModel.shape_input)))
        stack.enter_context(replaced(PyTorchModel, "add_mean_shift_to_first_layer", of_shifted))
        for old, new in OF_NUMPY_1.items():
            if not hasattr(np, old):
                stack.enter_context(replaced(np, old, getattr(np, new)))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block, an attribute is another one, or there at all."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
