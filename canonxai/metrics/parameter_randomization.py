"""Model parameter randomisation: whether the map changes when the network forgets, layer by layer, what it learned.

    MPRT = mean_k similarity(R(x; theta), R(x; theta_k))

where theta_k has its last layers re-initialised, a share of k/K of them: the cascading test of Adebayo et al., NeurIPS
2018, "Sanity checks for saliency maps". A map that stays the same explains something else than the network. Nearby
layers change at once (``steps``), where the original goes one by one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai.errors import check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.randomization import layers, randomized_map
from canonxai.metrics.similarity import SIMILARITIES


class ParameterRandomization(Metric):
    """The similarity of the channel-summed maps, by the share of layers that are random, and its mean.

    Args:
        steps: number of networks, >= 1; each costs an attribution. The last is random altogether.
        similarity: ``spearman``, ``ssim`` or ``cosine``.

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the network has fewer layers.
    """

    def __init__(self, steps: int = 5, similarity: str = "spearman") -> None:
        check(steps >= 1, "metric.parameter_randomization.steps", "an integer >= 1", steps)
        check_choice("metric.parameter_randomization.similarity", similarity, SIMILARITIES)
        self.steps, self.similarity = steps, similarity

    @property
    def columns(self) -> dict[str, Column]:
        text = f"{self.similarity} with the map of the network whose last layers are random, in [-1, 1]"
        axis = tuple(step / self.steps for step in range(1, self.steps + 1))
        return {
            "parameter_randomization": Column(
                f"mean {text}; null where one is not defined, as for a map that is constant", higher_is_better=False
            ),
            "parameter_randomization_curve": Column(
                f"{text}; the axis is the share of random layers", kind="curve", axis=axis
            ),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        depth = len(layers(batch.network))
        check(
            self.steps <= depth, "metric.parameter_randomization.steps", f"at most the network's {depth} layers",
            self.steps,
        )  # fmt: skip
        original, similarity = heatmap(batch.attribution), SIMILARITIES[self.similarity]
        counts = (round(step / self.steps * depth) for step in range(1, self.steps + 1))
        similarities = torch.stack([similarity(original, randomized_map(batch, count)) for count in counts], 1)
        return {
            "parameter_randomization": similarities.mean(1),
            "parameter_randomization_curve": similarities,
        }
