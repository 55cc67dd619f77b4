"""What every data set yields, and the Lightning data module that batches it.

A data set is a class with ``__len__``, ``__getitem__`` (a :class:`Sample`) and the class names; it stays in image
space (uint8), because perturbation and the box bounds of LRP are defined there. Normalisation happens on the device.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

import torch
from jaxtyping import Bool, Int64, UInt8
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from canonxai.errors import UserError, check, check_choice
from canonxai.signals import ignore

ON_ERROR = ("exclude", "raise")


class Sample(TypedDict):
    """One image and the object of its class."""

    sample_id: int  #: unique within the data set; results are keyed and paired by it
    image: UInt8[Tensor, "3 height width"]
    label: int
    box: Bool[Tensor, "height width"]  #: union of the label's boxes
    mask: Bool[Tensor, "height width"]  #: the object itself; equals ``box`` where only boxes are known


@dataclass(frozen=True)
class Excluded:
    """A file that was left out.

    Attributes:
        file: its path.
        reason: why, in few words, so that it can be counted.
        detail: more of it.
        is_error: whether something is damaged, missing or contradictory, which ``data.on_error=raise`` does not accept;
            false for what is merely not evaluated, as difficult objects, crowds, objects that are cropped away, images
            without annotation, and classes without images.
    """

    file: str
    reason: str
    detail: str = ""
    is_error: bool = True


class Batch(TypedDict):
    """Samples stacked by torch's default collation, and what could not be read of the batch's files."""

    sample_id: Int64[Tensor, " batch"]
    image: UInt8[Tensor, "batch 3 height width"]
    label: Int64[Tensor, " batch"]
    box: Bool[Tensor, "batch height width"]
    mask: Bool[Tensor, "batch height width"]
    place: Int64[Tensor, " batch"]  #: which of the batch's samples, readable or not, each is; ascending
    index: int  #: which batch of the data set it is
    excluded: list[tuple[Any, ...]]  #: fields of :class:`Excluded`


@runtime_checkable
class LocalizationDataset(Protocol):
    """What the data module needs of a data set."""

    classes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample | Excluded: ...


class DataModule(LightningDataModule):
    """Batches of a data set, in its own order, each sample once.

    Batch ``b`` holds the samples from ``b * batch_size`` on, whichever batches a process computes.

    Args:
        dataset: the samples to predict on.
        batch_size: samples a batch; results depend on it by rounding alone.
        num_workers: loading processes; results do not depend on it.
        on_error: what happens to a file or annotation with an error (:class:`Excluded`), whether it is found when the
            data set is built or while it is read: ``exclude`` it, to be counted and listed, or ``raise``.
        outputs: which output of the network each label is, ``None`` for one that it has not; by default the same.

    Attributes:
        batches: how many there are.
        todo: those that the loader yields; all, unless changed.

    Raises:
        UserError: if an argument is out of its range, or for an error that was found, with ``on_error="raise"``.
    """

    def __init__(
        self,
        dataset: LocalizationDataset,
        batch_size: int,
        num_workers: int,
        on_error: str = "exclude",
        outputs: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__()
        check_choice("data.on_error", on_error, ON_ERROR)
        check(batch_size >= 1, "data.batch_size", "an integer >= 1", batch_size)
        check(num_workers >= 0, "data.num_workers", "an integer >= 0", num_workers)
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.outputs = outputs
        self.batches = -(-len(dataset) // batch_size)
        self.todo: Sequence[int] = range(self.batches)
        self._check(getattr(dataset, "excluded", ()))

    def images(self, batches: Sequence[int]) -> int:
        """How many images, readable or not, some batches have."""
        return sum(len(self._of(batch)) for batch in batches)

    def batch(self, index: int) -> Batch:
        """One batch of the data set."""
        batch = self.collate([self.dataset[sample] for sample in self._of(index)])
        batch["index"] = index
        return batch

    def first(self) -> Sample:
        """The first sample that can be read.

        Raises:
            UserError: if there is none.
        """
        for index in range(len(self.dataset)):
            if not isinstance(sample := self._labelled(self.dataset[index]), Excluded):
                return sample
        raise UserError(f"data: expected images, got {len(self.dataset)} files that cannot be read.")

    def collate(self, samples: Sequence[Sample | Excluded]) -> Batch:
        """A batch of what could be read; it may be empty."""
        samples = [self._labelled(sample) for sample in samples]
        excluded = [sample for sample in samples if isinstance(sample, Excluded)]
        read = [sample for sample in samples if not isinstance(sample, Excluded)]
        batch: Batch = default_collate(read) if read else {"sample_id": torch.empty(0, dtype=torch.int64)}  # type: ignore[typeddict-item]
        places = [place for place, sample in enumerate(samples) if not isinstance(sample, Excluded)]
        batch["place"] = torch.tensor(places, dtype=torch.int64)
        batch["excluded"] = [astuple(entry) for entry in excluded]
        return batch

    def _labelled(self, sample: Sample | Excluded) -> Sample | Excluded:
        """A sample with the network's output as its label."""
        if self.outputs is None or isinstance(sample, Excluded):
            return sample
        output = self.outputs[sample["label"]]
        if output is None:
            name = self.dataset.classes[sample["label"]]
            return Excluded(f"sample {sample['sample_id']}", "class that the network does not have", name, False)
        return {**sample, "label": output}

    def _check(self, excluded: Iterable[Excluded]) -> None:
        """Raises if there is an error and it shall."""
        errors = [entry for entry in excluded if entry.is_error and self.on_error == "raise"]
        if errors:
            raise UserError(
                f"data: expected files and annotations without errors, got {errors[0].file!r} ({errors[0].reason}: "
                f"{errors[0].detail or 'no details'}), the first of {len(errors)}. Or data.on_error=exclude."
            )

    def _of(self, batch: int) -> range:
        return range(len(self.dataset))[batch * self.batch_size : (batch + 1) * self.batch_size]

    def predict_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(self),
            sampler=self.todo,
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=ignore,
            pin_memory=torch.cuda.is_available(),
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        # here and not in collate, as what a loading process raises comes with its traceback
        self._check(Excluded(*entry) for entry in batch["excluded"])
        return batch


class _Batches(Dataset[Batch]):
    """The batches of a data module by their number: with a batch sampler, Lightning would remember all indices."""

    def __init__(self, data: DataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.batches

    def __getitem__(self, index: int) -> Batch:
        return self.data.batch(index)


def _as_it_is(batch: Any) -> Any:
    return batch
