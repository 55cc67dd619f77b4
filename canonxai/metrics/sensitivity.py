"""Sensitivity: how much the map changes when the input hardly does.

    SENS = max or mean over e of |R(x + e) - R(x)| / |R(x)|,    |e|_inf <= radius

Yeh et al., NeurIPS 2019, "On the (in)fidelity and sensitivity of explanations"; maximum and mean over draws of uniform
noise. The paper has no denominator, but its authors' code, Captum and Quantus divide by the length of the map. That
leaves the length of the moved map, and canonization changes scales: with ``normalize`` each map is divided by its own
first, as in the follow-up study, and the value, in [0, 2], depends on directions alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai import random
from canonxai.errors import check
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.robustness import noisy_maps
from canonxai.metrics.similarity import unit
from canonxai.random import Stream


class Sensitivity(Metric):
    """The largest and the mean relative change of the channel-summed map.

    Args:
        samples: number of noisy copies, >= 1; each costs an attribution.
        radius: the largest noise, in the unit of the network's input; > 0.
        normalize: whether each map is divided by its length first.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(self, samples: int = 10, radius: float = 0.2, normalize: bool = False) -> None:
        check(samples >= 1, "metric.sensitivity.samples", "an integer >= 1", samples)
        check(radius > 0, "metric.sensitivity.radius", "a number > 0", radius)
        self.samples, self.radius, self.normalize = samples, radius, normalize

    @property
    def columns(self) -> dict[str, Column]:
        text = (
            f"relative change of the map under noise of at most {self.radius:g}, "
            f"{'in [0, 2]' if self.normalize else '>= 0'}; null where a map is zero or not finite"
        )
        return {
            "max_sensitivity": Column(f"largest {text}", higher_is_better=False),
            "avg_sensitivity": Column(f"mean {text}", higher_is_better=False),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        shape = tuple(batch.image.shape[1:])
        names = (batch.sample_id * self.samples + copy for copy in range(self.samples))
        draws = (random.uniform(batch.seed, Stream.SENSITIVITY, name, shape) for name in names)
        maps = noisy_maps(batch, (self.radius * (2 * draw - 1) for draw in draws))
        original = heatmap(batch.attribution)
        changes = torch.stack([self._change(original, moved) for _, moved in maps])
        return {"max_sensitivity": changes.amax(0), "avg_sensitivity": changes.mean(0)}

    def _change(
        self, original: Float[Tensor, "batch height width"], moved: Float[Tensor, "batch height width"]
    ) -> Float[Tensor, " batch"]:
        if self.normalize:
            original, moved = unit(original), unit(moved)
        largest = original.abs().amax((1, 2), keepdim=True)  # so that no square over- or underflows
        length: Tensor = torch.linalg.vector_norm(original / largest, dim=(1, 2))
        change: Tensor = torch.linalg.vector_norm((moved - original) / largest, dim=(1, 2)) / length
        return change.where(change.isfinite(), torch.nan)
