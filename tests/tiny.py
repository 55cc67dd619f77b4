"""A cell of some milliseconds: images of 8 x 8 pixels, two of which cannot be read, and a network of three layers."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from canonxai.data import Excluded, Sample
from canonxai.parallel import PARENT

ALLOW = "allow_targets=[tests.tiny.Images,tests.tiny.network]"
CELL = [
    "data._target_=tests.tiny.Images", "data.size=14", "data.batch_size=2", "trainer=cpu", "save_maps=3",
    "model=custom", "model.net._target_=tests.tiny.network", "canonizer=vgg", "canonize=true", "canonizer.verify=3",
    "method=ixg", "metric=[localization,input_perturbation]", "metric.input_perturbation.steps=2", ALLOW,
]  # fmt: skip


class Images:
    """Noise with a square; the first image and the sixth cannot be read.

    Args:
        size: how many.
        pause: seconds that an image takes to load.
        killer: the process that loads image 9 dies while this file exists: ``loader`` if it loads for another,
            ``helper`` if it helps another.
    """

    classes = [str(label) for label in range(10)]  # noqa: RUF012

    def __init__(
        self, size: int = 14, pause: float = 0.0, killer: str | None = None,
        split: str = "", seed: int = 0, side: int = 8, noise: int = 0,
    ) -> None:  # fmt: skip
        self.size, self.pause, self.killer, self.main = size, pause, killer, os.getpid()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample | Excluded:
        time.sleep(self.pause)
        if index == 9 and self.killer and Path(self.killer).exists():
            dies = os.getpid() != self.main if Path(self.killer).name == "loader" else PARENT in os.environ
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
        if index in (0, 5):
            return Excluded(f"{index}.png", "unreadable image")
        image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        box = torch.zeros(8, 8, dtype=torch.bool)
        box[2:6, index % 4 : index % 4 + 4] = True
        return {"sample_id": 10 * index, "image": image, "label": index % 10, "box": box, "mask": box}


def network() -> nn.Module:
    """A convolution, BatchNorm, a linear layer, all random but always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        norm = nn.BatchNorm2d(4)
        nn.init.normal_(norm.running_mean)
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
