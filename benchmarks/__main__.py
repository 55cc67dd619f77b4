"""``python -m benchmarks [NAME ...] [--quick] [--output FOLDER]``: measures, prints tables, writes a JSON each.

Results go to ``benchmarks/results/DEVICE/``, those of ``--quick`` to ``multirun/benchmarks/DEVICE/``. Targets are told
as met or missed; only results that differ where they must not make it fail.
"""

import argparse
import importlib
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.harness import ROOT, Settings, device, show, write

#: in the order in which they run; the grid reads what perturbation and attribution found
NAMES = ("perturbation", "attribution", "metrics", "grid", "cell", "growth", "load", "devices", "loading")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(":")[2].strip())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument(
        "--quick", action="store_true", help="as little as shows that everything runs; the figures mean nothing"
    )
    parser.add_argument("--output", type=Path, help="the folder of the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"expected names of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    output = arguments.output or ROOT / ("multirun/benchmarks" if arguments.quick else "benchmarks/results")
    warnings.filterwarnings("ignore")  # of the peers
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # all compute in exact float32
    console = Console(width=110)
    settings = Settings(arguments.quick, device(), output)
    for name in arguments.names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        started = time.monotonic()
        with console.status(name):
            result = benchmark.run(settings)
        if settings.quick:
            result.targets = []  # its figures mean nothing
        result.details["seconds"] = time.monotonic() - started
        show(result, console)
        path = write(name, result, settings)
        console.print(f"{path.relative_to(output)}, {result.details['seconds']:.0f} s\n", style="dim")


if __name__ == "__main__":
    main()
