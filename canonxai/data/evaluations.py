"""From the annotations of an image to its evaluations: objects of one class, on an image of the stated size."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from canonxai.data.base import Excluded
from canonxai.data.geometry import Box
from canonxai.data.images import Annotated, ImageError, image_size
from canonxai.data.paths import is_file

KEEP = ("include", "exclude")  #: what can happen to objects that are special


def evaluation(
    image: Path, label: int, boxes: Iterable[Box], size: tuple[int, int], **mask: Any
) -> list[Annotated | Excluded]:
    """The evaluation of an image's objects of one class, their boxes clipped to the image, and what was left out.

    A box outside of the image is left out alone; with a box that is empty or not finite the place of an object is
    unknown, so the evaluation is left out.

    Args:
        image: the file.
        label: the class.
        boxes: of the objects of this class.
        size: width and height of the image.
        mask: fields of :class:`Annotated`.

    >>> evaluation(Path("a.jpg"), 3, [Box(-5, 0, 5, 5), Box(20, 0, 25, 5)], (10, 10))  # doctest: +ELLIPSIS
    [Excluded(...reason='box outside of the image'...), Annotated(...boxes=(Box(left=0, top=0, right=5, bottom=5),)...)]
    """
    entries: list[Annotated | Excluded] = []
    kept = []
    for box in boxes:
        told = ", ".join(f"{edge:g}" for edge in box)
        if not (all(map(math.isfinite, box)) and is_area(box)):
            return [Excluded(str(image), "invalid box", told)]
        clipped = clip(box, size)
        if is_area(clipped):
            kept.append(clipped)
        else:
            entries.append(Excluded(str(image), "box outside of the image", told))
    return [*entries, Annotated(image, label, tuple(kept), size, **mask)] if kept else entries


def checked_size(image: Path, stated: Any = None) -> tuple[int, int] | Excluded:
    """An image's width and height, or why it cannot be used: boxes must be drawn on an image of this very size."""
    try:
        size = image_size(image)
    except ImageError as error:
        return Excluded(str(image), "unreadable image" if is_file(image) else "missing image", str(error))
    if stated is not None and tuple(stated) != size:
        return Excluded(str(image), "annotation for another size", f"{stated[0]} x {stated[1]}, not {size}")
    return size


def clip(box: Box, size: tuple[int, int]) -> Box:
    """What of a box is inside of an image."""
    return Box(max(box.left, 0), max(box.top, 0), min(box.right, size[0]), min(box.bottom, size[1]))


def is_area(box: Box) -> bool:
    """Whether a box is neither empty nor inverted."""
    return box.left < box.right and box.top < box.bottom
