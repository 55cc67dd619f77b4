"""Seconds and peak memory of whole processes: at 1, 10 and 100 times the images, steps and batch sizes; and to start.

Images and network are small, so that what grows is not hidden by them.
"""

import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import processes
from benchmarks.harness import Result, Settings, Target
from benchmarks.processes import Usage

BASE = {
    "data.size": 32,
    "metric.input_perturbation.steps": 4,
    "perturbation.batch_size": 8,
    "data.batch_size": 4,
}
SMALL = [
    "method=gradient", "data.side=32", "save_maps=0",
    "+model.variants.scenes.width=0.05", "model.variants.scenes.weights=null",
    "metric=[localization,input_perturbation]", "metric.input_perturbation.fraction=1",
]  # fmt: skip
START = {"--help": ["--help"], "--cfg job": ["--cfg", "job"], "one image": [*SMALL, "data.size=1"]}


def run(settings: Settings) -> Result:
    """Measures all sizes, and the start."""
    usages: dict[str, list[Usage]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(settings.size(1, 2, 3)):
            for name, arguments in commands(settings).items():
                usages[name].append(processes.measured("canonxai", arguments, Path(folder) / f"{name} {repeat}"))
    seconds = {name: statistics.median(usage.seconds for usage in values) for name, values in usages.items()}
    megabytes = {name: statistics.median(usage.megabytes for usage in values) for name, values in usages.items()}
    base = megabytes["base"]
    rows = [
        {"run": name, "seconds": seconds[name], "peak MB": megabytes[name], "of base": megabytes[name] / base}
        for name in usages
    ]
    grown = [name for name in usages if name.startswith("data.size")]
    targets = [Target(f"{name}, peak memory over the base's", megabytes[name] / base, "<=", 1.05) for name in grown]
    details = {"base": BASE, "repeats": {name: [vars(usage) for usage in values] for name, values in usages.items()}}
    return Result("Whole processes", rows, targets, details)


def commands(settings: Settings) -> dict[str, list[str]]:
    """Arguments of the command line."""

    def cell(**changes: int) -> list[str]:
        return [*SMALL, *(f"{key}={value}" for key, value in {**BASE, **changes}.items())]

    factors, keys = (10, 100), list(BASE)
    starts = dict(START)
    if settings.quick:
        factors, keys, starts = (2,), keys[:1], {"--help": START["--help"]}
    grown = {f"{key} x {n}": cell(**{key: n * BASE[key]}) for key in keys for n in factors}
    return {"base": cell(), **grown, **starts}
