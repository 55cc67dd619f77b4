"""Two devices against one: a data set by one process, and by two at once that do a half each.

Without two GPUs, a device is a process of one thread. The halves are scenes of different seeds, by the public command
line. What counts is each cell's own time, from its ``summary.json``; that of whole processes stands beside it.
"""

import json
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks import processes
from benchmarks.harness import Result, Settings, Target


def run(settings: Settings) -> Result:
    """Measures one and two processes in turns."""
    images = settings.size(4, 384, 4096)
    alone: list[tuple[float, float]] = []
    halves: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(settings.size(1, 3, 3)):
            alone.append(together(1, images, Path(folder) / f"one {repeat}"))
            halves.append(together(2, images // 2, Path(folder) / f"two {repeat}"))
    cells = statistics.median(one / two for (one, _), (two, _) in zip(alone, halves, strict=True))
    whole = statistics.median(one / two for (_, one), (_, two) in zip(alone, halves, strict=True))
    rows = [
        {
            "processes": count,
            "images of each": each,
            "seconds of the cells": statistics.median(cell for cell, _ in values),
            "with start-up": statistics.median(process for _, process in values),
            "times one": times,
            "times one, with start-up": times_whole,
        }
        for count, each, values, times, times_whole in (
            (1, images, alone, 1.0, 1.0),
            (2, images // 2, halves, cells, whole),
        )
    ]
    details = {"seconds": {"one": alone, "two": halves}, "gpus": torch.cuda.device_count()}
    return Result("Two devices", rows, [Target("two devices, times one", cells, ">=", 1.8)], details)


def together(count: int, images: int, folder: Path) -> tuple[float, float]:
    """The longest time of a cell and of a process, of ``count`` processes at once."""
    has_gpus = torch.cuda.device_count() >= 2
    running = []
    for index in range(count):
        arguments = [
            "method=lrp_eps", "canonize=true", "save_maps=0", f"data.size={images}", f"seed={index}",
            f"trainer={'gpu' if has_gpus else 'cpu'}", f"hydra.run.dir={index}",
        ]  # fmt: skip
        device = {"CUDA_VISIBLE_DEVICES": str(index)} if has_gpus else {}
        running.append(processes.start("canonxai", arguments, folder, OMP_NUM_THREADS="1", **device))
    usages = [processes.usage(process) for process in running]
    cells = [json.loads((folder / str(index) / "summary.json").read_text())["seconds"] for index in range(count)]
    return max(cells), max(usage.seconds for usage in usages)
