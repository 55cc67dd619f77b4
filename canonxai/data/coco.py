"""COCO with boxes and instance masks, and any data set whose annotations are written as COCO's.

Lin et al., ECCV 2014, "Microsoft COCO: common objects in context". An image has objects of several classes: each pair
of an image and a category is one evaluation.
"""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as rle

from canonxai.data.base import Excluded
from canonxai.data.classes import Classes, chosen_labels
from canonxai.data.evaluations import KEEP, checked_size, evaluation
from canonxai.data.geometry import UNKNOWN, Box, Geometry
from canonxai.data.images import Annotated, AnnotatedImages
from canonxai.data.paths import user_path
from canonxai.errors import UserError, check, check_choice

log = logging.getLogger(__name__)


class COCO(AnnotatedImages):
    """Images with instances, one evaluation per (image, category).

    Labels are contiguous, in the order of the category ids: 0 to 79 for the 80 categories of ids 1 to 90. Boxes are
    clipped to the image. Left out and counted are crowds (``crowd``), annotations of an unknown image or category,
    boxes outside of the image, images that are missing, unreadable or of another size than the annotations', and pairs
    with an invalid box or mask.

    Args:
        root: holds ``annotations/instances_<split><year>.json`` and ``<split><year>``, unless the next two are given.
        year: of the release.
        split: ``train`` or ``val``.
        classes: ``all``, or a list of names or labels (not the category ids); objects of other classes are ignored.
        annotations: the JSON file; ``None`` for that in ``root``.
        images: the folder of the images; ``None`` for that in ``root``.
        masks: ``False`` for boxes alone; instances without a segmentation have their box alone, which is told.
        crowd: ``exclude`` or ``include`` regions that hold many objects.
        resize, crop, fit, interpolation: see :class:`canonxai.data.geometry.Geometry`.
        max_samples, per_class, shuffle_seed: see :class:`canonxai.data.images.AnnotatedImages`.

    Raises:
        UserError: if a path does not exist, the JSON is not COCO's, an id means two things, nothing is left, or an
            argument is out of its range.
    """

    def __init__(
        self,
        root: str | None = None,
        year: int = 2017,
        split: str = "val",
        classes: Classes = "all",
        annotations: str | None = None,
        images: str | None = None,
        masks: bool = True,
        crowd: str = "exclude",
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
        max_samples: int | None = None,
        per_class: int | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        check(root is not None or None not in (annotations, images), "data.root", "a folder", root, _GIVE_PATHS)
        base = user_path(root or ".")
        file = user_path(annotations) if annotations else base / "annotations" / f"instances_{split}{year}.json"
        folder = user_path(images) if images else base / f"{split}{year}"
        check(file.is_file(), "data.annotations", "an existing JSON file", str(file), _GIVE_PATHS)
        check(folder.is_dir(), "data.images", "an existing folder", str(folder), _GIVE_PATHS)
        entries, names = read_instances(file, folder, masks, crowd, classes)
        expected = () if classes == "all" else chosen_labels(classes, names)
        geometry = Geometry(resize, crop, fit, interpolation)
        super().__init__(entries, names, expected, geometry, max_samples, per_class, shuffle_seed)

    def read_mask(self, sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
        """The union of the instances; nothing where only boxes are known."""
        return decode_mask(sample)


_GIVE_PATHS = "Give data.root=PATH of COCO, or data.annotations=FILE and data.images=FOLDER."


def read_instances(
    path: Path,
    images: Path,
    masks: bool = True,
    crowd: str = "exclude",
    classes: Classes = "all",
    order: Sequence[str] | None = None,
) -> tuple[list[Annotated | Excluded], list[str]]:
    """The evaluations of an instances file, by file name and label, what was left out, and the class names.

    Args:
        path: the JSON file.
        images: the folder of the images.
        masks: see :class:`COCO`, as the next two.
        crowd: see there.
        classes: see there.
        order: names of all classes by label; ``None`` for the categories in the order of their ids.

    Raises:
        UserError: if the file is not COCO's, a category is not in ``order``, or a class is unknown.
    """
    check_choice("data.crowd", crowd, KEEP)
    data = _load(path)
    try:
        categories, infos = (_by_id(path, data[table], table) for table in ("categories", "images"))
        names = {key: str(categories[key]["name"]) for key in sorted(categories)}
        files = {key: str(entry["file_name"]) for key, entry in infos.items()}
    except (KeyError, TypeError) as error:
        raise _no_coco(path, f"a category or image without {error}") from error
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        log.warning("data: several categories of %s have the same name: %s", path, ", ".join(twice))
    order = list(names.values()) if order is None else list(order)
    for name in names.values():
        check(name in order, "data.classes", f"all categories of {path}", order, f"{name!r} is missing.")
    labels = {key: label for label, key in enumerate(names)}
    if order != list(names.values()):
        labels = {key: order.index(name) for key, name in names.items()}
    chosen = set(chosen_labels(classes, order))

    entries: list[Annotated | Excluded] = []
    found: dict[Any, dict[int, list[dict[str, Any]]]] = {}
    for number, instance in enumerate(data["annotations"]):
        try:
            key, label = instance["image_id"], labels[instance["category_id"]]
            is_crowd, file = bool(instance.get("iscrowd", 0)), files[key]
        except (KeyError, TypeError) as error:
            entries.append(_invalid(path, number, error))
            continue
        if label not in chosen:
            continue
        if is_crowd and crowd == "exclude":
            entries.append(Excluded(str(images / file), "crowd", order[label], is_error=False))
            continue
        try:
            x, y, width, height = (float(value) for value in instance["bbox"])
            box = Box(x, y, x + width, y + height)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            entries.append(_invalid(path, number, error))
            box = UNKNOWN
        found.setdefault(key, {}).setdefault(label, []).append({"box": box, "mask": instance.get("segmentation")})

    without = 0
    for key in sorted(found, key=lambda key: files[key]):
        image, stated = images / files[key], (infos[key].get("width"), infos[key].get("height"))
        size = checked_size(image, None if None in stated else stated)
        if isinstance(size, Excluded):
            entries.append(size)
            continue
        for label, instances in sorted(found[key].items()):
            mask = None
            if masks and all(instance["mask"] for instance in instances):
                try:
                    mask = _encode([instance["mask"] for instance in instances], *size)
                except (ValueError, TypeError, KeyError) as error:
                    entries.append(Excluded(str(image), "invalid mask", f"{order[label]}: {error}"))
                    continue
            without += masks and mask is None
            entries += evaluation(image, label, [instance["box"] for instance in instances], size, mask=mask)
    if without:
        log.warning("data: %d evaluations of %s have boxes alone; their mask is the box", without, path)
    return entries, order


def decode_mask(sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
    """The mask of an evaluation that :func:`read_instances` made."""
    if not isinstance(sample.mask, tuple):
        return None
    size, counts = sample.mask
    return _decode({"size": list(size), "counts": counts})


def _no_coco(path: Path, got: str) -> UserError:
    return UserError(f"data.annotations: expected a JSON file of COCO instances, got {str(path)!r} with {got}.")


def _invalid(path: Path, number: int, error: Exception) -> Excluded:
    return Excluded(str(path), "invalid annotation", f"annotations[{number}]: {type(error).__name__}: {error}")


def _by_id(path: Path, table: list[Any], name: str) -> dict[Any, dict[str, Any]]:
    """A table's entries; those that are there twice count once, but no id may mean two things."""
    found: dict[Any, dict[str, Any]] = {}
    for entry in table:
        if found.setdefault(entry["id"], entry) != entry:
            raise _no_coco(path, f"two {name} of id {entry['id']}")
    return found


def _load(path: Path) -> dict[str, list[Any]]:
    """The three tables of an instances file."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _no_coco(path, str(error)) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise _no_coco(path, f"no list of {key}")
    tables: dict[str, list[Any]] = data
    return tables


def _encode(segmentations: Sequence[Any], width: int, height: int) -> tuple[tuple[int, int], bytes]:
    """The union of polygons and run lengths as run lengths.

    Raises:
        ValueError, TypeError, KeyError: for anything else, as pycocotools itself does not check what it gets.
    """
    union = rle.merge([_run_lengths(segmentation, width, height) for segmentation in segmentations])
    if not rle.area(union):
        raise ValueError("no pixel")
    return (height, width), union["counts"]


def _decode(run_lengths: dict[str, Any]) -> Bool[np.ndarray, "height width"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools on NumPy 2
        mask: Bool[np.ndarray, "height width"] = rle.decode(run_lengths).astype(bool)
    return mask


def _run_lengths(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    pixels = width * height
    if isinstance(segmentation, list):
        for polygon in segmentation:
            is_polygon = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            if not (is_polygon and all(abs(edge) <= pixels for edge in polygon)):
                raise ValueError("no polygon")
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(segmentation, height, width))
        return merged
    counts, size = segmentation["counts"], segmentation["size"]
    if list(size) != [height, width]:
        raise ValueError(f"run lengths for {size}, not {[height, width]}")
    if isinstance(counts, str):
        counts = _counts(counts)
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != pixels:
        raise ValueError("run lengths that do not add up to the image")
    lengths: dict[str, Any] = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return lengths


def _counts(text: str) -> list[int]:
    """The numbers of COCO's compressed run lengths.

    Five bits a letter, the lowest first, a sixth where more follow; from the fourth number on, the difference from the
    last but one. pycocotools reads them, too, but beyond its memory where they do not add up to the image.

    >>> _counts("52203")
    [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("no compressed run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)  # the sign
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("no compressed run lengths")
    return counts
