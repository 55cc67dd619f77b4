"""A cached data set yields the very same, whatever happens to the cache."""

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import tracemalloc
from collections import namedtuple
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, features
from torchvision.models import get_model

from canonxai.data import DataModule, Excluded, cache
from canonxai.data.cache import Cached, digest
from canonxai.data.coco import COCO
from canonxai.data.folder import Folder
from canonxai.data.geometry import Box, Geometry
from canonxai.data.imagenet import ImageNet
from canonxai.data.images import Annotated, AnnotatedImages
from canonxai.data.scenes import Scenes
from canonxai.data.voc import VOC
from canonxai.errors import UserError
from tests.data import test_coco, test_folder, test_imagenet, test_imagenet_s, test_voc

SIDE = 37  # not a multiple of eight
SMALL = {"crop": SIDE, "resize": SIDE + 5}


def coco(root):
    return COCO(str(test_coco.Tree(root).root), **SMALL)


def folder(root):
    (root / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.effect_noise((60, 50), 50).save(root / "photos" / name)
    test_folder.write(
        root / "boxes.csv", [("photos/a.png", "dog", 5, 5, 40, 30), ("photos/b.jpg", "cat", 9, 9, 50, 50)]
    )
    return Folder(str(root), **SMALL)


def imagenet(root):
    return ImageNet(str(test_imagenet.plant(root, *test_imagenet.LAYOUTS["devkit"])), "train+val", **SMALL)


def imagenet_s(root):
    return test_imagenet_s.Tree(root).dataset(**SMALL)


def voc(root):
    tree = test_voc.Tree(root)
    tree.add("b", ("dog", test_voc.DOG), ("cat", test_voc.CAT))
    tree.add("a", ("dog", test_voc.DOG))
    return VOC(str(root), masks=True, **SMALL)


class Noise(AnnotatedImages):
    """Noise with boxes; how often it was read stands in a file, for all processes."""

    def __init__(self, root, count=6, geometry=None, label=0):
        root.mkdir(parents=True, exist_ok=True)
        self.log = root / "read"
        self.log.touch()
        entries = []
        for index in range(count):
            path = root / f"{index}.png"
            if not path.exists():
                rng = np.random.default_rng(index)
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
            entries.append(Annotated(path, label, (Box(2, 2, 9 + index % 9, 12),), (30, 20)))
        geometry = geometry or Geometry(16, 12)
        super().__init__(entries, ["noise"], (), geometry, None, None, None)

    def begin(self, index):
        with self.log.open("a") as file:
            file.write(f"{index}\n")

    def __getitem__(self, index):
        self.begin(index)
        return super().__getitem__(index)

    @property
    def read(self):
        return [int(line) for line in self.log.read_text().split()]


@pytest.fixture
def noise(tmp_path):
    return Noise(tmp_path / "noise")


@pytest.fixture
def caches(tmp_path):
    return tmp_path / "caches"


def batches(dataset, num_workers=0):
    return list(DataModule(dataset, 2, num_workers).predict_dataloader())


def same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        assert (left["excluded"], left["index"]) == (right["excluded"], right["index"])
        for key in left.keys() - {"excluded", "index"}:
            assert left[key].dtype == right[key].dtype
            assert torch.equal(left[key], right[key]), key


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("make", [coco, folder, imagenet, imagenet_s, voc])
def test_what_is_cached_is_the_same_to_the_bit(tmp_path, caches, make, num_workers):
    dataset = make(tmp_path)
    broken = dataset.annotated[-1].image
    broken.write_bytes(broken.read_bytes()[:-40])
    expected = batches(dataset)
    assert any(batch["excluded"] for batch in expected)
    for _ in range(2):
        cached = Cached(dataset, caches, num_workers)
        for name in ("classes", "class_ids", "excluded"):
            assert getattr(cached, name) == getattr(dataset, name)
        same(batches(cached, num_workers), expected)


def test_files_are_read_once_and_what_could_not_be_read_is_remembered(tmp_path, noise, caches, caplog):
    (tmp_path / "noise" / "3.png").write_bytes(b"no image")
    with caplog.at_level(logging.INFO):
        Cached(noise, caches)
        assert noise.read == [0, 1, 2, 3, 4, 5]
        cached = Cached(Noise(tmp_path / "noise"), caches)
        samples = list(cached)
    assert noise.read == [0, 1, 2, 3, 4, 5]
    assert samples[3] == Excluded(str(tmp_path / "noise" / "3.png"), "unreadable image", "no image")
    assert [sample["sample_id"] for index, sample in enumerate(samples) if index != 3] == [0, 1, 2, 4, 5]
    assert f"1 files could not be read when the cache {cached.folder} was written" in caplog.text
    assert caplog.text.count("writing the cache") == 1
    assert "6 images, 2.9 kB" in caplog.text  # 3 * 12 * 12 + 2 * 18 + 8 + 8 + 4 bytes each


def test_samples_are_writable_and_their_own(noise, caches):
    cached = Cached(noise, caches)
    cached[1]["image"].zero_()
    assert torch.equal(cached[1]["image"], noise[1]["image"])
    assert torch.equal(cached[-1]["image"], noise[-1]["image"])
    with pytest.raises(IndexError):
        cached[6]


def touch(root):
    os.utime(root / "2.png", ns=(0, 1))


def grow(root):
    stat = (root / "2.png").stat()
    with (root / "2.png").open("ab") as file:
        file.write(b"0")
    os.utime(root / "2.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def remove(root):
    (root / "2.png").unlink()


@pytest.mark.parametrize("change", [touch, grow, remove])
def test_another_file_has_another_cache(tmp_path, noise, caches, change):
    before = Cached(noise, caches)
    change(tmp_path / "noise")
    after = Cached(noise, caches)
    assert before.folder != after.folder
    assert len(noise.read) == 12
    assert Cached(noise, caches).folder == after.folder


class Other(Noise):
    """Noise of another class."""


def test_the_key_is_all_that_determines_the_content(tmp_path, noise, monkeypatch):
    root, first = tmp_path / "noise", digest(noise)
    assert digest(Noise(root)) == first
    geometries = [Geometry(15, 12), Geometry(16, 11), Geometry(16, 12, "pad"), Geometry(16, 12, "crop", "bicubic")]
    others = [Noise(root, geometry=geometry) for geometry in geometries]
    others += [Noise(root, 5), Noise(root, 7), Other(root), Noise(tmp_path / "elsewhere")]
    keys = [first, *map(digest, others)]
    sample = noise.annotated[2]
    for name, value in {
        "boxes": (Box(2, 2, 8, 12),),
        "size": (29, 20),
        "mask": 3,
        "mask_file": root / "1.png",
        "label": 1,
    }.items():
        noise.annotated[2] = Annotated(**{**vars(sample), name: value})
        keys.append(digest(noise))
    noise.annotated[2] = sample
    os.utime(root / "1.png", ns=(0, 1))
    keys.append(digest(noise))
    noise.ids = noise.ids[::-1]
    keys.append(digest(noise))
    monkeypatch.setattr(cache, "FORMAT", -1)
    keys.append(digest(noise))
    monkeypatch.setattr(features, "version", lambda name: "0.1")
    keys.append(digest(noise))
    assert len(set(keys)) == len(keys)


def test_the_format_is_raised_with_the_pixels(tmp_path):
    """If this fails, what is made of an image file has changed: raise FORMAT, and then the number here."""
    values = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3) * 2654435761 >> 24
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "image.png")
    box = (Box(7, 3, 31.5, 22),)
    entry = Annotated(tmp_path / "image.png", 5, box, (50, 40))
    dataset = AnnotatedImages([entry], [""] * 6, (), Geometry(33, SIDE - 6), None, None, None)
    assert (cache.FORMAT, int(Cached(dataset, tmp_path).records["checksum"][0])) == (1, 1409647376)


def forked(*arguments):
    process = multiprocessing.get_context("fork").Process(target=Cached, args=arguments)
    process.start()
    return process


def test_what_breaks_off_is_not_taken_for_complete(noise, caches, monkeypatch):
    def folders():
        return [path.suffix for path in caches.iterdir() if path.is_dir()]

    expected = batches(noise)
    with monkeypatch.context() as patch:
        patch.setattr(Noise, "begin", lambda self, index: index == 3 and os._exit(9))
        killed = forked(noise, caches)
        killed.join()
        assert (killed.exitcode, folders()) == (9, [".part"])
    same(batches(Cached(noise, caches)), expected)
    assert folders() == [""]


def test_what_is_interrupted_leaves_nothing(noise, caches, monkeypatch):
    monkeypatch.setattr(Noise, "begin", Mock(side_effect=[None, None, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        Cached(noise, caches)
    assert [path for path in caches.iterdir() if path.is_dir()] == []


def test_two_processes_at_once_write_one_cache(tmp_path, noise, caches):
    processes = [forked(noise, caches) for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert noise.read == [0, 1, 2, 3, 4, 5]
    same(batches(Cached(noise, caches)), batches(noise))


@pytest.mark.parametrize("field", ["image", "box", "mask", "sample_id", "label", "checksum"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_sample_is_decoded_afresh_which_is_told_once(noise, caches, caplog, field, num_workers):
    path = Cached(noise, caches).folder / "samples.bin"
    records = np.memmap(path, cache.record_type(12), "r+")
    for index in (1, 4):
        records[index : index + 1][field].view(np.uint8).flat[0] ^= 1
    records.flush()
    expected, cached = batches(noise), Cached(noise, caches)
    noise.log.write_text("")
    for _ in range(2):
        same(batches(cached, num_workers), expected)
    assert sorted(noise.read) == [1, 1, 4, 4]
    assert cached.told
    assert num_workers or caplog.text.count("is damaged; remove it") == 1


def spoil(folder):
    (folder / "index").write_bytes((folder / "index").read_bytes().replace(b"3.png", b"2.png"))


def shorten(folder):
    os.truncate(folder / "samples.bin", 1000)


def lengthen(folder):
    with (folder / "samples.bin").open("ab") as file:
        file.write(b"0")


DAMAGES = {
    "index": spoil,
    "empty index": lambda folder: (folder / "index").write_bytes(b""),
    "no index": lambda folder: (folder / "index").unlink(),
    "shorter": shorten,
    "longer": lengthen,
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_written_again(noise, caches, caplog, damage):
    (noise.log.parent / "3.png").write_bytes(b"no image")
    folder, expected = Cached(noise, caches).folder, batches(noise)
    noise.log.write_text("")
    DAMAGES[damage](folder)
    same(batches(Cached(noise, caches)), expected)
    assert noise.read == [0, 1, 2, 3, 4, 5]
    assert caplog.text.count("is damaged (") == 1
    assert Cached(noise, caches).folder == folder
    assert len(noise.read) == 6


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, noise, caches, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache: expected a folder to write to, got '.*file/caches' \(Not a dir"):
        Cached(noise, tmp_path / "file" / "caches")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"data.cache: expected a folder to write to, .* \(No space left on device\)"):
        Cached(noise, caches)
    assert [path for path in caches.iterdir() if path.is_dir()] == []


def test_a_disk_without_room_is_told_before_anything_is_written(noise, caches, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2000))
    message = "data.cache: expected a folder with 2.9 kB of free space for 6 images, got '.*caches with 2.0 kB'"
    with pytest.raises(UserError, match=message):
        Cached(noise, caches)
    assert noise.read == []
    assert [path.suffix for path in caches.iterdir() if path.suffix != ".lock"] == []


def test_a_complete_cache_needs_no_permission_to_write(noise, caches, monkeypatch):
    expected = batches(Cached(noise, caches))
    monkeypatch.setattr(Path, "mkdir", None)
    monkeypatch.setattr(cache, "held", None)
    same(batches(Cached(noise, caches)), expected)


def test_a_data_set_without_files_is_told(caches):
    with pytest.raises(UserError, match="data.cache: expected null, as this data set has no image files, got"):
        Cached(Scenes(size=2), caches)


def test_a_spawned_process_gets_no_records(noise, caches):
    cached = Cached(noise, caches)
    cached[0]
    copy = pickle.loads(pickle.dumps(cached))
    assert "records" not in vars(copy)
    same(batches(copy), batches(noise))


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, caches):
    peaks = {}
    for count in (50, 1000):
        dataset = Noise(tmp_path / "one", 1, Geometry(64, 64))
        dataset.annotated *= count
        dataset.ids = list(range(count))
        tracemalloc.start()
        for _ in Cached(dataset, caches):
            pass
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[1000] < 1.5 * peaks[50]


def test_the_index_can_be_read_by_people(noise, caches):
    _, content = (Cached(noise, caches).folder / "index").read_text().split("\n")
    assert json.loads(content) == {"data": "Noise", "images": 6, "unreadable": {}}


def test_a_run_is_the_same_and_counts_a_mask_that_is_cropped_away(main, tmp_path, caches):
    root = tmp_path / "data"
    root.mkdir()
    test_coco.Tree(root).add(9, (1, [10, 100, 190, 50], test_coco.polygon(10, 100, 30, 50)))
    torch.save(get_model("resnet18", num_classes=3).state_dict(), tmp_path / "own.pt")
    network = ["model=torchvision", "model.name=resnet18", "model.net.weights=null", "model.net.num_classes=3"]
    network += ["model.label_space=coco", f"model.checkpoint={tmp_path}/own.pt", "precision=32", "save_maps=0"]
    data = ["data=coco", f"data.root={root}", "data.resize=64", "data.crop=64", "data.num_workers=0"]
    metric = ["method=gradient", "metric=localization", "metric.localization.region=mask"]
    rows = []
    for cached in ("null", caches):
        folder = tmp_path / f"run{len(rows)}"
        main(*network, *data, *metric, f"data.cache={cached}", f"hydra.run.dir={folder}")
        rows.append(pq.read_table(folder / "samples.parquet").to_pylist())
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["metrics"]["localization"]["strata"]["all"]["undefined"] == 1
    assert rows[0] == rows[1]
    assert [row["localization"] is None for row in rows[0]] == [False, False, False, True]
