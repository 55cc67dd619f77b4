"""What one cell writes, from its config to its summary."""

import dataclasses
import logging
import time
import typing
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger
from rich.console import Console

from canonxai.attribution.rules import MERGED, rule_table
from canonxai.config import build, state
from canonxai.data import DataModule
from canonxai.errors import check
from canonxai.explainer import Explainer
from canonxai.files import durable, write_csv
from canonxai.metrics import Metric, columns_of
from canonxai.models.evaluator import Evaluator
from canonxai.parallel import Share, parent
from canonxai.results.cell import Plan, finish
from canonxai.results.loggers import Cell, close, log_results
from canonxai.results.store import Store, StoreWriter, locked, sample_schema, writing
from canonxai.results.summary import print_summary
from canonxai.resume import complete
from canonxai.versions import versions

log = logging.getLogger(__name__)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as it is read from a file."""
    return typing.cast("dict[str, Any]", yaml.safe_load(OmegaConf.to_yaml(cfg, resolve=True)))


def described(cfg: DictConfig, name: str) -> dict[str, Any]:
    """What a summary says of its cell, before any result."""
    return {
        "study": cfg.study,
        "cell": name,
        "data": cfg.data.name,
        "model": cfg.model.name,
        "method": cfg.method.name,
        "title": cfg.method.title,
        "canonize": cfg.canonize,
        "state": state(cfg),
    }


class CellOutput:
    """What one cell writes.

    Args:
        cfg: the cell's config.
        folder: the cell's folder.
        name: the cell's name.
        metrics: what is computed.
        data: the samples.
        together: how many cells are computed at once.
        weights: a hash of the network's.
    """

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        name: str,
        metrics: dict[str, Metric],
        data: DataModule,
        together: int,
        weights: str,
    ) -> None:
        self.cfg, self.folder, self.data = cfg, folder, data
        self.logger: Logger | None = None
        settings = typing.cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        self.cell = Cell(cfg.study, name, folder, settings, (cfg.model.name, cfg.method.name, state(cfg)))
        columns = columns_of(metrics)
        self.store = Store(folder, sample_schema(columns))
        if parent() is None and not cfg.run.resume:
            with writing(folder):
                (folder / "summary.json").unlink(missing_ok=True)
            self.store.clear()
        if parent() is None:
            self.store.drop_sessions()
        self.writer = StoreWriter(self.store, cfg.save_maps, together)
        about = {**described(cfg, name), "together": together}
        excluded = [dataclasses.astuple(entry) for entry in getattr(data.dataset, "excluded", ())]
        sizes = data.batches, data.batch_size, len(data.dataset)
        self.plan = Plan(about, columns, *sizes, cfg.save_maps, weights, excluded)

    def begin(self, explainer: Explainer) -> None:
        """Writes what is known before anything is computed.

        Raises:
            UserError: if there are parts of other weights, images or maps, or the folder cannot be written to.
        """
        if self.store.done:
            self.plan.check_parts(self.folder)
        with writing(self.folder), durable(self.folder / "config.yaml") as file:
            file.write(OmegaConf.to_yaml(self.cfg, resolve=True).encode())
        self.plan.write(self.folder)
        write_rules(self.folder, explainer, self.data)

    def open_logger(self) -> None:
        """Begins the logger's run, unless it has begun."""
        if self.logger is None and self.cfg.logger:
            self.logger = build(self.cfg.logger, "logger", cell=self.cell)

    def close_logger(self, failed: bool) -> None:
        """Ends the logger's run, unless it has ended."""
        if self.logger is not None:
            close(self.logger, failed)
            self.logger = None

    def conclude(self, share: Share, console: Console) -> dict[str, Any] | None:
        """Completes, logs and prints the results once all shares are there; returns the summary."""
        summary = self.finish(share)
        if summary is not None:
            self.open_logger()
            if self.logger is not None:
                log_results(self.logger, self.cell, summary)
            self.close_logger(failed=False)
            print_summary(summary, console)
        return summary

    def finish(self, share: Share) -> dict[str, Any] | None:
        """Completes the results and returns the summary, once all shares are there."""
        with locked(self.folder, "merge", wait=True):
            if (summary := complete(self.folder, plain(self.cfg))) is not None:
                return summary  # another shard was faster
            self.store.refresh()
            own = share.batches(self.data.batches)
            count = sum(batch in self.store.done for batch in own)
            check(count == len(own), "trainer", f"all {len(own)} batches to be explained", count)
            if len(self.store.done) < self.data.batches:
                log.info(
                    "shard %s is complete: %d of %d batches are there; the job that computes the last one writes the "
                    "results", share, len(self.store.done), self.data.batches,
                )  # fmt: skip
                return None
            return finish(self.store, self.plan)


class Session(Callback):
    """Keeps what this process measured of the networks, for the summary."""

    def __init__(self, outputs: Sequence[CellOutput], cfg: DictConfig, explainer: Explainer) -> None:
        self.outputs, self.cfg, self.explainer = outputs, cfg, explainer
        self.name = f"{time.time_ns()}-{uuid.uuid4().hex}"  # by time, as the last one is told
        self.versions, self.told = versions(), dict[str, Any]()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        about = {
            "agreement": agreement(self.explainer),
            "evaluation": evaluation(self.cfg, self.explainer.evaluator),
            "device": str(trainer.strategy.root_device),
            "versions": self.versions,
        }
        if about != self.told:
            self.told = about
            for output in self.outputs:
                output.store.write_session(self.name, about)


def write_rules(folder: Path, explainer: Explainer, data: DataModule) -> None:
    """Writes ``rules.csv``, the rule of every layer, and tells the counts in one line."""
    sample = data.first()
    query = explainer.query(sample["image"][None], torch.tensor([sample["label"]]), torch.tensor([sample["sample_id"]]))
    composite = explainer.method.composite(query, explainer.canonizers)
    layers = rule_table(explainer.explained, composite, explainer.canonizers)
    with writing(folder):
        names = [field.name for field in dataclasses.fields(layers[0])]
        write_csv(folder / "rules.csv", names, map(dataclasses.astuple, layers))
    counts = Counter(layer.rule for layer in layers)
    log.info("rules: %s; see rules.csv", ", ".join(f"{count} x {rule}" for rule, count in counts.most_common()))
    for layer in layers:
        if layer.note not in ("", MERGED):
            log.warning("rules: %s (%s, %d calls): %s", layer.layer, layer.type, layer.calls, layer.note)


def agreement(explainer: Explainer) -> dict[str, Any] | None:
    """How far the logits of the canonized network are from the original's, and on how many images that was measured."""
    if not explainer.agreement:
        return None
    difference = {dtype: dataclasses.asdict(value) for dtype, value in explainer.agreement.items()}
    return {"images": explainer.verified, "difference": difference}


def evaluation(cfg: DictConfig, evaluator: Evaluator) -> dict[str, Any]:
    """The form of the network that perturbation tests evaluated, and how far it is from the network as written."""
    return {
        "network": "fused" if evaluator.is_fused else "original",
        "precision": cfg.perturbation.precision,
        "batch_size": evaluator.batch_size.size,
        "difference": {dtype: dataclasses.asdict(value) for dtype, value in evaluator.agreement.items()},
        "effect": dataclasses.asdict(evaluator.effect),
    }
