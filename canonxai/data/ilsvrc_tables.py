"""What ILSVRC2012 comes with beside its XML files: the competition's boxes in a CSV, the devkit's classes of val."""

import csv
import logging
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from scipy.io import loadmat

from canonxai.data.ilsvrc_classes import labels
from canonxai.data.paths import is_file
from canonxai.errors import UserError

log = logging.getLogger(__name__)
DEVKIT = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data", ".")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def solutions(path: Path) -> dict[Path, str]:
    """The rows of ``LOC_train_solution.csv`` or ``LOC_val_solution.csv``, by the image's name below the file's path.

    Raises:
        UserError: if the file is not the competition's.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            return dict(sorted((path / row["ImageId"].strip(), row["PredictionString"] or "") for row in table))
    except (KeyError, AttributeError, ValueError, csv.Error) as error:
        expected = "an XML folder or a CSV with the columns ImageId,PredictionString"
        raise UserError(f"data.annotations: expected {expected}, got {str(path)!r} ({error}).") from error


def annotation(row: str) -> Element:
    """A row's objects, a WordNet id and four corners each, as an XML file has them.

    Raises:
        ValueError: if it is incomplete.
    """
    values = row.split()
    if len(values) % 5:
        raise ValueError(f"{len(values)} values, not 5 for each object")
    root = Element("annotation")
    for place in range(0, len(values), 5):
        entry = SubElement(root, "object")
        SubElement(entry, "name").text = values[place]
        box = SubElement(entry, "bndbox")
        for name, value in zip(CORNERS, values[place + 1 : place + 5], strict=True):
            SubElement(box, name).text = value
    return root


def ground_truth(roots: Iterable[Path]) -> dict[str, str]:
    """WordNet ids of the validation images by name, as the devkit below one of ``roots`` tells; none without it.

    Raises:
        UserError: if its files are damaged.
    """
    for folder in (root / place for root in roots for place in DEVKIT):
        if not is_file(folder / TRUTH):
            continue
        if not is_file(folder / "meta.mat"):
            log.warning("data: %s is not used, as meta.mat, which tells what its numbers mean, is not beside it", TRUTH)
            return {}
        try:
            synsets = loadmat(str(folder / "meta.mat"), squeeze_me=True)["synsets"]
            wnids = {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets.ravel()}
            truth = [wnids[int(number)] for number in (folder / TRUTH).read_text().split()]
            if not set(truth) <= set(labels()):
                raise ValueError("a class that is none of the 1,000")
        except Exception as error:  # scipy raises nearly everything on damaged files
            raise UserError(
                f"data.root: expected the devkit's {TRUTH} and meta.mat, got {folder} ({error})."
            ) from error
        return {f"ILSVRC2012_val_{number:08}": wnid for number, wnid in enumerate(truth, 1)}
    return {}
