"""Which networks the graph canonizer covers: ``python -m canonxai.coverage [--output FILE] [NAME ...]``.

Each network is untrained, with random BatchNorm statistics, and is canonized in float64. The table says what became of
its BatchNorms and how far outputs and gradients are from the original's. Names are torchvision's, with wildcards, or
``timm/`` and one of timm's; without any, every torchvision classification network with BatchNorm, and one of each of
several families of timm's.
"""

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from zennit.core import Composite

from canonxai.canonizers.graph import GraphCanonizer, Rewrite
from canonxai.canonizers.graph.affine import is_batch_norm
from canonxai.errors import UserError, check, told

# fmt: off
FAMILIES = (
    "vgg*_bn", "resnet*", "resnext*", "wide_resnet*", "densenet*", "googlenet", "inception_v3", "mobilenet_v*",
    "mnasnet*", "shufflenet_v2*", "efficientnet_*", "regnet_*", "maxvit*",
)
# fmt: on
TIMM = tuple(
    f"timm/{name}"
    for name in (
        *("resnetv2_50", "cspresnet50", "dla34", "dpn68", "ghostnet_100", "hrnet_w18_small", "mixnet_s", "rexnet_100"),
        *("repvgg_a0", "skresnet18", "resnest14d", "tf_efficientnet_b0", "xception41", "vovnet39a"),
    )
)
SIZES = {"inception_v3": 80, "maxvit_t": 224, "timm/inception_v4": 80}  #: of the input, where 64 pixels are too few
HEADER = """# Coverage of the graph canonizer

Written by `make coverage`. Each network has random weights and random BatchNorm statistics (variances, negative, tiny
and zero weights among them), and is canonized in float64. *Merged left*: into the layer before; *merged right*: into
the layer behind; *split*: into copies of the layers before a concatenation; *threshold*: to the right through the ReLU;
*unused*: not reached in evaluation mode. The last columns: the largest difference of the outputs and of the input
gradient, relative to the largest value, and whether removal restores outputs and `state_dict`."""


@dataclass(frozen=True)
class Coverage:
    """What the graph canonizer makes of one network.

    Attributes:
        name: the network's.
        rewrites: what became of each BatchNorm and function.
        logits: largest difference of the outputs, relative to the largest output; 0 is best.
        gradient: the same of the input gradient.
        restored: whether outputs and ``state_dict`` are the same to the bit after removal.
    """

    name: str
    rewrites: tuple[Rewrite, ...]
    logits: float
    gradient: float
    restored: bool

    @property
    def batch_norms(self) -> list[Rewrite]:
        """What became of each BatchNorm."""
        return [rewrite for rewrite in self.rewrites if "Norm" in rewrite.operation]


def randomize(model: nn.Module) -> nn.Module:
    """Draws BatchNorms' statistics and parameters; weights are negative, next to zero and zero, too."""
    for module in filter(is_batch_norm, model.modules()):
        batch_norm: Any = module
        batch_norm.running_mean.normal_(0, 0.3)
        batch_norm.running_var.uniform_(0.2, 2)
        if batch_norm.weight is not None:
            with torch.no_grad():
                batch_norm.weight.normal_(1, 0.3)
                batch_norm.weight[::4] *= -1
                batch_norm.weight[1::7] *= 1e-3
                batch_norm.weight[2::13] = 0
                batch_norm.bias.normal_(0, 0.3)
    return model.double().eval()


def build(name: str) -> nn.Module:
    """An untrained network of torchvision, or of timm for names that begin with ``timm/``.

    Raises:
        UserError: if there is no such network.
    """
    zoo, _, known = name.rpartition("/")
    try:
        module = importlib.import_module(f"canonxai.models.{zoo or 'torchvision'}")
    except ImportError as error:
        raise UserError(f"name: expected a network of an installed library, got {name}. Install timm.") from error
    model: nn.Module = module.model(known, **({"weights": False} if zoo else {}))
    return model


def measure(name: str, canonizer: GraphCanonizer) -> Coverage:
    """Canonizes a network of random weights and statistics, compares it with the original, and restores it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomize(build(name))
        size = SIZES.get(name, 64)
        input = torch.randn(1, 3, size, size, dtype=torch.float64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    output, gradient = _output_and_gradient(model, input)
    with Composite(canonizers=[canonizer]).context(model):
        canonized_output, canonized_gradient = _output_and_gradient(model, input)
    restored = model.state_dict()
    same = list(state) == list(restored) and all(torch.equal(state[key], restored[key]) for key in state)
    return Coverage(
        name,
        canonizer.rewrites,
        _difference(canonized_output, output),
        _difference(canonized_gradient, gradient),
        same and torch.equal(_output_and_gradient(model, input)[0], output),
    )


def _output_and_gradient(model: nn.Module, input: Tensor) -> tuple[Tensor, Tensor]:
    input = input.clone().requires_grad_()
    output: Tensor = model(input)
    weight = torch.linspace(-1, 2, output.numel()).to(output).view_as(output)
    return output.detach(), torch.autograd.grad((output * weight).sum(), input)[0]


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def table(rows: Iterable[Coverage]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield (
        "| network | BatchNorms | merged left | merged right | threshold | split | unused | kept | sums | gates "
        "| logits | gradient | restored |"
    )
    yield "| --- |" + " ---: |" * 11 + " --- |"
    for row in rows:
        done = Counter(rewrite.action for rewrite in row.batch_norms)
        counts = [done[action] for action in ("merged left", "merged right", "threshold", "split", "unused", "kept")]
        functions = Counter(rewrite.action for rewrite in row.rewrites)
        cells = [row.name, len(row.batch_norms), *counts, functions["sum"], functions["gate"]]
        differences = f"{row.logits:.0e} | {row.gradient:.0e} | {'to the bit' if row.restored else 'no'}"
        yield f"| {' | '.join(map(str, cells))} | {differences} |"
        kept = [rewrite for rewrite in row.batch_norms if rewrite.action == "kept"]
        if kept:
            yield f"| | {len(kept)} kept, as {kept[0].layer}: {kept[0].reason} |"


def names(patterns: Iterable[str]) -> list[str]:
    """The networks that fit any of some names with wildcards.

    Raises:
        UserError: if none fits one of them.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    found: dict[str, None] = {}
    for pattern in patterns:
        fitting = [pattern] if pattern.startswith("timm/") else [name for name in known if fnmatch(name, pattern)]
        check(bool(fitting), "name", "a network of torchvision, or timm/ and one of timm's", pattern)
        found |= dict.fromkeys(fitting)
    return list(found)


@told
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m canonxai.coverage", description=__doc__)
    parser.add_argument("name", nargs="*", default=(*FAMILIES, *TIMM))
    parser.add_argument("--preactivation", default="untangle")
    parser.add_argument("--output", type=Path, help="a Markdown file; the screen if not given")
    options = parser.parse_args(arguments)
    canonizer = GraphCanonizer(preactivation=options.preactivation)
    lines = []
    for line in table(measure(name, canonizer) for name in names(options.name)):
        lines.append(line)
        print(line, flush=True)
    if options.output:
        options.output.write_text("\n".join([HEADER, "", *lines]) + "\n")


if __name__ == "__main__":
    sys.exit(main(None))
