"""What a canonizer did with an operation, so that nothing is left in silence."""

from dataclasses import dataclass

MERGED_LEFT = "merged left"
MERGED_RIGHT = "merged right"
THRESHOLD = "threshold"
SPLIT = "split"
MODULE = "module"
SUM = "sum"
GATE = "gate"
REMOVED = "removed"
KEPT = "kept"
UNUSED = "unused"


@dataclass(frozen=True)
class Rewrite:
    """One BatchNorm, or one function of the forward pass, and what became of it.

    Attributes:
        layer: the module's name, or that of the module in whose forward the function is called, with its own.
        operation: the module's class, or the function.
        action: ``merged left`` or ``merged right`` into linear layers, ``threshold`` (right, through a ReLU), ``split``
            (left, into copies or slices), ``module``, ``sum`` or ``gate`` (a module now), ``removed`` (the identity in
            evaluation mode), ``kept`` as it is, or ``unused`` by the forward pass.
        into: names of the modules that do its work now.
        reason: why it was kept, or done this way.
    """

    layer: str
    operation: str
    action: str
    into: tuple[str, ...] = ()
    reason: str = ""
