"""From an image as it is stored to the square that a network sees; boxes and masks go the same way.

The image is resized (antialiased, as for torchvision's official weights) and then cropped to or padded to a square. A
pixel of the square belongs to a box if its centre does, and to a mask if the resized mask is at least one half there.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from canonxai.errors import check, check_choice

FITS = ("crop", "pad", "stretch")
INTERPOLATIONS = tuple(filter_.name.lower() for filter_ in Image.Resampling)


class Box(NamedTuple):
    """A rectangle by its edges, in pixels of the stored image; ``right`` and ``bottom`` lie behind the last pixel."""

    left: float
    top: float
    right: float
    bottom: float


UNKNOWN = Box(math.nan, math.nan, math.nan, math.nan)  #: of which no number can be read


@dataclass(frozen=True)
class Geometry:
    """How images become squares of ``crop`` pixels.

    Args:
        resize: with ``fit=crop``, the shorter side in pixels after resizing, >= ``crop``.
        crop: side of the square in pixels, >= 1.
        fit: ``crop`` takes the centre of the resized image; ``pad`` resizes the longer side to ``crop`` and adds grey
            on both sides; ``stretch`` resizes both sides to ``crop``.
        interpolation: Pillow's name of the filter, as ``bilinear`` or ``bicubic``.

    Raises:
        UserError: if an argument is out of its range.
    """

    resize: int = 256
    crop: int = 224
    fit: str = "crop"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        check_choice("data.fit", self.fit, FITS)
        check_choice("data.interpolation", self.interpolation, INTERPOLATIONS)
        allowed = f"an integer from 1 to data.resize={self.resize}" if self.fit == "crop" else "an integer >= 1"
        check(1 <= self.crop <= (self.resize if self.fit == "crop" else self.crop), "data.crop", allowed, self.crop)

    def image(self, image: Image.Image) -> UInt8[Tensor, "3 crop crop"]:
        """An RGB image as a square."""
        square = self._square(image, (128, 128, 128))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()

    def mask(self, mask: Bool[np.ndarray, "height width"]) -> Bool[Tensor, "crop crop"]:
        """A mask of an image's own size as a square."""
        square = self._square(Image.fromarray(mask.astype(np.uint8) * 255), 0)
        return torch.from_numpy(np.array(square) > 127)

    def boxes(self, boxes: Iterable[Box], size: tuple[int, int]) -> Bool[Tensor, "crop crop"]:
        """The union of boxes that are drawn on an image of ``size`` (width, height) as a square."""
        (width, height), (left, top) = self.resized(size), self.offset(size)
        square = torch.zeros(self.crop, self.crop, dtype=torch.bool)
        for box in boxes:
            x0, x1 = _pixels(box.left * width / size[0] + left, box.right * width / size[0] + left)
            y0, y1 = _pixels(box.top * height / size[1] + top, box.bottom * height / size[1] + top)
            square[y0:y1, x0:x1] = True
        return square

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after resizing."""
        if self.fit == "stretch":
            return self.crop, self.crop
        if self.fit == "pad":
            scale = self.crop / max(size)
            return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return self.resize * size[0] // min(size), self.resize * size[1] // min(size)  # rounded down as by torchvision

    def offset(self, size: tuple[int, int]) -> tuple[int, int]:
        """Where the resized image's upper left corner lies in the square: negative where it is cropped."""
        width, height = self.resized(size)
        return -round((width - self.crop) / 2), -round((height - self.crop) / 2)

    def _square(self, image: Image.Image, fill: int | tuple[int, int, int]) -> Image.Image:
        square = Image.new(image.mode, (self.crop, self.crop), fill)
        resampling = Image.Resampling[self.interpolation.upper()]
        square.paste(image.resize(self.resized(image.size), resampling), self.offset(image.size))
        return square


def _pixels(first: float, last: float) -> tuple[int, int]:
    """From which pixel to which one the centres lie between two edges."""
    return max(ceil(first - 0.5), 0), max(floor(last + 0.5), 0)
