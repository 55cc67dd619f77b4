"""The progress bar counts images."""

import io
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from canonxai.progress import ImageProgress, ImagesPerSecond, output_console

MODULE = Mock(LightningModule)


@pytest.fixture
def progress():
    callback = ImageProgress("LRP-ε, resnet18", 7, Console(file=io.StringIO(), force_terminal=True, width=120))
    yield callback
    callback.progress.stop()


def run(callback, sizes, is_global_zero=True):
    trainer = Mock(Trainer, is_global_zero=is_global_zero)
    callback.on_predict_start(trainer, MODULE)
    for index, size in enumerate(sizes):
        callback.on_predict_batch_end(trainer, MODULE, None, {"sample_id": torch.zeros(size), "excluded": []}, index)


def test_images_are_counted_and_not_batches(progress):
    run(progress, [3, 3])
    (task,) = progress.progress.tasks
    assert (task.completed, task.total, task.finished) == (6, 7, False)
    run(progress, [1])
    assert (task.completed, task.finished) == (7, True)


def test_the_bar_shows_what_is_done_and_how_fast(progress):
    run(progress, [3, 4])
    progress.on_predict_end(Mock(Trainer), MODULE)
    text = progress.progress.console.file.getvalue()
    assert "LRP-ε, resnet18" in text
    assert "7/7" in text
    assert "images/s" in text


def test_square_brackets_are_shown_as_they_are(progress):
    progress.progress.update(progress.task, description="LRP-[x]")
    run(progress, [3])
    progress.on_predict_end(Mock(Trainer), MODULE)
    assert "LRP-[x]" in progress.progress.console.file.getvalue()


@pytest.mark.parametrize("end", ["on_predict_end", "on_exception"])
def test_the_bar_stops_with_the_run_also_if_it_fails(progress, end):
    run(progress, [3])
    assert progress.progress.live.is_started
    getattr(progress, end)(Mock(Trainer), MODULE, *[ValueError()] * (end == "on_exception"))
    assert not progress.progress.live.is_started


def test_only_one_process_shows_a_bar(progress):
    run(progress, [3], is_global_zero=False)
    assert not progress.progress.live.is_started


def test_speed_is_images_over_seconds():
    seconds = 0.0
    column = ImagesPerSecond()
    progress = Progress(column, console=Console(file=io.StringIO()), get_time=lambda: seconds)
    progress.add_task("", total=40)
    (task,) = progress.tasks
    assert column.render(task).plain == ""
    for seconds in (2.0, 4.0):  # noqa: B007
        progress.advance(task.id, 10)
    assert column.render(task).plain == "5.0 images/s"
    seconds = 6.0
    progress.advance(task.id, 20)
    seconds = 100.0
    assert column.render(task).plain == "7.5 images/s"  # what it was at the end


def test_a_text_gives_a_terminal_no_commands(monkeypatch):
    file = io.StringIO()
    console = output_console()
    monkeypatch.setattr(console, "file", file)
    table = Table(title=Text("\x1b]0;title\x07"))
    table.add_row(Text("\x1b[2Ja row of the table"))
    console.print(table)
    console.print(Text("\x9b2Jline\nnext"))
    assert not {"\x1b", "\x07", "\x9b"} & set(file.getvalue())
    assert all(text in file.getvalue() for text in ("title", "a row of the table", "line\nnext\n"))
