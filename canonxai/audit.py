"""What canonization does to a network and what a method's rules reach: ``python -m canonxai.audit model=NAME``.

Prints and saves what became of each BatchNorm and function, which rule each layer gets with and without canonization,
how much relevance it conserves, and how far the logits of both forms are apart. A layer without a rule stands out.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import pyarrow as pa
import pyarrow.csv
import torch
from hydra.core.hydra_config import HydraConfig
from jaxtyping import UInt8
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor
from zennit.canonizers import Canonizer

from canonxai.assemble import build_canonizer
from canonxai.attribution import Method, Query
from canonxai.attribution.flow import Flow, relevance_flow
from canonxai.attribution.rules import GRADIENT, MERGED, Layer, rule_table
from canonxai.canonizers import canonization_agreement
from canonxai.cli import command, job
from canonxai.config import CONF, Data, build, check_groups, methods_together, register
from canonxai.config import Method as MethodSchema
from canonxai.data import Excluded, LocalizationDataset
from canonxai.errors import check
from canonxai.files import no_formula
from canonxai.models.build import build_network
from canonxai.models.labels import is_zero
from canonxai.models.normalization import Normalization
from canonxai.progress import output_console
from canonxai.results.store import writing

#: operations that only select, move or keep values: their gradient hands relevance on as any rule would
# fmt: off
MOVING = (
    "MaxPool", "AdaptiveMaxPool", "Flatten", "Unflatten", "Dropout", "Identity", "StochasticDepth", "Permute",
    "ChannelShuffle", "SwapAxes", "WindowPartition", "WindowDepartition", "flatten", "view", "reshape", "cat",
    "permute", "transpose", "chunk", "split", "contiguous", "getitem", "getattr", "stack", "broadcast", "expand",
    "movedim", "unbind", "dropout", "stochastic_depth", "max_pool", "unsqueeze", "squeeze", "pad", "roll", "unflatten",
    "_patch_merging_pad", "to_windows", "from_windows",
    "scores_bias",  # parameters, arranged for the input's size
)
# fmt: on


@dataclass(frozen=True)
class AuditedLayer:
    """One operation of the forward pass with and without canonization.

    Attributes:
        layer: the module's name, or the function's.
        type: the module's class, or ``function``.
        original: the rule it gets without canonization; empty where it is not there.
        canonized: the rule it gets with it, or ``merged``; empty where it is not there.
        conserved: relevance that it hands on over relevance that it gets, without canonization.
        conserved_canonized: the same with it.
        ruled: whether the canonized network has a rule for it, or none is needed.
        note: what a reader should know.
    """

    layer: str
    type: str
    original: str
    canonized: str
    conserved: float | None
    conserved_canonized: float | None
    ruled: bool
    note: str


def audit_layers(method: Method, query: Query, canonizers: Sequence[Canonizer]) -> list[AuditedLayer]:
    """The operations of a network, those of its canonized form after those that both have."""
    sides = []
    for applied in ((), canonizers):
        composite = method.composite(query, applied)
        layers = {layer.layer: layer for layer in rule_table(query.model, composite, applied)}
        sides.append((layers, relevance_flow(method, query, applied)))
    (before, flow), (after, flow_after) = sides
    done = {rewrite.layer: rewrite for canonizer in canonizers for rewrite in getattr(canonizer, "rewrites", ())}
    propagates = any(layer.rule != GRADIENT for layer in after.values())  # not merely a modified gradient
    audited, linear = [], ""
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        layer = new or before[name]
        merged = new is not None and new.note == MERGED
        passed = merged or (layer.type != "function" and not flow_after.get(name, Flow()).above)  # nothing arrives
        unruled = propagates and new is not None and new.rule == GRADIENT and not (_is_moving(new) or passed)
        gone = f"{done[name].action}: {', '.join(done[name].into)}" if name in done else "not in the canonized network"
        if "LayerNorm" in layer.type:
            what = "cannot be merged: its deviation depends on the input"
        elif merged:
            what = f"merged left: {linear}"
        else:
            what = "" if new else gone
        if layer.type.startswith(("Conv", "Linear")):
            linear = name
        notes = [layer.note, what, "no rule" if unruled else ""]
        audited.append(
            AuditedLayer(
                name,
                layer.type,
                old.rule if old else "",
                "" if new is None else "merged" if merged else new.rule,
                _ratio(flow.get(name)),
                _ratio(flow_after.get(name)),
                not unruled,
                "; ".join(note for note in notes if note and note != MERGED),
            )
        )
    return audited


def _is_moving(layer: Layer) -> bool:
    name = layer.layer if layer.type == "function" else layer.type
    return name.startswith(MOVING) or name in ("ReLU", "relu", "relu_")  # what it sets to zero has no relevance either


def _ratio(flow: Flow | None) -> float | None:
    return None if flow is None or not flow.above else flow.ratio


def audit(cfg: DictConfig, folder: Path, console: Console) -> dict[str, Any]:
    """Audits a network, canonizer and method, and writes ``layers.csv``, ``rewrites.csv`` and ``audit.json``.

    Raises:
        UserError: for a mistake in the config, the model or the data.
    """
    check_groups(cfg)
    check(cfg.samples >= 1, "samples", "an integer >= 1", cfg.samples)
    canonizer = build_canonizer(cfg)
    method: Method = build(cfg.method, "method", MethodSchema)
    dataset = build(cfg.data, "data", Data)
    model = build_network(cfg.model, cfg.data.label_space).double().eval().requires_grad_(False)
    normalize = Normalization(cfg.data.mean, cfg.data.std)
    images = _images(dataset, cfg.samples)

    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)
    differences = {
        f"{name}, {str(dtype).removeprefix('torch.')}": canonization_agreement(
            model, [canonizer], normalize(inputs, dtype)
        ).max_rel
        for name, inputs in (("real", images), ("random", noise))
        for dtype in (torch.float64, torch.float32)
    }
    input, (low, high) = normalize(images, torch.float64), normalize.bounds(torch.float64)
    with torch.no_grad():
        logits = model(input)
    target = logits.argmax(1)
    is_zero(logits)
    query = Query(model, input, target, low, high, torch.arange(len(images)), cfg.seed)
    layers = audit_layers(method, query, [canonizer])
    rewrites = getattr(canonizer, "rewrites", ())
    summary = {
        "model": cfg.model.name,
        "method": cfg.method.name,
        "canonizer": type(canonizer).__name__,
        "images": len(images),
        "largest_relative_logit_difference": differences,
        "without_rule": [layer.layer for layer in layers if not layer.ruled],
        "kept_batch_norms": [
            layer.layer for layer in layers if "BatchNorm" in layer.type and layer.canonized not in ("", "merged")
        ],
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "layers.csv", layers)
        _write(folder / "rewrites.csv", rewrites)
        (folder / "audit.json").write_text(json.dumps(summary, indent=2))
    _print(console, layers, rewrites, summary)
    console.print(Text(f"results: {folder}"))
    worst, tolerance = max(differences.values()), cfg.canonizer.tolerance
    allowed = f"a relative difference of logits up to canonizer.tolerance={tolerance:g}"
    check(worst <= tolerance, "canonizer", allowed, worst)
    return summary


def _images(dataset: LocalizationDataset, count: int) -> UInt8[Tensor, "n 3 height width"]:
    """The first images that can be read."""
    samples = (dataset[index] for index in range(len(dataset)))
    images = list(islice((sample["image"] for sample in samples if not isinstance(sample, Excluded)), count))
    check(len(images) > 0, "data", "images that can be read", len(images))
    return torch.stack(images)


def _write(path: Path, rows: Iterable[Any]) -> None:
    rows = [{key: _plain(value) for key, value in dataclasses.asdict(row).items()} for row in rows]
    path.unlink(missing_ok=True)  # of an audit with another canonizer
    if rows:
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)


def _plain(value: Any) -> Any:
    return no_formula(" ".join(value) if isinstance(value, tuple) else value)


def _print(console: Console, layers: Sequence[AuditedLayer], rewrites: Sequence[Any], summary: dict[str, Any]) -> None:
    if rewrites:
        table = Table(title=f"what {summary['canonizer']} did")
        for column in ("layer", "operation", "action", "into", "reason"):
            table.add_column(column, overflow="fold")
        for rewrite in rewrites:
            style = "bold" if rewrite.action == "kept" else None
            into = ", ".join(rewrite.into)
            table.add_row(rewrite.layer, rewrite.operation, rewrite.action, into, rewrite.reason, style=style)
        console.print(table)
    table = Table(title=f"rules of {summary['method']}, and relevance below / above (1: conserved)")
    for column in ("layer", "type", "original", "canonized", "below/above", "(canonized)", "note"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("below/above", "(canonized)") else "left"
        )
    for layer in layers:
        ratios = ("" if ratio is None else f"{ratio:.3g}" for ratio in (layer.conserved, layer.conserved_canonized))
        style = None if layer.ruled else "bold red"
        table.add_row(layer.layer, layer.type, layer.original, layer.canonized, *ratios, layer.note, style=style)
    console.print(table)
    for name, difference in summary["largest_relative_logit_difference"].items():
        console.print(Text(f"canonized = original logits up to {difference:.2g} (relative; {name} inputs)"))
    counts = Counter(rewrite.action for rewrite in rewrites)
    if counts:
        console.print(Text("rewrites: " + ", ".join(f"{count} {action}" for action, count in counts.most_common())))
    missing = summary["without_rule"]
    names = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
    told = f"{len(missing)} operations of the canonized network have no rule: {names}"
    told = told if missing else "every layer of the canonized network has a rule"
    console.print(Text(told), style="bold red" if missing else "green")


@command
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="audit")
@job
def main(cfg: DictConfig) -> dict[str, Any]:
    methods = methods_together(HydraConfig.get().overrides.task)
    check(not methods, "method", "one method for each audit", methods, "Use -m method=A,B for several.")
    return audit(cfg, Path(HydraConfig.get().runtime.output_dir), output_console(160))


register()

if __name__ == "__main__":
    main()
