"""A network is changed only while it is explained: what its modules held before is put back, the very same objects."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class Snapshot:
    """What the modules of a network hold: attributes, parameters, buffers and submodules; hooks are left alone.

    zennit 1.0 shadows parameters by attributes of the same name, and leaves them there: the network computes the same,
    until it is copied in another precision.
    """

    def __init__(self, model: nn.Module) -> None:
        tables = [table for m in model.modules() for table in (vars(m), m._parameters, m._buffers, m._modules)]
        self._held = [(table, dict(table)) for table in tables]

    def remove(self) -> None:
        """Puts everything back."""
        for table, items in self._held:
            table.clear()
            table.update(items)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Whatever the block does to the modules of ``model`` is undone, also if it raises."""
    snapshot = Snapshot(model)
    try:
        yield
    finally:
        snapshot.remove()
