"""Seconds and peak memory of very large work: a cell of a million images, and the report of a study of 1,000 cells.

Images have 8 x 8 pixels and the network three layers, so that nothing but the machinery is measured. The study is one
pair of cells, computed, and its copies with other seeds.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from benchmarks import processes
from benchmarks.harness import Result, Settings, Target

SIZES = (256, 10_000, 1_000_000)  #: images of a cell; of each cell of the study, the first
CELLS = 1_000
CELL = [
    "data._target_=benchmarks.load.Images", "model=custom", "model.net._target_=benchmarks.load.network",
    "allow_targets=[benchmarks.load.Images,benchmarks.load.network]",
    "canonizer=vgg", "method=gradient", "precision=32", "trainer=cpu", "save_maps=4", "data.batch_size=1000",
    "metric=[localization,input_perturbation]", "metric.input_perturbation.steps=2", "perturbation.batch_size=1000",
]  # fmt: skip


class Images:
    """A few images of noise with boxes, over and over."""

    classes = [str(label) for label in range(10)]  # noqa: RUF012

    def __init__(self, size: int, **_: Any) -> None:
        self.size = size
        noise = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=noise)
        self.boxes = torch.zeros(3, 8, 8, dtype=torch.bool)
        for number, box in enumerate(self.boxes):
            box[2 : 4 + 2 * number, 2:6] = True

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, box = self.images[index % len(self.images)], self.boxes[index % len(self.boxes)]
        return {"sample_id": index, "image": image, "label": index % 10, "box": box, "mask": box}


def network() -> nn.Module:
    """A convolution, BatchNorm and a linear layer, always the same."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def run(settings: Settings) -> Result:
    """Measures cells and reports of growing sizes."""
    sizes, cells = (SIZES[:1], 4) if settings.quick else (SIZES, CELLS)
    rows = []
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)

        def measure(what: str, module: str, *arguments: str) -> None:
            rows.append({"run": what, **vars(processes.measured(module, arguments, folder))})

        for images in sizes:
            for canonize in ("false", "true"):
                where = f"hydra.run.dir={folder}/{images}/{canonize}"
                what = f"cell of {images:,} images, canonize={canonize}"
                measure(what, "canonxai", *CELL, f"data.size={images}", f"canonize={canonize}", where)
            measure(f"report of 2 cells of {images:,} images", "canonxai.report", f"{folder}/{images}")
        copies(folder / str(sizes[0]), folder / "study", cells)
        measure(f"report of {cells:,} cells of {sizes[0]:,} images", "canonxai.report", f"{folder}/study")
    targets = [Target(f"{row['run']}, seconds", row["seconds"], "<=", 60) for row in rows if "report" in row["run"]]
    of_cells = [row for row in rows if "report" not in row["run"]]
    for row, base in zip(of_cells[4:], of_cells[2:], strict=False):
        grown = row["megabytes"] / base["megabytes"]
        targets.append(Target(f"{row['run']}, peak memory over that of {sizes[1]:,}", grown, "<=", 1.05))
    return Result("Load", rows, targets, {"cell": CELL})


def copies(pair: Path, study: Path, cells: int) -> None:
    """A study of copies of a pair of cells, each with another seed."""
    for seed in range(cells // 2):
        for cell in ("false", "true"):
            folder = shutil.copytree(
                pair / cell, study / f"{cell}-{seed}", ignore=shutil.ignore_patterns("*.log", ".*")
            )
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"seed": seed}))
            summary = (folder / "summary.json").read_text()
            (folder / "summary.json").write_text(summary.replace('"cell": "', f'"cell": "{seed}-', 1))
