"""The first maps of a run: which, as which arrays, and in which colours."""

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer

from canonxai.data import DataModule
from canonxai.data.scenes import Scenes
from canonxai.results.maps import as_float32, draw_maps, write_maps
from canonxai.results.store import Store, StoreWriter, sample_schema

SIZE = 7
DATASET = Scenes(size=SIZE, side=16, seed=2)
SCHEMA = sample_schema({})
CELL = 150  # pixels of the picture for an image or a map


def heatmap(image):
    """Some map in double precision that is a function of the image."""
    return image.double().mean(-3) - 100


def read(folder):
    return np.asarray(Image.open(folder / "maps.png").convert("RGB"))


class Explainer(LightningModule):
    def predict_step(self, batch):
        columns = dict.fromkeys(SCHEMA.names, batch["label"]) | {"sample_id": batch["sample_id"]}
        return {"columns": columns, "heatmap": heatmap(batch["image"])}


@pytest.fixture
def written(tmp_path):
    """Runs Lightning's predict loop with a writer of ``count`` maps, in batches of three, and gives its folder."""

    def predict(count):
        off = dict.fromkeys(["logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"], False)
        store = Store(tmp_path, SCHEMA)
        trainer = Trainer(accelerator="cpu", callbacks=[StoreWriter(store, maps=count)], **off)
        trainer.predict(Explainer(), datamodule=DataModule(DATASET, 3, 0), return_predictions=False)
        write_maps(tmp_path, store.maps(count))
        store.close()
        return tmp_path

    return predict


def test_maps_that_float32_does_not_hold_are_of_another_scale():
    maps = torch.tensor([[[0.5, -4.0]], [[2.0**-140, 0.0]], [[1e30, 1.0]], [[0.0, 0.0]]], dtype=torch.float64)
    huge = torch.stack([maps[0] * 2.0**300, maps[0] * 2.0**-300, maps[1], maps[2], maps[3]])
    assert as_float32(huge).dtype == torch.float32
    assert as_float32(huge).tolist() == [[[0.125, -1]], [[0.125, -1]], [[1, 0]], maps[2].float().tolist(), [[0, 0]]]
    assert as_float32(torch.tensor([[[torch.inf, 1.0]]], dtype=torch.float64)).isnan().any()


@pytest.mark.parametrize("count", [1, 3, 5, 7, 100])
def test_the_first_maps_are_written_across_batches_in_order(written, count):
    folder = written(count)
    with np.load(folder / "maps.npz") as file:
        maps = dict(file)
    expected = [DATASET[index] for index in range(min(count, SIZE))]
    assert maps.keys() == {"sample_id", "label", "image", "box", "heatmap"}
    for name in ("sample_id", "label"):
        assert maps[name].tolist() == [sample[name] for sample in expected] and maps[name].dtype == np.int64
    for name, dtype in {"image": np.uint8, "box": np.bool_}.items():
        assert np.array_equal(maps[name], np.stack([sample[name] for sample in expected])) and maps[name].dtype == dtype
    assert np.array_equal(maps["heatmap"], np.stack([heatmap(sample["image"]).float() for sample in expected]))
    assert maps["heatmap"].dtype == np.float32
    assert read(folder).shape == (2 * CELL, CELL * len(expected), 3)


def test_no_maps_write_nothing(written):
    assert not list(written(0).iterdir())


@pytest.fixture
def picture(tmp_path):
    """Draws and reads back, as ``rows x columns`` cells of RGB pixels."""

    def draw(heatmaps, images=None, boxes=None):
        heatmaps = np.asarray(heatmaps, dtype=np.float32)
        n, height, width = heatmaps.shape
        images = np.zeros((n, 3, height, width), np.uint8) if images is None else images
        boxes = np.zeros((n, height, width), bool) if boxes is None else boxes
        with (tmp_path / "maps.png").open("wb") as file:
            draw_maps(file, images, boxes, heatmaps)
        pixels = read(tmp_path)
        rows, columns = pixels.shape[0] // CELL, pixels.shape[1] // CELL
        return pixels.reshape(rows, CELL, columns, CELL, 3).swapaxes(1, 2)

    return draw


def bounds(chosen):
    """First and last row, first and last column, where a mask is true."""
    rows, columns = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


def thirds(cell):
    """The colours in the middle of the left, middle and right third of a map that is white in its middle third."""
    top, bottom, left, right = bounds((cell < 250).any(-1))
    middle = (top + bottom) // 2
    return [tuple(cell[middle, left + (right - left) * sixths // 6].tolist()) for sixths in (1, 3, 5)]


STRIPES = np.repeat([[2.0, 0.0, -1.0]], 3, axis=0)
DARK_RED, BLUE, WHITE = (128, 0, 0), (0, 0, 255), (255, 255, 255)


def near(colours, expected):
    return np.abs(np.subtract(colours, expected)).max() <= 4


def test_red_is_positive_blue_negative_and_white_nothing_on_a_symmetric_scale(picture):
    cells = picture([STRIPES, -STRIPES])
    assert near(thirds(cells[1, 0]), [DARK_RED, WHITE, BLUE])
    assert near(thirds(cells[1, 1]), [(0, 0, 76), WHITE, (255, 0, 0)])


def test_each_map_has_its_own_scale(picture):
    cells = picture([STRIPES, 1e-6 * STRIPES, 1e6 * STRIPES])
    assert all(near(thirds(cells[1, column]), [DARK_RED, WHITE, BLUE]) for column in range(3))


def test_a_map_of_zeros_is_white(picture):
    assert (picture(np.zeros((1, 3, 3)))[1, 0] >= 250).all()


def test_each_image_is_above_its_map_eight_in_a_row(picture):
    signs = np.where(np.arange(10) % 3 == 0, 1, -1)
    grey = np.arange(10, dtype=np.uint8) * 25
    cells = picture(
        np.broadcast_to(signs[:, None, None], (10, 4, 4)), np.broadcast_to(grey[:, None, None, None], (10, 3, 4, 4))
    )
    assert cells.shape[:2] == (4, 8)
    centres = cells[:, :, CELL // 2, CELL // 2]
    for index in range(10):
        row, column = 2 * (index // 8), index % 8
        assert near(centres[row, column], (grey[index],) * 3)
        assert near(centres[row + 1, column], DARK_RED if signs[index] > 0 else (0, 0, 76))
    assert (centres[2:, 2:] == 255).all()


def test_an_image_keeps_its_colours_and_its_orientation(picture):
    image = np.zeros((1, 3, 2, 2), np.uint8)
    image[0, 0, 0, 0] = image[0, 1, 0, 1] = image[0, 2, 1, 0] = 255
    cell = picture(np.zeros((1, 2, 2)), image)[0, 0]
    top, bottom, left, right = bounds((cell < 250).any(-1))
    quarter = [top + (bottom - top) // 4, top + 3 * (bottom - top) // 4]
    across = [left + (right - left) // 4, left + 3 * (right - left) // 4]
    assert near(cell[np.ix_(quarter, across)], [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (0, 0, 0)]])


def test_the_box_is_drawn_around_the_object(picture):
    box = np.zeros((1, 32, 32), bool)
    box[0, 4:12, 8:28] = True
    cell = picture(np.zeros((1, 32, 32)), boxes=box)[0, 0].astype(int)
    top, bottom, left, right = bounds((cell < 250).any(-1))
    drawn = np.array(bounds((cell[..., 0] > 150) & (cell[..., 1] > 150) & (cell[..., 2] < 100)))
    size = bottom - top + 1
    assert right - left + 1 == pytest.approx(size, abs=2)
    expected = [top + size * 4 / 32, top + size * 12 / 32, left + size * 8 / 32, left + size * 28 / 32]
    assert drawn == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("box", [np.zeros, np.ones])
def test_no_box_is_drawn_where_there_is_none_or_it_is_the_whole_image(picture, box):
    cell = picture(np.zeros((1, 8, 8)), boxes=box((1, 8, 8), bool))[0, 0].astype(int)
    assert (np.ptp(cell, axis=-1) < 5).all()


def test_the_picture_is_that_of_the_arrays(written, picture):
    folder = written(5)
    before = read(folder)
    with np.load(folder / "maps.npz") as maps:
        picture(maps["heatmap"], maps["image"], maps["box"])
    assert np.array_equal(read(folder), before)
