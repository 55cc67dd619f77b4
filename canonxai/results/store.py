"""Per-image results on disk: a part file a batch, merged into ``samples.parquet`` when the cell is complete.

Each part is written as a temporary file, flushed to the disk and renamed, so it is there whole or not at all: a run
that breaks off loses at most the batch in flight. ``samples.parquet`` appears only when all images are done.
"""

import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from canonxai.data import Batch, Excluded
from canonxai.errors import UserError
from canonxai.explainer import Evaluation
from canonxai.metrics import Metric

#: the columns of every ``samples.parquet``; those of the metrics follow
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "sample_id": (pa.int64(), "the sample's number in its data set; results of two cells are paired by it"),
    "label": (pa.int32(), "the true class"),
    "target": (pa.int32(), "the explained class"),
    "prediction": (pa.int32(), "the class with the largest logit"),
    "probability": (pa.float64(), "softmax probability of the explained class"),
    "box_fraction": (pa.float64(), "area of the union of the label's boxes over the area of the image"),
    "relevance_total": (pa.float64(), "sum of the map over pixels and channels"),
    "relevance_max": (pa.float64(), "largest absolute value of the map"),
}
PARTS_AT_ONCE = 256  #: how many parts are in memory when they are merged
TYPES = {"number": pa.float64(), "curve": pa.list_(pa.float64())}


def sample_schema(metrics: Mapping[str, Metric]) -> pa.Schema:
    """The schema of ``samples.parquet``: :data:`COLUMNS` and those of the metrics, each with its description."""
    fields = [pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in COLUMNS.items()]
    for metric in metrics.values():
        for name, column in metric.columns.items():
            fields.append(pa.field(name, TYPES[column.kind], metadata={"description": column.description}))
    return pa.schema(fields)


class Store:
    """The results of one cell in a folder.

    Args:
        folder: the cell's folder; parts of an earlier run in it are removed, its complete results are replaced only
            by complete ones.
        schema: of the table.

    Raises:
        UserError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self.path = folder / "samples.parquet"
        self.parts = folder / "parts"
        with writing(folder):
            shutil.rmtree(self.parts, ignore_errors=True)
            self.parts.mkdir(parents=True)
        self.rows = 0

    def write(self, index: int, columns: Mapping[str, Tensor]) -> None:
        """Writes one part; NaN becomes null."""
        arrays = [
            pa.array(columns[field.name].cpu().tolist(), from_pandas=True, type=field.type) for field in self.schema
        ]
        table = pa.table(arrays, schema=self.schema)
        self._write(self.parts / f"part-{index:08d}.parquet", [table])
        self.rows += len(table)

    def finish(self) -> None:
        """Merges the parts into ``samples.parquet``, in their order, some at a time."""
        parts = sorted(self.parts.glob("part-*.parquet"))
        groups = (parts[start : start + PARTS_AT_ONCE] for start in range(0, len(parts), PARTS_AT_ONCE))
        self._write(self.path, (pa.concat_tables(map(pq.read_table, group)) for group in groups))
        shutil.rmtree(self.parts)

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns of the complete table."""
        return pq.read_table(self.path, columns=columns)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of the complete table, a piece at a time."""
        yield from pq.ParquetFile(self.path).iter_batches(columns=columns)

    def _write(self, path: Path, tables: Iterable[pa.Table]) -> None:
        temporary = path.with_suffix(".tmp")
        with writing(self.folder), temporary.open("wb") as file:
            with pq.ParquetWriter(file, self.schema) as writer:
                for table in tables:
                    writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tells a failure to write to ``folder`` in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"folder: expected to write to {str(folder)!r}, got: {error.strerror or error}. Free space or choose "
            "another place by hydra.run.dir=PATH (hydra.sweep.dir in a multirun); what was written before is kept in "
            "parts/."
        ) from error


class StoreWriter(Callback):
    """Puts each batch of Lightning's predict loop into a store, and what was left out into ``excluded.csv``.

    Args:
        store: where to.
        excluded: what the data set left out from the beginning.
    """

    def __init__(self, store: Store, excluded: Sequence[Excluded] = ()) -> None:
        self.store = store
        self.before, self.unreadable = list(excluded), 0
        self.path = store.folder / "excluded.csv"
        self.path.unlink(missing_ok=True)
        self._tell(map(astuple, excluded))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Evaluation | None, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if outputs is not None:
            self.store.write(batch_idx, outputs["columns"])
        self._tell(batch["excluded"])
        self.unreadable += len(batch["excluded"])

    def _tell(self, entries: Iterable[tuple[str | bool, ...]]) -> None:
        entries = list(entries)
        if not entries:
            return
        with writing(self.store.folder):
            is_new = not self.path.exists()
            with self.path.open("a", newline="") as file:
                table = csv.writer(file)
                table.writerows([[field.name for field in fields(Excluded)]] if is_new else [])
                table.writerows(entries)
