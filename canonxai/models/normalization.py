"""From pixels to what a network expects."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from canonxai.errors import check


class Normalization(nn.Module):
    """Pixel values 0..255 to ``(pixel / 255 - mean) / std``, per channel.

    Args:
        mean: three values in [0, 1].
        std: three values > 0.

    Raises:
        UserError: if there are not three values, or a deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        check(len(mean) == 3 and all(0 <= m <= 1 for m in mean), "data.mean", "three numbers in [0, 1]", list(mean))
        check(len(std) == 3 and all(0 < s < math.inf for s in std), "data.std", "three numbers > 0", list(std))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64).view(3, 1, 1), persistent=False)

    def forward(
        self, pixels: Real[Tensor, "*batch 3 height width"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*batch 3 height width"]:
        return (pixels.to(dtype) / 255 - self.mean.to(dtype)) / self.std.to(dtype)

    def bounds(self, dtype: torch.dtype = torch.float32) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
        """The lowest and the highest value that a normalised pixel can take."""
        return (-self.mean / self.std).to(dtype), ((1 - self.mean) / self.std).to(dtype)
