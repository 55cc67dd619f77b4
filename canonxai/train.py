"""Trains a network for the embedded benchmark: ``python -m canonxai.train model=resnet18``.

Every training scene is seen once: ``samples`` fresh scenes of the training split, each batch slightly rotated, scaled
and sheared; AdamW with a one-cycle schedule. The file that is written holds weights in half precision, and records
the accuracy of just these, the seed and the recipe.
"""

import json
import logging
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import RandomAffine

from canonxai.cli import command, job
from canonxai.config import CONF, Data, build, check_groups, register
from canonxai.data import Batch, LocalizationDataset
from canonxai.data.scenes import SENSOR_NOISE
from canonxai.models.build import build_network
from canonxai.models.checkpoint import load_weights, save_weights
from canonxai.models.normalization import Normalization

log = logging.getLogger(__name__)
TEST_SIZE = 5_000  #: test scenes for the recorded accuracy


class Classifier(LightningModule):
    """A network and the recipe that trains it."""

    def __init__(self, model: nn.Module, normalize: nn.Module, cfg: DictConfig) -> None:
        super().__init__()
        self.model, self.normalize, self.cfg = model, normalize, cfg
        # there are only some 1,400 digits to learn from
        self.distort = RandomAffine(degrees=10, scale=(0.9, 1.1), shear=10)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.model(self.normalize(self.distort(batch["image"])))
        return nn.functional.cross_entropy(logits, batch["label"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.cfg.learning_rate, weight_decay=self.cfg.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.cfg.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def accuracy(model: nn.Module, normalize: nn.Module, dataset: LocalizationDataset, batch_size: int = 256) -> float:
    """The fraction of a data set that a model classifies correctly, in [0, 1]; higher is better."""
    model.eval()
    correct = 0
    for batch in DataLoader(dataset, batch_size=batch_size):  # type: ignore[arg-type]
        correct += int((model(normalize(batch["image"])).argmax(1) == batch["label"]).sum())
    return correct / len(dataset)


def train(cfg: DictConfig) -> float:
    """Trains, writes ``cfg.output`` and returns the test accuracy of what was written."""
    check_groups(cfg)
    seed_everything(cfg.seed, workers=True)
    normalize = Normalization(cfg.data.mean, cfg.data.std)
    cfg.data.size = cfg.samples
    dataset = build(cfg.data, "data", Data)
    loader = DataLoader(dataset, batch_size=cfg.batch_size, num_workers=cfg.data.num_workers, drop_last=True)
    model = build_network(cfg.model, cfg.data.label_space, trained=False)
    trainer: Trainer = build(
        cfg.trainer, "trainer", max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(Classifier(model.to(memory_format=torch.channels_last), normalize, cfg), loader)

    path = Path(cfg.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model.cpu(), path, {})
    load_weights(model, path)  # measure what is stored, in half precision
    noise = cfg.data.noise
    cfg.data.update(split="test", size=TEST_SIZE, seed=cfg.data.seed + 1, noise=SENSOR_NOISE)
    score = accuracy(model, normalize, build(cfg.data, "data", Data))
    recipe = {key: cfg[key] for key in ("samples", "batch_size", "learning_rate", "weight_decay")}
    recipe |= {"noise": noise, "torch": torch.__version__}
    recipe |= {"optimizer": "AdamW, one-cycle schedule", "augmentation": "affine"}
    save_weights(
        model, path,
        {"accuracy": f"{score:.4f}", "test_size": str(TEST_SIZE), "seed": str(cfg.seed), "recipe": json.dumps(recipe)},
    )  # fmt: skip
    log.info("test accuracy %.4f on %d scenes, written to %s", score, TEST_SIZE, path)
    return score


@command
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@job
def main(cfg: DictConfig) -> float:
    return train(cfg)


register()

if __name__ == "__main__":
    main()
