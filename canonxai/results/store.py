"""Per-image results on disk: a part file a batch, merged into ``samples.parquet`` when the cell is complete.

A batch is a fixed set of samples, so what is in a part depends neither on the process that computed it nor on when.
Each part is flushed to the disk and renamed, so it is there whole or not at all: a run that breaks off loses at most
the batch in flight, and goes on at the first batch that has no part. A part's name holds its checksum; one that is
damaged is told and computed again. Many parts become one, so that there are never many files.
"""

import io
import json
import logging
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from canonxai.data import Batch
from canonxai.errors import UserError
from canonxai.explainer import Evaluation
from canonxai.files import durable, held, write_errors
from canonxai.metrics import Column
from canonxai.results.maps import pack

log = logging.getLogger(__name__)

#: the columns of every ``samples.parquet``; those of the metrics follow
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "sample_id": (pa.int64(), "the sample's number in its data set; results of two cells are paired by it"),
    "label": (pa.int32(), "the true class"),
    "target": (pa.int32(), "the explained class"),
    "prediction": (pa.int32(), "the class with the largest logit"),
    "probability": (pa.float64(), "softmax probability of the explained class"),
    "box_fraction": (pa.float64(), "area of the union of the label's boxes over the area of the image"),
    "relevance_total": (pa.float64(), "sum of the map over pixels and channels; null if no float64 holds it"),
    "relevance_max": (pa.float64(), "largest absolute value of the map"),
}
GROUP = 256  #: how many batches become one part, and are in memory when they are merged
MAP = pa.field("map", pa.binary())  #: of a part alone: the first maps, packed
TYPES = {"number": pa.float64(), "curve": pa.list_(pa.float64())}
_NAME = re.compile(r"part-(\d{8})-(\d{8})-([0-9a-f]{8})\.parquet")


def sample_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """The schema of ``samples.parquet``: :data:`COLUMNS` and those of the metrics, each with its description."""
    fields = [pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in COLUMNS.items()]
    for name, column in columns.items():
        fields.append(pa.field(name, TYPES[column.kind], metadata={"description": column.description}))
    return pa.schema(fields)


class DamagedError(Exception):
    """A part has another content than was written."""


@dataclass(frozen=True)
class Part:
    """A file with the results of the batches from ``start`` up to ``stop``."""

    path: Path
    start: int
    stop: int
    checksum: int

    @staticmethod
    def named(path: Path) -> "Part | None":
        """What a file's name says."""
        found = _NAME.fullmatch(path.name)
        return Part(path, int(found[1]), int(found[2]), int(found[3], 16)) if found else None

    def read(self, schema: pa.Schema) -> pa.Table:
        """The results.

        Raises:
            DamagedError: if they are not those that were written, or of another schema.
        """
        content = self.path.read_bytes()
        if zlib.crc32(content) != self.checksum:
            raise DamagedError
        try:
            table = pq.read_table(pa.BufferReader(content))
            count = len(_notes(table))
        except Exception as error:  # of what a stranger gave a checksum, whatever it makes its reader raise
            raise DamagedError from error
        # it has another name than it was given, or was written by another version
        if count != self.stop - self.start or not table.schema.equals(schema.append(MAP)):
            raise DamagedError
        return table


class Store:
    """The results of one cell in a folder.

    Args:
        folder: the cell's folder; parts of an earlier run in it are kept, damaged ones are removed. Its complete
            results are replaced only by complete ones.
        schema: of the table.

    Attributes:
        done: the batches that have a part.

    Raises:
        UserError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self.path = folder / "samples.parquet"
        self.parts = folder / "parts"
        with writing(folder):
            self.parts.mkdir(parents=True, exist_ok=True)
            damaged = [part for part in self._parts() if not self._is_whole(part)]
            for part in damaged:
                log.warning("results: %s is damaged; its batches are computed again", part.path)
                part.path.unlink(missing_ok=True)
        self.done: set[int] = set()
        self._group = -1
        self.refresh()

    def clear(self) -> None:
        """Removes all parts."""
        with writing(self.folder):
            for pattern in ("part-*", "session-*"):
                for path in self.parts.glob(pattern):
                    path.unlink(missing_ok=True)
        self.done = set()

    def refresh(self) -> None:
        """Looks for parts that other processes wrote."""
        self.done = {batch for part in self._parts() for batch in range(part.start, part.stop)}

    def write(
        self, batch: int, columns: Mapping[str, Tensor] | None, note: Mapping[str, Any] | None = None,
        maps: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        """Writes the part of a batch; NaN and infinity become null.

        Args:
            batch: its number.
            columns: a row an image; ``None`` if none of its images could be read.
            note: what else there is to know of the batch, see :meth:`notes`.
            maps: of its first images, packed.
        """
        table = self.schema.empty_table()
        if columns is not None:
            arrays = [_array(columns[field.name], field.type) for field in self.schema]
            table = pa.table(arrays, schema=self.schema)
        packed = pa.array([*maps, *[None] * (len(table) - len(maps))], MAP.type)
        self._write_part(batch, batch + 1, table.append_column(MAP, packed), {str(batch): dict(note or {})})
        self.done.add(batch)
        if batch // GROUP != self._group:
            self._compact(self._group)
            self._group = batch // GROUP

    def write_session(self, name: str, about: Mapping[str, Any]) -> None:
        """Keeps what a process that computes parts knows of itself."""
        self._check_parts()
        text = json.dumps({"about": about, "checksum": _checksum(about)})
        with writing(self.folder), durable(self.parts / f"session-{name}.json") as file:
            file.write(text.encode())

    def sessions(self) -> list[dict[str, Any]]:
        """What the processes that computed the parts told of themselves, in the order of their names.

        Raises:
            UserError: if one is damaged.
        """
        try:
            return [_session(path) for path in sorted(self.parts.glob("session-*.json"))]
        except DamagedError as error:
            raise UserError(f"results: expected {error} as it was written. Run the same command again.") from None

    def finish(self) -> None:
        """Merges the parts into ``samples.parquet``, in the order of the batches, some at a time.

        Raises:
            UserError: if a part is damaged, which is then removed.
        """
        with writing(self.folder), durable(self.path) as file, pq.ParquetWriter(file, self.schema) as writer:
            for table in self._tables():
                writer.write_table(table.select(self.schema.names).cast(self.schema).combine_chunks())

    def notes(self) -> Iterator[dict[str, Any]]:
        """What was noted of each batch, in their order."""
        for table in self._tables():
            for _, note in sorted(_notes(table).items(), key=lambda item: int(item[0])):
                yield note

    def maps(self, count: int) -> list[bytes]:
        """The first maps that were kept, in the order of the batches."""
        found: list[bytes] = []
        for table in self._tables():
            found += [packed for packed in table["map"].to_pylist() if packed is not None]
            if len(found) >= count:
                break
        return found[:count]

    def close(self) -> None:
        """Removes the parts of a cell that is complete."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns of the complete table."""
        return pq.read_table(self.path, columns=columns)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of the complete table, a piece at a time."""
        yield from pq.ParquetFile(self.path).iter_batches(columns=columns)

    def drop_sessions(self) -> None:
        """Removes damaged ones; where none is left, some batches are computed again, as each session tells of some."""
        first, whole = self._parts()[:1], 0  # in this order, as a process writes its session first
        for path in sorted(self.parts.glob("session-*.json")):
            with suppress(FileNotFoundError):  # as another process has completed the cell
                try:
                    _session(path)
                    whole += 1
                except DamagedError:
                    log.warning("results: %s is damaged and left out", path)
                    path.unlink(missing_ok=True)
        for part in first if not whole else []:
            log.warning("results: the batches of %s are computed again, to tell what the others did", part.path)
            part.path.unlink(missing_ok=True)
        self.refresh()

    def _is_whole(self, part: Part) -> bool:
        try:
            part.read(self.schema)
        except FileNotFoundError:  # another process made it part of a larger one
            return True
        except DamagedError:
            return False
        return True

    def _parts(self) -> list[Part]:
        """All parts in the order of their batches, without those that are part of a larger one."""
        named = (Part.named(path) for path in self.parts.glob("part-*.parquet"))
        parts: list[Part] = []
        for part in sorted((p for p in named if p), key=lambda p: (p.start, -p.stop, p.checksum)):
            if parts and part.stop <= parts[-1].stop:
                part.path.unlink(missing_ok=True)
            else:
                parts.append(part)
        return parts

    def _tables(self) -> Iterator[pa.Table]:
        """The parts, those of a group of batches together."""
        for _, group in groupby(self._parts(), lambda part: part.start // GROUP):
            yield _merged([self._read(part) for part in group])

    def _read(self, part: Part) -> pa.Table:
        try:
            return part.read(self.schema)
        except DamagedError:
            part.path.unlink(missing_ok=True)
            raise UserError(
                f"results: expected {part.path} as it was written, got another checksum. Run the same command again to "
                "compute its batches anew."
            ) from None

    def _compact(self, group: int) -> None:
        """Makes one part of a group of batches, if all are there; another process may do so at the same time."""
        if group < 0:
            return
        parts = [part for part in self._parts() if part.start // GROUP == group]
        if len(parts) < GROUP:
            return
        with suppress(DamagedError, FileNotFoundError):
            table = _merged([part.read(self.schema) for part in parts])
            self._write_part(parts[0].start, parts[-1].stop, table, _notes(table))
            for part in parts:
                part.path.unlink(missing_ok=True)

    def _check_parts(self) -> None:
        if not self.parts.is_dir():
            raise UserError(
                f"folder: expected {str(self.parts)!r} to stay while this process computes, got none: another one has "
                "completed the cell, or removed it. Run the same command again."
            )

    def _write_part(self, start: int, stop: int, table: pa.Table, notes: Mapping[str, Any]) -> None:
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"notes": json.dumps(notes)}), content)
        name = f"part-{start:08d}-{stop:08d}-{zlib.crc32(content.getvalue()):08x}.parquet"
        self._check_parts()
        with writing(self.folder), durable(self.parts / name) as file:
            file.write(content.getvalue())


def _array(column: Tensor, kind: pa.DataType) -> pa.Array:
    """A column, null where it is not finite."""
    if column.is_floating_point():
        column = column.where(column.isfinite(), torch.nan)
    return pa.array(column.cpu().tolist(), from_pandas=True, type=kind)


def _session(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        about: dict[str, Any] = content["about"]
        is_whole = content["checksum"] == _checksum(about)
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise DamagedError(path)
    return about


def _checksum(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about).encode())


def _notes(table: pa.Table) -> dict[str, Any]:
    return dict(json.loads(table.schema.metadata[b"notes"]))


def _merged(tables: Sequence[pa.Table]) -> pa.Table:
    notes = {batch: note for table in tables for batch, note in _notes(table).items()}
    return pa.concat_tables(tables).replace_schema_metadata({"notes": json.dumps(notes)})


def writing(folder: Path) -> AbstractContextManager[None]:
    """Tells a failure to write to ``folder`` in one line."""
    return write_errors(
        lambda reason: (
            f"folder: expected to write to {str(folder)!r}, got: {reason}. Free space and run the "
            "same command again, which goes on with what is in parts/, or choose another place by hydra.run.dir=PATH "
            "(hydra.sweep.dir in a multirun)."
        )
    )


@contextmanager
def locked(folder: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds a lock on a cell that is not complete, which a process that dies gives back.

    Args:
        folder: the cell's.
        what: what this process alone does while it holds the lock.
        wait: whether it waits for another.

    Raises:
        UserError: if another process holds it and this one does not ``wait``, or the folder cannot be written to.
    """

    def refuse() -> None:
        if not wait:
            raise UserError(
                f"folder: expected no other process at work on this cell, got one, in {str(folder)!r}. "
                "Wait until it has ended; several processes share a cell by trainer.devices=N or data.shard=i/n."
            )

    path = folder / "parts" / f".{what}.lock"  # goes with the parts when the cell is complete
    with ExitStack() as stack:
        with writing(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(path, refuse))
        yield


class StoreWriter(Callback):
    """Puts each batch of Lightning's predict loop into a store, with what was left out of it and the first maps.

    Args:
        store: where to.
        maps: how many maps are kept.
        together: how many cells share the time.
    """

    def __init__(self, store: Store, maps: int = 0, together: int = 1) -> None:
        self.store, self.together = store, together
        # batches before those of this process may hold no image that can be read, so each process keeps as many
        self.missing = maps
        self.since = time.monotonic()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Evaluation | None, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        since, self.since = self.since, time.monotonic()
        if batch["index"] in self.store.done or (outputs is None and len(batch["sample_id"])):
            return
        maps = pack(batch, outputs["heatmap"], self.missing) if outputs else []
        self.missing -= len(maps)
        note = {"seconds": (self.since - since) / self.together, "excluded": batch["excluded"]}
        self.store.write(batch["index"], outputs and outputs["columns"], note, maps)
