"""Seconds and peak memory of a command, each in a fresh process.

A process that is started by a large one has, on Linux, that one's memory in its own peak. So a small one lies between
them: this file as a program, that knows of nothing but the standard library.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds from its start to its end, and the most memory that it held, in MB."""

    seconds: float
    megabytes: float


def start(module: str, arguments: Sequence[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Starts ``python -m module arguments`` in ``folder``, from this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, __file__, sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def usage(process: "subprocess.Popen[str]") -> Usage:
    """Waits for a process that was started.

    Raises:
        RuntimeError: if it failed.
    """
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, process.args[2:]))} failed:\n{errors}")
    return Usage(**json.loads(output))


def measured(module: str, arguments: Sequence[str], folder: Path, **environment: str) -> Usage:
    """Runs ``python -m module arguments`` in ``folder``."""
    return usage(start(module, arguments, folder, **environment))


def main() -> None:
    started = time.perf_counter()
    done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, or kilobytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    sys.stderr.write(done.stderr)
    print(json.dumps({"seconds": seconds, "megabytes": peak / 1e6}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
