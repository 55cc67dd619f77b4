"""One cell of the grid, or several that share data and network. The only file that reads the config.

Config -> objects -> ``Trainer.predict`` -> summary.
"""

import csv
import dataclasses
import json
import logging
import platform
import subprocess
import sys
import time
import typing
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console

from canonxai.attribution import Method
from canonxai.attribution.rules import MERGED, rule_table
from canonxai.config import Canonizer, Data, build, cell_name, check_groups, state
from canonxai.config import Method as MethodSchema
from canonxai.data import DataModule
from canonxai.data.cache import Cached
from canonxai.errors import UserError, check, check_choice
from canonxai.explainer import Explainer, Explainers
from canonxai.memo import OriginalMaps
from canonxai.metrics import Metric
from canonxai.models.build import build_network
from canonxai.models.evaluator import Evaluator
from canonxai.models.labels import LabelCheck, output_names, outputs_of_labels
from canonxai.models.normalization import Normalization
from canonxai.progress import ImageProgress
from canonxai.results.loggers import Cell, close, log_results
from canonxai.results.maps import MapsWriter
from canonxai.results.store import Store, StoreWriter, sample_schema, writing
from canonxai.results.summary import print_summary, summarize

log = logging.getLogger(__name__)
ORIGINALS = OriginalMaps()  #: shared by the cells of a multirun
PRECISIONS = {32: torch.float32, 64: torch.float64}
MAPS_DEPEND_ON = ["seed", "precision", "perturbation", "target", "data", "model", "method"]
PACKAGES = ("canonxai", "torch", "torchvision", "zennit", "pytorch-lightning", "hydra-core", "numpy", "scipy")


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Computes one cell and writes its results to ``folder``.

    Args:
        cfg: the composed config, see ``conf/config.yaml``.
        folder: the cell's own folder.

    Returns:
        The summary that ``summary.json`` holds.

    Raises:
        UserError: for a mistake in the config, the model, the data or the folder.
    """
    return run_together([(cfg, folder)])[0]


def run_together(cells: Sequence[tuple[DictConfig, Path]]) -> list[dict[str, Any]]:
    """Computes cells whose configs differ in their methods alone.

    They share network and data: each batch is loaded, and evaluated without perturbation, once for all. A cell that
    fails does not stop the others.

    Args:
        cells: the config of each, and its folder.

    Returns:
        The summary of each.

    Raises:
        UserError: as :func:`run`; of a cell that failed once all others are complete.
    """
    quiet()
    started = time.monotonic()
    for cfg, _ in cells:
        check_groups(cfg)
    cfg = cells[0][0]
    check(0 <= cfg.seed < 2**63, "seed", "an integer >= 0, < 2^63", cfg.seed)
    check_choice("precision", cfg.precision, PRECISIONS)
    metrics = build_metrics(cfg)
    dataset = build(cfg.data, "data", Data)
    if not getattr(dataset, "has_masks", True) and "mask" in (getattr(m, "region", "") for m in metrics.values()):
        log.warning("metric: the data has boxes alone, so region=mask evaluates the boxes")
    if cfg.data.cache is not None:
        dataset = Cached(dataset, cfg.data.cache, cfg.data.num_workers)
    names = dataset.classes if cfg.model.classes is None else output_names(cfg.model.classes)
    outputs = outputs_of_labels(names, dataset.classes, getattr(dataset, "class_ids", None))
    data = DataModule(dataset, cfg.data.batch_size, cfg.data.num_workers, cfg.data.on_error, outputs)
    explainers = build_explainers([cfg for cfg, _ in cells], metrics, len(names))
    outputs_of_cells = [CellOutput(cfg, folder, metrics, data) for cfg, folder in cells]
    for output, explainer in zip(outputs_of_cells, explainers, strict=True):
        write_rules(output.folder, explainer, data)

    console = Console(width=None if sys.stdout.isatty() else 120)
    logger = outputs_of_cells[0].logger()
    what = cfg.method.title if len(cells) == 1 else f"{len(cells)} methods"
    progress = ImageProgress(f"{what}, {cfg.model.name}, {state(cfg)}", len(data.dataset), console)
    callbacks = [callback for place, output in enumerate(outputs_of_cells) for callback in output.callbacks(place)]
    module = Explainers(explainers)
    failed = True
    try:
        trainer = build_trainer(cfg, logger, [*callbacks, progress, OfCell(LabelCheck(len(names)), 0)])
        trainer.predict(module, datamodule=data, return_predictions=False)
        about = {
            "agreement": agreement(explainers[0]),
            "evaluation": evaluation(cfg, explainers[0].evaluator),
            "device": str(trainer.strategy.root_device),
            "versions": versions(),
            "together": len(cells),
        }
        summaries = []
        for place, output in enumerate(outputs_of_cells):
            if place in module.errors:
                continue
            logger = logger if place == 0 else output.logger()
            summaries.append(output.finish((time.monotonic() - started) / len(cells), about))
            log_results(logger, output.cell, summaries[-1])
            close(logger, failed=False)
            print_summary(summaries[-1], console)
        failed = False
    finally:
        close(logger, failed)
    for place, error in module.errors.items():
        log.error("%s: %s", cells[place][0].method.name, error)
    if module.errors:
        raise UserError(f"method: expected all to succeed, got errors of {len(module.errors)} of {len(cells)}.")
    return summaries


class CellOutput:
    """What one cell writes.

    Args:
        cfg: the cell's config.
        folder: the cell's folder.
        metrics: what is computed.
        data: the samples.
    """

    def __init__(self, cfg: DictConfig, folder: Path, metrics: dict[str, Metric], data: DataModule) -> None:
        self.cfg, self.folder, self.metrics, self.data = cfg, folder, metrics, data
        settings = typing.cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        self.cell = Cell(cfg.study, cell_name(cfg), folder, settings, (cfg.model.name, cfg.method.name, state(cfg)))
        self.store = Store(folder, sample_schema(metrics))
        self.writer = StoreWriter(self.store, getattr(data.dataset, "excluded", ()))
        self.maps = MapsWriter(folder, cfg.save_maps)

    def logger(self) -> Any:
        return build(self.cfg.logger, "logger", cell=self.cell) if self.cfg.logger else None

    def callbacks(self, place: int) -> list[Callback]:
        return [OfCell(callback, place) for callback in (self.writer, self.maps)]

    def finish(self, seconds: float, about: dict[str, Any]) -> dict[str, Any]:
        """Completes the results, and writes and returns the summary."""
        cfg, images = self.cfg, len(self.data.dataset)
        expected = images - self.writer.unreadable
        check(self.store.rows == expected, "trainer", f"all {expected} images to be explained", self.store.rows)
        self.store.finish()
        summary = {
            "study": cfg.study,
            "cell": self.cell.name,
            "data": cfg.data.name,
            "model": cfg.model.name,
            "method": cfg.method.name,
            "title": cfg.method.title,
            "canonize": cfg.canonize,
            "state": state(cfg),
            **summarize(self.store, self.metrics),
            "excluded": len(self.writer.before) + self.writer.unreadable,
            "seconds": seconds,
            "images_per_second": images / seconds,
            **about,
            "folder": str(self.folder),
        }
        with writing(self.folder):
            (self.folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False))
        return summary


class OfCell(Callback):
    """Gives a callback what one of several explainers yields."""

    def __init__(self, callback: Any, place: int) -> None:
        self.callback, self.place = callback, place

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.callback.on_predict_batch_end(trainer, pl_module, outputs[self.place], batch, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.callback.on_predict_end(trainer, pl_module)


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics that the config names; no two may have a column of the same name."""
    check(len(cfg.metric) > 0, "metric", "at least one metric", [])
    metrics: dict[str, Metric] = {name: build(node, f"metric.{name}") for name, node in cfg.metric.items()}
    counts = Counter(column for metric in metrics.values() for column in metric.columns)
    twice = [column for column, count in counts.items() if count > 1]
    check(not twice, "metric", "metrics with columns of different names", twice)
    return metrics


def build_explainers(cfgs: Sequence[DictConfig], metrics: dict[str, Metric], outputs: int) -> list[Explainer]:
    """The network, the canonizer and each method, ready to explain batches."""
    cfg = cfgs[0]
    canonizer, options = None, {}
    if cfg.canonize:
        if cfg.canonizer is None or cfg.canonizer.get("_target_") is None:
            raise UserError(f"canonize: expected false, as model={cfg.model.name} names no canonizer, got True.")
        canonizer = build(cfg.canonizer, "canonizer", Canonizer)
        options = {"verify": cfg.canonizer.verify, "tolerance": cfg.canonizer.tolerance}
    methods: list[Method] = [build(cfg.method, "method", MethodSchema) for cfg in cfgs]
    depend_on = [OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, MAPS_DEPEND_ON), resolve=True) for cfg in cfgs]
    ORIGINALS.open("\n".join(depend_on))
    network, normalize = build_network(cfg.model, cfg.data.label_space), Normalization(cfg.data.mean, cfg.data.std)
    evaluator = Evaluator(network, normalize, **cfg.perturbation)
    return [
        Explainer(
            network,
            normalize,
            method,
            metrics,
            canonizer,
            outputs=outputs,
            target=cfg.target,
            precision=PRECISIONS[cfg.precision],
            seed=cfg.seed,
            evaluator=evaluator,
            originals=ORIGINALS.of(place),
            **options,
        )
        for place, method in enumerate(methods)
    ]


def build_trainer(cfg: DictConfig, logger: Any, callbacks: list[Any]) -> Trainer:
    """Lightning's Trainer, so that gradients can be had in its predict loop."""
    if cfg.trainer.get("accelerator") == "auto":  # of GPUs, only those that compute in float64, as the checks do
        cfg.trainer.accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        trainer: Trainer = build(
            cfg.trainer,
            "trainer",
            logger=logger or False,
            callbacks=callbacks,
            inference_mode=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"trainer: expected a device of this machine, got: {reason} Use trainer=auto.") from error
    check(trainer.world_size == 1, "trainer.devices", "one process (devices=1, num_nodes=1)", trainer.world_size)
    return trainer


def write_rules(folder: Path, explainer: Explainer, data: DataModule) -> None:
    """Writes ``rules.csv``, the rule of every layer, and tells the counts in one line."""
    sample = data.first()
    query = explainer.query(sample["image"][None], torch.tensor([sample["label"]]), torch.tensor([sample["sample_id"]]))
    composite = explainer.method.composite(query, explainer.canonizers)
    layers = rule_table(explainer.explained, composite, explainer.canonizers)
    with writing(folder), (folder / "rules.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(layers[0])])
        table.writeheader()
        table.writerows(map(dataclasses.asdict, layers))
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
    effect = evaluator.effect
    form = "fused" if evaluator.is_fused else "original"
    log.info(
        "perturbation: %s network, precision %s: f is that of the network as written in float64 up to %.1e, on average "
        "%.1e (%d images)", form, cfg.perturbation.precision, effect.max, effect.mean, effect.images,
    )  # fmt: skip
    return {
        "network": form,
        "precision": cfg.perturbation.precision,
        "batch_size": evaluator.batch_size.size,
        "difference": {dtype: dataclasses.asdict(value) for dtype, value in evaluator.agreement.items()},
        "effect": dataclasses.asdict(effect),
    }


def versions() -> dict[str, str | None]:
    """Of what computed the results; the git commit only where the package runs from a checkout."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | {"git_commit": _git_commit()}


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def quiet() -> None:
    """Keeps Lightning's hints, which are for training, out of the log."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    warnings.filterwarnings("ignore", message="Experiment logs directory")
