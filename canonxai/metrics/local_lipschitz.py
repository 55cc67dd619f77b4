"""Local Lipschitz estimate: the largest change of the map per change of the input.

    L = max_e |R(x + e) - R(x)| / |e|,    e ~ N(0, sigma^2)

Alvarez-Melis and Jaakkola, 2018, "On the robustness of interpretability methods", who maximise over a ball; here, as in
Quantus, over draws of Gaussian noise. Each map is divided by its largest absolute value first, so that scales, which
canonization changes, do not matter.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai import random
from canonxai.errors import check
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.robustness import noisy_maps
from canonxai.metrics.similarity import scaled
from canonxai.random import Stream


class LocalLipschitz(Metric):
    """The largest quotient over noisy copies, of channel-summed maps.

    Args:
        samples: number of noisy copies, >= 1; each costs an attribution.
        noise: standard deviation sigma, in the unit of the network's input; > 0.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(self, samples: int = 10, noise: float = 0.1) -> None:
        check(samples >= 1, "metric.local_lipschitz.samples", "an integer >= 1", samples)
        check(noise > 0, "metric.local_lipschitz.noise", "a number > 0", noise)
        self.samples, self.noise = samples, noise

    @property
    def columns(self) -> dict[str, Column]:
        text = "largest change of the map, whose maximum is 1, per change of the input, >= 0; null where a map is zero"
        return {"local_lipschitz": Column(text, higher_is_better=False)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        shape = tuple(batch.image.shape[1:])
        names = (batch.sample_id * self.samples + copy for copy in range(self.samples))
        draws = (random.normal(batch.seed, Stream.LIPSCHITZ, name, shape) for name in names)
        original = scaled(heatmap(batch.attribution))
        quotients = [
            torch.linalg.vector_norm(scaled(moved) - original, dim=(1, 2))
            / torch.linalg.vector_norm(noise, dim=(1, 2, 3))
            for noise, moved in noisy_maps(batch, (self.noise * draw for draw in draws))
        ]
        return {"local_lipschitz": torch.stack(quotients).amax(0)}
