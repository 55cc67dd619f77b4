"""SmoothGrad: the gradient's mean over noisy copies of the input.

    R = 1/n sum_{i=1..n} df_c/dx (x + e_i),    e_i ~ N(0, sigma^2),    sigma = noise (max x - min x)

Smilkov et al., 2017, "SmoothGrad: removing noise by adding noise". zennit's own draws its noise from the global
generator, so that maps depend on the batch; here each sample's noise is a function of (seed, sample id). As in zennit,
one copy is the input itself, so that one sample gives the gradient.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from zennit import attribution as zennit
from zennit.core import Composite

from canonxai import random
from canonxai.attribution.base import Method, Query
from canonxai.errors import check
from canonxai.random import Stream


class SmoothGrad(Method):
    """SmoothGrad; canonization cannot change it.

    Args:
        samples: number n of copies, >= 1.
        noise: standard deviation as a fraction of the range of the image's values, >= 0.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(self, samples: int = 20, noise: float = 0.1) -> None:
        check(samples >= 1, "method.samples", "an integer >= 1", samples)
        check(noise >= 0, "method.noise", "a number >= 0", noise)
        self.samples, self.noise = samples, noise

    def attributor(self, query: Query, composite: Composite) -> zennit.Attributor:
        return _SeededSmoothGrad(query, composite, self.samples, self.noise)


class _SeededSmoothGrad(zennit.Gradient):  # type: ignore[misc]
    def __init__(self, query: Query, composite: Composite, samples: int, noise: float) -> None:
        super().__init__(query.model, composite)
        self.query, self.samples, self.noise = query, samples, noise

    def forward(
        self, input: Float[Tensor, "batch channels height width"], attr_output_fn: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        deviation = self.noise * (input.amax((1, 2, 3), keepdim=True) - input.amin((1, 2, 3), keepdim=True))
        output, total = self.grad(input.clone(), attr_output_fn)
        for copy in range(1, self.samples):
            # each copy is a "sample" of its own to the generator
            name = self.query.sample_id * self.samples + copy
            noise = random.normal(self.query.seed, Stream.SMOOTHGRAD, name, tuple(input.shape[1:])).to(input)
            total = total + self.grad(input + deviation * noise, attr_output_fn)[1]
        return output, total / self.samples
