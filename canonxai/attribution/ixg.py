"""Input x Gradient: the linear part of the target's logit.

    R = x * df_c / dx

Shrikumar et al., 2016, "Not just a black box: learning important features through propagating activation differences".
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from zennit.canonizers import Canonizer

from canonxai.attribution.base import Method, Query


class InputXGradient(Method):
    """The gradient times the normalised input; canonization cannot change it."""

    def __call__(
        self, query: Query, canonizers: Sequence[Canonizer] = ()
    ) -> Float[Tensor, "batch channels height width"]:
        return query.input * super().__call__(query, canonizers)
