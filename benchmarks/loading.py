"""Images a second that one core loads: canonxai, without and with its cache, against torchvision's ImageFolder.

All read the same JPEGs of 500 x 375 pixels, crops of real photographs, in one process and one thread, from the
operating system's file cache. Time is that of the processor, so other processes matter little.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize

from benchmarks.harness import Result, Settings, speedup, turns
from canonxai.data.cache import Cached
from canonxai.data.ilsvrc_classes import labels
from canonxai.data.imagenet import ImageNet

SIZE = (500, 375)
QUALITY = 97  #: gives about 90 kB an image; ILSVRC2012's have 110
XML = """<annotation><size><width>500</width><height>375</height></size><object><name>{}</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"""


def run(settings: Settings) -> Result:
    """Measures all ways to load."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return measure(Path(folder), settings.size(10, 100, 200), settings)
    finally:
        torch.set_num_threads(threads)


def measure(root: Path, images: int, settings: Settings) -> Result:
    """The table."""
    size = write(root, images)
    dataset = ImageNet(str(root))
    started = time.process_time()
    cached = Cached(dataset, root / "caches")
    building = images / (time.process_time() - started)
    official, geometry = ResNet18_Weights.IMAGENET1K_V1.transforms(), [Resize(256), CenterCrop(224), PILToTensor()]
    ways = {
        "torchvision ImageFolder, official transforms": ImageFolder(root / "val", official),
        "torchvision ImageFolder, uint8": ImageFolder(root / "val", Compose(geometry)),
        "canonxai, boxes": dataset,
        "canonxai, boxes, cached": cached,
    }
    seconds, counts = turns(
        {name: lambda way=way: load(way) for name, way in ways.items()}, settings.repeats, time.process_time
    )
    if set(counts.values()) != {images}:
        raise RuntimeError(f"expected {images} images of each way, got {counts}")
    first = next(iter(ways))
    rows = [
        {
            "way": name,
            "images/s per core": images / statistics.median(values),
            "least": images / max(values),
            "most": images / min(values),
            "relative": speedup(seconds, name, first),
        }
        for name, values in seconds.items()
    ]
    kilobytes = size / images / 1000
    details = {"images": images, "kilobytes_per_image": kilobytes, "writing_the_cache": building, "seconds": seconds}
    return Result(f"{images} JPEGs of {kilobytes:.0f} kB", rows, details=details)


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
