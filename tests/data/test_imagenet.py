"""ILSVRC's images and boxes, on a small tree of the devkit's form."""

import numpy as np
import pytest
import torch
from PIL import Image

from canonxai.data.imagenet import ImageNet
from canonxai.errors import UserError

SIZES = {"n01440764_1": (300, 500), "n01443537_2": (640, 400), "n03888257_3": (224, 224)}
BOX = (60, 80, 180, 170)  # xmin, ymin, xmax, ymax


def annotation(wnid, size, boxes, other=()):
    def entry(name, box):
        corners = "".join(
            f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"

    objects = "".join([entry(wnid, box) for box in boxes] + [entry("n01440764", box) for box in other])
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"


@pytest.fixture
def tree(tmp_path):
    """Images that are black but for a white rectangle where the box is."""
    images, annotations = tmp_path / "Data/CLS-LOC/val", tmp_path / "Annotations/CLS-LOC/val"
    for number, (name, (width, height)) in enumerate(SIZES.items()):
        wnid = name.partition("_")[0]
        (images / wnid).mkdir(parents=True)
        annotations.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[BOX[1] : BOX[3] + 1, BOX[0] : BOX[2] + 1] = 255
        Image.fromarray(pixels).save(images / wnid / f"{name}.JPEG", quality=100)
        other = [(0, 0, 20, 20)] if number == 2 else ()
        (annotations / f"{name}.xml").write_text(annotation(wnid, (width, height), [BOX], other))
    Image.new("RGB", (50, 50)).save(images / "without_boxes.JPEG")
    return tmp_path


def test_boxes_go_through_the_geometry_of_the_image(tree):
    dataset = ImageNet(root=str(tree))
    assert len(dataset) == 3  # the image without boxes is left out
    for sample in dataset:
        assert sample["image"].shape == (3, 224, 224)
        assert sample["image"].dtype == torch.uint8
        painted = sample["image"].float().mean(0) > 127
        assert painted.any()
        assert (painted != sample["box"]).float().mean() < 0.01  # the border's pixels, half covered
        assert torch.equal(sample["box"], sample["mask"])


def test_labels_are_the_indices_of_torchvisions_weights(tree):
    dataset = ImageNet(root=str(tree))
    assert [sample["label"] for sample in dataset] == [0, 1, 701]
    assert [dataset.classes[sample["label"]] for sample in dataset] == ["tench", "goldfish", "parachute"]
    assert [sample["sample_id"] for sample in dataset] == [0, 1, 2]


def test_boxes_may_be_drawn_on_an_image_of_another_size(tree):
    (name,) = [name for name in SIZES if name.endswith("_1")]
    width, height = SIZES[name]
    path = tree / "Annotations/CLS-LOC/val" / f"{name}.xml"
    before = ImageNet(root=str(tree))[0]["box"]
    doubled = tuple(2 * value for value in BOX[:2]) + tuple(2 * value + 1 for value in BOX[2:])
    path.write_text(annotation("n01440764", (2 * width, 2 * height), [doubled]))
    assert torch.equal(ImageNet(root=str(tree))[0]["box"], before)


def test_folders_can_be_given_apart_and_the_first_images_chosen(tree):
    images, annotations = str(tree / "Data/CLS-LOC/val"), str(tree / "Annotations/CLS-LOC/val")
    assert len(ImageNet(images=images, annotations=annotations, size=2)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "data.root: expected a folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.images: expected an existing folder, got 'nowhere/Data/CLS-LOC/val'"),
        ({"crop": 300}, "data.crop: expected an integer from 1 to data.resize=256, got 300"),
        ({"size": 0}, "data.size: expected null or an integer >= 1, got 0"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        ImageNet(**arguments)


@pytest.mark.parametrize(
    "content", ["<annotation>", "<annotation/>", annotation("n00000000", (9, 9), [BOX]), "not xml"]
)
def test_a_damaged_annotation_is_named(tree, content):
    path = next((tree / "Annotations/CLS-LOC/val").glob("*.xml"))
    path.write_text(content)
    with pytest.raises(UserError, match=f"data.annotations: expected an ILSVRC annotation, got '{path}'"):
        ImageNet(root=str(tree))


def test_an_annotation_that_expands_without_end_is_refused(tree):
    path = next((tree / "Annotations/CLS-LOC/val").glob("*.xml"))
    path.write_text('<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>')
    with pytest.raises(UserError, match="data.annotations"):
        ImageNet(root=str(tree))
