"""From a cell's config to the objects that compute it."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from zennit.canonizers import Canonizer

from canonxai.attribution import Method
from canonxai.config import Canonizer as CanonizerSchema
from canonxai.config import Data, build
from canonxai.config import Method as MethodSchema
from canonxai.data import DataModule
from canonxai.data.cache import Cached
from canonxai.data.classes import read_names
from canonxai.errors import UserError, check, check_choice
from canonxai.explainer import Explainer
from canonxai.memo import OriginalMaps
from canonxai.metrics import Metric
from canonxai.models.build import build_network
from canonxai.models.evaluator import Evaluator
from canonxai.models.labels import outputs_of_labels
from canonxai.models.normalization import Normalization
from canonxai.parallel import devices_of

log = logging.getLogger(__name__)
ORIGINALS = OriginalMaps()  #: shared by the cells of a multirun
PRECISIONS = {32: torch.float32, 64: torch.float64}
MAPS_DEPEND_ON = ["seed", "precision", "perturbation", "target", "data", "model", "method"]


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics that the config names; no two may have a column of the same name.

    Plain values beside them, as ``metric.name``, are what their arguments refer to.
    """
    nodes = {name: node for name, node in cfg.metric.items() if isinstance(node, DictConfig)}
    check(len(nodes) > 0, "metric", "at least one metric", [])
    metrics: dict[str, Metric] = {name: build(node, f"metric.{name}") for name, node in nodes.items()}
    counts = Counter(column for metric in metrics.values() for column in metric.columns)
    twice = [column for column, count in counts.items() if count > 1]
    check(not twice, "metric", "metrics with columns of different names", twice)
    return metrics


def build_data(cfg: DictConfig, metrics: Mapping[str, Metric]) -> tuple[DataModule, list[str]]:
    """The samples with the network's outputs as their labels, and the names of these outputs."""
    dataset = build(cfg.data, "data", Data)
    if not getattr(dataset, "has_masks", True) and "mask" in (getattr(m, "region", "") for m in metrics.values()):
        log.warning("metric: the data has boxes alone, so region=mask evaluates the boxes")
    for name, metric in metrics.items():
        check(
            cfg.data.batch_size % metric.group == 0, "data.batch_size",
            f"a multiple of metric.{name}.group={metric.group}", cfg.data.batch_size,
        )  # fmt: skip
    if cfg.data.cache is not None:
        dataset = Cached(dataset, cfg.data.cache, cfg.data.num_workers)
    names = dataset.classes if cfg.model.classes is None else read_names("model.classes", cfg.model.classes)
    outputs = outputs_of_labels(names, dataset.classes, getattr(dataset, "class_ids", None))
    return DataModule(dataset, cfg.data.batch_size, cfg.data.num_workers, cfg.data.on_error, outputs), names


def build_canonizer(cfg: DictConfig) -> Canonizer:
    """The canonizer.

    Raises:
        UserError: if the config names none.
    """
    if cfg.canonizer is None or cfg.canonizer.get("_target_") is None:
        model = cfg.model.name
        raise UserError(f"canonizer: expected one, got none for model={model}. Try canonizer=graph, or canonize=false.")
    canonizer: Canonizer = build(cfg.canonizer, "canonizer", CanonizerSchema)
    return canonizer


def build_explainers(cfgs: Sequence[DictConfig], metrics: dict[str, Metric], outputs: int) -> list[Explainer]:
    """The network, the canonizer and each method, ready to explain batches."""
    cfg = cfgs[0]
    check_choice("precision", cfg.precision, PRECISIONS)
    canonizer, options = None, {}
    if cfg.canonize:
        canonizer = build_canonizer(cfg)
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
            name=f"method={cfgs[place].method.name}",
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
