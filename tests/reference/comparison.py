"""What is compared with a reference, and how far apart the two are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Pairs = Iterable[tuple[ArrayLike, ArrayLike]]  #: of what canonxai computes, and what the reference does


@dataclass(frozen=True)
class Comparison:
    """One comparison, written once: a test holds it against its tolerance, and it is a row of ``docs/references.md``.

    Attributes:
        subject: what of canonxai is compared.
        reference: with what.
        tolerance: the largest difference that is allowed.
        pairs: computes both sides, for each case.
        note: where the two are defined unlike, or what had to be done to make them alike.
    """

    subject: str
    reference: str
    tolerance: float
    pairs: Callable[[], Pairs]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.subject}, {self.reference}"

    def difference(self) -> float:
        """The largest difference of all cases, each relative to its reference's largest value."""
        found = [difference(*pair) for pair in self.pairs()]
        assert found, f"{self}: nothing was compared"
        return max(found)


class Comparisons(list[Comparison]):
    """Those of one reference; called with what a :class:`Comparison` has, it takes a function in as its pairs.

    Args:
        reference: the library, or what else.
    """

    def __init__(self, reference: str) -> None:
        super().__init__()
        self.reference = reference

    def __call__(
        self, subject: str, tolerance: float, note: str = "", reference: str | None = None
    ) -> Callable[[Callable[[], Pairs]], Callable[[], Pairs]]:
        def add(pairs: Callable[[], Pairs]) -> Callable[[], Pairs]:
            self.append(Comparison(subject, reference or self.reference, tolerance, pairs, note))
            return pairs

        return add


def difference(computed: ArrayLike, reference: ArrayLike) -> float:
    """Max |computed - reference| / max |reference|; infinite where the shapes, or what is not finite, differ.

    >>> difference([1.0, 2.0, np.nan], [1.0, 4.0, np.nan])
    0.5
    >>> difference([1.0, np.nan], [1.0, 2.0])
    inf
    """
    computed, reference = np.asarray(computed, float), np.asarray(reference, float)
    if computed.shape != reference.shape or not np.array_equal(_not_finite(computed), _not_finite(reference)):
        return float("inf")
    finite = np.isfinite(reference)
    if not finite.any():
        return 0.0
    largest = float(np.abs(computed[finite] - reference[finite]).max())
    return largest / (float(np.abs(reference[finite]).max()) or 1.0)


def _not_finite(values: np.ndarray) -> np.ndarray:
    """Which values are NaN and which infinite, of which sign; 0 elsewhere."""
    return np.select([np.isnan(values), np.isinf(values)], [2.0, np.sign(values)], 0.0)
