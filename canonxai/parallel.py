"""Several processes on one cell: each computes a share of its batches, and all write to the cell's folder.

A share is the i-th of n parts of the batches, which are beside each other, so that the share's files can become few
before others are computed. Jobs of a cluster are given theirs by ``data.shard=i/n``; with ``trainer.devices=N`` the
process splits its own once more, and starts a process for each other device. No process waits for another before the
end, each has one device and the very batches that a single process has, so results are the same to the bit.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig

from canonxai.errors import UserError, check
from canonxai.signals import RESUMABLE, Interrupted

PER_CORE = 4  #: so many processes at most; more, as by a slip of the finger, would take all memory
PARENT = "CANONXAI_PARENT"  #: in the environment of a process that another one started: that one's id


@dataclass(frozen=True)
class Share:
    """Of ``count`` equal parts of all batches, that at ``index``.

    >>> Share.of("2/3")
    Share(index=1, count=3)
    >>> Share.of("2/3").batches(12)
    range(4, 8)
    >>> Share.of("2/3").split(1, 2).batches(12)
    range(6, 8)
    """

    index: int = 0
    count: int = 1

    @staticmethod
    def of(shard: str | None) -> "Share":
        """The share that ``data.shard`` names; all batches for ``None``.

        Raises:
            UserError: unless it is i/n with 1 <= i <= n.
        """
        if shard is None:
            return Share()
        index, _, count = shard.partition("/")
        is_right = index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)
        check(is_right, "data.shard", "i/n with 1 <= i <= n, as 2/8", shard)
        return Share(int(index) - 1, int(count))

    def split(self, rank: int, world: int) -> "Share":
        """The part of it that one of ``world`` processes has."""
        return Share(self.index * world + rank, self.count * world)

    def batches(self, total: int) -> range:
        """Which they are of ``total``; the first share is never empty."""
        return range(*(-(-total * index // self.count) for index in (self.index, self.index + 1)))

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def devices_of(accelerator: str, devices: Any) -> list[int]:
    """The devices that ``trainer.devices`` stands for, one a process: a number, a list of GPUs, or all for ``auto``.

    Raises:
        UserError: if it stands for none, or for more than this machine has.
    """
    import torch

    is_cpu = accelerator == "cpu"
    most = PER_CORE * (os.cpu_count() or 1) if is_cpu else max(torch.cuda.device_count(), 1)
    if devices in ("auto", -1, "-1"):
        devices = 1 if is_cpu else torch.cuda.device_count()
    is_list = isinstance(devices, list) and all(isinstance(number, int) for number in devices)
    count = len(devices) if is_list else devices
    is_right = isinstance(count, int) and 1 <= count <= most
    check(is_right, "trainer.devices", f"a number from 1 to {most}, a list of GPUs, or auto", devices)
    return list(devices if is_list else range(devices))


def parent() -> int | None:
    """The process that started this one to help it."""
    return int(os.environ[PARENT]) if PARENT in os.environ else None


class Processes:
    """The processes that compute the other shares of a cell; in a ``with`` block, they do not outlive it.

    Args:
        shares: one a process.
        devices: of each, as ``trainer.devices``.

    Raises:
        UserError: from :meth:`look` and :meth:`wait`, if one of them failed.
        Interrupted: likewise, if one of them was interrupted.
    """

    def __init__(self, shares: Sequence[Share], devices: Sequence[str]) -> None:
        check(
            not shares or HydraConfig.initialized(), "trainer.devices", "one device where there is no command line",
            1 + len(shares), "Run python -m canonxai.",
        )  # fmt: skip
        self._commands = [_command(share, device) for share, device in zip(shares, devices, strict=True)]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Processes":
        environment = {**os.environ, PARENT: str(os.getpid())}
        for command in self._commands:
            self._running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)  # after which it finishes its batch
        for process in self._running:
            process.wait()

    def look(self) -> None:
        """Finds those that ended before their time."""
        for process in self._running:
            _judge(process.poll())

    def wait(self) -> None:
        """Waits until all are done."""
        while self._running:
            _judge(self._running[0].wait())
            del self._running[0]


def _judge(code: int | None) -> None:
    if code == RESUMABLE:
        raise Interrupted("a signal to another process of this run")
    if code:
        how = f"exit code {code}" if code > 0 else f"{signal.Signals(-code).name}"
        raise UserError(
            f"trainer.devices: expected all processes to finish, got one that ended by {how}. What was computed is "
            "kept, and the same command goes on."
        )


def _command(share: Share, device: str) -> list[str]:
    """The job that is running, as a command of its own."""
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    place = hydra.runtime.output_dir.replace("\\", "\\\\").replace("'", "\\'")
    ours = ("hydra.run.", "hydra.sweep.", "hydra.mode=", "hydra/launcher=", "hydra.launcher.", "hydra/sweeper=")
    return [
        *(sys.executable, "-m", "canonxai", "--config-name", str(hydra.job.config_name)),
        *(argument for folder in folders for argument in ("--config-dir", folder)),
        *(override for override in hydra.overrides.hydra if not override.lstrip("+").startswith(ours)),
        *hydra.overrides.task,
        *(f"data.shard={share}", f"trainer.devices={device}"),
        *(f"hydra.run.dir='{place}'", "hydra.mode=RUN", "hydra.output_subdir=null"),
        *("hydra.job_logging.root.handlers=[console]", "hydra.job_logging.root.level=ERROR"),
    ]
