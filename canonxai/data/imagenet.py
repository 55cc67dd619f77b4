"""ILSVRC2012 with the boxes of its localization task, in the layouts of :mod:`canonxai.data.ilsvrc_layouts`.

Russakovsky et al., IJCV 2015, "ImageNet large scale visual recognition challenge". What the annotations hold is
treated thus; each treatment is counted and told in the log (:data:`TREATMENTS`), each exclusion is listed:

- The label is the class that the folder's or file's name tells, or else the class of the first object. Objects of
  other classes are ignored; of several objects of the label the union of the boxes counts.
- Objects flagged as difficult or truncated are kept.
- Boxes that exceed the image are clipped. Empty, inverted and unreadable boxes are dropped.
- A size in the XML that is not the image's: with the same aspect ratio (up to 2 %) the boxes are scaled, as they were
  drawn on a resized copy; otherwise they are taken as pixels of the image if all fit, or the image is excluded.
- Images without annotation, annotations without image, XML that is broken, has entities, no object or no box of the
  label: excluded.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from defusedxml import DefusedXmlException, ElementTree

from canonxai.data.base import Excluded
from canonxai.data.classes import Classes
from canonxai.data.evaluations import clip, is_area
from canonxai.data.geometry import Box, Geometry
from canonxai.data.ilsvrc_classes import NAMES, PAPER20_IMAGES, indices, labels
from canonxai.data.ilsvrc_layouts import SUFFIXES, files, locate, split_of, wnid_of
from canonxai.data.images import Annotated, AnnotatedImages, ImageError, image_size
from canonxai.errors import check_choice

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "train+val")
SAME_ASPECT = 0.02  #: aspect ratios that differ by less are those of a resized copy
TREATMENTS = {
    "other": "objects of other classes ignored",
    "several": "images with several objects of their class",
    "difficult": "difficult objects kept",
    "truncated": "truncated objects kept",
    "clipped": "boxes clipped to the image",
    "dropped": "empty boxes dropped",
    "scaled": "images whose boxes are scaled from the size in the XML",
    "pixels": "images whose size in the XML is wrong and ignored",
}


class _UnusableError(Exception):
    """Why an image is excluded: the reason, and a detail."""


class ImageNet(AnnotatedImages):
    """All images of a split that have boxes of their class.

    Args:
        root: the data in one of the layouts that exist; see :mod:`canonxai.data.ilsvrc_layouts`.
        split: ``train``, ``val`` or ``train+val``; of no effect if both folders are given.
        classes: ``all``, ``paper20`` (the study's 20), or a list of names, WordNet ids or indices.
        images: the folder of the images, searched with its subfolders; ``None`` for that in ``root``.
        annotations: the folder of the XML files, named as the images; ``None`` for that in ``root``.
        resize: see :class:`~canonxai.data.geometry.Geometry`, as the next three.
        crop: see there.
        fit: see there.
        interpolation: see there.
        max_samples: see :class:`~canonxai.data.images.AnnotatedImages`, as the next two.
        per_class: see there.
        shuffle_seed: see there.

    Attributes:
        treated: how often each of :data:`TREATMENTS` happened, before selection by the last three arguments.

    Raises:
        UserError: if a folder is missing, no image has a box, a class is unknown, or an argument is out of its range.
    """

    class_ids: ClassVar = tuple(labels())

    def __init__(
        self,
        root: str | None = None,
        split: str = "val",
        classes: Classes = "all",
        images: str | None = None,
        annotations: str | None = None,
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
        max_samples: int | None = None,
        per_class: int | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        check_choice("data.split", split, SPLITS)
        geometry = Geometry(resize, crop, fit, interpolation)
        chosen = frozenset(indices(classes))
        self.treated: Counter[str] = Counter()
        annotated: list[Annotated] = []
        excluded: list[Excluded] = []
        complete = True
        splits = () if images and annotations else (None, *split.split("+"))
        for folders in locate(root, split, images, annotations):
            before = len(annotated)
            self._add(*folders, splits, chosen, annotated, excluded)
            complete &= {sample.label for sample in annotated[before:]} == chosen
        if self.treated:
            log.info("data: %s", ", ".join(f"{self.treated[key]} {TREATMENTS[key]}" for key in sorted(self.treated)))
        if classes == "paper20" and split == "train+val" and complete:
            told = "as in the study" if len(annotated) == PAPER20_IMAGES else f"the study has {PAPER20_IMAGES:,}"
            log.info("data: %s images with boxes of the study's 20 classes (%s)", f"{len(annotated):,}", told)
        expected = () if classes == "all" else chosen
        entries: list[Annotated | Excluded] = [*annotated, *excluded]
        super().__init__(entries, NAMES, expected, geometry, max_samples, per_class, shuffle_seed)

    def _add(
        self,
        images: list[Path],
        annotations: Path,
        splits: Sequence[str | None],
        chosen: frozenset[int],
        annotated: list[Annotated],
        excluded: list[Excluded],
    ) -> None:
        """Reads one split."""
        left: dict[str, list[Path]] = {}
        for path in chain.from_iterable(files(folder, SUFFIXES, chosen, excluded) for folder in images):
            left.setdefault(path.stem, []).append(path)
        for path in files(annotations, (".xml",), chosen, excluded):
            candidates = left.get(path.stem, [])
            same = [image for image in candidates if image.parent.name == path.parent.name]
            image = next(iter(same or candidates), None)
            told = (image and wnid_of(image)) or wnid_of(path)
            if told and labels().get(told, -1) not in chosen:
                continue
            if image is None and splits and split_of(path) not in splits:
                continue  # the folder holds the annotations of all splits
            if image:
                candidates.remove(image)
            try:
                sample = self._read(path, image, told, chosen)
            except _UnusableError as error:
                excluded.append(Excluded(str(path), *error.args))
            except ImageError as error:
                excluded.append(Excluded(str(image), "unreadable image", str(error)))
            else:
                annotated += [sample] if sample else []
        excluded += [
            Excluded(str(image), "image without annotation")
            for paths in left.values()
            for image in paths
            if (told := wnid_of(image)) is None or labels().get(told) in chosen
        ]

    def _read(self, path: Path, image: Path | None, told: str | None, chosen: frozenset[int]) -> Annotated | None:
        """An image and the boxes of its class; nothing if the class is not chosen."""
        root = _parse(path)
        objects = [(str(entry.findtext("name")).strip(), entry) for entry in root.iter("object")]
        if not objects:
            raise _UnusableError("annotation without object")
        wnid = told or objects[0][0]
        if wnid not in labels():
            raise _UnusableError("unknown class", wnid)
        if labels()[wnid] not in chosen:
            return None
        if image is None:
            raise _UnusableError("annotation without image")
        own = [entry for name, entry in objects if name == wnid]
        if not own:
            raise _UnusableError("annotation without object of the class", f"{wnid} expected, {objects[0][0]} found")
        size = image_size(image)
        happened = Counter(other=len(objects) - len(own), several=int(len(own) > 1))
        for flag in ("difficult", "truncated"):
            happened[flag] = sum((entry.findtext(flag) or "0").strip() == "1" for entry in own)
        boxes = [box for entry in own if (box := _box(entry.find("bndbox"))) is not None]
        told_size = _number(root.findtext("size/width")), _number(root.findtext("size/height"))
        if told_size != size:
            scale = _scale(told_size, size)
            if scale is None and any(_exceeds(box, size) for box in boxes):
                raise _UnusableError(
                    "size in the XML", f"{told_size[0]:g} x {told_size[1]:g}, image {size[0]} x {size[1]}"
                )
            happened["pixels" if scale is None else "scaled"] = 1
            across, down = scale or (1, 1)
            boxes = [Box(box[0] * across, box[1] * down, box[2] * across, box[3] * down) for box in boxes]
        kept = [box for box in (clip(box, size) for box in boxes) if is_area(box)]
        happened["dropped"] = len(own) - len(kept)
        happened["clipped"] = sum(_exceeds(box, size) for box in boxes)
        if not kept:
            raise _UnusableError("annotation without valid box")
        self.treated += happened
        return Annotated(image, labels()[wnid], tuple(kept), size)


def _parse(path: Path) -> Any:
    """The root of an annotation; entities are refused."""
    try:
        return ElementTree.parse(path).getroot()
    except DefusedXmlException as error:
        raise _UnusableError("XML with entities", str(error)) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _UnusableError("broken XML", str(error)) from error
    except OSError as error:
        raise _UnusableError("unreadable XML", str(error)) from error


def _number(text: str | None) -> float:
    """A number, or NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _box(entry: Any) -> Box | None:
    """The edges of a box; the XML tells its first and last pixels."""
    if entry is None:
        return None
    xmin, ymin, xmax, ymax = (_number(entry.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Box(xmin, ymin, xmax + 1, ymax + 1) if xmin < xmax and ymin < ymax else None


def _scale(told: tuple[float, float], size: tuple[int, int]) -> tuple[float, float] | None:
    """From the size in the XML to the image's, if one is a resized copy of the other."""
    if not (0 < told[0] < math.inf and 0 < told[1] < math.inf):
        return None
    across, down = size[0] / told[0], size[1] / told[1]
    return (across, down) if abs(across / down - 1) <= SAME_ASPECT else None


def _exceeds(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box is more than one pixel beyond the image, as ILSVRC counts some pixels from 0, some from 1."""
    return box.left < 0 or box.top < 0 or box.right > size[0] + 1 or box.bottom > size[1] + 1
