"""Small studies on disk, written by the store, the summary and the config of real runs, so in their format."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from canonxai.assemble import build_metrics
from canonxai.config import CONF, cell_name, register, state
from canonxai.metrics import columns_of
from canonxai.results.output import described
from canonxai.results.store import Store, sample_schema
from canonxai.results.summary import summarize
from canonxai.versions import versions

IMAGES = 40
METHODS = ("gradient", "lrp_eps", "ebp", "random")
MODELS = ("resnet18", "vgg16_bn")
_versions = cache(versions)


@cache
def _compose(*overrides: str) -> DictConfig:
    """The config of a cell, as the command line composes it; the state of Hydra stays as it was."""
    register()
    backup = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = backup


def image_columns(images: int = IMAGES, seed: int = 0) -> dict[str, np.ndarray]:
    """What all cells of a study share: the images, of 10 classes, half of them with boxes below 25 %."""
    rng = np.random.default_rng((seed, 1))
    label = np.arange(images) % 10
    return {
        "sample_id": np.arange(images),
        "label": label,
        "prediction": np.where(rng.random(images) < 0.95, label, (label + 1) % 10),
        "probability": rng.uniform(0.8, 1.0, images),
        "box_fraction": rng.permutation(np.linspace(0.04, 0.75, images) ** 1.5 + 0.03),
    }


def write_cell(
    folder: Path,
    model: str = "resnet18",
    method: str = "lrp_eps",
    canonize: bool = True,
    values: Mapping[str, Any] | None = None,
    title: str | None = None,
    data: str = "scenes",
    settings: Mapping[str, Any] | None = None,
    study: str = "test",
    higher_is_better: Mapping[str, bool | None] | None = None,
    versions: Mapping[str, str | None] | None = None,
    summary: Mapping[str, Any] | None = None,
    maps: int | bool = False,
    name: str | None = None,
    **columns: Any,
) -> Path:
    """Writes a complete cell below ``folder``, with the files that ``canonxai.run.run`` writes.

    Args:
        folder: the study's folder.
        model: a network of ``conf/model``.
        method: a method of ``conf/method``.
        canonize: whether the cell is canonized; the parts are a setting, ``canonizer.parts``.
        values: the metrics, each one number an image or one for all; NaN becomes null. Their names choose the metrics
            of the config; ``perturbation_curve`` is made from ``input_perturbation`` if not given.
        title: instead of the method's own.
        data: a data set of ``conf/data``.
        settings: changes of the config, by dotted key, and options of other groups, as ``trainer``; the
            number of images follows from the columns.
        study: the study's name.
        higher_is_better: changes of the metrics' directions, as if they were a user's own metrics.
        versions: changes of the versions in ``summary.json``.
        summary: other changes of ``summary.json``.
        maps: how many maps are kept; ``True`` for 4.
        name: of the cell's folder, instead of the cell's own.
        columns: any other column of ``samples.parquet``; :func:`image_columns` gives what is not named here.

    Returns:
        The cell's folder.
    """
    values = {key: np.asarray(value, float) for key, value in (values or {"localization": 0.5}).items()}
    rows = {key: np.asarray(value) for key, value in columns.items()}
    images = max([len(value) for value in (*rows.values(), *values.values()) if value.ndim], default=IMAGES)
    rows = image_columns(images) | rows
    rows = {"target": rows["label"], "relevance_total": 0.5, "relevance_max": 0.01} | rows
    rows = {key: np.broadcast_to(value, images) for key, value in rows.items()}
    values = {key: value if value.ndim == 2 else np.broadcast_to(value, images) for key, value in values.items()}

    metrics_names = [key for key in values if key != "perturbation_curve"]
    count = "data.size" if data == "scenes" else "data.max_samples"
    changes = {count: images, "save_maps": 4 * maps if maps is True else int(maps), **(settings or {})}
    groups = {"model": model, "method": method, "data": data, "metric": f"[{','.join(metrics_names)}]"}
    groups |= {key: changes.pop(key) for key in list(changes) if (CONF / key).is_dir()}
    cfg = _compose(*(f"{group}={option}" for group, option in groups.items())).copy()
    for key, value in {"study": study, "canonize": canonize, **changes}.items():
        OmegaConf.update(cfg, key, value)
    if title is not None:
        cfg.method.title = title
    metrics = build_metrics(cfg)
    for column, axis in ((c, kind.axis) for m in metrics.values() for c, kind in m.columns.items() if kind.axis):
        fall = np.linspace(0, 1, len(axis)) * 2 * (len(axis) - 1) / len(axis)  # its mean over all k > 0 is 1
        made = rows["probability"][:, None] - np.nan_to_num(values["input_perturbation"])[:, None] * fall
        values = {column: made, **values}

    cell = folder / (name or cell_name(cfg))
    cell.mkdir(parents=True, exist_ok=True)
    (cell / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    store = Store(cell, sample_schema(columns_of(metrics)))
    store.write(0, {key: torch.tensor(np.array(value)) for key, value in {**rows, **values}.items()})
    store.finish()
    store.close()
    computed = summarize(store, columns_of(metrics))
    for metric, direction in (higher_is_better or {}).items():
        computed["metrics"][metric]["higher_is_better"] = direction
    content = {
        **described(cfg, cell_name(cfg)),
        **computed,
        "agreement": _agreement(images) if state(cfg) != "original" else None,
        "seconds": 2.0,
        "images_per_second": images / 2.0,
        "device": "cpu",
        "versions": {**_versions(), **(versions or {})},
        "folder": str(cell),
        **(summary or {}),
    }
    (cell / "summary.json").write_text(json.dumps(content, indent=2, allow_nan=False))
    if cfg.save_maps:
        _write_maps(cell, rows, min(cfg.save_maps, images), seed=len(f"{method}{canonize}"))
    return cell


def _agreement(images: int) -> dict[str, Any]:
    difference = {"float64": {"max_abs": 1e-14, "max_rel": 4e-15}, "float32": {"max_abs": 6e-6, "max_rel": 1e-6}}
    return {"images": min(64, images), "difference": difference}


def _write_maps(cell: Path, rows: Mapping[str, np.ndarray], count: int, seed: int, side: int = 64) -> None:
    """The first maps, with the dtypes of ``canonxai.results.maps``; each box has its sample's fraction."""
    rng = np.random.default_rng(seed)
    box = np.zeros((count, side, side), bool)
    for mask, fraction in zip(box, rows["box_fraction"], strict=False):
        mask[: round(side * fraction**0.5), : round(side * fraction**0.5)] = True
    np.savez_compressed(
        cell / "maps.npz",
        allow_pickle=False,
        sample_id=rows["sample_id"][:count].astype(np.int64),
        label=rows["label"][:count].astype(np.int64),
        image=np.random.default_rng(0).integers(0, 256, (count, 3, side, side)).astype(np.uint8),
        box=box,
        heatmap=(rng.normal(size=(count, side, side)) + box).astype(np.float32),
    )


def values_of(model: str, method: str, canonize: bool, images: int = IMAGES, seed: int = 0) -> dict[str, np.ndarray]:
    """Metrics of a cell as a study might find them.

    The gradient does not change; LRP-ε is at the floor and much better canonized, most for small boxes; EBP localizes
    better, its faithfulness improves on ResNet18 only; the random map is the floor and does not change.
    """
    box = image_columns(images, seed)["box_fraction"]
    rng = np.random.default_rng((seed, MODELS.index(model) if model in MODELS else 9, sum(map(ord, method))))
    noise = rng.normal(size=(2, images))  # shared by both states
    own = rng.normal(size=(2, images)) * canonize
    gain = {
        "lrp_eps": (0.55 - 0.5 * box, 0.65),
        "ebp": (0.15 - 0.1 * box, 0.05 if model == "resnet18" else -0.05),
    }.get(method, (0 * box, 0.0))
    start = {"lrp_eps": (box, 0.08), "random": (box, 0.05), "ebp": (box * 0.7 + 0.25, 0.5)}.get(method, (0.45, 0.4))
    localization, fall = (
        start[i] + noise[i] * 0.02 + canonize * gain[i] + own[i] * 0.02 * np.any(gain[i]) for i in (0, 1)
    )
    distance = np.abs(np.mean(gain[1]) * 1.5 + own[1] * 0.02) * np.any(gain[1]) * canonize
    return {
        "localization": np.clip(localization, 0, 1),
        "input_perturbation": np.clip(fall, -1, 1),
        "distance": np.broadcast_to(distance, images),
    }


def write_study(
    folder: Path,
    methods: Sequence[str] = METHODS,
    models: Sequence[str] = MODELS,
    states: Sequence[bool] = (False, True),
    images: int = IMAGES,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Writes the grid models x methods x states with seeded numbers, see :func:`values_of`.

    Args:
        folder: of the study.
        methods: names in ``conf/method``.
        models: names in ``conf/model``.
        states: of ``canonize``.
        images: how many.
        seed: of the numbers.
        options: of every :func:`write_cell`.

    Returns:
        ``folder``.
    """
    shared = image_columns(images, seed)
    for model in models:
        for method in methods:
            for canonize in states:
                values = values_of(model, method, canonize, images, seed)
                write_cell(folder, model, method, canonize, values, **{**shared, **options})
    return folder
