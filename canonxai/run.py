"""One cell of the grid, or several that share data and network. The only file that reads the config.

Config -> objects -> ``Trainer.predict`` -> summary.
"""

import dataclasses
import logging
import os
import platform
import shutil
import subprocess
import sys
import typing
import uuid
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
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
from canonxai.determinism import deterministic
from canonxai.errors import UserError, check, check_choice
from canonxai.explainer import Explainer, Explainers
from canonxai.memo import OriginalMaps
from canonxai.metrics import Metric, columns_of
from canonxai.models.build import build_network
from canonxai.models.evaluator import Evaluator
from canonxai.models.labels import LabelCheck, output_names, outputs_of_labels
from canonxai.models.normalization import Normalization
from canonxai.parallel import Processes, Share, devices_of, parent
from canonxai.progress import ImageProgress
from canonxai.results.cell import Plan, finish
from canonxai.results.loggers import Cell, close, log_results
from canonxai.results.store import Store, StoreWriter, durable, locked, sample_schema, write_csv, writing
from canonxai.results.summary import print_summary
from canonxai.resume import complete
from canonxai.signals import Interrupted, batches, end_if_interrupted

log = logging.getLogger(__name__)
ORIGINALS = OriginalMaps()  #: shared by the cells of a multirun
PRECISIONS = {32: torch.float32, 64: torch.float64}
MAPS_DEPEND_ON = ["seed", "precision", "perturbation", "target", "data", "model", "method"]
PACKAGES = ("canonxai", "torch", "torchvision", "zennit", "pytorch-lightning", "hydra-core", "numpy", "scipy")


def run(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """Computes one cell and writes its results to ``folder``, or what is lacking of them.

    Args:
        cfg: the composed config, see ``conf/config.yaml``.
        folder: the cell's own folder.

    Returns:
        The summary that ``summary.json`` holds; ``None`` if batches of other shards are lacking.

    Raises:
        UserError: for a mistake in the config, the model, the data or the folder.
    """
    return run_together([(cfg, folder)])[0]


def run_together(cells: Sequence[tuple[DictConfig, Path]]) -> list[dict[str, Any] | None]:
    """Computes cells whose configs differ in their methods alone.

    They share network and data: each batch is loaded, and evaluated without perturbation, once for all. A cell that
    fails does not stop the others. What is already there is kept, cells and batches.

    Args:
        cells: the config of each, and its folder.

    Returns:
        The summary of each.

    Raises:
        UserError: as :func:`run`; of a cell that failed once all others are complete.
    """
    quiet()
    for cfg, _ in cells:
        check_groups(cfg)
    summaries = [complete(folder, plain(cfg)) if cfg.run.resume else None for cfg, folder in cells]
    for (_, folder), summary in zip(cells, summaries, strict=True):
        if summary is not None:
            print_summary(summary, output_console())
            print("complete before; run.resume=false computes it anew")
            shutil.rmtree(folder / "parts", ignore_errors=True)  # of a run that was killed at the very end
    lacking = [cell for cell, summary in zip(cells, summaries, strict=True) if summary is None]
    computed = iter(compute(lacking) if lacking else ())
    return [next(computed) if summary is None else summary for summary in summaries]


def compute(cells: Sequence[tuple[DictConfig, Path]]) -> list[dict[str, Any] | None]:
    """Computes what is lacking of cells that are not complete; else as :func:`run_together`."""
    cfg = cells[0][0]
    check(0 <= cfg.seed < 2**63, "seed", "an integer >= 0, < 2^63", cfg.seed)
    check_choice("precision", cfg.precision, PRECISIONS)
    check(cfg.save_maps >= 0, "save_maps", "an integer >= 0", cfg.save_maps)
    metrics = build_metrics(cfg)
    dataset = build(cfg.data, "data", Data)
    if not getattr(dataset, "has_masks", True) and "mask" in (getattr(m, "region", "") for m in metrics.values()):
        log.warning("metric: the data has boxes alone, so region=mask evaluates the boxes")
    if cfg.data.cache is not None:
        dataset = Cached(dataset, cfg.data.cache, cfg.data.num_workers)
    names = dataset.classes if cfg.model.classes is None else output_names(cfg.model.classes)
    outputs = outputs_of_labels(names, dataset.classes, getattr(dataset, "class_ids", None))
    data = DataModule(dataset, cfg.data.batch_size, cfg.data.num_workers, cfg.data.on_error, outputs)
    share, devices = Share.of(cfg.data.shard), choose_devices(cfg)
    shares = [share.split(rank, len(devices)) for rank in range(len(devices))]
    check(cfg.run.resume or cfg.data.shard is None, "run.resume", "true with data.shard", False, "Remove the folder.")
    processes = Processes(shares[1:], [f"[{number}]" if is_gpu(cfg) else "1" for number in devices[1:]])
    label_check = LabelCheck(len(names))
    with ExitStack() as stack:
        stack.enter_context(deterministic(cfg.run.deterministic))
        explainers = build_explainers([cfg for cfg, _ in cells], metrics, len(names))
        trainer = build_trainer(cfg)
        lead = parent() is None
        if lead:
            for _, folder in cells:
                stack.enter_context(locked(folder, f"shard-{share.index + 1}-of-{share.count}"))
        opened = [CellOutput(cfg, folder, metrics, data, len(cells)) for cfg, folder in cells]
        if lead:
            for output, explainer in zip(opened, explainers, strict=True):
                output.begin()
                write_rules(output.folder, explainer, data)
        logger = opened[0].logger() if lead else None
        failed = True
        try:
            done = [output.store.done for output in opened]
            data.todo = [
                batch for batch in range(data.batches) if batch in shares[0] and not all(batch in d for d in done)
            ]
            if any(done):
                told = ", ".join(str(len(batches)) for batches in done)
                log.info("resume: %s of %d batches are there", told, data.batches)
            console = output_console()
            what = cfg.method.title if len(cells) == 1 else f"{len(cells)} methods"
            part = "" if shares[0].count == 1 else f", {shares[0]}"
            title = f"{what}, {cfg.model.name}, {state(cfg)}{part}"
            progress = ImageProgress(title, data.images(data.todo), console)
            module = Explainers(explainers, [set(batches) for batches in done])
            session = Session(opened, cfg, explainers[0])
            callbacks: list[Callback] = [OfCell(output.writer, place) for place, output in enumerate(opened)]
            callbacks = [session, *callbacks, progress, OfCell(label_check, 0), Attentive(processes)]
            trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
            with processes:
                predict(trainer, module, data)
                processes.wait()
            summaries: list[dict[str, Any] | None] = []
            for place, output in enumerate(opened):
                if place in module.errors or not lead:
                    continue
                try:
                    summaries.append(output.finish(share))
                except UserError as error:
                    module.errors[place] = error
                    if len(module.errors) == len(cells):
                        raise
                    continue
                if (summary := summaries[-1]) is not None:
                    logger = logger if place == 0 else output.logger()
                    log_results(logger, output.cell, summary)
                    close(logger, failed=False)
                    print_summary(summary, console)
            failed = False
        finally:
            close(logger, failed)
    for place, failure in module.errors.items():
        log.error("%s: %s", cells[place][0].method.name, failure)
    for failure in module.errors.values():
        if not isinstance(failure, UserError):  # with its traceback
            raise failure
    if module.errors and lead:  # the lead finds out what lacks
        raise UserError(f"method: expected all to succeed, got errors of {len(module.errors)} of {len(cells)}.")
    return summaries if lead else [None] * len(cells)


def predict(trainer: Trainer, module: Explainers, data: DataModule) -> None:
    """Lightning's predict loop; a signal ends it after a batch."""
    with batches():
        try:
            if data.todo:
                trainer.predict(module, datamodule=data, return_predictions=False)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"data.num_workers: expected loading processes that live, got: {reason} What was computed is kept, and "
                "the same command goes on. Too little memory is a frequent cause: use fewer of them."
            ) from error


def output_console() -> Console:
    """The terminal, or a file of lines that are long enough for the tables."""
    return Console(width=None if sys.stdout.isatty() else 120)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as it is read from a file."""
    return typing.cast("dict[str, Any]", yaml.safe_load(OmegaConf.to_yaml(cfg, resolve=True)))


class CellOutput:
    """What one cell writes.

    Args:
        cfg: the cell's config.
        folder: the cell's folder.
        metrics: what is computed.
        data: the samples.
        together: how many cells are computed at once.
    """

    def __init__(
        self, cfg: DictConfig, folder: Path, metrics: dict[str, Metric], data: DataModule, together: int
    ) -> None:
        self.cfg, self.folder, self.data = cfg, folder, data
        settings = typing.cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        self.cell = Cell(cfg.study, cell_name(cfg), folder, settings, (cfg.model.name, cfg.method.name, state(cfg)))
        self.store = Store(folder, sample_schema(metrics))
        if parent() is None and not cfg.run.resume:
            with writing(folder):
                (folder / "summary.json").unlink(missing_ok=True)
            self.store.clear()
        self.writer = StoreWriter(self.store, cfg.save_maps, together)
        about = {
            "study": cfg.study,
            "cell": self.cell.name,
            "data": cfg.data.name,
            "model": cfg.model.name,
            "method": cfg.method.name,
            "title": cfg.method.title,
            "canonize": cfg.canonize,
            "state": state(cfg),
            "together": together,
        }
        excluded = [dataclasses.astuple(entry) for entry in getattr(data.dataset, "excluded", ())]
        self.plan = Plan(about, columns_of(metrics), data.batches, len(data.dataset), cfg.save_maps, excluded)

    def begin(self) -> None:
        """Writes what is known before anything is computed."""
        with writing(self.folder), durable(self.folder / "config.yaml") as file:
            file.write(OmegaConf.to_yaml(self.cfg, resolve=True).encode())
        self.plan.write(self.folder)

    def logger(self) -> Any:
        return build(self.cfg.logger, "logger", cell=self.cell) if self.cfg.logger else None

    def finish(self, share: Share) -> dict[str, Any] | None:
        """Completes the results, and writes and returns the summary, once all shares are there."""
        with locked(self.folder, "merge", wait=True):
            if (summary := complete(self.folder, plain(self.cfg))) is not None:
                return summary  # another shard was faster
            self.store.refresh()
            own = [batch for batch in range(self.data.batches) if batch in share]
            count = sum(batch in self.store.done for batch in own)
            check(count == len(own), "trainer", f"all {len(own)} batches to be explained", count)
            if len(self.store.done) < self.data.batches:
                log.info(
                    "shard %s is complete: %d of %d batches are there; the job that computes the last one writes the "
                    "results", share, len(self.store.done), self.data.batches,
                )  # fmt: skip
                return None
            return finish(self.store, self.plan)


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


class Session(Callback):
    """Keeps what this process measured of the networks, for the summary, as long as it measures."""

    def __init__(self, outputs: Sequence[CellOutput], cfg: DictConfig, explainer: Explainer) -> None:
        self.outputs, self.cfg, self.explainer = outputs, cfg, explainer
        self.name, self.measured = uuid.uuid4().hex, -1

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        measured = self.explainer.verified + self.explainer.evaluator.effect.images
        if measured == self.measured:
            return
        self.measured = measured
        about = {
            "agreement": agreement(self.explainer),
            "evaluation": evaluation(self.cfg, self.explainer.evaluator),
            "device": str(trainer.strategy.root_device),
            "versions": versions(),
        }
        for output in self.outputs:
            output.store.write_session(self.name, about)


class Attentive(Callback):
    """Ends the loop after a batch if a signal came, another process of this run failed, or the one it helps is gone."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        end_if_interrupted()
        self.processes.look()
        if parent() not in (None, os.getppid()):
            raise Interrupted("the end of the process that started this one")


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


def is_gpu(cfg: DictConfig) -> bool:
    return str(cfg.trainer.get("accelerator")) != "cpu"


def choose_devices(cfg: DictConfig) -> list[int]:
    """The devices, one a process; the config is left with the first."""
    if cfg.trainer.get("accelerator") == "auto":  # of GPUs, only those that compute in float64, as the checks do
        cfg.trainer.accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    nodes = cfg.trainer.get("num_nodes", 1)
    check(nodes == 1, "trainer.num_nodes", "1", nodes, "Give each machine a part of the cell by data.shard=i/n.")
    if (given := cfg.trainer.get("devices", 1)) == 1:
        return [0]
    devices = devices_of(
        cfg.trainer.accelerator, OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    )
    cfg.trainer.devices = [devices[0]] if is_gpu(cfg) else 1
    return devices


def build_trainer(cfg: DictConfig, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Lightning's Trainer, so that gradients can be had in its predict loop."""
    try:
        trainer: Trainer = build(
            cfg.trainer,
            "trainer",
            logger=False,
            callbacks=list(callbacks),
            inference_mode=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"trainer: expected a device of this machine, got: {reason} Use trainer=auto.") from error
    check(
        trainer.world_size == 1, "trainer", "processes that trainer.devices or data.shard make, and no others",
        f"{trainer.world_size} of {type(trainer.strategy).__name__}",
    )  # fmt: skip
    return trainer


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
