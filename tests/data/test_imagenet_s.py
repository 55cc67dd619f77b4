"""ImageNet-S's images and masks, on a small tree."""

import errno
import os
import pathlib
from collections import Counter
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from canonxai.config import Data, build
from canonxai.data.ilsvrc_classes import NAMES, labels
from canonxai.data.imagenet_s import ImageNetS
from canonxai.errors import UserError

SIZE = (400, 300)
WNIDS = sorted(labels())[::-3][:300]  # more than 256, so that the green channel counts
FIRST, LAST = sorted(WNIDS)[0], sorted(WNIDS)[-1]
BOX, OTHER = (60, 80, 180, 170), (300, 200, 340, 260)


class Tree:
    """The variant with 300 classes, of which two have folders: their objects are white."""

    def __init__(self, root):
        self.root, self.base = root, root / "ImageNetS300"
        self.categories = root / "categories.txt"
        self.categories.write_text("\n".join(WNIDS) + "\n")
        self.add(LAST, "b")
        self.add(LAST, "a", BOX, OTHER)
        self.add(FIRST, "c")

    def add(self, wnid, stem, *boxes, other=0):
        images, masks = (self.base / name / wnid for name in ("validation", "validation-segmentation"))
        pixels, ids = np.zeros(SIZE[::-1], dtype=np.uint8), np.full(SIZE[::-1], other)
        ids[:20] = 1000
        for x0, y0, x1, y1 in boxes or [BOX]:
            pixels[y0:y1, x0:x1] = 255
            ids[y0:y1, x0:x1] = sorted(WNIDS).index(wnid) + 1
        for folder in (images, masks):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(images / f"{stem}.JPEG", quality=100)
        mask = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
        Image.fromarray(mask).save(masks / f"{stem}.png")
        return images / f"{stem}.JPEG", masks / f"{stem}.png"

    def dataset(self, **arguments):
        given = {"root": str(self.root), "variant": 300, "categories": str(self.categories), **arguments}
        return ImageNetS(**given)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_the_mask_is_that_of_the_folders_class_and_the_box_encloses_it(tree):
    dataset = tree.dataset()
    assert [sample["label"] for sample in dataset] == [labels()[FIRST], labels()[LAST], labels()[LAST]]
    assert [sample.image.stem for sample in dataset.annotated] == ["c", "a", "b"]
    assert dataset.annotated[0].boxes == (BOX,)
    assert dataset.annotated[1].boxes == ((60, 80, 340, 260),)
    assert not dataset.excluded
    for sample in dataset:
        painted = sample["image"].float().mean(0) > 127
        assert sample["mask"].any()
        assert (painted != sample["mask"]).float().mean() < 0.01
        rows, columns = (torch.nonzero(sample["mask"].any(axis)).flatten() for axis in (1, 0))
        box = torch.zeros_like(sample["box"])
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(sample["box"], box)


def test_labels_are_the_indices_of_torchvisions_weights():
    assert (labels()["n01440764"], labels()["n01443537"], labels()["n03888257"]) == (0, 1, 701)
    assert (ImageNetS.class_ids[0], ImageNetS.class_ids[701]) == ("n01440764", "n03888257")


@pytest.mark.parametrize("classes", [LAST, [labels()[LAST], "tench"], NAMES[labels()[LAST]]])
def test_folders_of_other_classes_are_not_read(tree, classes):
    _, mask = tree.add(FIRST, "d")
    mask.unlink()
    dataset = tree.dataset(classes=classes)
    assert [sample["label"] for sample in dataset] == [labels()[LAST]] * 2
    expected = ["class without annotated images"] if "tench" in classes else []
    assert [entry.reason for entry in dataset.excluded] == expected
    assert [sample["mask"].sum() for sample in dataset] == [s["mask"].sum() for s in list(tree.dataset())[1:]]


def test_a_mask_that_is_damaged_later_excludes_its_image(tree):
    dataset = tree.dataset()
    path = dataset.annotated[0].mask_file
    path.write_bytes(path.read_bytes()[:100])
    assert (dataset[0].file, dataset[0].reason) == (str(path), "unreadable mask")


def test_complete_folders_need_no_list_and_may_be_the_root(tree):
    (tree.base / "validation" / "notes").mkdir()
    for wnid in WNIDS:
        (tree.base / "validation" / wnid).mkdir(exist_ok=True)
    expected = tree.dataset().annotated
    dataset = tree.dataset(categories=None, root=str(tree.base))
    assert dataset.annotated == expected
    assert Counter(entry.reason for entry in dataset.excluded) == {
        "class without annotated images": 298,
        "unknown class": 1,
    }


def test_a_folder_that_may_not_be_read_is_left_out_and_counted(tree, monkeypatch):
    tree.add(WNIDS[1], "e")
    denied = tree.base / "validation" / FIRST, tree.base / "validation-segmentation" / WNIDS[1]

    def guarded(read, place, path, *arguments, **options):
        if place(Path(path)) in denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *arguments, **options)

    for name, place in (("scandir", Path), ("listdir", Path), ("stat", attrgetter("parent"))):  # tests may run as root
        read = partial(guarded, getattr(os, name), place)
        for owner in (os, getattr(pathlib, "_NormalAccessor", os)):  # Python 3.10 remembers them
            monkeypatch.setattr(owner, name, read)
    dataset = tree.dataset()
    assert [sample.image.stem for sample in dataset.annotated] == ["a", "b"]
    assert {(entry.reason, Path(entry.file).parent.name) for entry in dataset.excluded if entry.is_error} == {
        ("unreadable folder", "validation"),
        ("missing mask", WNIDS[1]),
    }


def test_bad_files_are_left_out_and_counted(tree):
    files = [tree.add(FIRST, stem) for stem in "defghi"]
    files[0][1].unlink()
    files[1][1].write_bytes(files[1][1].read_bytes()[:100])
    files[2][0].write_bytes(b"")
    Image.new("RGB", (9, 9)).save(files[3][1])
    Image.new("RGB", SIZE).save(files[4][1])
    Image.new("L", SIZE).save(files[5][1])
    tree.add(LAST, "z", other=sorted(WNIDS).index(FIRST) + 1)  # another class's pixels do not matter
    dataset = tree.dataset()
    assert len(dataset) == 4
    assert dataset.annotated[-1].boxes == (BOX,)
    assert Counter(entry.reason for entry in dataset.excluded) == {
        "missing mask": 1,
        "unreadable mask": 2,
        "unreadable image": 1,
        "mask of another size": 1,
        "no pixel of the class in the mask": 1,
    }
    assert {entry.reason for entry in dataset.excluded if not entry.is_error} == {"no pixel of the class in the mask"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, "data.root: expected a folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.root: expected a folder with validation/, got 'nowhere'"),
        ({"split": "train-semi"}, "data.root: expected a folder with train-semi/"),
        ({"split": "test"}, "data.split: expected one of validation, train-semi"),
        ({"variant": 3}, "data.variant: expected one of 50, 300, 919"),
        ({"categories": None}, "data.root: expected 300 folders named by WordNet ids, got 2. Give data.variant, or"),
        ({"classes": "tigr"}, "data.classes: expected all, paper20 or ILSVRC's classes .* near 'tigr': tiger"),
        ({"categories": "nowhere"}, "data.categories: expected an existing file"),
        ({"categories": __file__}, "data.categories: expected WordNet ids of ILSVRC2012, got"),
    ],
)
def test_mistakes_are_told(tree, arguments, message):
    with pytest.raises(UserError, match=message):
        tree.dataset(**arguments)


def test_the_config_builds_it(config, tree):
    root = f"data.root={tree.root}"
    cfg = config("data=imagenet_s", root, "data.variant=300", f"data.categories={tree.categories}", "data.per_class=1")
    assert len(build(cfg.data, "data", Data)) == 2
