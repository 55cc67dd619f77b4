"""A stand-in for SLURM on one machine: ``sbatch``, ``srun``, ``sacct`` and ``scontrol``, told apart by their names."""

import os
import re
import subprocess
import sys
from pathlib import Path

JOB = "7"


def install(folder: Path) -> None:
    """Puts the commands into a folder for the ``PATH``."""
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} {name} "$@"\n')
        path.chmod(0o755)


def sbatch(script: str) -> None:
    """Starts each task of an array, which is queued again as long as ``scontrol`` says so."""
    tasks = int(re.search(r"--array=0-(\d+)", Path(script).read_text())[1]) + 1
    for task in range(tasks):
        command = [sys.executable, __file__, "task", script, str(task)]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {JOB}")


def task(script: str, index: str) -> None:
    names = {"SLURM_JOB_ID": JOB, "SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": index, "SLURM_JOB_NODELIST": "n"}
    zeros = dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0")
    ones = dict.fromkeys(("SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"), "1")
    queued = queue(f"{JOB}_{index}")
    queued.touch()
    while queued.exists():
        queued.unlink()
        subprocess.run(["bash", script], env={**os.environ, **names, **zeros, **ones}, check=False)


def srun(*arguments: str) -> None:
    names = {"%A": JOB, "%a": os.environ["SLURM_ARRAY_TASK_ID"], "%t": "0"}
    for option, stream in (("--output", 1), ("--error", 2)):
        path = arguments[arguments.index(option) + 1]
        for name, value in names.items():
            path = path.replace(name, value)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.execv(sys.executable, arguments[arguments.index(sys.executable) :])


def scontrol(_: str, job: str) -> None:
    queue(job).touch()


def sacct(*_: str) -> None:
    print("JobID|State|NodeList\n" + f"{JOB}_0|RUNNING|n\n{JOB}_1|RUNNING|n")


def queue(job: str) -> Path:
    return Path(os.environ["FAKE_SLURM"]) / job


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
