"""The store: its schema, what stays when a run breaks off, and the merge."""

import errno
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from canonxai.data import DataModule
from canonxai.data.scenes import Scenes
from canonxai.errors import UserError
from canonxai.metrics import Column, columns_of
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.metrics.localization import Localization
from canonxai.results import store as module
from canonxai.results.store import COLUMNS, Store, StoreWriter, locked, sample_schema

SCHEMA = sample_schema({"score": Column("a number"), "trace": Column("a curve", "curve", axis=(0.0, 0.5, 1.0))})


def batch(start, size=2, **changes):
    """The columns of samples ``start``, ``start + 1``, ..."""
    ids = torch.arange(start, start + size)
    columns = {name: (ids % 7 if str(kind) == "int32" else ids / 8) for name, (kind, _) in COLUMNS.items()}
    return columns | {"sample_id": ids, "score": -ids.float(), "trace": ids[:, None] + torch.rand(size, 3)} | changes


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cell", SCHEMA)


def parts(store):
    return sorted(store.parts.glob("*.parquet"))


def ids(store):
    return [pq.read_table(path)["sample_id"].to_pylist() for path in parts(store)]


def finished(store):
    """How many images the merged parts have."""
    store.finish()
    return len(store.read(["sample_id"]))


@pytest.fixture
def full_disk(monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", fail)


def test_schema_is_the_common_columns_then_those_of_the_metrics_each_described():
    of_metrics = columns_of({"localization": Localization(), "input_perturbation": InputPerturbation()})
    schema = sample_schema(of_metrics)
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


def test_what_is_not_finite_becomes_null(store):
    trace = torch.tensor([[1.0, math.nan, -math.inf], [math.inf, 2.0, 3.0]])
    large = 2**53 + 1  # which is no float
    changes = {"probability": torch.tensor([math.inf, -math.inf]), "sample_id": torch.tensor([large, large + 2])}
    store.write(0, batch(0, score=torch.tensor([math.nan, 0.5]), trace=trace, **changes))
    store.finish()
    table = store.read(["score", "probability", "trace", "sample_id"])
    assert table["score"].to_pylist() == [None, 0.5]
    assert table["probability"].to_pylist() == [None, None]
    assert table["trace"].to_pylist() == [[1.0, None, None], [None, 2.0, 3.0]]
    assert table["sample_id"].to_pylist() == [large, large + 2]


def test_a_run_that_breaks_off_leaves_its_parts_and_no_result(store):
    for index in range(3):
        store.write(index, batch(2 * index))
    assert [path.name.rpartition("-")[0] for path in parts(store)] == [
        f"part-{index:08d}-{index + 1:08d}" for index in range(3)
    ]
    assert ids(store) == [[0, 1], [2, 3], [4, 5]]
    assert not store.path.exists()


@pytest.mark.parametrize("count", [1, 3, 4, 8, 12])
@pytest.mark.parametrize("order", [list, lambda batches: list(reversed(batches))], ids=["forwards", "backwards"])
def test_parts_are_merged_in_their_order_some_at_a_time(store, count, order, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 3)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    for index in order(range(count)):
        store.write(index, batch(2 * index))
        assert len(parts(store)) < 2 * 3 + count / 3
    sizes = []
    merged = module._merged
    monkeypatch.setattr(module, "_merged", lambda tables: sizes.append(len(merged(tables))) or merged(tables))
    assert finished(store) == 2 * count
    assert pq.read_table(store.path)["sample_id"].to_pylist() == list(range(2 * count))
    assert max(sizes) <= 2 * 3 and sum(sizes) == 2 * count
    store.close()
    assert [path.name for path in store.folder.iterdir()] == ["samples.parquet"]


def test_the_table_is_the_same_to_the_bit_whether_parts_were_compacted_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(module, "GROUP", 3)
    columns = [batch(2 * index) for index in range(7)]
    tables = []
    for order in ((0, 1, 2, 3, 4, 5, 6), (6, 0, 3, 1, 4, 2, 5)):
        store = Store(tmp_path / str(order[0]), SCHEMA)
        for index in order:
            store.write(index, columns[index])
        tables.append((len(parts(store)), finished(store), store.path.read_bytes()))
    assert tables[0][0] == 3 and tables[1][0] == 5
    assert tables[0][1:] == tables[1][1:]


def test_the_number_of_files_is_bounded(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # of hundreds of files takes its time
    for index in range(2 * module.GROUP + 2):
        store.write(
            index, batch(index, 1), {"excluded": [[str(index), "", "", True]]}, [b"map"] if index == 300 else []
        )
    assert len(parts(store)) == 2 + 2
    again = Store(store.folder, SCHEMA)
    assert again.done == store.done == set(range(2 * module.GROUP + 2))
    assert finished(again) == 2 * module.GROUP + 2
    assert pq.read_table(store.path)["sample_id"].to_pylist() == list(range(2 * module.GROUP + 2))
    assert [note["excluded"][0][0] for note in again.notes()] == [str(index) for index in range(2 * module.GROUP + 2)]
    assert again.maps(5) == [b"map"]


def test_a_process_that_was_killed_before_it_removed_what_it_made_one_of_counts_nothing_twice(store, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 2)
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **options: None)
    for index in range(3):
        store.write(index, batch(index, 1))
    assert len(parts(store)) == 4
    monkeypatch.setattr(Path, "unlink", unlink)
    assert finished(Store(store.folder, SCHEMA)) == 3
    assert len(parts(store)) == 2
    assert pq.read_table(store.path)["sample_id"].to_pylist() == [0, 1, 2]


def test_a_batch_that_two_processes_computed_counts_once(store):
    other = Store(store.folder, SCHEMA)
    store.write(0, batch(0, 1), {"seconds": 1})
    other.write(0, batch(0, 1), {"seconds": 2})
    assert len(parts(store)) == 2 and finished(store) == 1


@pytest.mark.parametrize("change", [
    lambda content: content[:-1],
    lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    lambda content: b"",
], ids=["truncated", "a bit", "empty"])  # fmt: skip
def test_a_damaged_part_is_told_and_lacking(store, caplog, change):
    for index in range(3):
        store.write(index, batch(2 * index))
    path = parts(store)[1]
    path.write_bytes(change(path.read_bytes()))
    again = Store(store.folder, SCHEMA)
    assert again.done == {0, 2} and f"{path} is damaged" in caplog.text
    again.write(1, batch(2))
    assert finished(again) == 6


def test_a_part_of_more_batches_by_name_than_it_holds_is_told(store, caplog):
    """A stranger's name of a hundred million batches would fill the memory."""
    store.write(0, batch(0))
    path = parts(store)[0]
    renamed = path.rename(path.with_name(path.name.replace("-00000001-", "-00300000-")))
    assert Store(store.folder, SCHEMA).done == set() and f"{renamed} is damaged" in caplog.text


@pytest.mark.parametrize("table", [
    None, pa.table({"a": [1]}), pa.table({"a": [1]}, metadata={"notes": '{"0": {}}'}),
    pa.table({"a": [1]}, metadata={"notes": "7"}),
])  # fmt: skip
def test_what_is_no_part_but_for_its_name_and_checksum_is_told(store, caplog, table):
    store.write(0, batch(0))
    sink = pa.BufferOutputStream()
    if table is not None:
        pq.write_table(table, sink)
    content = sink.getvalue().to_pybytes()
    path = store.parts / f"part-00000001-00000002-{zlib.crc32(content):08x}.parquet"
    path.write_bytes(content)
    assert Store(store.folder, SCHEMA).done == {0} and f"{path} is damaged" in caplog.text


def test_a_part_that_is_damaged_later_is_never_merged(store):
    store.write(0, batch(0))
    store.write(1, batch(2))
    path = parts(store)[1]
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UserError, match="results: expected .*part-00000001.* as it was written"):
        store.finish()
    assert not store.path.exists()
    assert Store(store.folder, SCHEMA).done == {0}


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
    assert ids(store) == [[0, 1], [2, 3]]
    assert not list(store.parts.glob("*.tmp"))
    monkeypatch.undo()
    store.finish()
    assert pq.read_table(store.path)["sample_id"].to_pylist() == [0, 1, 2, 3]


def test_a_cell_that_another_process_completes_in_the_meantime_is_told(store):
    store.write(0, batch(0))
    Store(store.folder, SCHEMA).close()
    with pytest.raises(UserError, match=r"^folder: expected '.*/parts' to stay .* Run the same command again\.$"):
        store.write(1, batch(5))


def test_a_disk_that_is_full_at_the_merge_leaves_all_parts_and_no_result(store, full_disk):
    store.write(0, batch(0))
    store.write(1, batch(2))
    full_disk()
    with pytest.raises(UserError, match="No space left on device"):
        store.finish()
    assert not store.path.exists()
    assert ids(store) == [[0, 1], [2, 3]]


def test_every_file_is_on_the_disk_before_it_gets_its_name_and_then_its_name_is(store, monkeypatch):
    present = []
    monkeypatch.setattr(os, "fsync", lambda file: present.append((store.path.exists(), len(parts(store)))))
    store.write(0, batch(0))
    store.finish()
    assert present == [(False, 0), (False, 1), (False, 1), (True, 1)]


def test_an_error_that_is_no_fault_of_the_disk_is_not_called_one(store):
    with pytest.raises(KeyError):
        store.write(0, {"sample_id": torch.zeros(1)})


def test_a_second_store_goes_on_with_the_parts_of_the_first_and_keeps_its_complete_results(store):
    store.write(3, batch(0))
    store.finish()
    again = Store(store.folder, SCHEMA)
    assert again.done == {3} and again.path.exists()
    again.clear()
    assert Store(store.folder, SCHEMA).done == set() and again.path.exists()


def test_one_process_holds_a_lock_and_its_end_gives_it_back(tmp_path):
    code = "import sys, time; from pathlib import Path; from canonxai.results.store import locked\n"
    code += "with locked(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match="folder: expected no other process at work on this cell"),
            locked(tmp_path, "it"),
        ):
            pass
        with locked(tmp_path, "something else"):
            other.kill()
    with locked(tmp_path, "it"):
        pass


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
    assert ids(store) == [[0, 1], [2, 3], [4]]
    store.finish()
    assert store.read(["sample_id"])["sample_id"].to_pylist() == list(range(5))
