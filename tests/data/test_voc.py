"""Pascal VOC's images, boxes and segmentations, on a small tree."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from canonxai.config import Data, build
from canonxai.data import Excluded
from canonxai.data.voc import CLASSES, VOC
from canonxai.errors import UserError

SIZE = (400, 300)
DOG, CAT = (61, 81, 180, 170), (250, 100, 330, 260)  # from 1, the last pixel included


def annotation(*objects, size=SIZE, head="", **flags):
    def entry(name, box, difficult=0):
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>{part}</object>"

    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"{head}<annotation>{sides}{''.join(entry(*o) for o in objects)}</annotation>"


class Tree:
    """A tree of one year, filled image by image: dogs are white, cats grey."""

    def __init__(self, root, year=2012):
        self.root, self.folder, self.stems = root, root / "VOCdevkit" / f"VOC{year}", []
        for name in ("ImageSets/Main", "ImageSets/Segmentation", "JPEGImages", "Annotations", "SegmentationClass"):
            (self.folder / name).mkdir(parents=True)

    def add(self, stem, *objects, xml=None, size=SIZE):
        pixels, mask = (np.zeros(SIZE[::-1], dtype=np.uint8) for _ in range(2))
        for name, (x0, y0, x1, y1), *_ in objects:
            if name in CLASSES:
                pixels[y0 - 1 : y1, x0 - 1 : x1] = 255 if name == "dog" else 128
                mask[y0 - 1 : y1, x0 - 1 : x1] = 255
                mask[y0 + 4 : y1 - 5, x0 + 4 : x1 - 5] = CLASSES.index(name) + 1  # with a void border
        Image.fromarray(pixels).convert("RGB").save(self.folder / f"JPEGImages/{stem}.jpg", quality=100)
        image = Image.fromarray(mask, "P")
        image.putpalette([value for value in range(256) for _ in range(3)])
        image.save(self.folder / f"SegmentationClass/{stem}.png")
        (self.folder / f"Annotations/{stem}.xml").write_text(xml or annotation(*objects, size=size))
        self.list(stem)

    def list(self, stem):
        self.stems.append(stem)
        for kind in ("Main", "Segmentation"):
            (self.folder / f"ImageSets/{kind}/val.txt").write_text("".join(f"{name}\n" for name in self.stems))
        (self.folder / "ImageSets/Main/dog_val.txt").write_text("".join(f"{name} -1\n" for name in self.stems))


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path)
    tree.add("b", ("dog", DOG), ("cat", CAT))
    tree.add("a", ("dog", DOG))
    return tree


def counts(dataset):
    return Counter(entry.reason for entry in dataset.excluded)


def test_each_class_of_an_image_is_one_evaluation_with_its_own_box(tree):
    dataset = VOC(root=str(tree.root))
    assert [(s["sample_id"], dataset.classes[s["label"]]) for s in dataset] == [(0, "dog"), (1, "cat"), (2, "dog")]
    assert not dataset.excluded
    for sample in dataset:
        grey = sample["image"].float().mean(0)
        painted = grey > 192 if sample["label"] == CLASSES.index("dog") else (grey > 64) & (grey < 192)
        assert sample["box"].any()
        assert (painted != sample["box"]).float().mean() < 0.02
        assert torch.equal(sample["box"], sample["mask"])


def test_a_mask_is_the_class_without_void(tree):
    for sample in VOC(root=str(tree.root), masks=True, resize=300, crop=300):
        x0, y0, x1, y1 = DOG if sample["label"] == CLASSES.index("dog") else CAT
        expected = torch.zeros(SIZE[::-1], dtype=torch.bool)
        expected[y0 + 4 : y1 - 5, x0 + 4 : x1 - 5] = True
        assert torch.equal(sample["mask"], expected[:, 50:350])
        expected[y0 - 1 : y1, x0 - 1 : x1] = True
        assert torch.equal(sample["box"], expected[:, 50:350])


@pytest.mark.parametrize("start", [".", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_year_is_found(tmp_path, start):
    Tree(tmp_path, 2007).add("a", ("dog", DOG))
    assert len(VOC(root=str(tmp_path / start), year=2007)) == 1
    with pytest.raises(UserError, match=r"data\.(year: expected the year of|root: expected a folder with VOC2012)"):
        VOC(root=str(tmp_path / start))


def test_difficult_objects_are_left_out_and_counted_or_included(tree):
    tree.add("c", ("dog", DOG, 1), ("dog", CAT), ("cat", CAT, 1))
    dataset = VOC(root=str(tree.root))
    assert len(dataset) == 4
    assert counts(dataset) == {"difficult object": 2}
    assert not any(entry.is_error for entry in dataset.excluded)
    assert [len(sample.boxes) for sample in VOC(root=str(tree.root), difficult="include").annotated] == [1, 1, 1, 1, 2]


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<annotation>", "invalid annotation"),
        ("", "no object"),
        (annotation(("dog", ("x", 1, 2, 3))), "invalid annotation"),
        ("<annotation><object><name>dog</name></object></annotation>", "invalid annotation"),
        (annotation(("dog", DOG), head=BOMB), "invalid annotation"),
        (annotation(("dog", DOG), head=EXTERNAL), "invalid annotation"),
        (annotation(("unicorn", DOG)), "unknown class"),
        (annotation(("dog", DOG), size=(300, 400)), "annotation for another size"),
        (annotation(("dog", (500, 81, 600, 170))), "box outside of the image"),
        (annotation(("dog", (180, 81, 61, 170))), "invalid box"),
        (annotation(("dog", ("nan", 81, 61, 170))), "invalid box"),
    ],
)
def test_a_bad_annotation_is_left_out_and_counted(tree, xml, reason):
    tree.add("c", xml=xml or annotation())
    dataset = VOC(root=str(tree.root))
    assert len(dataset) == 3
    assert counts(dataset) == {reason: 1}
    assert dataset.excluded[0].is_error == (reason != "no object")


def test_bad_files_are_left_out_and_counted(tree):
    for stem in "cdefgh":
        tree.add(stem, ("dog", DOG))
    tree.list("i")
    tree.list("x" * 300)
    (tree.folder / "JPEGImages/c.jpg").unlink()
    (tree.folder / "JPEGImages/d.jpg").write_bytes(b"")
    (tree.folder / "SegmentationClass/e.png").write_bytes(b"\x89PNG")
    Image.new("P", (9, 9)).save(tree.folder / "SegmentationClass/f.png")
    Image.new("P", SIZE).save(tree.folder / "SegmentationClass/g.png")
    Image.new("RGB", SIZE).save(tree.folder / "SegmentationClass/h.png")
    dataset = VOC(root=str(tree.root), masks=True)
    assert len(dataset) == 3
    assert counts(dataset) == {
        "missing image": 1,
        "unreadable image": 1,
        "unreadable mask": 2,
        "mask of another size": 1,
        "no pixel of the class in the mask": 1,
        "missing annotation": 2,
    }


def test_boxes_are_clipped_and_may_be_fractions(tree):
    tree.add("c", xml=annotation(("dog", (-20, 10.5, 80, 9999)), size=(0, 0)))
    assert VOC(root=str(tree.root)).annotated[-1].boxes == ((0, 9.5, 80, 300),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, "data.root: expected a folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.root: expected a folder with VOC2012, which holds ImageSets"),
        ({"split": "test"}, "data.split: expected a list in .*Main: val, got 'test'"),
        ({"classes": "dgo"}, "data.classes: expected all or classes by name or index, got 'dgo'. near 'dgo': dog"),
        ({"difficult": "maybe"}, "data.difficult: expected one of include, exclude"),
    ],
)
def test_mistakes_are_told(tree, arguments, message):
    with pytest.raises(UserError, match=message):
        VOC(**{"root": str(tree.root), **arguments})


def test_the_config_builds_it(config, tree):
    cfg = config("data=voc", f"data.root={tree.root}", "data.max_samples=2")
    assert len(build(cfg.data, "data", Data)) == 2


@pytest.mark.parametrize("masks", [False, True])
def test_classes_are_chosen_and_others_do_not_matter(tree, masks):
    tree.add("c", ("cat", CAT, 1), ("dog", DOG, 1))
    tree.add("d", ("cat", CAT), size=(1, 1))
    dataset = VOC(root=str(tree.root), classes=["Dog", 14], masks=masks)
    assert [(sample.image.stem, sample.label) for sample in dataset.annotated] == [("a", 11), ("b", 11)]
    assert [sample["sample_id"] for sample in dataset] == [0, 1]
    assert [(entry.reason, entry.detail or entry.file) for entry in dataset.excluded] == [
        ("difficult object", "dog"),
        ("class without annotated images", "person"),
    ]


def test_a_mask_that_is_damaged_later_excludes_its_image(tree):
    dataset = VOC(root=str(tree.root), masks=True)
    path = tree.folder / "SegmentationClass/b.png"
    content = path.read_bytes()
    Image.new("P", (9, 9)).save(path)
    assert dataset[1] == dataset[2] == Excluded(str(path), "mask of another size", "(9, 9), not (400, 300)")
    for damage in (content[:200], b"", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        assert (dataset[1].file, dataset[1].reason) == (str(path), "unreadable mask")
    assert dataset[0]["mask"].any()
