"""Pascal VOC with boxes and segmentations.

Everingham et al., IJCV 2010, "The Pascal visual object classes (VOC) challenge". An image has objects of several
classes: each pair of an image and a class is one evaluation.
"""

from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import ElementTree
from jaxtyping import Bool

from canonxai.data.base import Excluded
from canonxai.data.classes import Classes, chosen_labels
from canonxai.data.evaluations import KEEP, checked_size, evaluation
from canonxai.data.geometry import Box, Geometry
from canonxai.data.images import Annotated, AnnotatedImages, ImageError, read_mask_pixels
from canonxai.data.paths import is_file, user_path
from canonxai.errors import UserError, check, check_choice

CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


class VOC(AnnotatedImages):
    """Images with objects, one evaluation per (image, class); labels are in alphabetical order.

    The corners of a box count from 1 and include the last pixel; boxes are clipped to the image. Left out and counted
    are difficult objects (``difficult``), objects of unknown classes, boxes outside of the image, files that are
    missing, unreadable or of another size than the annotation's, and pairs with an invalid box or, with ``masks``,
    no pixel of the class.

    Args:
        root: the year's folder, ``VOCdevkit``, or the folder that holds it.
        year: chooses ``VOC<year>``.
        split: a file of ``ImageSets/Main``, or with ``masks`` of ``ImageSets/Segmentation``: ``train``, ``val``, ...
        classes: ``all``, or a list of names or indices; objects of other classes are ignored.
        masks: use the images that are segmented; the object is what has its class's colour, void (255) is not.
        difficult: ``exclude`` or ``include`` objects that the annotators marked as hard to recognise; VOC's own
            evaluation leaves them out.
        resize, crop, fit, interpolation: see :class:`canonxai.data.geometry.Geometry`.
        max_samples, per_class, shuffle_seed: see :class:`canonxai.data.images.AnnotatedImages`.

    Raises:
        UserError: if the tree is not VOC's, nothing is left, or an argument is out of its range.
    """

    def __init__(
        self,
        root: str | None = None,
        year: int = 2012,
        split: str = "val",
        classes: Classes = "all",
        masks: bool = False,
        difficult: str = "exclude",
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
        max_samples: int | None = None,
        per_class: int | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        check_choice("data.difficult", difficult, KEEP)
        chosen = chosen_labels(classes, CLASSES)
        folder = _find(root, year)
        lists = folder / "ImageSets" / ("Segmentation" if masks else "Main")
        splits = sorted(path.stem for path in lists.glob("*.txt") if "_" not in path.stem)  # others list one class each
        check(split in splits, "data.split", f"a list in {lists}: {', '.join(splits) or 'there is none'}", split)
        lines = (lists / f"{split}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        entries: list[Annotated | Excluded] = []
        for stem in sorted({line.split()[0] for line in lines if line.strip()}):
            entries += _read(folder, stem, chosen, masks, difficult)
        expected = () if classes == "all" else chosen
        geometry = Geometry(resize, crop, fit, interpolation)
        super().__init__(entries, CLASSES, expected, geometry, max_samples, per_class, shuffle_seed)

    def read_mask(self, sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of the class; nothing where only boxes are known."""
        return None if sample.mask_file is None else read_mask_pixels(sample.mask_file, "P", "L") == sample.label + 1


def _find(root: str | None, year: int) -> Path:
    """The folder of the year."""
    hint = "Give data.root=PATH of VOCdevkit and data.year."
    check(root is not None, "data.root", "a folder", root, hint)
    base = user_path(root)
    other = base.name.startswith("VOC2") and base.name != f"VOC{year}"
    check(not other, "data.year", f"the year of data.root={root}", year)
    for folder in (base / "VOCdevkit" / f"VOC{year}", base / f"VOC{year}", base):
        if all((folder / name).is_dir() for name in ("ImageSets", "JPEGImages", "Annotations")):
            return folder
    expected = f"a folder with VOC{year}, which holds ImageSets, JPEGImages and Annotations"
    raise UserError(f"data.root: expected {expected}, got {root!r}. {hint}")


def _read(folder: Path, stem: str, chosen: list[int], masks: bool, difficult: str) -> list[Annotated | Excluded]:
    """The evaluations of one image, by label, and what was left out."""
    xml, image = folder / "Annotations" / f"{stem}.xml", folder / "JPEGImages" / f"{stem}.jpg"
    if not is_file(xml):
        return [Excluded(str(xml), "missing annotation")]
    entries: list[Annotated | Excluded] = []
    found: dict[int, list[Box]] = {}
    try:
        root = ElementTree.parse(xml).getroot()
        stated = [int(root.findtext(f"size/{side}", "0")) for side in ("width", "height")]
        objects = root.findall("object")
        for entry in objects:
            name = entry.findtext("name", "").strip()
            if name not in CLASSES:
                entries.append(Excluded(str(xml), "unknown class", name))
            elif CLASSES.index(name) not in chosen:
                continue
            elif difficult == "exclude" and entry.findtext("difficult", "0").strip() == "1":
                entries.append(Excluded(str(xml), "difficult object", name, is_error=False))
            else:
                found.setdefault(CLASSES.index(name), []).append(_box(entry.find("bndbox")))
    except (SyntaxError, ValueError, TypeError, AttributeError, OSError, LookupError) as error:
        return [Excluded(str(xml), "invalid annotation", " ".join(str(error).split()) or type(error).__name__)]
    if not found:
        return entries if objects else [Excluded(str(xml), "no object", is_error=False)]

    size = checked_size(image, stated if all(stated) else None)
    if isinstance(size, Excluded):
        return [*entries, size]
    mask = folder / "SegmentationClass" / f"{stem}.png" if masks else None
    if mask is not None:
        try:
            pixels = read_mask_pixels(mask, "P", "L")
        except ImageError as error:
            return [*entries, Excluded(str(mask), "unreadable mask", str(error))]
        if pixels.shape[::-1] != size:
            return [*entries, Excluded(str(mask), "mask of another size", f"{pixels.shape[::-1]}, not {size}")]
        for label in sorted(set(found) - {int(value) - 1 for value in np.unique(pixels)}):
            entries.append(Excluded(str(mask), "no pixel of the class in the mask", CLASSES[label]))
            del found[label]
    for label, boxes in sorted(found.items()):
        entries += evaluation(image, label, boxes, size, mask_file=mask)
    return entries


def _box(corners: Any) -> Box:
    left, top, right, bottom = (float(corners.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Box(left - 1, top - 1, right, bottom)
