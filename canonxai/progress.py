"""What a run shows on the terminal while it goes on: images done, images per second, time left."""

import sys
from multiprocessing import current_process
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def output_console(width: int = 120) -> Console:
    """The terminal, or a file of lines that are long enough for the tables."""
    return Console(width=None if sys.stdout.isatty() else width)


class ImagesPerSecond(ProgressColumn):
    """The speed of a task."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} images/s")


def image_bar(console: Console) -> Progress:
    """A bar whose tasks count images; none in a process that a launcher started beside others."""
    is_beside_others = current_process().name != "MainProcess"
    columns = BarColumn(), MofNCompleteColumn(), ImagesPerSecond(), TimeRemainingColumn()
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=console, disable=is_beside_others)


class ImageProgress(Callback):
    """Counts images instead of batches, which Lightning's own bar counts."""

    def __init__(self, description: str, total: int, console: Console) -> None:
        self.progress = image_bar(console)
        self.task = self.progress.add_task(description, total=total)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.start()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.progress.advance(self.task, len(batch["sample_id"]) + len(batch["excluded"]))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.progress.stop()
