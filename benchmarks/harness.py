"""What all benchmarks share: ways that take turns, results that must agree, targets, the machine, table and JSON."""

import json
import operator
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("canonxai", "torch", "torchvision", "zennit", "captum", "quantus", "pytorch-lightning", "numpy", "pillow")
COMPARISONS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        quick: as little as shows that everything runs; its times say nothing.
        device: of the networks.
        output: the folder of the results of all devices.
    """

    quick: bool
    device: torch.device
    output: Path

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def size(self, quick: int, cpu: int, gpu: int) -> int:
        """An amount of work that fits the device."""
        return quick if self.quick else gpu if self.is_gpu else cpu

    @property
    def repeats(self) -> int:
        return self.size(1, 5, 7)

    def path(self, name: str) -> Path:
        """The JSON of a benchmark on this device."""
        return self.output / slug(machine(self)["device"]) / f"{name}.json"


@dataclass(frozen=True)
class Target:
    """What was wanted and what was measured."""

    what: str
    value: float
    comparison: str  #: one of :data:`COMPARISONS`
    limit: float

    @property
    def met(self) -> bool:
        return bool(COMPARISONS[self.comparison](self.value, self.limit))


@dataclass
class Result:
    """What a benchmark found.

    Attributes:
        title: of the table.
        rows: of the table, of equal keys.
        targets: wanted and measured.
        details: what else goes into the JSON: settings, and what each repeat took.
    """

    title: str
    rows: list[dict[str, Any]]
    targets: list[Target] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds that each way took in each repeat, and what each returned first.

    The ways take turns within each repeat, forwards and backwards, so that a drift of the machine's speed meets all of
    them. One round comes before, which does not count.
    """
    results = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name in list(ways)[:: -1 if repeat % 2 else 1]:
            synchronize()
            started = clock()
            ways[name]()
            synchronize()
            seconds[name].append(clock() - started)
    return seconds, results


def synchronize() -> None:
    """Waits for the GPU, where there is one in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def speedup(seconds: Mapping[str, Sequence[float]], way: str, over: str) -> float:
    """How many times faster ``way`` is than ``over``: the median of the ratios within each repeat."""
    return statistics.median(slow / fast for slow, fast in zip(seconds[over], seconds[way], strict=True))


def difference(values: Tensor, reference: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    values, reference = values.double().cpu(), reference.double().cpu()
    return float((values - reference).abs().max() / reference.abs().max())


def agree(what: str, results: Mapping[str, Tensor], tolerance: float) -> dict[str, float]:
    """How far each result is from the first.

    Raises:
        RuntimeError: if one is further than ``tolerance``, or not finite: such times compare different work.
    """
    first, *others = results
    differences = {name: difference(results[name], results[first]) for name in others}
    for name, value in differences.items():
        if not value <= tolerance:
            raise RuntimeError(f"{what}: {name} differs from {first} by {value:.2g}, more than {tolerance:.2g}")
    return differences


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(settings: Settings) -> dict[str, Any]:
    """What the times were measured on."""
    gpu = torch.cuda.get_device_name(settings.device) if settings.is_gpu else None
    return {
        "device": gpu or f"{processor()}, {cores()} cores",
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0],
    }


def slug(name: str) -> str:
    """A name as a folder's.

    >>> slug("AMD EPYC, 2 cores")
    'amd-epyc-2-cores'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(name: str, result: Result, settings: Settings) -> Path:
    """Writes ``DEVICE/NAME.json``."""
    content = {
        "benchmark": name,
        "quick": settings.quick,
        "machine": machine(settings),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in VERSIONS},
        **asdict(result),
        "targets": [asdict(target) | {"met": target.met} for target in result.targets],
    }
    path = settings.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def show(result: Result, console: Console) -> None:
    """The table, and the targets below it."""
    table = Table(title=result.title, title_justify="left")
    for key, value in result.rows[0].items():
        table.add_column(key, justify="left" if isinstance(value, str) else "right")
    for row in result.rows:
        table.add_row(*map(text, row.values()))
    console.print(table)
    for target in result.targets:
        verdict = "[green]met[/]" if target.met else "[red]missed[/]"
        console.print(f"{verdict}  {target.what}: {text(target.value)}, wanted {target.comparison} {target.limit:g}")


def text(value: Any) -> str:
    """A value of the table, numbers with three digits.

    >>> text(0.98765), text(12.345), text(1234.5), text(None)
    ('0.988', '12.3', '1234', '-')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "-" if value is None else str(value)
