"""Convolutions of 3 x 3 pixels by Winograd's algorithm, on CPUs, whose library computes them directly.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308: the 4 x 4 outputs of a tile
``d`` of 6 x 6 inputs are ``A^T [(G g G^T) * (B^T d B)] A`` for a filter ``g``, 36 products instead of 144. Summed over
channels these are matrix products, which a CPU computes at its full rate; so are the transforms, ``kron(B, B)^T d``.
The transformed filters take four times the memory of the filters, which are kept besides.

Rounding errors are about 2e-6 of the largest output, where those of direct convolutions are 3e-7 to 3e-6; of a value
that is not finite there are more such, in whole tiles.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn
from torch.nn.functional import pad

POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  #: with 0, ±1 and ±2, as usual, rounding errors are 3 times as large
OUTPUTS, FILTER = 4, 3
TILE = OUTPUTS + FILTER - 1
CHANNELS, SIDE = 128, 7  #: with fewer channels, or in a smaller image, the transforms cost more than is gained
BLOCK = 8 * 2**20  #: bytes of transformed tiles at once, or those of one image, so that they stay in the cache


def use_winograd(network: nn.Module) -> int:
    """Replaces the convolutions of a network that gain by it, in place; how many."""
    found = {conv: Winograd(conv) for conv in network.modules() if type(conv) is nn.Conv2d and _gains(conv)}
    for parent in list(network.modules()):
        for name, child in parent._modules.items():  # whatever names it has
            if child in found:
                setattr(parent, name, found[child])
    return len(found)


class Winograd(nn.Conv2d):
    """Another convolution, of 3 x 3 pixels, stride 1 and zeros around the image, whose weights do not change any more.

    What needs gradients goes the direct way, as do images in double precision, small ones and those on another device.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)  # its parameters, and whatever else somebody gave it
        self.transforms = transforms(conv.weight)

    def forward(self, input: Tensor) -> Tensor:  # plain types: torch.compile traces no others while they are checked
        is_batch = input.ndim == 4 and input.shape[1] == self.in_channels and len(input) > 0
        is_plain = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_grad_enabled()
        if not is_batch or not is_plain or min(input.shape[2:]) < SIDE:
            return super().forward(input)
        output: Tensor = _convolved(input, *self.transforms, self.bias)
        return output


# one operation for torch.compile, which could not improve on it
@torch.library.custom_op("canonxai::winograd", mutates_args=())
def _convolved(input: Tensor, filters: Tensor, inward: Tensor, outward: Tensor, bias: Tensor | None) -> Tensor:
    output = _output(input, filters)
    _, rows, _, columns, _, _ = output.shape
    tile_bytes = input.element_size() * TILE**2 * max(filters.shape[1:])
    step = max(1, BLOCK // (tile_bytes * rows * columns))
    below, right = OUTPUTS * rows + 1 - input.shape[2], OUTPUTS * columns + 1 - input.shape[3]
    for some, into in zip(torch.split(input, step), torch.split(output, step), strict=True):
        padded = pad(some.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        tiles = padded.unfold(1, TILE, OUTPUTS).unfold(2, TILE, OUTPUTS).permute(0, 1, 2, 4, 5, 3)
        products = (inward @ tiles.reshape(-1, TILE**2, len(filters[0]))).transpose(0, 1) @ filters
        outputs = (outward @ products.flatten(1)).view(OUTPUTS, OUTPUTS, len(some), rows, columns, -1)
        outputs = outputs.permute(2, 3, 0, 4, 1, 5)
        into.copy_(outputs) if bias is None else torch.add(outputs, bias, out=into)
    return _image(output, input)


@_convolved.register_fake
def _(input: Tensor, filters: Tensor, inward: Tensor, outward: Tensor, bias: Tensor | None) -> Tensor:
    return _image(_output(input, filters), input)


def _output(input: Tensor, filters: Tensor) -> Float[Tensor, "n rows 4 columns 4 filters"]:
    """Memory for the outputs of all tiles, the values of a pixel side by side."""
    rows, columns = (-(-side // OUTPUTS) for side in input.shape[2:])
    return input.new_empty(len(input), rows, OUTPUTS, columns, OUTPUTS, filters.shape[2])


def _image(output: Float[Tensor, "n rows 4 columns 4 filters"], input: Tensor) -> Tensor:
    """The outputs as images of the inputs' size and layout."""
    height, width = input.shape[2:]
    image = output.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)[..., :height, :width]
    is_channels_last = input.is_contiguous(memory_format=torch.channels_last)
    return image.contiguous(memory_format=torch.channels_last if is_channels_last else torch.contiguous_format)


def transforms(
    weight: Float[Tensor, "filters channels 3 3"],
) -> tuple[Float[Tensor, "36 channels filters"], Float[Tensor, "36 36"], Float[Tensor, "16 36"]]:
    """The transformed filters, and the matrices that transform flat tiles of inputs and of products."""
    a, g, b = (matrix.to(weight.device) for matrix in cook_toom(POINTS))
    filters = torch.einsum("ik, jl, fckl -> ijcf", g, g, weight.double()).flatten(0, 1)
    return cast(
        tuple[Tensor, Tensor, Tensor],
        tuple(matrix.to(weight.dtype).contiguous() for matrix in (filters, torch.kron(b, b), torch.kron(a, a))),
    )


def cook_toom(
    points: Sequence[float], filter: int = FILTER
) -> tuple[Float[Tensor, "outputs tile"], Float[Tensor, "tile filter"], Float[Tensor, "tile tile"]]:
    """``A^T``, ``G`` and ``B^T`` in float64, such that ``A^T [(G g) * (B^T d)]`` is the correlation of d with g.

    Polynomials are multiplied by their values at points, the last of which is infinity (Toom 1963, Cook 1966); the
    transposed algorithm correlates.

    Args:
        points: the finite ones, one less than a tile has values.
        filter: how many values g has.
    """
    finite = torch.tensor(points, dtype=torch.float64)
    tile = len(points) + 1
    a = torch.zeros(tile + 1 - filter, tile, dtype=torch.float64)
    g = torch.zeros(tile, filter, dtype=torch.float64)
    b = torch.zeros(tile, tile, dtype=torch.float64)
    a[:, :-1] = torch.linalg.vander(finite, N=len(a)).T
    g[:-1] = torch.linalg.vander(finite, N=filter)
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = torch.from_numpy(polyfromroots(points))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        g[i] /= float(np.prod(point - others))
        b[i, :-1] = torch.from_numpy(polyfromroots(others))
    return a, g, b


def _gains(conv: nn.Conv2d) -> bool:
    """Whether a convolution is of the kind that is computed, and large enough; hooks would not see it any more."""
    is_plain = (conv.kernel_size, conv.stride, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
    is_within = conv.padding in ((1, 1), "same") and conv.padding_mode == "zeros"
    is_large = min(conv.in_channels, conv.out_channels) >= CHANNELS
    return is_plain and is_within and is_large and not (conv._forward_hooks or conv._forward_pre_hooks)
