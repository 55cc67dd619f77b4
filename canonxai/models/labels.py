"""Whether the outputs of a network are the classes of a data set: a wrong order is a silent error.

The order can be told (``model.classes``), and is checked: a network whose predictions fit the labels no better than
chance is reported.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from scipy.stats import binomtest, norm
from torch import Tensor

from canonxai.data.classes import folded, labels_by
from canonxai.errors import UserError, check

log = logging.getLogger(__name__)
LEVEL = 0.01  #: of the test against chance
OTHERS = 10  #: so many images of other classes than the commonest say something


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


def is_chance(pairs: Mapping[tuple[int, int], int], outputs: int) -> bool:
    """Whether predictions agree with labels no more often than if the predictions were shuffled.

    Of N shuffled predictions, m_k of class k, with n_k labels of class k, the number that agrees has::

        mean = sum_k n_k m_k / N
        variance = (sum_k n_k m_k (N - n_k)(N - m_k) + sum_{k != l} n_k m_k n_l m_l) / (N^2 (N - 1))

    So always predicting one class is chance, however many images are of it. Where nearly all images are of one class,
    shuffling tells nothing; then the agreement is tested against 1/K.

    Args:
        pairs: how often each (label, prediction) occurred, at least one.
        outputs: K.

    >>> is_chance({(0, 0): 50, (1, 0): 50}, outputs=10), is_chance({(0, 0): 50, (1, 1): 20, (1, 0): 30}, outputs=10)
    (True, False)
    """
    total, correct = sum(pairs.values()), sum(pairs[label, output] for label, output in pairs if label == output)
    label, prediction = np.zeros((2, 1 + max(map(max, pairs))))
    for (k, output), count in pairs.items():
        label[k] += count
        prediction[output] += count
    if total - label.max() < OTHERS:
        return bool(binomtest(correct, total, 1 / outputs, alternative="greater").pvalue > LEVEL)
    both = label * prediction
    mean = both.sum() / total
    variance = (both * (total - label) * (total - prediction)).sum() + both.sum() ** 2 - (both**2).sum()
    deviation = math.sqrt(variance / (total - 1)) / total
    return bool(correct <= mean + norm.isf(LEVEL) * deviation)


def is_zero(logits: Float[Tensor, "batch outputs"]) -> bool:
    """Whether all logits are 0, which is told: accuracy, maps and agreement then say nothing."""
    if logits.any():
        return False
    log.warning(
        "model: all logits are 0, as those of a last layer that begins with zeros and is untrained, so maps are 0, and "
        "accuracy and the agreement of logits prove nothing. Give trained weights by model.checkpoint=PATH."
    )
    return True


class LabelCheck(Callback):
    """Warns once if the predictions are no better than chance: those of the first images, or all in the end.

    Data sets come class by class, so the first images may be of one class, which a network that always predicts it gets
    right; the test in the end notices it.

    Args:
        outputs: how many a network has.
        images: how many predictions are looked at first.
    """

    def __init__(self, outputs: int, images: int = 64) -> None:
        self.outputs, self.images = outputs, images
        self.pairs: Counter[tuple[int, int]] = Counter()
        self.told = self.looked = False

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if outputs is None:
            return
        columns = outputs["columns"]
        self.pairs.update(zip(columns["label"].tolist(), columns["prediction"].tolist(), strict=True))
        if not self.looked and self.pairs.total() >= self.images:
            self.looked = True
            self._look()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pairs and not self.told:
            self._look()

    def _look(self) -> None:
        self.told = is_chance(self.pairs, self.outputs)
        if self.told:
            log.warning(
                "model: top-1 is %d of the first %d images, no better than chance. Check the weights, the "
                "preprocessing (data.mean, data.std, data.resize), and that the outputs are in the order of the data's "
                "classes (model.classes).",
                sum(count for (label, predicted), count in self.pairs.items() if label == predicted),
                self.pairs.total(),
            )
