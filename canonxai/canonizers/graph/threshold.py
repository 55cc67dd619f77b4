"""A ReLU behind a BatchNorm, as a threshold activation behind which the BatchNorm's scale and shift are merged.

With s and t of the BatchNorm, as in Pahde et al., CVPR-W 2023, "Optimizing explanations by network canonization and
hyperparameter search", but turned round where s < 0::

    ReLU(s x + t) = |s| T(x) + t,    T(x) = max(sign(s) x, -t / |s|)

Turned round, the gradient at the output of T has the sign that it has at the ReLU's, so guided backpropagation is
unchanged; the contributions x w of the rules of LRP do not feel it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonxai.canonizers.graph.affine import Affine


class ThresholdReLU(nn.ReLU):
    """``max(sign * x, threshold)`` with values of each channel; its gradient at the threshold is zero, as a ReLU's.

    Args:
        sign: 1 or -1.
        threshold: the smallest output; minus infinity for none.
    """

    sign: Tensor
    threshold: Tensor

    def __init__(self, sign: Float[Tensor, " channels"], threshold: Float[Tensor, " channels"]) -> None:
        super().__init__()
        self.register_buffer("sign", sign)
        self.register_buffer("threshold", threshold)

    def forward(self, input: Tensor) -> Tensor:
        shape = (-1, *(1 for _ in input.shape[2:]))
        turned, threshold = input * self.sign.view(shape), self.threshold.view(shape)
        return torch.where(turned > threshold, turned, threshold)


def thresholded(affine: Affine, dtype: torch.dtype) -> tuple[ThresholdReLU, Affine]:
    """The T, and what is to come after it, of a ReLU after ``affine``.

    Where s is zero, or so small that the threshold is infinite in ``dtype``, the sign of t decides: the unit is always
    active and its threshold is minus infinity, or it never is and what comes after gives zero.
    """
    scale = affine.scale.abs()
    threshold = (-affine.shift / scale).to(dtype)
    finite, active = threshold.isfinite(), affine.shift > 0
    module = ThresholdReLU(
        torch.where(affine.scale < 0, -1.0, 1.0).to(dtype),
        threshold.where(finite, -torch.inf),
    )
    return module, Affine(scale.where(finite | active, 0), affine.shift.where(finite | active, 0))
