"""Crops of two real photographs, to look at a network without a data set at hand; there is nothing to localize."""

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from canonxai.data.base import Sample
from canonxai.data.geometry import Geometry
from canonxai.data.ilsvrc_classes import NAMES
from canonxai.errors import check

SMALLEST = 0.4  #: side of a crop as a fraction of the photograph's shorter side


class Photographs(Dataset[Sample]):
    """Square crops of scikit-learn's ``load_sample_images``; sample ``i`` is a pure function of ``(seed, i)``.

    The label is 0 and the box is the whole image: of use where no label is needed, as in ``python -m canonxai.audit``.

    Args:
        size: number of crops, >= 1.
        seed: >= 0; another seed gives other crops.
        resize: see :class:`~canonxai.data.geometry.Geometry`, as the next three.
        crop: see there.
        fit: see there.
        interpolation: see there.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(
        self,
        size: int = 16,
        seed: int = 0,
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
    ) -> None:
        check(size >= 1, "data.size", "an integer >= 1", size)
        check(seed >= 0, "data.seed", "an integer >= 0", seed)
        self.size, self.seed = size, seed
        self.geometry = Geometry(resize, crop, fit, interpolation)
        self.classes = list(NAMES)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        index = range(self.size)[index]
        rng = np.random.default_rng((self.seed, index))
        photograph = photographs()[index % 2]
        width, height = photograph.size
        side = int(rng.uniform(SMALLEST, 1) * min(height, width))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        image = self.geometry.image(photograph.crop((left, top, left + side, top + side)))
        everywhere = torch.ones(image.shape[1:], dtype=torch.bool)
        return {"sample_id": index, "image": image, "label": 0, "box": everywhere, "mask": everywhere}


@cache
def photographs() -> list[Image.Image]:
    """Those of scikit-learn."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(photograph) for photograph in load_sample_images().images]
