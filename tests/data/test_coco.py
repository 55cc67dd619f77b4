"""COCO's images, boxes and masks, on a small tree."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from canonxai.config import Data, build
from canonxai.data.coco import COCO
from canonxai.errors import UserError
from canonxai.metrics.localization import inside_total_ratio

SIZE = (400, 300)
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
PERSON, DOG = [60, 80, 120, 90], [250, 100, 80, 160]  # x, y, width, height


def polygon(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def run_lengths(x, y, width, height):
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    mask[y : y + height, x : x + width] = 1
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return {"size": list(SIZE[::-1]), "counts": np.diff([0, *changes, flat.size]).tolist()}


def instance(image, category, box, segmentation="polygon", crowd=0):
    shapes = {"polygon": polygon, "rle": run_lengths}
    mask = shapes[segmentation](*box) if isinstance(segmentation, str) else segmentation
    return {"image_id": image, "category_id": category, "bbox": box, "segmentation": mask, "iscrowd": crowd}


class Tree:
    """Images of which the first holds a person and a dog, the second two persons."""

    def __init__(self, root):
        self.root, self.images, self.file = root, root / "val2017", root / "annotations" / "instances_val2017.json"
        self.images.mkdir()
        self.file.parent.mkdir()
        self.infos, self.instances = [], []
        self.add(7, (1, PERSON), (18, DOG, "rle"))
        self.add(3, (1, PERSON), (1, DOG))

    def add(self, key, *instances):
        pixels = np.zeros((*SIZE[::-1], 3), dtype=np.uint8)
        for category, (x, y, width, height), *_ in instances:
            pixels[y : y + height, x : x + width] = 255 if category == 1 else 128
        Image.fromarray(pixels).save(self.images / f"{key:012}.jpg", quality=100)
        self.infos.append({"id": key, "file_name": f"{key:012}.jpg", "width": SIZE[0], "height": SIZE[1]})
        self.instances += [instance(key, *entry) for entry in instances]
        self.write()

    def write(self):
        tables = {"images": self.infos, "annotations": self.instances, "categories": CATEGORIES}
        self.file.write_text(json.dumps(tables))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def counts(dataset):
    return Counter(entry.reason for entry in dataset.excluded)


def test_each_category_of_an_image_is_one_evaluation_with_contiguous_labels(tree, capsys):
    dataset = COCO(root=str(tree.root))
    assert dataset.classes == ["person", "dog", "toothbrush"]
    assert [(sample.image.stem[-1], sample.label) for sample in dataset.annotated] == [("3", 0), ("7", 0), ("7", 1)]
    for sample in dataset:
        grey = sample["image"].float().mean(0)
        painted = grey > 192 if sample["label"] == 0 else (grey > 64) & (grey < 192)
        assert sample["box"].any()
        assert (painted != sample["box"]).float().mean() < 0.02
        assert (sample["mask"] != sample["box"]).float().mean() < 0.01  # the objects are rectangles
    assert capsys.readouterr().out == ""


def test_classes_are_chosen_and_others_do_not_matter(tree):
    tree.add(9, (18, DOG), (1, PERSON, "rle", 1), (1, [500, 80, 20, 20]))
    (tree.images / f"{9:012}.jpg").unlink()
    dataset = COCO(root=str(tree.root), classes=["person", 2])
    assert [(sample.image.stem[-1], sample.label) for sample in dataset.annotated] == [("3", 0), ("7", 0)]
    assert dataset.classes == ["person", "dog", "toothbrush"]
    assert counts(dataset) == {"crowd": 1, "missing image": 1, "class without annotated images": 1}
    assert counts(COCO(root=str(tree.root), classes="dog")) == {"missing image": 1}


def test_a_mask_may_be_cropped_away_although_its_box_is_not(tree):
    tree.add(9, (1, [10, 100, 190, 50], polygon(10, 100, 30, 50)))
    sample = COCO(root=str(tree.root), resize=300, crop=300)[3]
    assert sample["box"].any() and not sample["mask"].any()
    relevance = torch.ones(1, *sample["mask"].shape)
    assert inside_total_ratio(relevance, sample["box"][None]) > 0
    assert inside_total_ratio(relevance, sample["mask"][None]).isnan()


def test_a_mask_is_the_union_of_polygons_and_run_lengths(tree):
    triangle = [[60, 80, 180, 80, 60, 170]]
    tree.add(9, (1, PERSON, triangle), (1, DOG, "rle"), (18, DOG, [[*polygon(250, 100, 40, 160)[0]]]))
    person, dog = list(COCO(root=str(tree.root), resize=300, crop=300))[-2:]
    assert 0.49 < person["mask"][80:170, 10:130].float().mean() < 0.51
    assert person["mask"][100:260, 200:280].all()
    assert torch.equal(dog["mask"][100:260, 200:280], torch.arange(80).expand(160, 80) < 40)
    boxes_alone = COCO(root=str(tree.root), masks=False, resize=300, crop=300)
    assert torch.equal(boxes_alone[4]["mask"], dog["box"])
    assert not boxes_alone.has_masks


def test_compressed_run_lengths_are_read(tree):
    from pycocotools import mask

    lengths = run_lengths(*DOG)
    coded = mask.frPyObjects(lengths, *lengths["size"])
    tree.add(9, (18, DOG, {"size": lengths["size"], "counts": coded["counts"].decode()}), (1, DOG, lengths))
    person, dog = list(COCO(root=str(tree.root)))[-2:]
    assert torch.equal(person["mask"], dog["mask"])
    assert dog["mask"].any()


def test_crowds_are_left_out_and_counted_or_included(tree):
    tree.add(9, (1, PERSON, "rle", 1), (18, DOG))
    assert counts(dataset := COCO(root=str(tree.root))) == {"crowd": 1}
    assert dataset.has_masks and not dataset.excluded[0].is_error
    assert [sample.label for sample in dataset.annotated] == [0, 0, 1, 1]
    assert len(COCO(root=str(tree.root), crowd="include")) == 5


@pytest.mark.parametrize(
    ("box", "segmentation", "reason"),
    [
        ([500, 80, 20, 20], None, "box outside of the image"),
        ([50, 80, 0, 20], None, "invalid box"),
        ([50, 80, -4, 20], None, "invalid box"),
        (DOG, [[1, 2, 3, 4]], "invalid mask"),
        (DOG, [[1, 2, 3, 4, 5]], "invalid mask"),
        (DOG, ["123456"], "invalid mask"),
        (DOG, [[1, 2, 3, 4, 5, 1e12]], "invalid mask"),
        (DOG, [[-9, -9, -9, -5, -5, -5]], "invalid mask"),
        (DOG, {"size": [300, 400], "counts": [1, 2]}, "invalid mask"),
        (DOG, {"size": [300, 400], "counts": "garbage"}, "invalid mask"),
        (DOG, {"size": [300, 400], "counts": ";k4"}, "invalid mask"),  # which pycocotools reads, and more than it has
        (DOG, {"size": [300, 400], "counts": ";k\x00"}, "invalid mask"),
        (DOG, {"size": [300, 400], "counts": "oo"}, "invalid mask"),
        (DOG, {"size": [30, 40], "counts": [1200]}, "invalid mask"),
        (DOG, {"counts": None}, "invalid mask"),
        (DOG, 3, "invalid mask"),
    ],
)
def test_a_bad_instance_is_left_out_and_counted(tree, box, segmentation, reason):
    tree.instances.append(instance(3, 18, box, segmentation))
    tree.write()
    dataset = COCO(root=str(tree.root))
    assert len(dataset) == 3
    assert counts(dataset) == {reason: 1}


def test_bad_images_are_left_out_and_counted(tree):
    for key in (9, 10, 11):
        tree.add(key, (1, PERSON), (18, DOG))
    (tree.images / f"{9:012}.jpg").unlink()
    (tree.images / f"{10:012}.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(tree.images / f"{11:012}.jpg")
    assert len(dataset := COCO(root=str(tree.root))) == 3
    assert counts(dataset) == {"missing image": 1, "unreadable image": 1, "annotation for another size": 1}


def test_an_instance_without_a_mask_has_its_box_which_is_told(tree, caplog):
    tree.instances.append(instance(3, 18, [-10, 100, 90.5, 160], []))
    tree.write()
    dataset = COCO(root=str(tree.root))
    assert dataset.annotated[1].boxes == ((0, 100, 80.5, 260),)
    assert torch.equal(dataset[1]["box"], dataset[1]["mask"])
    assert "1 evaluations of" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"images": [], "annotations": []}',
        "[" * 100_000,
        '{"images": [{}], "annotations": [], "categories": []}',
        '{"images": [3], "annotations": [], "categories": []}',
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
        '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [], "categories": []}',
    ],
)
def test_json_that_is_no_coco_is_named(tree, content):
    tree.file.write_text(content)
    with pytest.raises(UserError, match="data.annotations: expected a JSON file of COCO instances, got '.*' with "):
        COCO(root=str(tree.root))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"category_id": 2}, {"invalid annotation": 1}),
        ({"image_id": 99}, {"invalid annotation": 1}),
        ({"image_id": [7]}, {"invalid annotation": 1}),
        *(
            ({"bbox": box}, {"invalid annotation": 1, "invalid box": 1})
            for box in ([1, 2, 3], None, [1, 2, 3, "x"], [1, 2, 3, 10**400])
        ),
    ],
)
def test_an_instance_that_cannot_be_understood_is_left_out_with_its_number(tree, change, reasons):
    tree.instances[1].update(change)
    tree.write()
    dataset = COCO(root=str(tree.root))
    assert [(sample.image.stem[-1], sample.label) for sample in dataset.annotated] == [("3", 0), ("7", 0)]
    assert counts(dataset) == reasons
    assert "annotations[1]: " in dataset.excluded[0].detail and all(entry.is_error for entry in dataset.excluded)


def test_a_file_name_that_cannot_be_one_is_a_missing_image(tree):
    tree.infos[0]["file_name"] = "x" * 300
    tree.write()
    assert counts(COCO(root=str(tree.root))) == {"missing image": 1}


def test_what_is_there_twice_counts_once_or_is_told(tree, caplog, monkeypatch):
    tree.infos.append(tree.infos[0])
    tree.write()
    assert len(COCO(root=str(tree.root))) == 3 and "annotation" not in caplog.text
    monkeypatch.setitem(CATEGORIES[0], "name", "dog")
    tree.write()
    assert len(COCO(root=str(tree.root))) == 3
    assert "several categories of" in caplog.text and "have the same name: dog" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, "data.root: expected a folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.annotations: expected an existing JSON file, got 'nowhere/annotations"),
        ({"images": "nowhere"}, "data.images: expected an existing folder, got 'nowhere'"),
        ({"split": "train"}, "data.annotations: expected an existing JSON file, got '.*instances_train2017.json'"),
        ({"classes": ["toothbrsh"]}, "data.classes: expected all or classes .* near 'toothbrsh': toothbrush"),
        ({"crowd": "maybe"}, "data.crowd: expected one of include, exclude"),
    ],
)
def test_mistakes_are_told(tree, arguments, message):
    with pytest.raises(UserError, match=message):
        COCO(**{"root": str(tree.root), **arguments})


def test_the_config_builds_it_and_the_order_of_the_file_does_not_matter(config, tree):
    cfg = config("data=coco", f"data.annotations={tree.file}", f"data.images={tree.images}", "data.per_class=1")
    first = build(cfg.data, "data", Data)
    assert first.ids == [0, 2]
    tree.infos.reverse()
    tree.instances.reverse()
    tree.write()
    assert [(s.image, s.label, set(s.boxes)) for s in build(cfg.data, "data", Data).annotated] == [
        (s.image, s.label, set(s.boxes)) for s in first.annotated
    ]
