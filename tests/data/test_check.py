"""The check of a data set before a long run, on small trees and on data sets that break the rules."""

import csv
import json
import shutil
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from rich.console import Console

from canonxai.data import DataModule, Excluded
from canonxai.data.check import ROW, check_data, find_errors, find_warnings, read, summarize
from canonxai.data.folder import Folder
from canonxai.data.scenes import Scenes
from canonxai.data.sheet import draw_sheet, spread
from canonxai.errors import UserError

SIZE = (80, 60)
WHOLE, HALF, QUARTER, EIGHTH = (0, 0, 80, 60), (0, 0, 80, 30), (0, 0, 40, 30), (0, 0, 20, 30)
ROWS = [
    ("two.png", "dog", *WHOLE),
    ("two.png", "cat", *EIGHTH),
    ("once.png", "dog", *HALF),
    ("once_copy.png", "dog", *HALF),
    ("twice.png", "cat", *QUARTER),
    ("twice_copy.png", "dog", *QUARTER),
    ("packed.png", "cat", *EIGHTH),
    ("unpacked.png", "cat", *EIGHTH),
    ("grey.png", "dog", *EIGHTH),
    ("broken.png", "dog", *HALF),
    ("broken.png", "cat", *HALF),
    ("missing.png", "cat", *HALF),
]
READ = ["two", "once", "once_copy", "twice", "twice_copy", "packed", "unpacked", "grey"]


@pytest.fixture
def tree(tmp_path):
    """Images of noise: copies by content and by pixels, within and across classes; one that is cut off."""
    root, rng = tmp_path / "tree", np.random.default_rng(0)
    root.mkdir()
    for name in ("two", "once", "twice", "packed", "broken"):
        noise = Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))
        noise.save(root / f"{name}.png")
    noise = Image.open(root / "packed.png")
    noise.save(root / "unpacked.png", compress_level=0)
    Image.new("RGB", SIZE, (124, 116, 104)).save(root / "grey.png")
    for name in ("once", "twice"):
        shutil.copy(root / f"{name}.png", root / f"{name}_copy.png")
    whole = (root / "broken.png").read_bytes()
    (root / "broken.png").write_bytes(whole[: len(whole) // 2])
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "xmin", "ymin", "xmax", "ymax"), *ROWS])
    return root


def overrides(tree):
    """Every pixel of the square shows four by three of the image, so that fractions are exact."""
    return "data=folder", f"data.root={tree}", "data.classes=[dog,cat,bird]", "data.fit=stretch", "data.crop=20"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Calls the command in this process, in an empty folder: what was told, and the exit code."""

    def call(*arguments):
        from canonxai.data.check import main

        GlobalHydra.instance().clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["check", *arguments])
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return call


def results(path):
    (found,) = path.glob("multirun/check/*/check.json")
    return json.loads(found.read_text()), found.parent


def test_the_command_counts_and_writes(cli, tmp_path, tree):
    done = cli(*overrides(tree), "data.num_workers=2", "data.batch_size=3", "samples=6", module="canonxai.data")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "11/11" in done.stdout
    assert "folder: 9 evaluations of 8 images" in done.stdout
    assert "1 of 3 classes without samples: bird" in done.stdout
    assert "verdict: usable, with warnings" in done.stdout
    summary, folder = results(tmp_path)
    assert f"results: {folder}" in done.stdout
    assert summary["verdict"] == "usable"
    assert summary["errors"] == []
    assert (summary["evaluations"], summary["images"], summary["unreadable"]) == (9, 8, 2)
    assert (summary["boxes_alone"], summary["masks"]) == (9, 0)
    assert summary["strata"] == {"all": 9, "box < 50 %": 6, "box < 25 %": 4}
    assert summary["classes"] == [
        {"label": 0, "name": "dog", "all": 5, "box < 50 %": 2, "box < 25 %": 1},
        {"label": 1, "name": "cat", "all": 4, "box < 50 %": 4, "box < 25 %": 3},
        {"label": 2, "name": "bird", "all": 0, "box < 50 %": 0, "box < 25 %": 0},
    ]
    assert [entry["image"] for entry in summary["constant"]] == [str(tree / "grey.png")]

    groups = {
        (group["same"], group["across_classes"], *sorted(entry["image"] for entry in group["images"]))
        for group in summary["duplicates"]
    }
    once, twice, packed = (
        [str(tree / f"{name}.png") for name in names]
        for names in (("once", "once_copy"), ("twice", "twice_copy"), ("packed", "unpacked"))
    )
    assert groups == {("content", False, *once), ("content", True, *twice), ("pixels", False, *packed)}
    assert "warning: files with the same content: 2 groups, 1 across classes" in done.stdout
    assert "warning: images with the same pixels: 1 groups, 0 across classes" in done.stdout

    with (folder / "excluded.csv").open(newline="") as file:
        excluded = Counter((entry["file"], entry["reason"]) for entry in csv.DictReader(file))
    assert excluded[str(tree / "broken.png"), "unreadable image"] == 1
    assert excluded[str(tree / "missing.png"), "missing image"] == 1
    assert summary["excluded"]["unreadable image"] == summary["excluded"]["missing image"] == 1
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 800


def test_the_channels_are_measured_and_compared(config, tmp_path, tree):
    summary = check_data(config(*overrides(tree), "data.num_workers=0", name="check"), tmp_path / "out")
    seen = [np.array(Image.open(tree / f"{name}.png").resize((20, 20), Image.Resampling.BILINEAR)) for name in READ]
    pixels = np.stack([seen[0], *seen]).reshape(-1, 3) / 255  # the first one has two labels
    np.testing.assert_allclose(summary["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(summary["std"], pixels.std(0), rtol=1e-12)

    mean, std = summary["mean"], summary["std"]

    def warnings(mean, std):
        return [warning for warning in find_warnings(summary, mean, list(std)) if "channels" in warning]

    assert warnings(mean, std) == warnings([mean[0] + 0.4 * std[0], *mean[1:]], std) == []
    assert warnings(mean, np.multiply(std, 1.9)) == warnings(mean, np.divide(std, 1.9)) == []
    assert "mean is" in warnings([mean[0] + 0.6 * std[0], *mean[1:]], std)[0]
    assert "standard deviation is" in warnings(mean, [*std[:2], std[2] * 2.1])[0]
    assert "standard deviation is" in warnings(mean, [*std[:2], std[2] / 2.1])[0]


def test_nothing_odd_is_fine(run, tmp_path):
    code, told, _ = run("data.size=40", "samples=3")
    assert code == 0
    assert "verdict: fine" in told
    assert "warning" not in told
    summary, folder = results(tmp_path)
    assert summary["verdict"] == "fine"
    assert summary["masks"] == 40
    boxes = [sample["box"].float().mean() for sample in map(Scenes(size=40).__getitem__, range(40))]
    assert summary["strata"]["box < 25 %"] == sum(box < 0.25 for box in boxes)
    assert (folder / "excluded.csv").read_text().splitlines() == ["file,reason,detail,is_error"]


def test_a_file_that_cannot_be_read_is_an_error_if_it_would_be_one(run, tmp_path, tree):
    code, told, error = run(*overrides(tree), "data.num_workers=0", "data.on_error=raise")
    assert code == 1
    assert "verdict: cannot be used" in told
    assert (
        "data: expected a data set that can be used, got "
        "files and annotations with errors, with data.on_error=raise: 2." in error
    )
    summary, folder = results(tmp_path)
    assert summary["verdict"] == "cannot be used"
    assert summary["unreadable"] == 2  # evaluations of one image; a missing one is the other error
    assert "broken.png" in (folder / "excluded.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=folder", "data.root=nowhere"], "data.root: expected an existing folder, got 'nowhere'"),
        (["data=voc", "data.root=nowhere"], "data.root: expected a folder with VOC2012"),
        (["data=imagenet"], "data.root: expected a folder, got None"),
        (["data=vov"], "data: expected one of coco, folder, imagenet, imagenet_s, photographs, scenes, voc, got 'vov'"),
        (["data.sise=3"], "data.sise: Key 'sise' is not in struct"),
        (["data.on_error=foo"], "data.on_error: expected one of exclude, raise, got 'foo'"),
        (["data.std=[1,0,1]"], "data.std: expected three numbers > 0"),
        (["samples=0"], "samples: expected an integer >= 1, got 0"),
    ],
)
def test_mistakes_are_told_in_one_line(run, tmp_path, arguments, message):
    code, _, error = run(*arguments)
    assert code == 1
    assert message in error
    assert not list(tmp_path.rglob("check.json"))


def test_a_multirun_checks_several_data_sets_and_goes_on_after_a_failure(run, tmp_path, tree):
    conf = tmp_path / "conf" / "data"
    conf.mkdir(parents=True)
    for name, root in (("good", tree), ("bad", "nowhere")):
        lines = ["defaults: [folder, _self_]", f"name: {name}", f"root: {root}", "num_workers: 0", "fit: stretch"]
        (conf / f"{name}.yaml").write_text("\n".join(lines))
    code, told, error = run("--config-dir", str(tmp_path / "conf"), "-m", "data=bad,good,scenes", "seed=3")
    assert code == 1
    assert "data.root: expected an existing folder, got 'nowhere'" in error
    assert "good: 9 evaluations of 8 images" in told
    assert "scenes: 256 evaluations of 256 images" in told
    checked = {path.parent.name.rpartition("-")[0] for path in tmp_path.glob("multirun/check/*/check.json")}
    assert checked == {"good", "scenes"}


def test_what_an_earlier_check_wrote_does_not_stay(config, tmp_path, tree):
    cfg = config(*overrides(tree), "data.num_workers=0", name="check")
    check_data(cfg, tmp_path / "out")
    shutil.rmtree(tree)
    with pytest.raises(UserError, match="data.root"):
        check_data(cfg, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


class Listed:
    """A data set of given samples."""

    def __init__(self, *samples, classes=("cat", "dog")):
        self.samples, self.classes = samples, list(classes)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def sample(sample_id, label=0, side=8, box=True, mask=None, seed=None):
    rng = np.random.default_rng(sample_id if seed is None else seed)
    region = torch.full((side, side + 4), box)
    return {
        "sample_id": sample_id,
        "image": torch.from_numpy(rng.integers(0, 256, (3, *region.shape), dtype=np.uint8)),
        "label": label,
        "box": region,
        "mask": region if mask is None else torch.full_like(region, mask),
    }


BROKEN = Excluded("a.jpg", "unreadable image", "truncated")


def rows_of(dataset):
    return read(DataModule(dataset, 2, 0), "test", Console(quiet=True))


@pytest.mark.parametrize(
    ("samples", "on_error", "error"),
    [
        ([sample(0), sample(1, 1)], "raise", None),
        ([sample(0), BROKEN], "exclude", None),
        ([sample(0), BROKEN], "raise", "files and annotations with errors, with data.on_error=raise: 1"),
        ([BROKEN, BROKEN], "exclude", "no image that can be read"),
        ([sample(0), sample(1), sample(0)], "exclude", "sample_id that is not unique: 1"),
        ([sample(0), sample(1, 2), sample(2, -1)], "exclude", "labels that are not among the 2 classes: 2"),
        ([sample(0), sample(1, side=9)], "exclude", "images of different sizes: 2"),
    ],
)
def test_what_a_run_cannot_use_is_an_error(samples, on_error, error):
    dataset = Listed(*samples)
    rows, unreadable = rows_of(dataset)
    assert unreadable == [entry for entry in samples if entry is BROKEN]
    errors = find_errors(rows, dataset, unreadable if on_error == "raise" else ())
    assert errors == [] if error is None else len(errors) == 1 and errors[0].startswith(error)
    places = np.flatnonzero(rows["read"])
    json.dumps(summarize(rows[places], places, dataset, unreadable), allow_nan=False)


def test_empty_regions_and_one_colour_are_found():
    flat = sample(4)
    flat["image"][:] = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    dataset = Listed(
        BROKEN, sample(1), sample(2, box=False), sample(3, mask=False), flat, sample(5, box=False, mask=True)
    )
    rows, _ = rows_of(dataset)
    places = np.flatnonzero(rows["read"])
    summary = summarize(rows[places], places, dataset, [])
    found = {key: [entry["sample_id"] for entry in summary[key]] for key in ("empty_boxes", "empty_masks", "constant")}
    assert found == {"empty_boxes": [2, 5], "empty_masks": [3], "constant": [4]}
    assert (summary["masks"], summary["boxes_alone"]) == (2, 3)
    told = find_warnings({**summary, "unreadable": 0}, summary["mean"], summary["std"])
    assert [warning.rpartition(": ")[2] for warning in told] == ["2", "1", "1"]


def test_without_files_duplicates_are_told_by_their_pixels():
    dataset = Listed(*(sample(i, label, seed=seed) for i, (label, seed) in enumerate([(0, 7), (1, 8), (0, 7), (0, 8)])))
    rows, _ = rows_of(dataset)
    found = summarize(rows, np.arange(4), dataset, [])["duplicates"]
    groups = {tuple(entry["image"] for entry in group["images"]): group["across_classes"] for group in found}
    assert groups == {("sample 0", "sample 2"): False, ("sample 1", "sample 3"): True}
    assert {group["same"] for group in found} == {"pixels"}


def test_several_labels_of_one_image_are_no_duplicates(tree):
    dataset = Folder(root=str(tree), fit="stretch", crop=20)
    rows, _ = rows_of(dataset)
    two = rows["sample_id"][[dataset.annotated[i].image.name == "two.png" for i in rows["sample_id"]] & rows["read"]]
    assert len(two) == 2
    places = np.flatnonzero(rows["read"])
    found = summarize(rows[places], places, dataset, [])["duplicates"]
    assert "two.png" not in json.dumps(found)


def test_images_are_not_kept():
    class Large(Listed):
        def __getitem__(self, index):
            return sample(index, side=128)

    tracemalloc.start()
    rows, _ = rows_of(Large(*range(300)))  # 15 MB of pixels, and 120 MB as floats
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows["read"].all()
    assert peak < 6e6
    assert ROW.itemsize < 200


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("sizes", [[1], [9], [1, 5, 2], [1] * 12, [3, 0, 4, 1]])
def test_the_sheet_shows_as_many_classes_as_possible(sizes, count):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    chosen = spread(labels, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(labels))
    assert labels[chosen].tolist() == sorted(labels[chosen])
    taken = Counter(labels[chosen].tolist())
    most = max(taken.values())
    assert all(taken[label] >= min(size, most - 1) for label, size in enumerate(sizes))
    for label, n in taken.items():
        assert [i for i in chosen if labels[i] == label] == np.flatnonzero(labels == label)[:n].tolist()


@pytest.mark.parametrize("has_mask", [False, True])
def test_the_sheet_draws_the_outlines(tmp_path, has_mask):
    square = sample(3)
    square["image"] = torch.full((3, 40, 40), 255, dtype=torch.uint8)
    square["box"] = torch.zeros(40, 40, dtype=torch.bool)
    square["box"][:, 20:] = True
    square["mask"] = square["box"].clone()
    if has_mask:
        square["mask"][:] = False
        square["mask"][10:30, 25:35] = True
    draw_sheet(tmp_path / "sheet.png", [square], ["a_very $long name$ of a class, which does not fit"])
    pixels = np.array(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    yellow, cyan = np.minimum(red, green) - blue > 80, np.minimum(green, blue) - red > 80
    assert cyan.any() == has_mask
    height, width = yellow.sum(0).max(), yellow.sum(1).max()  # of the longest lines, two of them on the image's edge
    assert height == pytest.approx(2 * width, rel=0.1)
    assert height > 100
