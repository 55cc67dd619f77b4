"""Boxes and masks go through exactly the geometry that the image goes through."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from canonxai.data.geometry import FITS, Box, Geometry
from canonxai.errors import UserError

SIZES = [(500, 375), (375, 500), (333, 500), (227, 227), (64, 48), (101, 57), (37, 301), (1024, 683)]
SQUARES = [(256, 224), (224, 224), (64, 63)]


def noise(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def boxes(size):
    """Well inside, to the border, beyond the crop, at odd places; no edge lies exactly on a pixel's centre."""
    width, height = size
    yield from [Box(0, 0, width, height), Box(width // 3, height // 4, 2 * width // 3, 4 * height // 5)]
    yield from [Box(0, 0, width // 2 + 1, height), Box(width // 2 + 1, height // 2 - 1, width, height)]


def painted(geometry, size, box):
    """The box as the transform of a painted image shows it, across and down apart: corners have no half coverage."""
    band = np.zeros((2, size[1], size[0]), dtype=bool)
    band[0, :, int(box.left) : int(box.right)] = True
    band[1, int(box.top) : int(box.bottom)] = True
    inside = geometry.mask(np.ones(size[::-1], dtype=bool))
    colours = [geometry.image(Image.fromarray(part.astype(np.uint8) * 255).convert("RGB")) for part in band]
    masks = [geometry.mask(part) for part in band]
    for colour, mask in zip(colours, masks, strict=True):
        assert torch.equal((colour[0] > 127) & inside, mask)
    return masks[0] & masks[1]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize(
    ("interpolation", "size"), [("bilinear", size) for size in SIZES] + [("bicubic", size) for size in SIZES[::3]]
)
def test_a_box_is_where_it_was_painted(interpolation, size, square, fit):
    geometry = Geometry(*square, fit, interpolation)
    for box in boxes(size):
        expected = painted(geometry, size, box)
        assert torch.equal(geometry.boxes([box], size), expected)
        assert expected.any()


@pytest.mark.parametrize("fit", FITS)
def test_a_box_and_its_mask_differ_in_the_corners_at_most(fit):
    geometry, size, box = Geometry(fit=fit), (431, 297), Box(101, 51, 250, 200)
    mask = np.zeros(size[::-1], dtype=bool)
    mask[51:200, 101:250] = True
    assert (geometry.mask(mask) != geometry.boxes([box], size)).sum() <= 4


def test_several_boxes_are_united():
    geometry, size = Geometry(), (300, 300)
    one, two = Box(50, 50, 120, 120), Box(100, 100, 200, 250)
    expected = geometry.boxes([one], size) | geometry.boxes([two], size)
    assert torch.equal(geometry.boxes([one, two], size), expected)
    assert not geometry.boxes([], size).any()


@pytest.mark.parametrize("box", [Box(0, 0, 9, 300), Box(491, 0, 500, 300), Box(600, 400, 700, 500), Box(-9, -9, 0, 0)])
def test_what_is_cropped_away_leaves_nothing(box):
    assert not Geometry().boxes([box], (500, 300)).any()


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("size", SIZES)
def test_the_image_is_that_of_torchvisions_transforms(size, square):
    resize, crop = square
    expected = Compose([Resize(resize), CenterCrop(crop), PILToTensor()])(noise(size))
    assert torch.equal(Geometry(resize, crop).image(noise(size)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_padding_keeps_everything_and_adds_grey(size):
    geometry = Geometry(crop=64, fit="pad")
    width, height = geometry.resized(size)
    inside = geometry.mask(np.ones(size[::-1], dtype=bool))
    assert max(width, height) == 64
    assert inside.sum() == width * height
    assert (geometry.image(noise(size))[:, ~inside] == 128).all()


def test_stretching_keeps_everything():
    assert Geometry(crop=64, fit="stretch").mask(np.ones((30, 200), dtype=bool)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": "tile"}, "data.fit: expected one of crop, pad, stretch, got 'tile'"),
        ({"crop": 300}, "data.crop: expected an integer from 1 to data.resize=256, got 300"),
        ({"crop": 0, "fit": "pad"}, "data.crop: expected an integer >= 1, got 0"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        Geometry(**arguments)
