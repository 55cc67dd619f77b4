"""DeconvNet: the gradient, with ReLUs applied to what flows back instead of what flowed forward.

    R_in = 1[R_out > 0] R_out    at each ReLU

Zeiler and Fergus, ECCV 2014, "Visualizing and understanding convolutional networks"; zennit's ``DeconvNet``.
Works on ReLU modules, as :mod:`canonxai.attribution.gbp`.
"""

from collections.abc import Sequence

from zennit.canonizers import Canonizer
from zennit.composites import DeconvNet as DeconvNetComposite
from zennit.core import Composite

from canonxai.attribution.base import Method, Query


class DeconvNet(Method):
    """DeconvNet; it modifies ReLUs alone, so canonization cannot change it."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return DeconvNetComposite(canonizers=list(canonizers))
