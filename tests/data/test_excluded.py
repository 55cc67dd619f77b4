"""Files that cannot be read: excluded, counted and listed, or an error; the others are evaluated."""

import csv
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from canonxai.data import DataModule, Excluded
from canonxai.data.scenes import Scenes
from canonxai.errors import UserError

BROKEN = '''
import torch
from canonxai.data import Excluded
from canonxai.data.scenes import Scenes

class Broken(Scenes):
    """Scenes, of which some files cannot be read, and one was left out from the beginning."""
    excluded = [Excluded("first.xml", "no object", is_error=False)]

    def __init__(self, broken: list[int], size: int = 6):
        super().__init__(size=size)
        self.broken = broken

    def __getitem__(self, index):
        return Excluded(f"{index}.JPEG", "unreadable image", "truncated") if index in self.broken else super()[index]
'''.replace("super()[index]", "super().__getitem__(index)")
YAML = """
name: broken
_target_: broken_data.Broken
broken: []
label_space: scenes
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
batch_size: 2
num_workers: 0
"""


@pytest.fixture
def run(tmp_path):
    """Runs a cell on a data set of a user's own, as a process."""
    (tmp_path / "broken_data.py").write_text(BROKEN)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "broken.yaml").write_text(YAML)

    def call(*arguments):
        command = [
            sys.executable, "-m", "canonxai", "--config-dir", "conf", "data=broken", "trainer=cpu", "save_maps=2",
            "method=gradient", "metric=[localization]", "hydra.run.dir=out",
            "allow_targets=[broken_data.Broken]", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)

    return call


def told(folder):
    with (folder / "excluded.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [[1], [0, 1], [0, 2, 3, 5]])
def test_what_cannot_be_read_is_left_out_and_listed(run, tmp_path, broken, workers):
    done = run(f"data.broken={broken}".replace(" ", ""), f"data.num_workers={workers}")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "samples.parquet")["sample_id"].to_pylist() == [
        index for index in range(6) if index not in broken
    ]
    assert told(tmp_path / "out") == [
        {"file": "first.xml", "reason": "no object", "detail": "", "is_error": "False"},
        *(
            {"file": f"{index}.JPEG", "reason": "unreadable image", "detail": "truncated", "is_error": "True"}
            for index in broken
        ),
    ]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["excluded"] == 1 + len(broken)
    assert f"{1 + len(broken)} files or annotations left out, see excluded.csv" in done.stdout
    assert "6/6" in done.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_it_can_be_an_error(run, tmp_path, workers):
    done = run("data.broken=[4]", "data.on_error=raise", f"data.num_workers={workers}")
    assert done.returncode == 1
    assert (
        "data: expected files and annotations without errors, got '4.JPEG' (unreadable image: truncated)" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "samples.parquet").exists()


def test_what_is_found_when_the_data_set_is_built_can_be_an_error():
    """Before anything is computed; what is merely not evaluated is none."""
    dataset = Scenes(size=2)
    dataset.excluded = [Excluded("a.xml", "difficult object", is_error=False)]
    assert DataModule(dataset, 2, 0, "raise").first()["image"].shape == (3, 64, 64)
    dataset.excluded += [Excluded("b.xml", "broken XML", "no element"), Excluded("c.jpg", "missing image")]
    assert DataModule(dataset, 2, 0).first()["sample_id"] == 0
    with pytest.raises(UserError, match=r"got 'b.xml' .broken XML: no element., the first of 2. Or data.on_error=excl"):
        DataModule(dataset, 2, 0, "raise")


def test_classes_that_the_network_has_not_are_no_error():
    data = DataModule(Scenes(size=2), 2, 0, "raise", [None] * 10)
    batch = data.collate([data.dataset[0], data.dataset[1]])
    assert [entry[-1] for entry in batch["excluded"]] == [False, False]


def test_nothing_to_read_is_an_error(run):
    done = run("data.broken=[0,1,2,3,4,5]")
    assert done.returncode == 1
    assert "data: expected images, got 6 files that cannot be read." in done.stderr


def test_a_list_of_an_earlier_run_does_not_stay(run, tmp_path):
    run("data.broken=[1]")
    run("data.broken=[2]", "run.resume=false")
    assert [entry["file"] for entry in told(tmp_path / "out")] == ["first.xml", "2.JPEG"]


def test_on_error_is_checked(run):
    assert "data.on_error: expected one of exclude, raise, got 'foo'." in run("data.on_error=foo").stderr
