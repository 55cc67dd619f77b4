"""ImageNet-S: validation images of ILSVRC2012 with masks of their class.

Gao et al., TPAMI 2022, "Large-scale unsupervised semantic segmentation". A mask's pixel holds the class id as red plus
256 times green: the place of the class in the sorted WordNet ids, from 1; 0 is anything else, 1000 is ignored.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from canonxai.data.base import Excluded
from canonxai.data.classes import Classes
from canonxai.data.evaluations import checked_size
from canonxai.data.geometry import Box, Geometry
from canonxai.data.ilsvrc_classes import NAMES, indices, labels
from canonxai.data.ilsvrc_layouts import SUFFIXES, files
from canonxai.data.images import Annotated, AnnotatedImages, ImageError, read_mask_pixels
from canonxai.data.paths import is_file, user_path
from canonxai.errors import check, check_choice

VARIANTS = (50, 300, 919)


class ImageNetS(AnnotatedImages):
    """Images with the mask of their folder's class; labels are the indices of torchvision's weights.

    The box is the one that encloses the mask. All masks are read at the start, as what the image shows must be known.
    Left out and counted are images without a mask or without a pixel of their class, files and folders that are
    unreadable, files of different sizes, folders that are no class of the variant, and classes without images.
    ImageNet-S-919 merges five classes of ILSVRC into others, as sunglasses into sunglass: there, the label is that of
    the folder.

    Args:
        root: holds ``<split>/<wnid>`` and ``<split>-segmentation/<wnid>``, or ``ImageNetS<variant>`` with these.
        variant: 50, 300 or 919 classes.
        split: ``validation`` or ``train-semi``, those that have masks.
        classes: ``all``, ``paper20`` (the study's 20), or a list of names, WordNet ids or indices; folders of other
            classes are not read.
        categories: file with the WordNet ids of the variant, a line each; ``None`` for the class folders, which must
            be complete then, as the ids of the masks count them.
        resize, crop, fit, interpolation: see :class:`canonxai.data.geometry.Geometry`.
        max_samples, per_class, shuffle_seed: see :class:`canonxai.data.images.AnnotatedImages`.

    Raises:
        UserError: if the tree is not that of ImageNet-S, nothing is left, or an argument is out of its range.
    """

    class_ids: ClassVar = tuple(labels())

    def __init__(
        self,
        root: str | None = None,
        variant: int = 919,
        split: str = "validation",
        classes: Classes = "all",
        categories: str | None = None,
        resize: int = 256,
        crop: int = 224,
        fit: str = "crop",
        interpolation: str = "bilinear",
        max_samples: int | None = None,
        per_class: int | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        check_choice("data.variant", variant, VARIANTS)
        check_choice("data.split", split, ("validation", "train-semi"))
        check(root is not None, "data.root", "a folder", root, "Give data.root=PATH of ImageNet-S.")
        base = user_path(root) / f"ImageNetS{variant}"
        base = base if base.is_dir() else user_path(root)
        images, masks = base / split, base / f"{split}-segmentation"
        for folder in (images, masks):
            check(folder.is_dir(), "data.root", f"a folder with {folder.name}/", str(root), "See data.variant.")
        folders = sorted(path for path in images.iterdir() if path.is_dir())
        chosen = set(indices(classes))
        ids = _ids(categories, [path.name for path in folders if path.name in labels()], variant)
        expected = set() if classes == "all" else chosen
        entries: list[Annotated | Excluded] = []
        excluded: list[Excluded] = []
        with ThreadPoolExecutor() as pool:  # decoding does not hold Python's lock
            for folder in folders:
                if folder.name not in ids:
                    excluded.append(Excluded(str(folder), "unknown class", is_error=False))
                    continue
                label, class_id = labels()[folder.name], ids.index(folder.name) + 1
                if label not in chosen:
                    continue
                expected.add(label)
                read = partial(_read, masks=masks / folder.name, label=label, class_id=class_id)
                entries += pool.map(read, files(folder, SUFFIXES, frozenset(chosen), excluded))
        geometry = Geometry(resize, crop, fit, interpolation)
        super().__init__([*entries, *excluded], NAMES, expected, geometry, max_samples, per_class, shuffle_seed)

    def read_mask(self, sample: Annotated) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of the class."""
        return None if sample.mask_file is None else _class_ids(sample.mask_file) == sample.mask


def _ids(categories: str | None, folders: list[str], variant: int) -> list[str]:
    """The WordNet ids by class id less 1."""
    if categories is None:
        hint = "Give data.variant, or data.categories=FILE with the WordNet ids of the variant."
        check(len(folders) == variant, "data.root", f"{variant} folders named by WordNet ids", len(folders), hint)
        return sorted(folders)
    path = user_path(categories)
    check(path.is_file(), "data.categories", "an existing file with a WordNet id a line", categories)
    ids = sorted(set(path.read_text(encoding="utf-8", errors="replace").split()))
    unknown = [wnid for wnid in ids if wnid not in labels()]
    check(not unknown, "data.categories", "WordNet ids of ILSVRC2012", unknown[:3])
    return ids


def _class_ids(path: Path) -> np.ndarray:
    pixels = read_mask_pixels(path, "RGB", "RGBA").astype(np.int64)
    return np.asarray(pixels[..., 0] + 256 * pixels[..., 1])


def _read(image: Path, masks: Path, label: int, class_id: int) -> Annotated | Excluded:
    """An image with its mask and the box that encloses it."""
    path = masks / f"{image.stem}.png"
    if not is_file(path):
        return Excluded(str(image), "missing mask")
    size = checked_size(image)
    if isinstance(size, Excluded):
        return size
    try:
        ids = _class_ids(path)
    except ImageError as error:
        return Excluded(str(path), "unreadable mask", str(error))
    if ids.shape[::-1] != size:
        return Excluded(str(path), "mask of another size", f"{ids.shape[::-1]}, not {size}")
    rows, columns = (np.flatnonzero((ids == class_id).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Excluded(str(path), "no pixel of the class in the mask", f"class id {class_id}", is_error=False)
    box = Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Annotated(image, label, (box,), size, class_id, path)
