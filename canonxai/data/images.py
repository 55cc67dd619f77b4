"""Data sets of image files with annotated objects: what they share.

A data set names its images and objects (:class:`Annotated`) and what it left out (:class:`Excluded`); selection,
decoding and geometry are here. ``sample_id`` is the place in the list of all evaluations of the chosen classes, so it
does not depend on how many of them are taken.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from canonxai.data.base import Excluded, Sample
from canonxai.data.geometry import Box, Geometry
from canonxai.errors import check

log = logging.getLogger(__name__)
MAX_PIXELS = 100_000_000  #: larger images are taken for decompression bombs
#: of what Pillow reads; for others, as PostScript, it starts programs, whatever a file's name says
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Annotated:
    """One image and its objects of one class: one evaluation.

    Attributes:
        image: the file.
        label: the class.
        boxes: of the objects of this class, at least one.
        size: width and height of the image that the boxes are drawn on; ``None`` for those of the file.
        mask: what :meth:`AnnotatedImages.read_mask` needs beside the next; ``None`` if nothing.
        mask_file: holds the mask; ``None`` if no file does.
    """

    image: Path
    label: int
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    mask: Hashable = None
    mask_file: Path | None = None


class ImageError(Exception):
    """A file that cannot be used as an image."""


class AnnotatedImages(Dataset[Sample | Excluded]):
    """Images with annotated objects, decoded when they are needed.

    Objects that are cropped away are excluded and counted. Of a mask, cropping or shrinking may leave nothing although
    it leaves something of the boxes; then the mask is empty, and metrics over it are undefined, which they count.

    Args:
        entries: all evaluations, in an order that depends on nothing but the files, and what cannot be evaluated.
        classes: names of the labels.
        chosen: labels of which images are expected; those without any are excluded and counted.
        geometry: from the image to the network's square.
        max_samples: how many at most, >= 1; ``None`` for all.
        per_class: how many of each class at most, >= 1; ``None`` for all.
        shuffle_seed: which are taken then: the first ones, or with a seed those first in an order drawn by it.

    Attributes:
        class_ids: unique other names of the classes, as WordNet ids; ``None`` if there are none.
        annotated: all evaluations.
        ids: places in ``annotated`` of those that are taken, ascending.

    Raises:
        UserError: if nothing is left, or an argument is out of its range.
    """

    class_ids: ClassVar[Sequence[str] | None] = None

    def __init__(
        self,
        entries: Iterable[Annotated | Excluded],
        classes: Sequence[str],
        chosen: Iterable[int],
        geometry: Geometry,
        max_samples: int | None,
        per_class: int | None,
        shuffle_seed: int | None,
    ) -> None:
        for name, value in (("max_samples", max_samples), ("per_class", per_class)):
            check(value is None or value >= 1, f"data.{name}", "null or an integer >= 1", value)
        check(shuffle_seed is None or shuffle_seed >= 0, "data.shuffle_seed", "null or an integer >= 0", shuffle_seed)
        self.annotated: list[Annotated] = []
        self.excluded: list[Excluded] = []
        for entry in entries:
            (self.annotated if isinstance(entry, Annotated) else self.excluded).append(entry)  # type: ignore[arg-type]
        for label in sorted(set(chosen) - {sample.label for sample in self.annotated}):
            self.excluded.append(Excluded(classes[label], "class without annotated images", is_error=False))
        inside = []
        for i, sample in enumerate(self.annotated):
            if _is_inside(sample, geometry):
                inside.append(i)
            else:
                self.excluded.append(Excluded(str(sample.image), "object outside of the crop", is_error=False))
        self.classes, self.geometry = list(classes), geometry
        self.ids = select([self.annotated[i].label for i in inside], inside, max_samples, per_class, shuffle_seed)
        reasons = Counter(entry.reason for entry in self.excluded)
        told = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        log.info("data: %d images with objects%s", len(self.ids), f"; left out: {told}" if told else "")
        check(len(self.ids) > 0, "data", "images with objects of the chosen classes", told or "none")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_masks(self) -> bool:
        """Whether more than boxes is known of any object."""
        return any(sample.mask is not None or sample.mask_file is not None for sample in self.annotated)

    def __getitem__(self, index: int) -> Sample | Excluded:
        sample = self.annotated[self.ids[index]]
        try:
            image = read_image(sample.image)
        except ImageError as error:
            return Excluded(str(sample.image), "unreadable image", str(error))
        box = self.geometry.boxes(sample.boxes, sample.size or image.size)
        try:
            mask = self.read_mask(sample)
        except ImageError as error:
            return Excluded(str(sample.mask_file), "unreadable mask", str(error))
        if mask is not None and mask.shape[::-1] != image.size:
            told = f"{mask.shape[::-1]}, not {image.size}"
            return Excluded(str(sample.mask_file or sample.image), "mask of another size", told)
        return {
            "sample_id": self.ids[index],
            "image": self.geometry.image(image),
            "label": sample.label,
            "box": box,
            "mask": box if mask is None else self.geometry.mask(mask),
        }

    def read_mask(self, sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
        """The objects themselves, in pixels of the image; nothing where only boxes are known.

        It may depend on nothing but ``sample``, and raises :class:`ImageError` if its file cannot be used.
        """
        return None


def select(
    labels: Sequence[int],
    ids: Sequence[int],
    max_samples: int | None = None,
    per_class: int | None = None,
    shuffle_seed: int | None = None,
) -> list[int]:
    """Which of ``ids`` are taken, ascending.

    >>> select([0, 0, 1, 0, 1], [10, 11, 12, 13, 14], per_class=1)
    [10, 12]
    """
    order = np.arange(len(ids))
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(len(ids))
    taken: Counter[int] = Counter()
    chosen = []
    for i in order.tolist():
        taken[labels[i]] += 1
        if per_class is None or taken[labels[i]] <= per_class:
            chosen.append(ids[i])
    return sorted(chosen[:max_samples])


def read_image(path: Path) -> Image.Image:
    """An image as RGB, as torchvision reads it: alpha is dropped, the EXIF orientation is not applied.

    Boxes are drawn on the stored pixels, so they would not fit a rotated image. The format is that of the content,
    whatever the name says. 16-bit grey is scaled to 8 bits.

    Raises:
        ImageError: if the file is missing, empty, damaged, no image or too large.
    """
    with _opened(path) as image:
        if image.mode.startswith("I"):  # 16 bits
            grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        rgb: Image.Image = image.convert("RGB")
        return rgb


def read_mask_pixels(path: Path, *modes: str) -> np.ndarray:
    """The values of a mask's pixels as they are stored.

    Raises:
        ImageError: as :func:`read_image`, or if the file is of none of these modes.
    """
    with _opened(path) as image:
        if image.mode not in modes:
            raise ImageError(f"mode {image.mode}, not {' or '.join(modes)}")
        return np.array(image)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from an image's header.

    Raises:
        ImageError: if the file is missing, empty, no image or too large.
    """
    with _opened(path) as image:
        width, height = image.size
        return width, height


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image; whatever goes wrong with it is an :class:`ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about strange metadata, and about size, which is checked here
            with Image.open(path, formats=FORMATS) as image:
                if image.size[0] * image.size[1] > MAX_PIXELS:
                    raise ImageError(f"{image.size[0]} x {image.size[1]} pixels are more than {MAX_PIXELS}")
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("empty" if path.stat().st_size == 0 else "no image") from error
    except Exception as error:  # decoders raise nearly everything on damaged files
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _is_inside(sample: Annotated, geometry: Geometry) -> bool:
    """Whether something of the objects is left after cropping; unknown, and so yes, without the image's size."""
    return sample.size is None or bool(geometry.boxes(sample.boxes, sample.size).any())
