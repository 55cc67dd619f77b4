"""SIGTERM, SIGINT (Ctrl-C), and SIGUSR1, by which SLURM announces a preemption.

The batch in flight is finished and kept, then the command ends, with an exit code that says that the same command goes
on.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, current_process
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
JOBLIB = "LokyProcess"  #: begins the name of a process of joblib's
RESUMABLE = 75  #: exit code, EX_TEMPFAIL of sysexits.h


class Interrupted(SystemExit):
    """Ends the process, all jobs of a multirun included."""

    def __init__(self, by: str) -> None:
        super().__init__(RESUMABLE)
        self.told = (
            f"interrupted by {by}: what was computed is kept, and the same command goes on (exit code {RESUMABLE})"
        )


class _State:
    received: signal.Signals | None = None
    in_batches = False


@contextmanager
def heeded() -> Iterator[None]:
    """Signals end the block by :class:`Interrupted`: at once, but in :func:`batches` when the batch is finished."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # other handlers are a launcher's, which makes its jobs go on by them
    free = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    before = {number: signal.signal(number, _receive) for number in SIGNALS if signal.getsignal(number) in free}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def batches() -> Iterator[None]:
    """A block that calls :func:`end_if_interrupted` after each batch."""
    _State.in_batches = True
    try:
        yield
    finally:
        _State.in_batches = False
    end_if_interrupted()


def end_if_interrupted() -> None:
    """Raises :class:`Interrupted` if a signal came."""
    if _State.received is not None:
        by, _State.received = _State.received.name, None
        if current_process().name.startswith(JOBLIB):  # which would go on with the next cell
            os._exit(RESUMABLE)
        raise Interrupted(by)


def ignore(worker: int = 0) -> None:
    """In a loading process: signals to the whole group of processes are the main process's business."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _receive(number: int, frame: FrameType | None) -> None:
    again = _State.received is not None and number == signal.SIGINT  # somebody does not want to wait
    _State.received = signal.Signals(number)
    if not _State.in_batches and not again:
        _end_cells()
    if again or not _State.in_batches:
        end_if_interrupted()


def _end_cells() -> None:
    """Has the processes in which joblib computes cells finish their batches and end."""
    cells = [process for process in active_children() if process.name.startswith(JOBLIB)]
    for process in cells:
        process.terminate()
    for process in cells:
        process.join()
