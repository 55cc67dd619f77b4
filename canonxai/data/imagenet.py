"""ILSVRC2012 with the boxes of its localization task, from the CLS-LOC tree of the devkit.

Russakovsky et al., IJCV 2015, "ImageNet large scale visual recognition challenge". Images are resized and cropped as
for torchvision's official weights, and the boxes with them.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from defusedxml import ElementTree
from PIL import Image
from torch.utils.data import Dataset
from torchvision.models._meta import _IMAGENET_CATEGORIES

from canonxai.data.base import Sample
from canonxai.errors import UserError, check

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Annotated:
    image: Path
    label: int
    size: tuple[int, int]  # width and height of the image that the boxes are drawn on
    boxes: tuple[tuple[float, float, float, float], ...]  # xmin, ymin, xmax, ymax, the last pixels included


class ImageNet(Dataset[Sample]):
    """All images of a split that have boxes of their class.

    Args:
        root: holds ``Data/CLS-LOC/<split>`` and ``Annotations/CLS-LOC/<split>``, unless the next two say otherwise.
        split: ``val`` or ``train``.
        images: the folder of the images, searched with its subfolders; ``None`` for that in ``root``.
        annotations: the folder of the XML files, named as the images; ``None`` for that in ``root``.
        resize: the shorter side in pixels after resizing (bilinear, antialiased).
        crop: side of the central square in pixels that is kept, <= ``resize``.
        size: use the first images only; ``None`` for all.

    Raises:
        UserError: if a folder is missing, no image has a box, or an argument is out of its range.
    """

    classes: ClassVar[list[str]] = list(_IMAGENET_CATEGORIES)

    def __init__(
        self,
        root: str | None = None,
        split: str = "val",
        images: str | None = None,
        annotations: str | None = None,
        resize: int = 256,
        crop: int = 224,
        size: int | None = None,
    ) -> None:
        check(1 <= crop <= resize, "data.crop", f"an integer from 1 to data.resize={resize}", crop)
        check(size is None or size >= 1, "data.size", "null or an integer >= 1", size)
        check(
            root is not None or None not in (images, annotations), "data.root", "a folder", root, "Give data.root=PATH."
        )
        base = Path(root or ".")
        image_folder = _folder("data.images", images, base / "Data" / "CLS-LOC" / split)
        xml_folder = _folder("data.annotations", annotations, base / "Annotations" / "CLS-LOC" / split)
        self.resize, self.crop = resize, crop
        files = {path.stem: path for path in sorted(image_folder.rglob("*.JPEG"))}
        found = (_read(path, files) for path in sorted(xml_folder.rglob("*.xml")))
        self.samples = [sample for sample in found if sample is not None][:size]
        check(len(self.samples) > 0, "data", f"images with boxes in {image_folder} and {xml_folder}", 0)
        log.info("data: %d images with boxes of their class, of %d images", len(self.samples), len(files))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        with Image.open(sample.image) as file:
            image = file.convert("RGB")
        scale = self.resize / min(image.size)
        width, height = (max(self.resize, round(side * scale)) for side in image.size)
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        cropped = resized.crop((left, top, left + self.crop, top + self.crop))
        box = torch.zeros(height, width, dtype=torch.bool)
        for x0, y0, x1, y1 in sample.boxes:
            across, down = width / sample.size[0], height / sample.size[1]
            box[round(y0 * down) : round((y1 + 1) * down), round(x0 * across) : round((x1 + 1) * across)] = True
        box = box[top : top + self.crop, left : left + self.crop].contiguous()
        return {
            "sample_id": index,
            "image": torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous(),
            "label": sample.label,
            "box": box,
            "mask": box,
        }


@cache
def _labels() -> dict[str, int]:
    """WordNet id to class index, in the order of torchvision's weights."""
    ids = (Path(__file__).parent / "imagenet_wnids.txt").read_text().split()
    return {wnid: index for index, wnid in enumerate(ids)}


def _folder(argument: str, given: str | None, default: Path) -> Path:
    path = default if given is None else Path(given)
    check(path.is_dir(), argument, "an existing folder", str(path), "Give data.root=PATH of the ILSVRC tree.")
    return path


def _read(path: Path, images: dict[str, Path]) -> _Annotated | None:
    """An image and the boxes of the class of its first object, or None where the image is not there."""
    if path.stem not in images:
        return None
    try:
        root = ElementTree.parse(path).getroot()
        size = int(root.findtext("size/width")), int(root.findtext("size/height"))
        objects = [(entry.findtext("name"), entry.find("bndbox")) for entry in root.iter("object")]
        label = objects[0][0]
        boxes = tuple(_corners(box) for name, box in objects if name == label)
        return _Annotated(images[path.stem], _labels()[label], size, boxes)
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise UserError(f"data.annotations: expected an ILSVRC annotation, got {str(path)!r} ({error}).") from error


def _corners(box: Any) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = (float(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return xmin, ymin, xmax, ymax
