"""Where ILSVRC2012's images and annotations lie: the layouts that exist in practice, recognised by their folders."""

import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from canonxai.data.base import Excluded
from canonxai.data.ilsvrc_classes import labels
from canonxai.data.paths import user_path
from canonxai.errors import UserError, check

SUFFIXES = (".jpeg", ".jpg", ".png")
#: below the root; the devkit's and the competition's archives, then torchvision's class folders or a flat folder
IMAGES = ("Data/CLS-LOC/{0}", "ILSVRC/Data/CLS-LOC/{0}", "{0}", "images/{0}", "ILSVRC2012_img_{0}")
ANNOTATIONS = (
    "Annotations/CLS-LOC/{0}",
    "ILSVRC/Annotations/CLS-LOC/{0}",
    *(f"{folder}/{{0}}" for folder in ("Annotations", "annotations", "bbox")),
    *(f"ILSVRC2012_bbox_{{0}}{version}{inner}" for version, inner in product(("", "_v2", "_v3"), ("/{0}", ""))),
    "{0}",  # beside the images
    *("Annotations", "annotations", "bbox"),  # of all splits together
    "LOC_{0}_solution.csv",  # the competition's, where there is no XML
)
INNER = ("train", "val", "CLS-LOC", "Data", "ILSVRC")  #: folders of a layout that may be given instead of its root
_SPLIT = re.compile(r"ILSVRC2012_(train|val|test)_|n\d{8}_")
_WNID = re.compile(r"n\d{8}(?=_|$)")


def locate(
    root: str | None, split: str, images: str | None = None, annotations: str | None = None
) -> list[tuple[list[Path], Path, list[str]]]:
    """The folders of images, that of their annotations, and the splits that both are of, which may lie together.

    Args:
        root: in one of the layouts.
        split: ``train``, ``val`` or ``train+val``.
        images: the folder of the images, instead of the one in ``root``.
        annotations: the folder of the XML files, or the competition's CSV, instead of that in ``root``.

    Raises:
        UserError: if a folder is missing, or ``root`` has none of the layouts; it tells what was looked for.
    """
    given = [None if images is None else _folder("data.images", images), None]
    if annotations is not None:
        is_table = user_path(annotations).is_file()
        given[1] = user_path(annotations) if is_table else _folder("data.annotations", annotations)
    if given[0] and given[1]:
        return [([given[0]], given[1], [])]
    check(root is not None, "data.root", "a folder", root, "Give data.root=PATH.")
    check(not any(given) or "+" not in split, "data.split", "train or val, as only one folder is given", split)
    bases = roots(_folder("data.root", str(root)))
    found: dict[Path, dict[str, Path]] = {}
    for part in split.split("+"):
        folder = given[1] or _first(bases, part, ANNOTATIONS, (".xml",), "annotations")
        found.setdefault(folder, {})[part] = given[0] or _first(bases, part, IMAGES, SUFFIXES, "images")
    return [(list(images.values()), folder, list(images)) for folder, images in found.items()]


def roots(base: Path) -> list[Path]:
    """A folder, and those above it that may be the root if it is a part of a layout."""
    found, folder = [base], base.absolute()
    while folder.name in INNER:
        folder = folder.parent
        found.append(folder)
    return found


def files(folder: Path, suffixes: tuple[str, ...], chosen: frozenset[int], excluded: list[Excluded]) -> Iterator[Path]:
    """Files of a folder and its subfolders in an order that depends on their names only.

    Folders of classes that are not chosen are skipped, and so are links to folders that were visited; folders that
    cannot be read are noted.
    """
    visited = {os.path.realpath(folder)}

    def note(error: OSError) -> None:
        excluded.append(Excluded(str(error.filename), "unreadable folder", str(error.strerror)))

    def is_visited(path: Path) -> bool:
        """Whether a folder was visited, perhaps by another name; from now on it was."""
        before = len(visited)
        visited.add(os.path.realpath(path))
        return len(visited) == before

    for path, folders, names in os.walk(folder, onerror=note, followlinks=True):
        wanted = [name for name in sorted(folders) if not _WNID.fullmatch(name) or labels().get(name) in chosen]
        folders[:] = [name for name in wanted if not is_visited(Path(path, name))]
        yield from (Path(path, name) for name in sorted(names) if name.lower().endswith(suffixes))


def wnid_of(path: Path) -> str | None:
    """The class that the folder's or else the file's name tells."""
    match = _WNID.match(path.parent.name) or _WNID.match(path.name)
    return match and match.group()


def split_of(path: Path) -> str | None:
    """The split that the file's name tells: ``train`` of ``n01440764_1``, ``val`` of ``ILSVRC2012_val_00000001``."""
    match = _SPLIT.match(path.name)
    return match and (match.group(1) or "train")


def _folder(argument: str, path: str) -> Path:
    check(user_path(path).is_dir(), argument, "an existing folder", path)
    return user_path(path)


def _first(bases: list[Path], part: str, patterns: tuple[str, ...], suffixes: tuple[str, ...], what: str) -> Path:
    candidates = [pattern.format(part) for pattern in patterns]
    everything = frozenset(labels().values())
    for path in (base / candidate for base in bases for candidate in candidates):
        if (path.suffix == ".csv" and path.is_file()) or next(files(path, suffixes, everything, []), None) is not None:
            return path
    expected = f"a folder with {what} of ILSVRC's {part}, as {', '.join(candidates[:3])}"
    raise UserError(f"data.root: expected {expected}, got {str(bases[0])!r}. Or give them as data.{what}=PATH.")
