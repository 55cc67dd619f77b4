"""Scenes: pure functions of (seed, split, index), exact masks and boxes, splits apart; and the data module."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from canonxai.data import DataModule, scenes
from canonxai.data.scenes import LUMINANCE, MIN_CONTRAST, Scenes
from canonxai.errors import UserError

MANY = 300


@pytest.fixture(scope="module")
def samples():
    return list(map(Scenes(size=MANY).__getitem__, range(MANY)))


@pytest.fixture(scope="module")
def plain():
    """The same scenes with ink of the background's own colours."""
    draw = scenes._ink
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_ink", lambda rng, background: (draw(rng, background), background.copy())[1])
        return list(map(Scenes(size=MANY).__getitem__, range(MANY)))


@pytest.fixture(scope="module")
def noiseless():
    """The same scenes without the sensor's noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SENSOR_NOISE", 0)
        return list(map(Scenes(size=MANY).__getitem__, range(MANY)))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_sample_depends_on_neither_instance_nor_size_nor_order_of_access(split):
    dataset, other = Scenes(split, size=10, seed=3), Scenes(split, size=1000, seed=3)
    forwards = [dataset[index] for index in range(10)]
    for index in [9, 0, 4, 4, 7]:
        assert equal(dataset[index], forwards[index])
        assert equal(other[index], forwards[index])


@pytest.mark.parametrize("other", [{"split": "train"}, {"seed": 4}])
def test_another_split_or_seed_gives_other_scenes_on_other_backgrounds(other):
    usual = {"split": "test", "seed": 3, "size": 10}
    for ours, theirs in zip(Scenes(**usual), Scenes(**usual | other), strict=True):
        background = ~(ours["mask"] | theirs["mask"])
        assert not torch.equal(ours["image"][:, background], theirs["image"][:, background])


def test_no_two_scenes_are_equal(samples):
    assert len({sample["image"].numpy().tobytes() for sample in samples}) == MANY


# what 1 core and Python 3.12 say of every loader with processes
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*multi-threaded, use of fork")
def test_loading_processes_change_nothing():
    dataset = Scenes(size=10, seed=1)
    alone, with_workers = (list(DataModule(dataset, 3, workers).predict_dataloader()) for workers in (0, 2))
    assert len(alone) == len(with_workers) == 4
    assert all(map(equal, alone, with_workers))
    assert torch.equal(torch.cat([batch["image"] for batch in alone]), torch.stack([s["image"] for s in dataset]))


def test_the_splits_share_no_digit_and_leave_none_out():
    train, test = Scenes("train").digits, Scenes("test").digits
    assert not {id(digit) for digit in train} & {id(digit) for digit in test}
    assert not {(d.size, d.tobytes()) for d in train} & {(d.size, d.tobytes()) for d in test}
    assert len(train) + len(test) == 1797
    assert len(test) == 360


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_scene_shows_a_digit_of_its_split_and_has_its_label(split, monkeypatch):
    shown = []
    render = Scenes._object
    monkeypatch.setattr(Scenes, "_object", lambda self, rng, digit: shown.append(digit) or render(self, rng, digit))
    labels = [sample["label"] for sample in Scenes(split, size=50)]
    numbers = {id(digit): number for number, digit in enumerate(scenes._digits()[0])}
    numbers = [numbers[id(digit)] for digit in shown]
    assert labels == load_digits().target[numbers].tolist()
    assert {number % 5 == 0 for number in numbers} == {split == "test"}
    assert len(set(numbers)) > 40


def test_sample_has_the_types_shapes_and_ranges_that_it_promises(samples):
    for index, sample in enumerate(samples):
        assert sample["sample_id"] == index
        assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 64, 64)
        assert sample["image"].is_contiguous()
        assert type(sample["label"]) is int and str(sample["label"]) in Scenes.classes
        for region in ("box", "mask"):
            assert sample[region].dtype == torch.bool and sample[region].shape == (64, 64)
    assert {sample["label"] for sample in samples} == set(range(10))


def test_every_scene_of_the_smallest_side_shows_an_object():
    for sample in Scenes(side=16, size=100):
        assert sample["image"].shape == (3, 16, 16)
        assert sample["mask"].any()


def test_box_is_the_tight_bounding_box_of_the_mask(samples):
    for sample in samples:
        rows, columns = sample["mask"].any(1).nonzero(), sample["mask"].any(0).nonzero()
        box = torch.zeros(64, 64, dtype=torch.bool)
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert torch.equal(sample["box"], box)


def test_the_mask_is_where_the_background_is_changed(samples, plain):
    for sample, background in zip(samples, plain, strict=True):
        changed = (sample["image"] != background["image"]).any(0)
        assert not changed[~sample["mask"]].any()
        # the faintest of its ink may round to the background's colour
        assert changed[sample["mask"]].float().mean() > 0.95
        assert torch.equal(sample["mask"], background["mask"])


def test_the_background_is_a_piece_of_a_photograph():
    dataset = Scenes(side=427)  # as high as the photographs, so the crop is not resized
    windows = [
        window[:, ::mirror].tobytes()
        for photo in map(np.asarray, dataset.photos)
        for window in (photo[:, left : left + 427] for left in range(photo.shape[1] - 427 + 1))
        for mirror in (1, -1)
    ]
    found = [
        windows.index(dataset._background(np.random.default_rng(seed)).astype(np.uint8).tobytes()) for seed in range(8)
    ]
    assert {number % 2 for number in found} == {number * 2 // len(windows) for number in found} == {0, 1}


def test_sizes_spread_over_their_whole_range(samples):
    longer = [max(sample["mask"].any(axis).sum() for axis in (0, 1)) for sample in samples]
    assert 0.25 * 64 - 1 <= min(longer) <= 0.25 * 64 + 2
    assert 0.90 * 64 - 3 <= max(longer) <= 0.90 * 64
    quartiles = np.quantile(longer, [0.25, 0.5, 0.75])
    assert quartiles == pytest.approx(np.quantile(np.arange(16, 58), [0.25, 0.5, 0.75]), abs=3)


def test_objects_come_up_to_every_edge(samples):
    covered = torch.stack([sample["box"] for sample in samples]).any(0)
    assert covered.float().mean() > 0.99
    assert all(edge.any() for edge in (covered[0], covered[-1], covered[:, 0], covered[:, -1]))


def test_ink_differs_from_its_background_by_the_least_contrast(noiseless, plain):
    luminance = torch.from_numpy(LUMINANCE)
    lighter = 0
    for sample, background in zip(noiseless, plain, strict=True):
        colours, counts = sample["image"][:, sample["mask"]].T.unique(dim=0, return_counts=True)
        ink = colours[counts.argmax()].double() @ luminance
        behind = background["image"][:, sample["box"]].double().mean(1) @ luminance
        assert abs(ink - behind) >= MIN_CONTRAST * 255 - 1.5  # of rounding and noise
        lighter += int(ink > behind)
    assert 0.2 * MANY < lighter < 0.9 * MANY


def test_the_sensor_is_noisy_everywhere_and_only_a_little(samples, noiseless):
    for sample, clean in zip(samples, noiseless, strict=True):
        assert torch.equal(sample["mask"], clean["mask"])
        noise = sample["image"].int() - clean["image"].int()
        away_from_the_ends = (clean["image"] >= 2) & (clean["image"] <= 253)
        values, counts = noise[away_from_the_ends].unique(return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert counts / counts.sum() == pytest.approx([0.2] * 5, abs=0.05)
        assert noise.min() == -2 and noise.max() == 2


@pytest.mark.parametrize("value", [0, 100, 127, 155, 255])
def test_ink_is_a_colour_at_the_least_contrast_on_any_background(value):
    background = np.full((4, 4, 3), value, dtype=np.float32)
    rng = np.random.default_rng(0)
    inks = np.stack([scenes._ink(rng, background) for _ in range(200)])
    assert inks.min() >= 0 and inks.max() <= 255
    assert np.abs(inks @ LUMINANCE - value).min() >= MIN_CONTRAST * 255 - 1e-6
    assert np.ptp(inks, axis=1).max() > 50  # not only greys


def test_nothing_grows_with_the_size():
    huge = Scenes(size=10**9)
    assert len(huge) == 10**9
    assert huge[10**9 - 1]["sample_id"] == 10**9 - 1
    assert len(pickle.dumps(huge)) < len(pickle.dumps(Scenes(size=1))) + 100


@pytest.mark.parametrize("index", [5, 6, -1])
def test_there_is_nothing_beyond_the_end(index):
    with pytest.raises(IndexError):
        Scenes(size=5)[index]


@pytest.mark.parametrize("argument, value", [("split", "val"), ("size", 0), ("seed", -1), ("side", 8), ("side", 15)])
def test_a_wrong_argument_is_named(argument, value):
    with pytest.raises(UserError, match=rf"^data\.{argument}: expected .*, got {value!r}\.$"):
        Scenes(**{argument: value})


@pytest.mark.parametrize("batch_size, batches", [(1, 7), (3, 3), (7, 1), (100, 1)])
def test_the_data_module_yields_each_sample_once_and_in_order(batch_size, batches):
    loaded = list(DataModule(Scenes(size=7), batch_size, 0).predict_dataloader())
    assert len(loaded) == batches
    assert torch.cat([batch["sample_id"] for batch in loaded]).tolist() == list(range(7))


@pytest.mark.parametrize("argument, value", [("batch_size", 0), ("num_workers", -1)])
def test_the_data_module_names_a_wrong_argument(argument, value):
    with pytest.raises(UserError, match=rf"^data\.{argument}: expected .*, got {value}\.$"):
        DataModule(Scenes(), **{"batch_size": 2, "num_workers": 0} | {argument: value})
