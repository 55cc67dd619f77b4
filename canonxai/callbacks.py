"""What a run does after each batch of Lightning's predict loop, beside computing."""

import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from canonxai.parallel import Processes, parent
from canonxai.signals import Interrupted, end_if_interrupted


class OfCell(Callback):
    """Gives a callback what one of several explainers yields."""

    def __init__(self, callback: Any, place: int) -> None:
        self.callback, self.place = callback, place

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.callback.on_predict_batch_end(trainer, pl_module, outputs[self.place], batch, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.callback.on_predict_end(trainer, pl_module)


class StopAfterBatch(Callback):
    """Ends the loop after a batch if a signal came, another process of this run failed, or the one it helps is gone."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        end_if_interrupted()
        self.processes.look()
        if parent() not in (None, os.getppid()):
            raise Interrupted("the end of the process that started this one")
