"""Any folder of images, with their boxes in one CSV or in one JSON file of COCO's form."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from canonxai.data.base import Excluded
from canonxai.data.coco import decode_mask, read_instances
from canonxai.data.evaluations import checked_size, evaluation
from canonxai.data.geometry import Box, Geometry
from canonxai.data.images import Annotated, AnnotatedImages
from canonxai.errors import UserError, check

COLUMNS = ("image", "label", "xmin", "ymin", "xmax", "ymax")


class Folder(AnnotatedImages):
    """A user's own images with boxes, one evaluation per (image, class).

    A CSV has a header with the columns ``image,label,xmin,ymin,xmax,ymax``, in any order and among others, and a row
    for each object. Coordinates are the edges of the box in pixels from the upper left corner, so ``xmin=0, xmax=10``
    are the first ten columns. Boxes are clipped to the image. Left out and counted are boxes outside of the image,
    missing and unreadable images, pairs of an image and a class with an invalid box, and given classes without
    images. For JSON see :class:`canonxai.data.coco.COCO`.

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
        UserError: if a path does not exist, a line of the file cannot be understood, nothing is left, or an argument
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
        check(root is not None and Path(root).is_dir(), "data.root", "an existing folder", root, "Give data.root=PATH.")
        base = Path(str(root))
        file, folder = base / annotations, base / images
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
    if isinstance(classes, str):
        file = base / classes
        check(file.is_file(), "data.classes", "a list, or an existing file with a name a line", str(file))
        classes = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    names = [str(name).strip() for name in classes]
    check(len(names) == len(set(names)) > 0, "data.classes", "distinct names, at least one", names)
    return names


def _read(path: Path, images: Path, names: list[str] | None) -> tuple[list[Annotated | Excluded], list[str]]:
    """The evaluations of a CSV, by file and label, what was left out, and the class names."""
    rows: list[tuple[Path, str, Box, int]] = []
    raw, line = path.read_bytes(), 1
    try:
        table = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True)
        missing = [column for column in COLUMNS if column not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"no column {', '.join(missing)} in the header")
        line = 2
        for row in table:
            line = table.line_num
            if None in row or None in row.values():
                raise ValueError(f"not {len(table.fieldnames or ())} values")
            if not (row["image"].strip() and row["label"].strip()):
                raise ValueError("no image or label")
            box = Box(*(float(row[column]) for column in COLUMNS[2:]))
            rows.append((images / row["image"].strip(), row["label"].strip(), box, line))
            line += 1
    except (ValueError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            line = raw.count(b"\n", 0, error.start) + 1
        header = ",".join(COLUMNS)
        raise UserError(f"data.annotations: expected {header}, got line {line} of {str(path)!r} ({error}).") from error

    given = sorted({label for _, label, _, _ in rows})
    if names is None and all(label.isascii() and label.isdigit() for label in given):
        longest = max(given, key=len, default="")
        check(len(longest) <= 5, "data.annotations", "indices below 100000", longest)
        names = [str(index) for index in range(max(map(int, given), default=-1) + 1)]
    names = given if names is None else names
    labels = {**{str(index): index for index in range(len(names))}, **{name: i for i, name in enumerate(names)}}
    found: dict[Path, dict[int, list[Box]]] = {}
    for image, label, box, line in rows:
        key = label.lstrip("0") or "0" if label.isascii() and label.isdigit() and label not in labels else label
        hint = f"See line {line} of {str(path)!r}."
        check(key in labels, "data.annotations", "a label that is in data.classes or an index of it", label, hint)
        found.setdefault(image, {}).setdefault(labels[key], []).append(box)

    entries: list[Annotated | Excluded] = []
    for image in sorted(found):
        size = checked_size(image)
        if isinstance(size, Excluded):
            entries.append(size)
            continue
        for index, boxes in sorted(found[image].items()):
            entries += evaluation(image, index, boxes, size)
    return entries, names
