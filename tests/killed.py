"""Kills a run by SIGKILL at random moments, starts it again until it is complete, and compares; see ``test_resume``.

``python -m tests.killed FOLDER KILLS``: a process of its own, so that what is killed is a fork of one that has imported
everything but has computed nothing.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from canonxai.config import CONF, register
from canonxai.run import run
from tests.tiny import CELL

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
RESULTS = ("samples.parquet", "maps.npz", "excluded.csv", "rules.csv")


def attempt(folder: Path, event: int = 0, delay: float = 0.0) -> tuple[bool, int]:
    """Runs the cell in a fork, which is killed before its ``event``-th access to the folder or after a delay.

    Returns:
        Whether it was killed, and how many accesses there were.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        seen = 0

        def watch(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if name in EVENTS and str(folder) in str(arguments[0]):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides=CELL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.addaudithook(watch)
        if delay:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        run(cfg, folder)
        os.write(writing, str(seen).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        told = file.read()
    return os.WIFSIGNALED(status) and not told, int(told or 0)


def results(folder: Path) -> list[bytes]:
    """What must be the same to the bit."""
    return [(folder / name).read_bytes() for name in RESULTS]


def main(top: Path, kills: int) -> None:
    """Prints a line a folder, and how often a run was killed."""
    register()
    rng = random.Random(7)
    start = time.monotonic()
    _, events = attempt(top / "undisturbed")
    duration = time.monotonic() - start
    expected = results(top / "undisturbed")
    count = number = 0
    while count < kills:
        folder, number, of_folder = top / str(number), number + 1, 0
        while True:
            timed = number % 4 == 0
            delay = rng.uniform(0.05, 1) * duration if timed else 0
            killed, _ = attempt(
                folder, 0 if timed or of_folder > 2 else rng.randint(1, events), delay * (of_folder < 3)
            )
            if not killed:
                break
            count, of_folder = count + 1, of_folder + 1
        assert results(folder) == expected, folder
        assert not (folder / "parts").exists(), folder
        print(folder.name, of_folder, flush=True)
    print("killed", count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
