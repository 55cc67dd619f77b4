"""The contact sheet: samples as the network sees them, with the outlines of box and mask."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from canonxai.data.base import Sample

COLUMNS = 8
INCHES = 1.8  #: the side of an image
LONGEST = 22  #: characters of a class name
BOX, MASK = "#ffe000", "#00e5ff"


def spread(labels: Int[np.ndarray, " n"], count: int) -> list[int]:
    """Places of at most ``count`` samples of as many classes as possible, ordered by class.

    Each class gives its first sample, then its second, and so on; where a round is not complete, its classes are
    evenly spaced.

    >>> spread(np.array([0, 0, 0, 1, 2, 2]), 4)
    [0, 1, 3, 4]
    >>> spread(np.array([0, 1, 2, 3]), 2)
    [0, 2]
    """
    order = np.argsort(labels, kind="stable")
    _, first, size = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, size)  # of a sample in its class
    chosen: list[int] = []
    for turn in range(min(count, size.max())):
        one_each = order[rank == turn]
        missing = min(count - len(chosen), len(one_each))
        chosen += one_each[np.linspace(0, len(one_each), missing, endpoint=False).astype(int)].tolist()
    return sorted(chosen, key=lambda place: (labels[place], place))


def draw_sheet(path: Path, samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """A grid of images, each with the outlines of its box and, where it is another, of its mask.

    The title of an image is the name of its class and its ``sample_id``.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(max(INCHES * columns, 3), (INCHES + 0.3) * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    has_mask = False
    for axes, sample in zip(grid.flat, samples, strict=False):
        axes.imshow(sample["image"].permute(1, 2, 0).numpy())
        _outline(axes, sample["box"], BOX)
        if not sample["mask"].equal(sample["box"]):
            has_mask = True
            _outline(axes, sample["mask"], MASK)
        name = classes[sample["label"]]
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        axes.set_title(f"{name} (#{sample['sample_id']})", fontsize=7, parse_math=False)
    shown = {"box": BOX} | ({"mask": MASK} if has_mask else {})
    handles = [Line2D([], [], color=color) for color in shown.values()]
    figure.legend(handles, list(shown), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)


def _outline(axes: Any, region: Bool[Tensor, "height width"], color: str) -> None:
    """Draws the edge of a region, also where it is the image's."""
    from matplotlib.patheffects import withStroke

    if not region.any():
        return
    height, width = region.shape
    padded = np.pad(region.numpy(), 1)
    lines = axes.contour(np.arange(-1, width + 1), np.arange(-1, height + 1), padded, levels=[0.5], colors=color)
    lines.set(linewidth=1.2, path_effects=[withStroke(linewidth=2.2, foreground="black")])
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
