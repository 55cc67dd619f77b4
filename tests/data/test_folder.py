"""A user's own images with boxes in a CSV or a COCO JSON."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from canonxai.config import Data, build
from canonxai.data.folder import Folder
from canonxai.errors import UserError

SIZE = (400, 300)
HEADER = "image,label,xmin,ymin,xmax,ymax"
DOG, CAT = (60, 80, 180, 170), (250, 100, 330, 260)
ROWS = [("photos/b.jpg", "dog", *DOG), ("photos/a.png", "dog", *CAT), ("photos/b.jpg", "cat", *CAT)]


def write(path, rows, header=HEADER):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def plant(root):
    """Dogs are white, cats grey."""
    (root / "photos").mkdir()
    for name, objects in {"b.jpg": [(DOG, 255), (CAT, 128)], "a.png": [(CAT, 255)]}.items():
        pixels = np.zeros((*SIZE[::-1], 3), dtype=np.uint8)
        for (x0, y0, x1, y1), grey in objects:
            pixels[y0:y1, x0:x1] = grey
        Image.fromarray(pixels).save(root / "photos" / name)
    write(root / "boxes.csv", ROWS)
    return root


@pytest.fixture
def tree(tmp_path):
    return plant(tmp_path)


def counts(dataset):
    return Counter(entry.reason for entry in dataset.excluded)


def labels(dataset):
    return [(sample.image.name, dataset.classes[sample.label], sample.label) for sample in dataset.annotated]


def test_each_class_of_an_image_is_one_evaluation(tree):
    dataset = Folder(root=str(tree))
    assert labels(dataset) == [("a.png", "dog", 1), ("b.jpg", "cat", 0), ("b.jpg", "dog", 1)]
    assert not dataset.excluded
    for sample in dataset:
        grey = sample["image"].float().mean(0)
        painted = grey > 192 if sample["label"] else (grey > 64) & (grey < 192)
        assert sample["box"].any()
        assert (painted != sample["box"]).float().mean() < 0.02
        assert torch.equal(sample["box"], sample["mask"])


def test_the_order_of_the_rows_does_not_matter(tree):
    first = Folder(root=str(tree)).annotated
    write(tree / "boxes.csv", ROWS[::-1])
    assert Folder(root=str(tree)).annotated == first


def test_columns_come_in_any_order_and_among_others(tree):
    header = "\ufeffscore, xmax,ymax,label,xmin,ymin,image"
    write(tree / "boxes.csv", [(1, 180, 170.5, '"a dog, white"', 60, 80, "photos//b.jpg")], header)
    dataset = Folder(root=str(tree))
    assert labels(dataset) == [("b.jpg", "a dog, white", 0)]
    assert dataset.annotated[0].boxes == ((60, 80, 180, 170.5),)


@pytest.mark.parametrize("form", ["list", "file", "config"])
def test_classes_give_the_order(tree, config, form):
    names = ["cat", "bird", "dog"]
    (tree / "classes.txt").write_text("\n".join(names) + "\n\n")
    write(tree / "boxes.csv", [*ROWS, ("photos/a.png", "02", *DOG)])
    if form == "config":
        dataset = build(config("data=folder", f"data.root={tree}", "data.classes=[cat,bird,dog]").data, "data", Data)
    else:
        dataset = Folder(root=str(tree), classes=names if form == "list" else "classes.txt")
    assert labels(dataset) == [("a.png", "dog", 2), ("b.jpg", "cat", 0), ("b.jpg", "dog", 2)]
    assert len(dataset.annotated[0].boxes) == 2
    assert [(entry.file, entry.reason) for entry in dataset.excluded] == [("bird", "class without annotated images")]


def test_labels_that_are_indices_stay_what_they_are(tree):
    write(tree / "boxes.csv", [("photos/a.png", 7, *DOG), ("photos/b.jpg", 5, *DOG)])
    dataset = Folder(root=str(tree))
    assert [sample.label for sample in dataset.annotated] == [7, 5]
    assert dataset.classes == list("01234567")


def test_indices_may_be_written_as_numbers_with_a_point(tree):
    write(tree / "boxes.csv", [("photos/a.png", "10.0", *DOG), ("photos/b.jpg", "2.", *DOG)])
    dataset = Folder(root=str(tree))
    assert [sample.label for sample in dataset.annotated] == [10, 2]
    assert len(dataset.classes) == 11
    write(tree / "boxes.csv", [("photos/a.png", "1.0", *DOG), ("photos/b.jpg", "1.5", *DOG)])
    assert Folder(root=str(tree)).classes == ["1.0", "1.5"]
    assert Folder(root=str(tree), classes=["1.5", "1.0"]).annotated[0].label == 1


@pytest.mark.parametrize(
    ("row", "classes", "left", "detail", "more"),
    [
        ("photos/b.jpg,dog,1,2,3", None, 2, "line 6: not 6 values", {"invalid box": 1}),
        ("photos/b.jpg,dog,1,2,3,4,5", None, 2, "line 6: not 6 values", {"invalid box": 1}),
        ("photos/b.jpg,dog,1,2,3,x", None, 2, "line 6: could not convert", {"invalid box": 1}),
        (",dog,1,2,3,4", None, 3, "line 6: no image or label", {}),
        ("photos/b.jpg,bird,1,2,3,4", ["dog", "cat"], 3, "line 6: label bird is not in data.classes", {}),
        ("x" * 300 + ".jpg,dog,1,2,3,4", None, 3, "", {"missing image": 1}),
        ("a\0b.jpg,dog,1,2,3,4", None, 3, "", {"missing image": 1}),
    ],
)
def test_a_row_that_cannot_be_understood_is_left_out_with_its_line(tree, row, classes, left, detail, more):
    with (tree / "boxes.csv").open("a") as file:
        file.write(f"\n{row}\n")
    dataset = Folder(root=str(tree), classes=classes)
    assert len(dataset.annotated) == left
    assert counts(dataset) == {**({"invalid row": 1} if detail else {}), **more}
    assert dataset.excluded[0].detail.startswith(detail) and dataset.excluded[0].is_error


def test_an_index_that_is_too_large_is_left_out(tree):
    write(tree / "boxes.csv", [("photos/a.png", 1, *DOG), ("photos/a.png", 123456789, *DOG)])
    dataset = Folder(root=str(tree))
    assert (len(dataset), dataset.classes, counts(dataset)) == (1, ["0", "1"], {"invalid row": 1})


def test_two_ways_to_name_a_file_are_one_image(tree):
    write(tree / "boxes.csv", [*ROWS, ("photos/../photos/./b.jpg", "dog", *CAT)])
    assert [len(sample.boxes) for sample in Folder(root=str(tree)).annotated] == [1, 1, 2]


def test_repeated_rows_are_told(tree, caplog):
    write(tree / "boxes.csv", [*ROWS, ROWS[0], ROWS[0]])
    Folder(root=str(tree))
    assert "2 rows of" in caplog.text and "repeat others" in caplog.text


def test_the_home_folder_may_be_written_as_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    assert len(Folder(root=f"~/{tree.name}")) == 3
    assert len(Folder(root=f"~/{tree.name}", annotations=f"~/{tree.name}/boxes.csv")) == 3


def test_bad_rows_and_files_are_left_out_and_counted(tree):
    (tree / "empty.jpg").write_bytes(b"")
    rows = [
        ("photos/missing.jpg", "dog", *DOG),
        ("photos/missing.jpg", "cat", *DOG),
        ("empty.jpg", "dog", *DOG),
        ("boxes.csv", "dog", *DOG),
        ("photos/b.jpg", "dog", 500, 80, 600, 170),
        ("photos/a.png", "bird", 60, 80, 60, 170),
        ("photos/a.png", "cow", "nan", 80, 60, 170),
        ("photos/a.png", "fish", -20, 10, 80, 9999),
    ]
    write(tree / "boxes.csv", [*ROWS, *rows])
    dataset = Folder(root=str(tree))
    assert len(dataset) == 4
    assert dataset.annotated[1].boxes == ((0, 10, 80, 300),)
    assert counts(dataset) == {
        "missing image": 1,
        "unreadable image": 2,
        "box outside of the image": 1,
        "invalid box": 2,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 of '.*boxes.csv' .no column image, label"),
        (b"image,label,xmin\n", "line 1 of .* .no column ymin, xmax, ymax in the header"),
        (f"{HEADER}\n".encode(), "data: expected images with objects"),
        (f"{HEADER},xmin\n".encode(), "line 1 of .* .twice the column xmin in the header"),
        (f'{HEADER}\n"a.png,dog,1,2,3,4\n'.encode(), "line 2 of .* .unexpected end of data"),
        (f"{HEADER}\na.png,dog,1,2,3,4\na.png,\xff,1,2,3,4\n".encode("latin1"), "line 3 of .* .'utf-8' codec"),
    ],
)
def test_a_malformed_csv_is_told_with_its_line(tree, content, message):
    (tree / "boxes.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Folder(root=str(tree))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, "data.root: expected an existing folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.root: expected an existing folder, got 'nowhere'"),
        ({"annotations": "nowhere.csv"}, "data.annotations: expected an existing .csv or .json file, got '.*nowhere"),
        ({"annotations": "photos/a.png"}, "data.annotations: expected an existing .csv or .json file"),
        ({"images": "nowhere"}, "data.images: expected an existing folder"),
        ({"classes": "nowhere"}, "data.classes: expected a list, or an existing file"),
        ({"classes": []}, "data.classes: expected distinct names, at least one"),
        ({"classes": ["dog", "dog"]}, "data.classes: expected distinct names"),
    ],
)
def test_mistakes_are_told(tree, arguments, message):
    with pytest.raises(UserError, match=message):
        Folder(**{"root": str(tree), **arguments})


def test_a_coco_json_has_masks(tree):
    instance = {"image_id": 1, "category_id": 4, "bbox": [60, 80, 120, 90]}
    tables = {
        "images": [{"id": 1, "file_name": "photos/b.jpg"}],
        "annotations": [{**instance, "segmentation": [[60, 80, 120, 80, 120, 170, 60, 170]]}],
        "categories": [{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (tree / "boxes.json").write_text(json.dumps(tables))
    dataset = Folder(root=str(tree), annotations="boxes.json", resize=300, crop=300)
    assert labels(dataset) == [("b.jpg", "dog", 1)]
    assert dataset[0]["box"].sum() == 120 * 90
    assert dataset[0]["mask"].sum() == 60 * 90
    other = Folder(root=str(tree), annotations="boxes.json", classes=["dog", "cat"])
    assert labels(other) == [("b.jpg", "dog", 0)]
    assert counts(other) == {"class without annotated images": 1}
    with pytest.raises(UserError, match="data.classes: expected all categories of .*, got .'cat'.. 'dog' is missing"):
        Folder(root=str(tree), annotations="boxes.json", classes=["cat"])
