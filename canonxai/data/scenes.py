"""The embedded benchmark: handwritten digits on photographs, made on the fly, with exact boxes and masks.

Real digits (scikit-learn's ``load_digits``: 1,797 scans of 8 x 8 pixels, UCI) in a random colour on random crops of
real photographs (scikit-learn's ``load_sample_images``). The class is the digit; the rest of the image says nothing
about it, so a good explanation lies inside the box.
"""

from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from canonxai.data.base import Sample
from canonxai.data.photographs import photographs
from canonxai.errors import check, check_choice

SPLITS = ("train", "test")
SMALLEST, LARGEST = 0.25, 0.90  #: size of the object as a fraction of the image's side
MIN_CONTRAST = 0.4  #: of the ink against the mean of its background, in luminance
#: in grey levels; in an exactly uniform area max-pooling has no unique winner, and so the gradient no unique value
SENSOR_NOISE = 2
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class Scenes(Dataset[Sample]):
    """Digits on photographs; sample ``i`` is a pure function of ``(seed, split, i)``.

    Every fifth digit of ``load_digits`` belongs to the test split and never occurs in the training split. Nothing is
    stored but the digits and photographs, so memory does not grow with ``size``.

    Args:
        split: ``train`` or ``test``.
        size: number of scenes, >= 1.
        seed: >= 0; another seed gives other scenes.
        side: height and width of the image in pixels, >= 16.
        noise: each pixel value is off by at most this, >= 0; ``None`` for :data:`SENSOR_NOISE`.

    Raises:
        UserError: if an argument is out of its range.
    """

    classes: ClassVar[list[str]] = [str(digit) for digit in range(10)]

    def __init__(
        self, split: str = "test", size: int = 256, seed: int = 0, side: int = 64, noise: int | None = None
    ) -> None:
        check_choice("data.split", split, SPLITS)
        check(size >= 1, "data.size", "an integer >= 1", size)
        check(seed >= 0, "data.seed", "an integer >= 0", seed)
        check(side >= 16, "data.side", "an integer >= 16", side)
        noise = SENSOR_NOISE if noise is None else noise
        check(noise >= 0, "data.noise", "an integer >= 0", noise)
        self.split, self.size, self.seed, self.side, self.noise = split, size, seed, side, noise
        digits, labels = _digits()
        of_split = (np.arange(len(labels)) % 5 == 0) == (split == "test")
        self.digits = [digit for digit, chosen in zip(digits, of_split, strict=True) if chosen]
        self.labels = labels[of_split]
        self.photos = photographs()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        background = self._background(rng)
        which = int(rng.integers(len(self.digits)))
        alpha, (left, top) = self._object(rng, self.digits[which])
        height, width = alpha.shape

        inside = background[top : top + height, left : left + width]
        ink = _ink(rng, inside)
        inside += (alpha[..., None] * (ink - inside)).astype(np.float32)
        background += rng.integers(-self.noise, self.noise + 1, background.shape)

        mask = np.zeros((self.side, self.side), dtype=bool)
        mask[top : top + height, left : left + width] = alpha > 0
        box = np.zeros_like(mask)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        return {
            "sample_id": index,
            "image": torch.from_numpy(np.rint(background).clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous(),
            "label": int(self.labels[which]),
            "box": torch.from_numpy(box),
            "mask": torch.from_numpy(mask),
        }

    def _background(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random square of a random photograph, shrunk to the image's side and mirrored every other time."""
        photo = self.photos[int(rng.integers(len(self.photos)))]
        crop = int(rng.integers(self.side, max(self.side, min(photo.size)) + 1))
        left = int(rng.integers(max(photo.width - crop, 0) + 1))
        top = int(rng.integers(max(photo.height - crop, 0) + 1))
        square = photo.crop((left, top, left + crop, top + crop))
        pixels = np.array(square.resize((self.side, self.side), Image.Resampling.BILINEAR), dtype=np.float32)
        return pixels[:, ::-1].copy() if rng.random() < 0.5 else pixels

    def _object(self, rng: np.random.Generator, digit: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """The digit's opacity at a random size, and where its upper left corner goes."""
        longer = int(rng.integers(np.ceil(SMALLEST * self.side), np.floor(LARGEST * self.side) + 1))
        scale = longer / max(digit.size)
        width, height = (max(1, round(scale * side)) for side in digit.size)
        alpha = np.array(digit.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
        alpha /= 255
        left, top = int(rng.integers(self.side - width + 1)), int(rng.integers(self.side - height + 1))
        return alpha, (left, top)


def _ink(rng: np.random.Generator, background: NDArray[np.float32]) -> NDArray[np.float64]:
    """A random colour, made lighter or darker until it differs from the background's mean by a random contrast."""
    behind = float(background.mean((0, 1)) @ LUMINANCE)
    contrast = MIN_CONTRAST * 255
    darker, lighter = max(behind - contrast, 0), max(255 - behind - contrast, 0)  # lengths of the allowed ranges
    drawn = rng.uniform(0, darker + lighter)
    goal = drawn if drawn < darker else drawn - darker + behind + contrast
    colour = rng.uniform(0, 255, 3)
    luminance = float(colour @ LUMINANCE)
    if goal < luminance:
        return np.asarray(colour * (goal / luminance))
    return np.asarray(colour + (255 - colour) * ((goal - luminance) / (255 - luminance)))


@cache
def _digits() -> tuple[list[Image.Image], NDArray[Any]]:
    """All digits as opacity images, smoothly enlarged eightfold and cut to their ink, and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = []
    for pixels in images.reshape(-1, 8, 8):
        scan = Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8))
        smooth = np.asarray(scan.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32)
        sharp = np.clip((smooth - 64) * 2, 0, 255).astype(np.uint8)  # ink is what is darker than a quarter
        digit = Image.fromarray(sharp)
        digits.append(digit.crop(digit.getbbox()))
    return digits, np.asarray(labels)
