"""Guided Backpropagation: the gradient, with negative gradients set to zero at each ReLU, too.

    R_in = 1[x > 0] 1[R_out > 0] R_out    at each ReLU

Springenberg et al., ICLR 2015 Workshop, "Striving for simplicity: the all convolutional net"; zennit's
``GuidedBackprop``.
Works on ReLU modules; in a network that calls ReLU as a function it equals the gradient, see ``rules.csv`` of a run.
"""

from collections.abc import Sequence

from zennit.canonizers import Canonizer
from zennit.composites import GuidedBackprop as GuidedBackpropComposite
from zennit.core import Composite

from canonxai.attribution.base import Method, Query


class GuidedBackprop(Method):
    """Guided Backpropagation; it modifies ReLUs alone, so canonization cannot change it."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return GuidedBackpropComposite(canonizers=list(canonizers))
