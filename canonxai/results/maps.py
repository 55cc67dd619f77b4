"""The first maps of a cell, as arrays and as a picture.

They are kept with the results of their batch, packed, until the cell is complete.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from canonxai.data import Batch
from canonxai.files import durable
from canonxai.metrics.similarity import rescaled

COLUMNS = 8  #: pairs of image and map in a row


def pack(batch: Batch, heatmap: Float[Tensor, "batch height width"], count: int) -> list[bytes]:
    """At most ``count`` of a batch's first images and maps, each as a NumPy archive."""
    tensors = {name: batch[name] for name in ("sample_id", "label", "image", "box")}
    tensors["heatmap"] = as_float32(heatmap)
    packed = []
    for row in range(min(count, len(heatmap))):
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{name: tensor[row].cpu().numpy() for name, tensor in tensors.items()})
        packed.append(file.getvalue())
    return packed


def as_float32(heatmap: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """Maps in float32; those that are too large or too small for it over a power of two."""
    largest, held = heatmap.abs().amax((1, 2), keepdim=True), torch.finfo(torch.float32)
    is_held = (largest >= held.smallest_normal) & (largest <= held.max)
    return heatmap.where(is_held, rescaled(heatmap)).to(torch.float32)


def write_maps(folder: Path, packed: Sequence[bytes]) -> None:
    """Writes ``maps.npz`` and ``maps.png``, or removes those of an earlier run if there is no map.

    ``maps.npz`` holds ``sample_id``, ``label``, ``image`` (uint8, channels first), ``box`` and ``heatmap`` (float32,
    the channel-summed map; over a power of two if float32 cannot hold it, NaN if float64 cannot).
    """
    if not packed:
        for name in ("maps.npz", "maps.png"):
            (folder / name).unlink(missing_ok=True)
        return
    rows = [dict(np.load(io.BytesIO(content), allow_pickle=False)) for content in packed]
    maps = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    with durable(folder / "maps.npz") as npz, durable(folder / "maps.png") as png:
        np.savez_compressed(npz, allow_pickle=False, **maps)
        draw_maps(png, maps["image"], maps["box"], maps["heatmap"])


def draw_maps(
    file: IO[bytes],
    image: UInt8[np.ndarray, "n 3 height width"],
    box: Bool[np.ndarray, "n height width"],
    heatmap: Float[np.ndarray, "n height width"],
) -> None:
    """A grid, each image with its box above its map: red is positive, blue negative, each map to its own scale."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(image))
    rows = 2 * -(-len(image) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.5 * rows), layout="tight")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index in range(len(image)):
        row, column = 2 * (index // columns), index % columns
        axes[row, column].imshow(image[index].transpose(1, 2, 0))
        if box[index].any() and not box[index].all():
            axes[row, column].contour(box[index], levels=[0.5], colors="yellow", linewidths=1)
        limit = np.abs(heatmap[index]).max() or 1.0
        axes[row + 1, column].imshow(heatmap[index], cmap="seismic", vmin=-limit, vmax=limit)
    figure.savefig(file, format="png", dpi=100)
