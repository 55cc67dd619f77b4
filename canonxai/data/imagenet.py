"""ILSVRC2012 with the boxes of its localization task, in the layouts of :mod:`canonxai.data.ilsvrc_layouts`.

Russakovsky et al., IJCV 2015, "ImageNet large scale visual recognition challenge". What the annotations hold is
treated thus; each treatment is counted and told in the log (:data:`TREATMENTS`), each exclusion is listed:

- The label is the class that the folder's or file's name tells, or else the class of the first object. Objects of
  other classes are ignored; of several objects of the label the union of the boxes counts. Where the devkit's ground
  truth of val lies beside (:mod:`canonxai.data.ilsvrc_tables`), the label is that.
- Objects flagged as difficult or truncated are kept.
- Boxes that exceed the image are clipped. Boxes outside of it are excluded alone; with an empty, inverted or unreadable
  box the place of an object is unknown, so the image is excluded.
- A size in the XML that is not the image's: with the same aspect ratio (up to 2 %) the boxes are scaled, as they were
  drawn on a resized copy; with the inverse one they were drawn on a rotated copy, and the image is excluded; otherwise
  they are taken as pixels of the image if all fit, or the image is excluded. Scaled and ignored sizes name their files.
- Images without annotation, annotations without image, XML that is broken, has entities, or no object of the label:
  excluded.
- Where there is no XML, the boxes of the competition's ``LOC_*_solution.csv`` are taken, which tell no size.
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
from canonxai.data.evaluations import clip, evaluation, is_area
from canonxai.data.geometry import UNKNOWN, Box, Geometry
from canonxai.data.ilsvrc_classes import NAMES, PAPER20_IMAGES, indices, labels
from canonxai.data.ilsvrc_layouts import SUFFIXES, files, locate, roots, split_of, wnid_of
from canonxai.data.ilsvrc_tables import annotation, ground_truth, solutions
from canonxai.data.images import Annotated, AnnotatedImages, ImageError, image_size
from canonxai.data.paths import user_path
from canonxai.errors import check_choice

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "train+val")
SHOWN = 5  #: so many doubtful files are named in the log
SAME_ASPECT = 0.02  #: aspect ratios that differ by less are those of a resized copy
TREATMENTS = {
    "other": "objects of other classes ignored",
    "several": "images with several objects of their class",
    "difficult": "difficult objects kept",
    "truncated": "truncated objects kept",
    "clipped": "boxes clipped to the image",
    "scaled": "images whose boxes are scaled from the size in the XML",
    "pixels": "images whose size in the XML is wrong and ignored",
}


class _UnusableError(Exception):
    """Why an image is excluded: the fields of :class:`Excluded` behind the file."""


class ImageNet(AnnotatedImages):
    """All images of a split that have boxes of their class.

    Args:
        root: the data in one of the layouts that exist; see :mod:`canonxai.data.ilsvrc_layouts`.
        split: ``train``, ``val`` or ``train+val``; of no effect if both folders are given.
        classes: ``all``, ``paper20`` (the study's 20), or a list of names, WordNet ids or indices.
        images: the folder of the images, searched with its subfolders; ``None`` for that in ``root``.
        annotations: the folder of the XML files, named as the images, or the competition's CSV; ``None`` for that in
            ``root``.
        resize: see :class:`~canonxai.data.geometry.Geometry`, as the next three.
        crop: see there.
        fit: see there.
        interpolation: see there.
        max_samples: see :class:`~canonxai.data.images.AnnotatedImages`, as the next two.
        per_class: see there.
        shuffle_seed: see there.

    Attributes:
        treated: how often each of :data:`TREATMENTS` happened, before selection by the last three arguments.
        doubtful: the files of the images whose size in the XML is wrong, by treatment.

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
        self.doubtful: dict[str, list[str]] = {}
        self.truth = {} if root is None else ground_truth(roots(user_path(root)))
        annotated: list[Annotated] = []
        excluded: list[Excluded] = []
        for found in locate(root, split, images, annotations):
            self._add(*found, chosen, annotated, excluded)
        if self.treated:
            log.info("data: %s", ", ".join(f"{self.treated[key]} {TREATMENTS[key]}" for key in sorted(self.treated)))
        for key, names in self.doubtful.items():
            more = f", and {len(names) - SHOWN} more, see check.json of python -m canonxai.data"
            told = ", ".join(names[:SHOWN]) + (more if len(names) > SHOWN else "")
            log.warning("data: %s: %s", TREATMENTS[key], told)
        if classes == "paper20" and split == "train+val":
            told = "as in the study" if len(annotated) == PAPER20_IMAGES else f"the study has {PAPER20_IMAGES:,}"
            log.info("data: %s images with boxes of the study's 20 classes (%s)", f"{len(annotated):,}", told)
        expected = () if classes == "all" else chosen
        entries: list[Annotated | Excluded] = [*annotated, *excluded]
        super().__init__(entries, NAMES, expected, geometry, max_samples, per_class, shuffle_seed)

    def _add(
        self,
        images: list[Path],
        annotations: Path,
        splits: Sequence[str],
        chosen: frozenset[int],
        annotated: list[Annotated],
        excluded: list[Excluded],
    ) -> None:
        """Reads what :func:`~canonxai.data.ilsvrc_layouts.locate` found."""
        left: dict[str, list[Path]] = {}
        for path in chain.from_iterable(files(folder, SUFFIXES, chosen, excluded) for folder in images):
            left.setdefault(path.stem, []).append(path)
        rows = solutions(annotations) if annotations.is_file() else {}
        for path in rows or files(annotations, (".xml",), chosen, excluded):
            candidates = left.get(path.stem, [])
            same = [image for image in candidates if image.parent.name == path.parent.name]
            image = next(iter(same or candidates), None)
            told = self.truth.get(path.stem) or (image and wnid_of(image)) or wnid_of(path)
            if told and labels().get(told, -1) not in chosen:
                continue
            if image is None and splits and split_of(path) not in (None, *splits):
                continue  # the folder holds the annotations of other splits, too
            if image:
                candidates.remove(image)
            try:
                entries = self._read(path, rows.get(path), image, told, chosen)
            except _UnusableError as error:
                excluded.append(Excluded(str(path), *error.args))
            except ImageError as error:
                excluded.append(Excluded(str(image), "unreadable image", str(error)))
            else:
                annotated += [entry for entry in entries if isinstance(entry, Annotated)]
                excluded += [entry for entry in entries if isinstance(entry, Excluded)]
        excluded += [
            Excluded(str(image), "image without annotation", is_error=False)
            for paths in left.values()
            for image in paths
            if (told := self.truth.get(image.stem) or wnid_of(image)) is None or labels().get(told) in chosen
        ]

    def _read(
        self, path: Path, row: str | None, image: Path | None, told: str | None, chosen: frozenset[int]
    ) -> list[Annotated | Excluded]:
        """An image and the boxes of its class, and what was left out; nothing if the class is not chosen."""
        root = _parse(path, row)
        objects = [(str(entry.findtext("name")).strip(), entry) for entry in root.iter("object")]
        if not objects:
            raise _UnusableError("annotation without object", "", False)
        wnid = told or objects[0][0]
        if wnid not in labels():
            raise _UnusableError("unknown class", wnid)
        if labels()[wnid] not in chosen:
            return []
        if image is None:
            raise _UnusableError("annotation without image")
        own = [entry for name, entry in objects if name == wnid]
        if not own:
            raise _UnusableError("annotation without object of the class", f"{wnid} expected, {objects[0][0]} found")
        size = image_size(image)
        happened = Counter(other=len(objects) - len(own), several=int(len(own) > 1))
        for flag in ("difficult", "truncated"):
            happened[flag] = sum((entry.findtext(flag) or "0").strip() == "1" for entry in own)
        boxes = [_box(entry.find("bndbox")) for entry in own]
        stated = _number(root.findtext("size/width")), _number(root.findtext("size/height"))
        doubtful = None
        if root.find("size") is not None and stated != size:
            scale, turned = _scale(stated, size), _scale(stated[::-1], size)
            sizes = f"{stated[0]:g} x {stated[1]:g}, image {size[0]} x {size[1]}"
            if stated == size[::-1] or (turned and not scale):
                raise _UnusableError("size in the XML of the rotated image", sizes)
            if scale is None and any(_exceeds(box, size) for box in boxes):
                raise _UnusableError("size in the XML", sizes)
            doubtful = "pixels" if scale is None else "scaled"
            happened[doubtful] = 1
            across, down = scale or (1, 1)
            boxes = [Box(box[0] * across, box[1] * down, box[2] * across, box[3] * down) for box in boxes]
        happened["clipped"] = sum(_exceeds(box, size) and is_area(clip(box, size)) for box in boxes)
        entries = evaluation(image, labels()[wnid], boxes, size)
        if any(isinstance(entry, Annotated) for entry in entries):
            self.treated += happened
            if doubtful:
                self.doubtful.setdefault(doubtful, []).append(str(path))
        return entries


def _parse(path: Path, row: str | None) -> Any:
    """The root of an annotation, from its file or from a row of a CSV; entities are refused."""
    try:
        return ElementTree.parse(path).getroot() if row is None else annotation(row)
    except DefusedXmlException as error:
        raise _UnusableError("XML with entities", str(error)) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _UnusableError("broken XML" if row is None else "broken row", str(error)) from error
    except OSError as error:
        raise _UnusableError("unreadable XML", str(error)) from error


def _number(text: str | None) -> float:
    """A number, or NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _box(entry: Any) -> Box:
    """The edges of a box; the XML tells its first and last pixels. One without extent stays so."""
    if entry is None:
        return UNKNOWN
    xmin, ymin, xmax, ymax = (_number(entry.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Box(xmin, ymin, xmax + (xmin < xmax), ymax + (ymin < ymax))


def _scale(told: tuple[float, float], size: tuple[int, int]) -> tuple[float, float] | None:
    """From the size in the XML to the image's, if one is a resized copy of the other."""
    if not (0 < told[0] < math.inf and 0 < told[1] < math.inf):
        return None
    across, down = size[0] / told[0], size[1] / told[1]
    return (across, down) if abs(across / down - 1) <= SAME_ASPECT else None


def _exceeds(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box is more than one pixel beyond the image, as ILSVRC counts some pixels from 0, some from 1."""
    return box.left < 0 or box.top < 0 or box.right > size[0] + 1 or box.bottom > size[1] + 1
