"""A random map: the floor that every method must beat.

Standard normal values, independent for each input value; a function of (seed, sample id) alone.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from zennit.canonizers import Canonizer

from canonxai import random
from canonxai.attribution.base import Method, Query
from canonxai.random import Stream


class RandomMap(Method):
    """Standard normal values that know nothing of the network."""

    def __call__(
        self, query: Query, canonizers: Sequence[Canonizer] = ()
    ) -> Float[Tensor, "batch channels height width"]:
        shape = tuple(query.input.shape[1:])
        return random.normal(query.seed, Stream.RANDOM_MAP, query.sample_id, shape).to(query.input)
