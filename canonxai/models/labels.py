"""Whether the outputs of a network are the classes of a data set: a wrong order is a silent error.

The order can be told (``model.classes``), and is checked: a network whose predictions fit the labels no better than
chance is reported.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from scipy.stats import binomtest

from canonxai.data.classes import folded, labels_by
from canonxai.errors import UserError, check

log = logging.getLogger(__name__)
LEVEL = 0.01  #: of the test against chance


def output_names(classes: str | Sequence[str | int]) -> list[str]:
    """``model.classes`` as a list: given as such, or as a file with a name a line.

    Raises:
        UserError: if the file does not exist.
    """
    if not isinstance(classes, str):
        return [str(name) for name in classes]
    path = Path(classes)
    check(path.is_file(), "model.classes", "a list of names, or an existing file with a name a line", classes)
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def outputs_of_labels(
    outputs: Sequence[str], classes: Sequence[str], ids: Sequence[str] | None = None
) -> list[int | None]:
    """Which output of a network each label of a data set is; ``None`` where the network has no such class.

    Args:
        outputs: names of the network's outputs in their order.
        classes: names of the data set's labels in their order.
        ids: unique other names of these, as WordNet ids.

    Raises:
        UserError: if no name is known, or a name stands for several outputs or labels.

    >>> outputs_of_labels(["Red_Panda", "tiger"], ["tiger", "cat", "red panda"])
    [1, None, 0]
    """
    if list(outputs) == list(classes):
        return list(range(len(classes)))
    by_name, labels = labels_by(map(folded, outputs)), labels_by(map(folded, classes))
    found: list[int | None] = []
    for label, name in enumerate(classes):
        own = by_name.get(folded(ids[label]), []) if ids else []
        places = own or by_name.get(folded(name), [])
        if len(places) > 1 or (places and not own and len(labels[folded(name)]) > 1):
            raise UserError(f"model.classes: {name!r} is the name of several classes; use their WordNet ids.")
        found.append(places[0] if places else None)
    check(any(place is not None for place in found), "model.classes", f"names as {', '.join(classes[:3])}", outputs[:3])
    return found


class LabelCheck(Callback):
    """Warns once if the predictions of the first images are no better than chance.

    Args:
        outputs: how many a network has.
        images: how many predictions are looked at.
    """

    def __init__(self, outputs: int, images: int = 64) -> None:
        self.outputs, self.images = outputs, images
        self.seen = self.correct = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.seen >= self.images or outputs is None:
            return
        columns = outputs["columns"]
        self.seen += len(columns["label"])
        self.correct += int((columns["label"] == columns["prediction"]).sum())
        if self.seen >= self.images:
            self._tell()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if 0 < self.seen < self.images:
            self._tell()

    def _tell(self) -> None:
        if binomtest(self.correct, self.seen, 1 / self.outputs, alternative="greater").pvalue > LEVEL:
            log.warning(
                "model: top-1 is %d of the first %d images, no better than chance. Check the weights, the "
                "preprocessing (data.mean, data.std, data.resize), and that the outputs are in the order of the data's "
                "classes (model.classes).",
                self.correct,
                self.seen,
            )
