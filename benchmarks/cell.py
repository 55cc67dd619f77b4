"""Where the time of a cell and of a small study goes, as shares of the time after start-up.

Each is the command line in a fresh process, watched by :mod:`benchmarks.parts`. A part has two shares: what the network
takes, forwards and backwards, and the rest, which is canonxai's own. The first cell is the README's, in which the fixed
costs of some seconds rule; the others have more images, as a study's. VGG-16 in its full width is measured on a GPU
alone; on a CPU a forward of it takes eight times as long as one of ResNet18, and all else as long.
"""

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.harness import Result, Settings, Target
from benchmarks.parts import NETWORK

METRICS = "metric=[localization,input_perturbation,distance]"
START_UP = "start-up"
Shares = dict[tuple[str, bool], float]  #: by part, and whether it is the network's


def run(settings: Settings) -> Result:
    """Measures all runs."""
    repeats: dict[str, list[Shares]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(settings.size(1, 3, 3)):
            for name, arguments in runs(settings).items():
                repeats[name].append(seconds_by_part(Path(folder) / f"{name} {repeat}", arguments))
    seconds = {name: median(values) for name, values in repeats.items()}
    totals = {name: sum(values.values()) - values[START_UP, False] for name, values in seconds.items()}
    keys = sorted({key for values in seconds.values() for key in values if key[0] != START_UP}, key=order(seconds))
    rows: list[dict[str, Any]] = [
        {"share of": title(*key)} | {name: values.get(key, 0.0) / totals[name] for name, values in seconds.items()}
        for key in keys
    ]
    rows.append({"share of": "seconds in all"} | totals)
    rows.append({"share of": "start-up, seconds besides"} | {n: v[START_UP, False] for n, v in seconds.items()})
    targets = []
    for name, values in seconds.items():
        own = sum(value for (part, network), value in values.items() if part != START_UP and not network)
        targets.append(Target(f"{name}, share of what is no network's", own / totals[name], "<=", 0.10))
        if settings.is_gpu:
            waiting = values["loading", False] / totals[name]
            targets.append(Target(f"{name}, share of waiting for data", waiting, "<=", 0.05))
    details = {
        "arguments": runs(settings),
        "seconds": {
            name: [{title(*key): value for key, value in values.items()} for values in repeats[name]]
            for name in repeats
        },
    }
    return Result("Where the time goes", rows, targets, details)


def runs(settings: Settings) -> dict[str, list[str]]:
    """Arguments of the command line."""
    cell = ["method=lrp_eps", METRICS, "canonize=true"]
    if settings.quick:
        few = ["data.size=4", "save_maps=1", "metric.input_perturbation.steps=2", "method=gradient,lrp_eps"]
        return {"embedded study": ["-m", METRICS, "canonize=true", *few]}
    size, images, many = settings.size(4, 128, 256), settings.size(4, 48, 256), settings.size(4, 2048, 8192)
    study = ["-m", METRICS, f"data.size={size}", "method=gradient,lrp_eps", "canonize=true,false"]
    networks = {"resnet18": "resnet", "vgg16_bn": "vgg"} if settings.is_gpu else {"resnet18": "resnet"}
    full = {
        f"{name} cell, 224 x 224": [
            *cell, "model=torchvision", f"model.name={name}", "model.net.weights=null", "model.net.num_classes=10",
            "model.label_space=scenes", f"canonizer={canonizer}", "data.side=224", f"data.size={images}",
        ]
        for name, canonizer in networks.items()
    }  # fmt: skip
    return {"embedded cell": cell, f"embedded cell, {many} images": [*cell, f"data.size={many}"], **full,
            "embedded study": study}  # fmt: skip


def seconds_by_part(folder: Path, arguments: list[str]) -> Shares:
    """Runs the command line in a process; what is not watched of it is start-up: the interpreter, imports, the end."""
    output = folder / "parts.json"
    usage = processes.measured("benchmarks.parts", [str(output), *arguments], folder)
    rows = json.loads(output.read_text())
    found = {(row["part"], row[NETWORK]): row["seconds"] for row in rows if row["part"] != START_UP}
    return found | {(START_UP, False): usage.seconds - sum(found.values())}


def median(repeats: list[Shares]) -> Shares:
    keys = dict.fromkeys(key for values in repeats for key in values)
    return {key: statistics.median(values.get(key, 0.0) for values in repeats) for key in keys}


def order(seconds: dict[str, Shares]) -> Any:
    """The network's parts first, then by their largest time."""
    return lambda key: (not key[1], -max(values.get(key, 0.0) for values in seconds.values()))


def title(part: str, network: bool) -> str:
    return f"{part}: network" if network else part
