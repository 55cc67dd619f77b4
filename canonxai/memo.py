"""Maps of the original network, computed once for a canonized cell and the original twin that follows it in a multirun.

A canonized cell whose metrics compare it with the original needs the very maps that its twin stands for. They are the
same to the bit, as they are kept by batch: the same samples in the same precision on the same device.
"""

from collections.abc import Callable, Hashable

from jaxtyping import Float
from torch import Tensor

MEMORY = 64 * 2**20  #: bytes that may be kept; what is beyond is computed again

Maps = Float[Tensor, "batch channels height width"]


class OriginalMaps:
    """The maps of one original cell by batch; those of another cell replace them.

    >>> import torch
    >>> maps = OriginalMaps()
    >>> maps.open("a cell")
    >>> maps.get((0, 1), lambda: torch.ones(2, 3, 4, 4)).sum()
    tensor(96.)
    >>> maps.get((0, 1), lambda: torch.zeros(2, 3, 4, 4)).sum()
    tensor(96.)
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._cell: Hashable = None
        self._maps: dict[Hashable, Tensor] = {}
        self._memory = self._free = memory

    def open(self, cell: Hashable) -> None:
        """Forgets the maps of any other cell.

        Args:
            cell: everything that the maps depend on.
        """
        if cell != self._cell:
            self._cell, self._maps, self._free = cell, {}, self._memory

    def get(self, batch: Hashable, compute: Callable[[], Maps], keep: bool = True) -> Maps:
        """The maps of a batch, computed if they are not there, and then kept where ``keep`` says so."""
        if batch in self._maps:
            return self._maps[batch]
        maps = compute()
        size = maps.element_size() * maps.nelement()
        if keep and size <= self._free:
            self._maps[batch] = maps
            self._free -= size
        return maps
