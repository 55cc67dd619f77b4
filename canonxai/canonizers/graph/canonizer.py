"""The canonizer of any network that torch.fx can trace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from zennit.canonizers import Canonizer
from zennit.core import Composite

from canonxai.canonizers.graph.gates import make_gates
from canonxai.canonizers.graph.merge import PREACTIVATIONS, merge_batch_norms
from canonxai.canonizers.graph.modules import make_modules
from canonxai.canonizers.graph.network import Network
from canonxai.canonizers.graph.normalize import normalize
from canonxai.canonizers.graph.record import Rewrite
from canonxai.canonizers.graph.sums import make_sums
from canonxai.canonizers.parts import chosen_parts
from canonxai.errors import check, check_choice
from canonxai.models.snapshot import Snapshot


class GraphCanonizer(Canonizer):  # type: ignore[misc]
    """Traces a network by torch.fx, rewrites the graph and puts it in the place of the forward pass.

    The function computed stays the same; what cannot be rewritten exactly is left as it is, and reported. Modules stay
    the same objects at the same places, so that rules reach them by name and by type; new ones are added. Removal puts
    everything back to the bit, the very same parameters. Hooks on modules that the graph calls, and on the network
    itself, fire as before; what a hook on a module that is traced into does to values is traced, and the hook itself
    does not fire while the network is canonized.

    - ``merge_bn``: each BatchNorm merged into linear layers, see :mod:`canonxai.canonizers.graph.merge`;
    - ``modules``: functions such as ReLU, pooling, flatten and mean made modules;
    - ``sum``: each addition of two branches made a zennit ``Sum``;
    - ``gate``: each product with a gate made a :class:`~canonxai.canonizers.graph.gates.Gate`. Gradients do not change.

    Args:
        parts: names of those, each at most once; ``None`` for all, an empty list for the network as written.
        preactivation: how a BatchNorm before a ReLU is merged that cannot be merged into the layer before alone:
            ``untangle``, into copies of the layers before it, or ``threshold``, to the right through the ReLU. Maps
            differ: a threshold gives inactive units a value that is not zero, and so relevance.

    Attributes:
        rewrites: after :meth:`apply`, what became of every BatchNorm and every function of the network.

    Raises:
        UserError: if an argument is none of the choices; on :meth:`apply`, with nothing changed, if the network is in
            training mode, quantised, scripted, or cannot be traced.
    """

    available: tuple[str, ...] = ("merge_bn", "modules", "sum", "gate")

    def __init__(self, parts: list[str] | None = None, preactivation: str = "untangle") -> None:
        check_choice("canonizer.preactivation", preactivation, PREACTIVATIONS)
        self.parts, self.preactivation = chosen_parts(parts, self.available), preactivation
        self.rewrites: tuple[Rewrite, ...] = ()

    def apply(self, root_module: nn.Module) -> list["_Canonized"]:
        _check_in_evaluation_mode(root_module)
        before = _Canonized(root_module)
        rewriters: dict[str, Callable[[Network], None]] = {
            "merge_bn": partial(merge_batch_norms, preactivation=self.preactivation),
            "modules": make_modules,
            "sum": make_sums,
            "gate": make_gates,
        }
        try:
            if self.parts:
                network = Network(root_module)
                normalize(network)
                for part in self.available:
                    if part in self.parts:
                        rewriters[part](network)
                network.eliminate_dead_code()
                network.install()
                self.rewrites = network.rewrites()
        except BaseException:
            before.remove()
            raise
        return [before]

    def register(self) -> None:
        """Nothing: :meth:`apply` does it all."""

    def remove(self) -> None:
        """Nothing: what :meth:`apply` returns is removed."""

    def copy(self) -> "GraphCanonizer":
        return type(self)(self.parts, self.preactivation)


class _Canonized:
    """What a network held before it was canonized, to be put back once all that was done to it later is removed.

    zennit removes in the order of application.
    """

    _KEY = "_canonized"

    def __init__(self, root: nn.Module) -> None:
        self.root, self.before, self.removed = root, Snapshot(root), False
        vars(root)[self._KEY] = self

    def remove(self) -> None:
        self.removed = True
        while (last := vars(self.root).get(self._KEY)) and last.removed:
            last.before.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy of a canonized network remains so


def rewrites(model: nn.Module, canonizer: GraphCanonizer) -> tuple[Rewrite, ...]:
    """What ``canonizer`` does to each BatchNorm and each function of ``model``, which is unchanged afterwards."""
    with Composite(canonizers=[canonizer]).context(model):
        return canonizer.rewrites


def _check_in_evaluation_mode(root: nn.Module) -> None:
    for name, module in root.named_modules():
        training = module.training and (module is root or isinstance(module, (_BatchNorm, _DropoutNd)))
        mode = f"{name or type(root).__name__} in training mode"
        check(not training, "canonizer", "a network in evaluation mode", mode, "Call model.eval() first.")
        check(
            not isinstance(module, torch.jit.ScriptModule), "canonizer", "a network of Python modules",
            f"{name or 'the network'}, scripted by torch.jit", "Explain the network before it is scripted.",
        )  # fmt: skip
        wraps = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(
            module, "_orig_mod"
        )
        check(
            not wraps, "canonizer", "a network by itself", f"{name or 'it'} in a {type(module).__name__}",
            "Explain what is in it, its attribute module or _orig_mod.",
        )  # fmt: skip
        is_quantised = any(part in type(module).__module__ for part in ("quantized", "torch.ao.quantization"))
        check(
            not is_quantised, "canonizer", "a network of floating-point layers",
            f"{name}, a quantised {type(module).__name__}", "Explain the network before its quantisation.",
        )  # fmt: skip
