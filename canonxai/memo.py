"""Maps of the original network, computed once for a canonized cell and the original twin that follows it in a multirun.

A canonized cell whose metrics compare it with the original needs the very maps that its twin stands for. They are the
same to the bit, as they are kept by batch: the same samples in the same precision on the same device.
"""

import copy
from collections.abc import Callable, Hashable

from jaxtyping import Float
from torch import Tensor

MEMORY = 64 * 2**20  #: bytes that may be kept; what is beyond is computed again

Maps = Float[Tensor, "batch channels height width"]


class OriginalMaps:
    """The maps of original cells by batch; those of others replace them.

    >>> import torch
    >>> maps = OriginalMaps()
    >>> maps.open("a cell")
    >>> maps.get((0, 1), lambda: torch.ones(2, 3, 4, 4)).sum()
    tensor(96.)
    >>> maps.get((0, 1), lambda: torch.zeros(2, 3, 4, 4)).sum()
    tensor(96.)
    >>> maps.of("another method").get((0, 1), lambda: torch.zeros(2, 3, 4, 4)).sum()
    tensor(0.)
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._cells: Hashable = None
        self._method: Hashable = None
        self._maps: dict[Hashable, Tensor] = {}
        self._memory = memory

    def open(self, cells: Hashable) -> None:
        """Forgets the maps of any other cells.

        Args:
            cells: everything that the maps depend on.
        """
        if cells != self._cells:
            self._cells = cells
            self._maps.clear()

    def of(self, method: Hashable) -> "OriginalMaps":
        """Those of one of several methods."""
        view = copy.copy(self)
        view._method = method
        return view

    def get(self, batch: Hashable, compute: Callable[[], Maps], keep: bool = True) -> Maps:
        """The maps of a batch, computed if they are not there, and then kept where ``keep`` says so."""
        key = (self._method, batch)
        if key in self._maps:
            return self._maps[key]
        maps = compute()
        if keep and sum(kept.nbytes for kept in self._maps.values()) + maps.nbytes <= self._memory:
            self._maps[key] = maps
        return maps
