"""What a run shows on the terminal while it goes on: images done, images per second, time left."""

import sys
from collections.abc import Iterator
from multiprocessing import current_process
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from canonxai.errors import printable


class PrintableConsole(Console):
    """A console to which texts, as names in a stranger's files, give no commands by control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            # they have no width, and what lies beside them has its place already
            yield segment if segment.control else Segment(printable(segment.text, instead=""), segment.style)


def output_console(width: int = 120) -> Console:
    """The terminal, or a file of lines that are long enough for the tables."""
    return PrintableConsole(width=None if sys.stdout.isatty() else width)


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
