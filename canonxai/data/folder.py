"""Any folder of images, with their boxes in one CSV or in one JSON file of COCO's form."""

import csv
import io
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from canonxai.data.base import Excluded
from canonxai.data.classes import read_names
from canonxai.data.coco import decode_mask, read_instances
from canonxai.data.evaluations import checked_size, evaluation
from canonxai.data.geometry import UNKNOWN, Box, Geometry
from canonxai.data.images import Annotated, AnnotatedImages
from canonxai.data.paths import user_path
from canonxai.errors import UserError, check

COLUMNS = ("image", "label", "xmin", "ymin", "xmax", "ymax")
DIGITS = 5  #: so many has an index at most
_INDEX = re.compile(r"0*(\d+)(?:\.0*)?", re.ASCII)  # pandas writes integers as 2.0 where one is missing
log = logging.getLogger(__name__)


class Folder(AnnotatedImages):
    """A user's own images with boxes, one evaluation per (image, class).

    A CSV has a header with the columns ``image,label,xmin,ymin,xmax,ymax``, in any order and among others, and a row
    for each object. Coordinates are the edges of the box in pixels from the upper left corner, so ``xmin=0, xmax=10``
    are the first ten columns. Boxes are clipped to the image. Left out and counted are rows that cannot be understood,
    boxes outside of the image, missing and unreadable images, pairs of an image and a class with an invalid box, and
    given classes without images. For JSON see :class:`canonxai.data.coco.COCO`.

    Args:
        root: the folder; the next three are relative to it, or absolute.
        annotations: the file, ``.csv`` or ``.json``.
        images: where the names in ``annotations`` start.
        classes: the names in the order of the network's outputs, or a file with a name a line. In a CSV, a label is
            a name or an index into them. ``None``: the categories by id; the labels themselves, if all are indices;
            or the distinct labels, sorted.
        resize, crop, fit, interpolation: see :class:`canonxai.data.geometry.Geometry`.
        max_samples, per_class, shuffle_seed: see :class:`canonxai.data.images.AnnotatedImages`.

    Raises:
        UserError: if a path does not exist, the file as a whole cannot be understood, nothing is left, or an argument
            is out of its range.
    """

    def __init__(
        self,
        root: str | None = None,
        annotations: str = "boxes.csv",
        images: str = ".",
        classes: str | Sequence[str | int] | None = None,
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
        max_samples: int | None = None,
        per_class: int | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        base = user_path(root)
        check(root is not None and base.is_dir(), "data.root", "an existing folder", root, "Give data.root=PATH.")
        file, folder = base / user_path(annotations), base / user_path(images)
        known = file.is_file() and file.suffix.lower() in (".csv", ".json")
        check(known, "data.annotations", "an existing .csv or .json file", str(file))
        check(folder.is_dir(), "data.images", "an existing folder", str(folder))
        names = _names(base, classes)
        if file.suffix.lower() == ".json":
            entries, found = read_instances(file, folder, order=names)
        else:
            entries, found = _read(file, folder, names)
        geometry = Geometry(resize, crop, fit, interpolation)
        super().__init__(entries, found, range(len(names or ())), geometry, max_samples, per_class, shuffle_seed)

    def read_mask(self, sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
        """The union of the instances in a JSON file; nothing where only boxes are known."""
        return decode_mask(sample)


def _names(base: Path, classes: str | Sequence[str | int] | None) -> list[str] | None:
    """The class names that were given."""
    if classes is None:
        return None
    names = read_names("data.classes", classes, base)
    check(len(names) == len(set(names)) > 0, "data.classes", "distinct names, at least one", names)
    return names


def _index(label: str) -> str:
    """An index without what may be written about it, as in ``02`` and ``2.0``; anything else as it is."""
    match = _INDEX.fullmatch(label)
    return match.group(1) if match else label


def _read(path: Path, images: Path, names: list[str] | None) -> tuple[list[Annotated | Excluded], list[str]]:
    """The evaluations of a CSV, by file and label, what was left out, and the class names."""
    entries: list[Annotated | Excluded] = []
    rows: list[tuple[Path, str, Box, int]] = []
    raw, line = path.read_bytes(), 1

    def leave_out(line: int, reason: str) -> None:
        entries.append(Excluded(str(path), "invalid row", f"line {line}: {reason}"))

    try:
        text = raw.decode("utf-8-sig").replace("\0", "\N{REPLACEMENT CHARACTER}")  # which Python 3.10 does not read
        table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        header = list(table.fieldnames or ())
        for count, columns in ((0, "no column"), (2, "twice the column")):
            if wrong := [column for column in COLUMNS if min(header.count(column), 2) == count]:
                raise ValueError(f"{columns} {', '.join(wrong)} in the header")
        line = 2
        for row in table:
            line = table.line_num
            image, label, *edges = ((row[column] or "").strip() for column in COLUMNS)
            box = UNKNOWN
            if None in row or None in row.values():
                leave_out(line, f"not {len(header)} values")
            else:
                try:
                    box = Box(*map(float, edges))
                except ValueError as error:
                    leave_out(line, str(error))
            if image and label:
                rows.append((Path(os.path.normpath(images / image)), label, box, line))
            else:
                leave_out(line, "no image or label")
            line += 1
    except (ValueError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            line = raw.count(b"\n", 0, error.start) + 1
        expected = ",".join(COLUMNS)
        raise UserError(
            f"data.annotations: expected {expected}, got line {line} of {str(path)!r} ({error})."
        ) from error

    if repeated := len(rows) - len({row[:3] for row in rows}):
        log.warning("data: %d rows of %s repeat others", repeated, path)
    given = sorted({label for _, label, _, _ in rows})
    if names is None and all(map(_INDEX.fullmatch, given)):
        indices = [int(index) for index in map(_index, given) if len(index) <= DIGITS]
        names = [str(index) for index in range(max(indices, default=-1) + 1)]
    names = given if names is None else names
    labels = {**{str(index): index for index in range(len(names))}, **{name: i for i, name in enumerate(names)}}
    found: dict[Path, dict[int, list[Box]]] = {}
    for image, label, box, line in rows:
        key = label if label in labels else _index(label)
        if key in labels:
            found.setdefault(image, {}).setdefault(labels[key], []).append(box)
        else:
            leave_out(line, f"label {label} is not in data.classes nor an index of it")

    for image in sorted(found):
        size = checked_size(image)
        if isinstance(size, Excluded):
            entries.append(size)
            continue
        for index, boxes in sorted(found[image].items()):
            entries += evaluation(image, index, boxes, size)
    return entries, names
