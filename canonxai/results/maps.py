"""The first maps of a cell, as arrays and as a picture."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pytorch_lightning import Callback, LightningModule, Trainer

from canonxai.data import Batch
from canonxai.errors import check
from canonxai.explainer import Evaluation
from canonxai.results.store import writing

COLUMNS = 8  #: pairs of image and map in a row


class MapsWriter(Callback):
    """Writes ``maps.npz`` and ``maps.png`` once it has seen the first ``count`` maps, or all if there are fewer.

    ``maps.npz`` holds ``sample_id``, ``label``, ``image`` (uint8, channels first), ``box`` and ``heatmap`` (float32,
    the channel-summed map).

    Args:
        folder: where to.
        count: how many, >= 0.
    """

    def __init__(self, folder: Path, count: int) -> None:
        check(count >= 0, "save_maps", "an integer >= 0", count)
        self.folder, self.missing = folder, count
        self.pieces: list[dict[str, np.ndarray]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Evaluation | None, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if outputs is not None and self.missing > 0:
            tensors = {
                "sample_id": batch["sample_id"],
                "label": batch["label"],
                "image": batch["image"],
                "box": batch["box"],
                "heatmap": outputs["heatmap"].to(torch.float32),
            }
            self.pieces.append({name: tensor[: self.missing].cpu().numpy() for name, tensor in tensors.items()})
            self.missing -= len(self.pieces[-1]["label"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.pieces:
            for name in ("maps.npz", "maps.png"):  # of an earlier run
                (self.folder / name).unlink(missing_ok=True)
            return
        maps = {name: np.concatenate([piece[name] for piece in self.pieces]) for name in self.pieces[0]}
        with writing(self.folder):
            np.savez_compressed(self.folder / "maps.npz", allow_pickle=False, **maps)
            draw_maps(self.folder / "maps.png", maps["image"], maps["box"], maps["heatmap"])


def draw_maps(
    path: Path,
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
    figure.savefig(path, dpi=100)
