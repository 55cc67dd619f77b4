"""Images per second that one core loads: canonxai, without and with its cache, against torchvision's ImageFolder.

``python benchmarks/loading.py [--images N] [--repeats N] [--output loading.json]``. All read the same JPEGs of
500 x 375 pixels, crops of real photographs, in one process and one thread, from the operating system's file cache. The
ways take turns in each repeat, and the median counts; time is that of the processor, so other processes matter little.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize

from canonxai.data.cache import Cached
from canonxai.data.ilsvrc_classes import labels
from canonxai.data.imagenet import ImageNet

SIZE = (500, 375)
QUALITY = 97  #: gives about 90 kB an image; ILSVRC2012's have 110
XML = """<annotation><size><width>500</width><height>375</height></size><object><name>{}</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("loading.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = write(root, arguments.images)
        dataset = ImageNet(str(root))
        started = time.process_time()
        cached = Cached(dataset, root / "caches")
        building = arguments.images / (time.process_time() - started)
        official, geometry = ResNet18_Weights.IMAGENET1K_V1.transforms(), [Resize(256), CenterCrop(224), PILToTensor()]
        ways = {
            "torchvision ImageFolder, official transforms": ImageFolder(root / "val", official),
            "torchvision ImageFolder, uint8": ImageFolder(root / "val", Compose(geometry)),
            "canonxai, boxes": dataset,
            "canonxai, boxes, cached": cached,
        }
        speeds = measure({name: lambda way=way: load(way) for name, way in ways.items()}, arguments)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "images": arguments.images,
        "kilobytes_per_image": size / arguments.images / 1000,
        "images_per_second_and_core": medians,
        "repeats": speeds,
        "writing_the_cache": building,
        "machine": {"processor": processor(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("canonxai", "torch", "torchvision", "pillow", "numpy")},
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    show(result, speeds, medians)


def write(root: Path, count: int) -> int:
    """Writes images and annotations as ILSVRC2012's validation set, by class; returns the bytes of all images."""
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    rng, wnids = np.random.default_rng(0), list(labels())
    size = 0
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        width = int(rng.integers(SIZE[0] // 2, photograph.height * SIZE[0] // SIZE[1]))
        height = width * SIZE[1] // SIZE[0]
        left, top = (int(rng.integers(space + 1)) for space in (photograph.width - width, photograph.height - height))
        wnid, name = wnids[index % 10], f"ILSVRC2012_val_{index:08}"
        image, xml = root / "val" / wnid / f"{name}.JPEG", root / "Annotations" / "val" / f"{name}.xml"
        for path in (image, xml):
            path.parent.mkdir(parents=True, exist_ok=True)
        photograph.resize(SIZE, box=(left, top, left + width, top + height)).save(image, quality=QUALITY)
        xml.write_text(XML.format(wnid, *rng.integers(0, 180, 2), *rng.integers(190, 375, 2)))
        size += image.stat().st_size
    return size


def load(dataset: Any) -> int:
    """Reads all samples."""
    return sum(1 for index in range(len(dataset)) if dataset[index])


def measure(ways: dict[str, Callable[[], int]], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of each way in each repeat; one more comes before, which does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats + 1):
        for name, way in ways.items():
            started = time.process_time()
            speeds[name].append(way() / (time.process_time() - started))
    return {name: values[1:] for name, values in speeds.items()}


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(result: dict[str, Any], speeds: dict[str, Sequence[float]], medians: dict[str, float]) -> None:
    """The table."""
    table = Table(title=f"{result['images']} JPEGs of {result['kilobytes_per_image']:.0f} kB", title_justify="left")
    table.add_column("way", no_wrap=True)
    for heading in ("images/s per core", "least", "most", "relative"):
        table.add_column(heading, justify="right")
    first = next(iter(medians.values()))
    for name, median in medians.items():
        values = median, min(speeds[name]), max(speeds[name])
        table.add_row(name, *(f"{value:.0f}" for value in values), f"{median / first:.2f} x")
    console = Console(width=100)
    console.print(table)
    console.print(f"writing the cache: {result['writing_the_cache']:.0f} images/s")


if __name__ == "__main__":
    main()
