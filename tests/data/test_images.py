"""Images of every kind are read or refused with a reason; selection is nested and depends on the seed only."""

import io
import itertools
import os
import random

import numpy as np
import pytest
from PIL import Image

from canonxai.data import images
from canonxai.data.images import ImageError, image_size, read_image, select

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(RGB, "PNG"), RGB),  # ImageNet has one that is named .JPEG
        (encoded(RGB.convert("L"), "PNG"), RGB.convert("L")),
        (encoded(RGB.convert("RGBA"), "PNG"), RGB),
        (encoded(RGB.convert("P"), "PNG"), RGB.convert("P")),
        (encoded(RGB.convert("P"), "PNG", transparency=bytes(range(256))), RGB.convert("P")),
        (encoded(RGB.convert("CMYK"), "TIFF"), RGB.convert("CMYK")),
        (encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"), Image.fromarray(PIXELS[..., 0])),
        (encoded(RGB, "PNG", exif=Image.Exif()), RGB),
    ],
    ids=["png", "grey", "rgba", "palette", "transparent palette", "cmyk", "16 bits", "exif"],
)
def test_images_of_every_kind_are_read(tmp_path, content, expected):
    path = tmp_path / "image.JPEG"
    path.write_bytes(content)
    assert read_image(path).mode == "RGB"
    assert np.array_equal(np.array(read_image(path)), np.array(expected.convert("RGB")))
    assert image_size(path) == (60, 40)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_kind_are_read(tmp_path, mode):
    path, smooth = tmp_path / "image.JPEG", Image.linear_gradient("L").convert(mode)
    path.write_bytes(encoded(smooth, quality=100))
    difference = np.array(read_image(path)).astype(int) - np.array(smooth.convert("RGB"))
    assert np.abs(difference).max() < 12


def test_the_orientation_that_exif_tells_is_not_applied(tmp_path):
    path, exif = tmp_path / "image.JPEG", Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    path.write_bytes(encoded(RGB, exif=exif))
    assert read_image(path).size == image_size(path) == (60, 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty$"),
        (b"no image at all", "^no image$"),
        (encoded(RGB)[:700], "truncated"),
        (encoded(RGB, "PNG")[:700], "truncated"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "image.JPEG"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_cannot_be_opened_is_refused(tmp_path, monkeypatch, read):
    with pytest.raises(ImageError, match="No such file"):
        read(tmp_path / "missing.JPEG")
    with pytest.raises(ImageError, match="directory"):
        read(tmp_path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ImageError, match="Permission denied"):
        read(tmp_path / "image.JPEG")


def test_postscript_which_other_programs_read_is_no_image(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "image.JPEG"
    RGB.save(path, "EPS")
    with pytest.raises(ImageError, match="^no image$"):
        read_image(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("side", [10_001, 20_000])
def test_decompression_bombs_are_refused(tmp_path, read, side):
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ImageError, match="more than|decompression bomb"):
        read(path)


def test_any_damage_is_told_as_such(tmp_path):
    path, rng = tmp_path / "image", random.Random(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        content = encoded(RGB, kind)
        for _ in range(40):
            damaged = bytearray(content[: rng.randrange(8, len(content))])
            for _ in range(rng.randrange(20)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                assert read_image(path).mode == "RGB"
            except ImageError as error:
                assert "\n" not in str(error)


LABELS = [0, 1, 1, 2, 0, 1, 2, 2, 2, 0, 1, 1]
IDS = list(range(100, 112))


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_selections_are_nested(seed):
    for limit in ("max_samples", "per_class"):
        chosen = [set(select(LABELS, IDS, **{limit: count}, shuffle_seed=seed)) for count in range(1, 13)]
        assert all(small <= large for small, large in itertools.pairwise(chosen))
        assert chosen[-1] == set(IDS)


def test_selections_are_ascending_and_depend_on_the_seed():
    drawn = [select(LABELS, IDS, 6, shuffle_seed=seed) for seed in (None, 0, 1, 1)]
    assert drawn[0] == IDS[:6]
    assert all(chosen == sorted(chosen) and len(chosen) == 6 for chosen in drawn)
    assert drawn[2] == drawn[3] != drawn[1]


def test_so_many_of_each_class_and_in_total():
    chosen = select(LABELS, IDS, per_class=2, shuffle_seed=3)
    assert sorted(LABELS[i - 100] for i in chosen) == [0, 0, 1, 1, 2, 2]
    assert set(select(LABELS, IDS, max_samples=4, per_class=2, shuffle_seed=3)) < set(chosen)


def test_the_limit_of_pixels_is_the_projects_own(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    RGB.save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 60 * 40 - 1)
    with pytest.raises(ImageError, match="60 x 40 pixels are more than 2399"):
        image_size(path)
