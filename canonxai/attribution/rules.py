"""Which rule every layer really got, in the order of the forward pass.

zennit gives rules to modules alone and says nothing of the rest: a residual add, or a ReLU that is called as a
function, is left to the plain gradient. This table shows each operation with the hook that is registered on it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from zennit.canonizers import Canonizer
from zennit.core import BasicHook, Composite, Hook

from canonxai.attribution.batchnorm import is_merged
from canonxai.canonizers.graph.functional import activations
from canonxai.canonizers.graph.hooks import rule_of

GRADIENT = "gradient"  #: no rule: autograd's own
MERGED = "merged: computes the identity"
#: what the gradient of a function does to relevance
UNRULED = {
    **dict.fromkeys(("add", "iadd"), "no rule: relevance goes on in full to both summands"),
    **dict.fromkeys(("mul", "imul"), "no rule: each factor gets the relevance times the other"),
}


@dataclass(frozen=True)
class Layer:
    """One operation of the forward pass.

    Attributes:
        layer: the module's name, or the function's.
        type: the module's class, or ``function``.
        calls: how often the forward pass uses it.
        rule: the zennit hook, or ``gradient``.
        note: what a reader should know.
    """

    layer: str
    type: str
    calls: int
    rule: str
    note: str = ""


def rule_table(model: nn.Module, composite: Composite, canonizers: Sequence[Canonizer] = ()) -> list[Layer]:
    """The operations of ``model`` under ``canonizers`` with the rules that ``composite`` gives them.

    Args:
        model: a network; unchanged afterwards.
        composite: a composite that carries the same canonizers.
        canonizers: to trace the canonized forward pass.

    Returns:
        In the order of the forward pass; of a network that torch.fx cannot trace, its modules in the order of
        definition, without functions.
    """
    with composite.context(model):
        rules = {name: rule for name, module in model.named_modules() if (rule := rule_of(module))}
    propagates = any(isinstance(rule, BasicHook) for rule in rules.values())  # not merely a modified gradient
    with Composite(canonizers=list(canonizers)).context(model):
        operations = _operations(model)
        modules = dict(model.named_modules())
        calls = Counter(operations)
        layers = []
        for name, is_module in dict.fromkeys(operations):
            if is_module:
                layers.append(_module_layer(name, modules[name], calls[name, True], rules.get(name)))
            else:
                note = UNRULED.get(name.strip("_"), "") if propagates else ""
                layers.append(Layer(name, "function", calls[name, False], GRADIENT, note))
    return layers


def _module_layer(name: str, module: nn.Module, calls: int, hook: Hook | None) -> Layer:
    notes = []
    if is_merged(module):
        notes.append(MERGED)
    if calls > 1 and isinstance(hook, BasicHook):
        notes.append("shared: the rule sees the input of its last call only")
    return Layer(name, type(module).__name__, calls, type(hook).__name__ if hook else GRADIENT, "; ".join(notes))


class _LeafTracer(fx.Tracer):
    """Looks into every module that calls its children, and into no other."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # attention as it is written does not call its child: a function computes all with the child's weights
        is_attention = isinstance(m, nn.MultiheadAttention) and "forward" not in vars(m)
        return is_attention or not any(True for _ in m.children())


class _Caller(nn.Module):
    """Calls a network, as torch.fx looks for the forward pass of what it traces where no canonizer puts it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Any) -> Any:
        return self.model(input)


def _operations(model: nn.Module) -> list[tuple[str, bool]]:
    """Each operation's name and whether it is a module; no arithmetic with sizes or parameters alone."""
    try:
        graph = _LeafTracer().trace(_Caller(model))
    except Exception:  # torch.fx raises errors of any kind for what it cannot trace
        leaves = [name for name, module in model.named_modules() if not any(True for _ in module.children())]
        return [(name, True) for name in leaves]
    operations, values = [], activations(graph)
    for node in graph.nodes:
        if node.op == "call_module":
            operations.append((str(node.target).removeprefix("model."), True))
        elif node.op in ("call_function", "call_method") and node in values:
            operations.append((getattr(node.target, "__name__", str(node.target)), False))
    return operations
