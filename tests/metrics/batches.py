"""Batches of explained images for the tests of metrics."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from canonxai.batch_size import BatchSize
from canonxai.config import CONF, build
from canonxai.metrics import Explanation, Metric
from canonxai.models.normalization import Normalization

#: those of ``conf/metric``, but for sets of them, and for Quantus' own
METRICS = sorted(
    {p.stem for p in (CONF / "metric").glob("*.yaml") if "defaults" not in OmegaConf.load(p)} - {"quantus"}
)
NORMALIZE = Normalization([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])


def built(name: str, **arguments: Any) -> Metric:
    """The metric with the parameters of its YAML, but for some."""
    node = OmegaConf.load(CONF / "metric" / f"{name}.yaml")[name]
    metric: Metric = build(OmegaConf.merge(node, arguments), f"metric.{name}")
    return metric


def unexpected(what: str) -> Callable[..., Any]:
    """What must not be called."""
    return lambda *_: pytest.fail(f"the metric needs no {what}")


def explanation(attribution: Tensor, **changes: Any) -> Explanation:
    """A batch with the given maps; without ``changes`` there is nothing that a network is needed for."""
    batch, _, height, width = attribution.shape
    batched = {
        "sample_id": torch.arange(batch),
        "place": torch.arange(batch),
        "image": torch.zeros(batch, 3, height, width, dtype=torch.uint8),
        "box": torch.ones(batch, height, width, dtype=torch.bool),
        "mask": torch.ones(batch, height, width, dtype=torch.bool),
        "target": torch.zeros(batch, dtype=torch.int64),
        "logits": torch.zeros(batch, 2),
    }
    alone = {
        "original": None,
        "predict": unexpected("forward"),
        "normalize": NORMALIZE,
        "explain": unexpected("attribution"),
        "network": nn.Identity(),
        "batch_size": BatchSize(64),
        "seed": 0,
    }
    return Explanation(**{**batched, **alone, "attribution": attribution, **changes})


def select(batch: Explanation, chosen: list[int]) -> Explanation:
    """Some samples of a batch."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: value[chosen] for name, value in values.items() if isinstance(value, Tensor)})


def of_map(relevance: Tensor) -> Tensor:
    """Attributions whose channel sums are the given maps, to the bit."""
    return torch.stack([relevance, torch.zeros_like(relevance), torch.zeros_like(relevance)], 1)
