"""The store: its schema, what stays when a run breaks off, and the merge."""

import errno
import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from canonxai.data import DataModule
from canonxai.data.scenes import Scenes
from canonxai.errors import UserError
from canonxai.metrics import Column, Metric
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.metrics.localization import Localization
from canonxai.results import store as module
from canonxai.results.store import COLUMNS, Store, StoreWriter, sample_schema


class Twofold(Metric):
    """A metric with a number and a curve."""

    columns = {"score": Column("a number"), "trace": Column("a curve", kind="curve", axis=(0.0, 0.5, 1.0))}  # noqa: RUF012

    def __call__(self, batch):
        raise NotImplementedError


SCHEMA = sample_schema({"twofold": Twofold()})


def batch(start, size=2, **changes):
    """The columns of samples ``start``, ``start + 1``, ..."""
    ids = torch.arange(start, start + size)
    columns = {name: (ids % 7 if str(kind) == "int32" else ids / 8) for name, (kind, _) in COLUMNS.items()}
    return columns | {"sample_id": ids, "score": -ids.float(), "trace": ids[:, None] + torch.rand(size, 3)} | changes


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cell", SCHEMA)


def parts(store):
    return sorted(path.name for path in store.parts.iterdir())


@pytest.fixture
def full_disk(monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", fail)


def test_schema_is_the_common_columns_then_those_of_the_metrics_each_described():
    metrics = {"localization": Localization(), "input_perturbation": InputPerturbation()}
    schema = sample_schema(metrics)
    of_metrics = {name: column for metric in metrics.values() for name, column in metric.columns.items()}
    assert schema.names == [*COLUMNS, "localization", "input_perturbation", "perturbation_curve"]
    for name, (kind, description) in COLUMNS.items():
        assert schema.field(name).type == kind
        assert schema.field(name).metadata == {b"description": description.encode()}
    for name, column in of_metrics.items():
        assert schema.field(name).metadata == {b"description": column.description.encode()}
    assert schema.field("localization").type == pa.float64()
    assert schema.field("perturbation_curve").type == pa.list_(pa.float64())


def test_what_is_written_is_read_with_types_and_descriptions(store):
    columns = batch(5)
    store.write(0, columns)
    store.finish()
    table = pq.read_table(store.path)
    assert table.schema.equals(SCHEMA)
    for field in table.schema:
        assert field.metadata[b"description"] == SCHEMA.field(field.name).metadata[b"description"]
    assert table.to_pydict() == {name: columns[name].tolist() for name in SCHEMA.names}


def test_float64_is_kept_to_the_last_bit(store):
    values = torch.tensor([math.pi, 1 / 3], dtype=torch.float64)
    store.write(0, batch(0, score=values))
    store.finish()
    assert store.read(["score"])["score"].to_pylist() == values.tolist()


def test_nan_becomes_null_and_infinity_does_not(store):
    store.write(0, batch(0, score=torch.tensor([math.nan, 0.5]), probability=torch.tensor([math.inf, math.nan])))
    store.finish()
    table = store.read(["score", "probability"])
    assert table["score"].to_pylist() == [None, 0.5]
    assert table["probability"].to_pylist() == [math.inf, None]


def test_a_run_that_breaks_off_leaves_its_parts_and_no_result(store):
    for index in range(3):
        store.write(index, batch(2 * index))
    assert parts(store) == [f"part-{index:08d}.parquet" for index in range(3)]
    assert [pq.read_table(store.parts / name)["sample_id"].to_pylist() for name in parts(store)] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    assert not store.path.exists()


@pytest.mark.parametrize("count", [1, 3, 4, 8, 12])
def test_parts_are_merged_in_their_order_some_at_a_time_and_removed(store, count, monkeypatch):
    monkeypatch.setattr(module, "PARTS_AT_ONCE", 3)
    sizes = []
    concatenate = pa.concat_tables
    monkeypatch.setattr(pa, "concat_tables", lambda tables: sizes.append(len(t := list(tables))) or concatenate(t))
    for index in reversed(range(count)):
        store.write(index, batch(2 * index))
    store.finish()
    assert pq.read_table(store.path)["sample_id"].to_pylist() == list(range(2 * count))
    assert max(sizes) <= 3 and sum(sizes) == count
    assert [path.name for path in store.folder.iterdir()] == ["samples.parquet"]


def test_more_parts_than_are_merged_at_once(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # of hundreds of files takes its time
    for index in range(module.PARTS_AT_ONCE + 2):
        store.write(index, batch(index, 1))
    store.finish()
    assert pq.read_table(store.path)["sample_id"].to_pylist() == list(range(module.PARTS_AT_ONCE + 2))


def test_read_and_batches_give_just_the_columns_that_are_asked_for(store):
    store.write(0, batch(0))
    store.write(1, batch(2))
    store.finish()
    assert store.read(["score", "label"]).column_names == ["score", "label"]
    pieces = list(store.batches(["trace"]))
    assert all(piece.schema.names == ["trace"] for piece in pieces)
    assert [row for piece in pieces for row in piece["trace"].to_pylist()] == store.read(["trace"])["trace"].to_pylist()


def test_a_full_disk_is_told_with_the_folder_and_earlier_parts_stay(store, full_disk, monkeypatch):
    store.write(0, batch(0))
    store.write(1, batch(2))
    full_disk()
    with pytest.raises(UserError, match="No space left on device") as error:
        store.write(2, batch(4))
    assert repr(str(store.folder)) in str(error.value)
    assert not (store.parts / "part-00000002.parquet").exists()
    monkeypatch.undo()
    store.finish()
    assert pq.read_table(store.path)["sample_id"].to_pylist() == [0, 1, 2, 3]


def test_a_disk_that_is_full_at_the_merge_leaves_all_parts_and_no_result(store, full_disk):
    store.write(0, batch(0))
    store.write(1, batch(2))
    full_disk()
    with pytest.raises(UserError, match="No space left on device"):
        store.finish()
    assert not store.path.exists()
    assert [pq.read_table(store.parts / name).num_rows for name in parts(store)] == [2, 2]


def test_every_file_is_on_the_disk_before_it_gets_its_name(store, monkeypatch):
    present = []
    monkeypatch.setattr(os, "fsync", lambda file: present.append((store.path.exists(), parts(store))))
    store.write(0, batch(0))
    store.finish()
    assert present == [(False, ["part-00000000.tmp"]), (False, ["part-00000000.parquet"])]


def test_an_error_that_is_no_fault_of_the_disk_is_not_called_one(store):
    with pytest.raises(KeyError):
        store.write(0, {"sample_id": torch.zeros(1)})


def test_a_second_store_removes_the_parts_of_the_first_and_keeps_its_complete_results(store):
    store.write(0, batch(0))
    store.finish()
    (store.folder / "summary.json").write_text("{}")
    (store.folder / "config.yaml").write_text("seed: 0")
    again = Store(store.folder, SCHEMA)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "config.yaml",
        "parts",
        "samples.parquet",
        "summary.json",
    ]
    again.write(7, batch(0))
    third = Store(store.folder, SCHEMA)
    assert parts(third) == []


def test_a_place_that_cannot_be_a_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^folder: expected to write to '.*file/cell', got: Not a directory"):
        Store(tmp_path / "file" / "cell", SCHEMA)


class Explainer(LightningModule):
    def predict_step(self, samples):
        ids = samples["sample_id"]
        return {"columns": batch(int(ids[0]), len(ids)), "heatmap": samples["image"].float().sum(1)}


def test_the_writer_puts_each_batch_of_lightnings_loop_into_a_part(store):
    off = dict.fromkeys(["logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"], False)
    trainer = Trainer(accelerator="cpu", callbacks=[StoreWriter(store)], **off)
    trainer.predict(Explainer(), datamodule=DataModule(Scenes(size=5, side=16), 2, 0), return_predictions=False)
    assert parts(store) == [f"part-{index:08d}.parquet" for index in range(3)]
    store.finish()
    assert store.read(["sample_id"])["sample_id"].to_pylist() == list(range(5))
