"""Decode once: the preprocessed images, boxes and masks of a data set on disk, shared by all cells and processes.

A cache is a folder whose name is a hash over everything that determines its content, so it never has to be brought up
to date: what changed has another name. ``samples.bin`` has a record of the same size for each sample, in the data
set's order, and is mapped into memory; each record ends with its checksum. ``index`` tells which files could not be
read, below its own checksum. The folder appears whole or not at all.
"""

import hashlib
import json
import logging
import shutil
import zlib
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import features
from rich.filesize import decimal
from torch.utils.data import DataLoader, Dataset

from canonxai.data.base import Excluded, LocalizationDataset, Sample
from canonxai.data.images import AnnotatedImages
from canonxai.errors import UserError, check
from canonxai.files import durable, held, write_errors
from canonxai.progress import image_bar, output_console

log = logging.getLogger(__name__)
#: of the records, and of what :mod:`canonxai.data.images` and :mod:`canonxai.data.geometry` make of a file; raise it
#: when either changes
FORMAT = 1
DECODERS = ("pil", "jpg", "libjpeg_turbo", "jpg_2000", "libtiff", "webp")  #: another version may give other pixels


class Cached(Dataset[Sample | Excluded]):
    """A data set that reads its files once, and never again while they do not change.

    What it yields is the same to the bit. A process that finds the cache being written by another one waits for it. A
    damaged record is decoded afresh, which is told once; a damaged folder is written again. Files that could not be
    read are remembered.

    Args:
        dataset: of image files.
        folder: where caches are; one is written now unless it is there. Old ones can be removed at any time.
        num_workers: processes that decode.

    Raises:
        UserError: if ``dataset`` has no image files, or the folder cannot be written to or has not enough room.
    """

    def __init__(self, dataset: LocalizationDataset, folder: str | Path, num_workers: int = 0) -> None:
        if not isinstance(dataset, AnnotatedImages):
            raise UserError(f"data.cache: expected null, as this data set has no image files, got {str(folder)!r}.")
        self.dataset, self.num_workers = dataset, num_workers
        self.classes, self.class_ids, self.excluded = dataset.classes, dataset.class_ids, dataset.excluded
        self.record = record_type(dataset.geometry.crop)
        self.folder = Path(folder).expanduser().absolute() / f"{type(dataset).__name__.lower()}-{digest(dataset)[:16]}"
        self.told = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call] # by all processes
        try:
            self.unreadable = self._open()
        except (OSError, ValueError):
            self.unreadable = self._write()
        if self.unreadable:
            told = "%d files could not be read when the cache %s was written; remove it to try them again"
            log.info(f"data: {told}", len(self.unreadable), self.folder)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | Excluded:
        index = range(len(self))[index]
        if index in self.unreadable:
            return self.unreadable[index]
        record = np.array(self.records[index : index + 1])
        if _checksum(record) == record["checksum"][0]:
            return _unpack(record)
        if not self.told:
            self.told.fill_(True)
            log.warning("data: the cache %s is damaged; remove it to have it written again", self.folder)
        return self.dataset[index]

    def __getstate__(self) -> dict[str, Any]:
        # a mapped array would be copied as a whole to a process that is spawned
        return {name: value for name, value in self.__dict__.items() if name != "records"}

    @cached_property
    def records(self) -> np.ndarray:
        """All records, mapped into memory."""
        return np.memmap(self.folder / "samples.bin", self.record, "r", shape=(len(self),))

    def _open(self) -> dict[int, Excluded]:
        """What could not be read.

        Raises:
            OSError, ValueError: unless the cache is there and whole.
        """
        checksum, _, content = (self.folder / "index").read_bytes().partition(b"\n")
        size, expected = (self.folder / "samples.bin").stat().st_size, len(self) * self.record.itemsize
        if checksum != b"%08x" % zlib.crc32(content) or size != expected:
            raise ValueError("damaged index" if size == expected else f"{size} instead of {expected} bytes")
        return {int(index): Excluded(*fields) for index, fields in json.loads(content)["unreadable"].items()}

    def _write(self) -> dict[int, Excluded]:
        """Writes the cache, unless another process does or did; returns what could not be read."""
        caches = self.folder.parent

        def waiting() -> None:
            log.info("data: another process writes the cache %s; waiting for it", self.folder)

        with write_errors(lambda reason: f"data.cache: expected a folder to write to, got {str(caches)!r} ({reason})."):
            caches.mkdir(parents=True, exist_ok=True)
            with held(self.folder.with_suffix(".lock"), waiting):
                if self.folder.exists():
                    try:
                        return self._open()
                    except (OSError, ValueError) as error:
                        log.warning("data: the cache %s is damaged (%s); writing it again", self.folder, error)
                        shutil.rmtree(self.folder)
                part = self.folder.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                try:
                    return self._write_parts(part)
                finally:
                    shutil.rmtree(part, ignore_errors=True)

    def _write_parts(self, part: Path) -> dict[int, Excluded]:
        size, free = len(self) * self.record.itemsize, shutil.disk_usage(part.parent).free
        enough = f"a folder with {decimal(size)} of free space for {len(self):,} images"
        check(free > size, "data.cache", enough, f"{part.parent} with {decimal(free)}")
        log.info("data: writing the cache %s, %s images, %s", self.folder, f"{len(self):,}", decimal(size))
        part.mkdir()
        unreadable: dict[int, Excluded] = {}
        loader = DataLoader(_Records(self.dataset, self.record), batch_size=None, num_workers=self.num_workers)
        with durable(part / "samples.bin") as file, image_bar(output_console()) as bar:
            for index, record in enumerate(bar.track(loader, len(self), description="cache")):
                if isinstance(record, Excluded):
                    unreadable[index] = record
                file.write(bytes(self.record.itemsize) if isinstance(record, Excluded) else record)
        fields = {str(index): astuple(excluded) for index, excluded in unreadable.items()}
        content = json.dumps({"data": type(self.dataset).__name__, "images": len(self), "unreadable": fields}).encode()
        with durable(part / "index") as file:
            file.write(b"%08x\n%s" % (zlib.crc32(content), content))
        part.replace(self.folder)
        return unreadable


class _Records(Dataset[bytes | Excluded]):
    """Records of a data set, made by the loading processes."""

    def __init__(self, dataset: AnnotatedImages, record: np.dtype) -> None:
        self.dataset, self.record = dataset, record

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> bytes | Excluded:
        sample = self.dataset[index]
        return sample if isinstance(sample, Excluded) else _pack(sample, self.record).tobytes()


def digest(dataset: AnnotatedImages) -> str:
    """A hash over everything that determines what a data set yields.

    The data set's class; of each sample that is taken, in their order, the annotation, the files and their sizes and
    times; the geometry; the versions of what decodes images, and of this format.
    """
    kind = type(dataset)
    sha = hashlib.sha256(repr((FORMAT, kind.__module__, kind.__qualname__, dataset.geometry)).encode())
    sha.update(repr([features.version(name) for name in DECODERS]).encode())
    for sample_id in dataset.ids:
        sample = dataset.annotated[sample_id]
        annotation = sample_id, sample.label, [tuple(box) for box in sample.boxes], sample.size, sample.mask
        sha.update(repr((annotation, _state(sample.image), _state(sample.mask_file))).encode())
    return sha.hexdigest()


def _state(path: Path | None) -> tuple[str, int, int] | None:
    """What shows that a file changed."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return str(path.absolute()), -1, -1
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def record_type(side: int) -> np.dtype:
    """What is stored of a sample; box and mask as packed bits."""
    bits = (-(-side * side // 8),)
    return np.dtype(
        [
            ("image", "u1", (3, side, side)),
            ("box", "u1", bits),
            ("mask", "u1", bits),
            ("sample_id", "<i8"),
            ("label", "<i8"),
            ("checksum", "<u4"),  # last, over all before it
        ]
    )


def _pack(sample: Sample, record_type: np.dtype) -> np.ndarray:
    record = np.zeros(1, record_type)
    record["image"] = sample["image"].numpy()
    record["sample_id"], record["label"] = sample["sample_id"], sample["label"]
    record["box"], record["mask"] = np.packbits(sample["box"].numpy()), np.packbits(sample["mask"].numpy())
    record["checksum"] = _checksum(record)
    return record


def _unpack(record: np.ndarray) -> Sample:
    image, *regions = (record[name][0] for name in ("image", "box", "mask"))
    height, width = image.shape[1:]
    box, mask = (np.unpackbits(bits, count=height * width).view(bool).reshape(height, width) for bits in regions)
    return {
        "sample_id": int(record["sample_id"][0]),
        "image": torch.from_numpy(image),
        "label": int(record["label"][0]),
        "box": torch.from_numpy(box),
        "mask": torch.from_numpy(mask),
    }


def _checksum(record: np.ndarray) -> int:
    return zlib.crc32(record.view(np.uint8)[:-4].data)
