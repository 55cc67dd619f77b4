"""ROAD: how often the network still names the class when pixels are removed and imputed from the others.

    ROAD(k) = [argmax f(x_k) = target]

where x_k has the k most (MoRF) or least (LeRF) relevant pixels removed by noisy linear imputation, which, unlike a
fixed colour, tells the network little of which pixels were removed. Rong et al., ICML 2022, "A consistent and efficient
evaluation strategy for attribution methods". Quantus, too, answers yes or no for each image and step, by MoRF only.
"""

from jaxtyping import Float, Int64
from torch import Tensor

from canonxai.metrics.base import Column, Explanation
from canonxai.metrics.perturbation_metric import PerturbationMetric
from canonxai.metrics.replacement import replacement


class Road(PerturbationMetric):
    """The share of steps at which the target is still predicted, for both orders.

    Args:
        steps: number of evaluated k > 0, >= 1.
        fraction: the last step removes this fraction of all pixels, in (0, 1].

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the images are too small for it.
    """

    name = "road"

    def __init__(self, steps: int = 9, fraction: float = 0.9) -> None:
        super().__init__(1, steps, fraction, replacement="inpaint")

    @property
    def columns(self) -> dict[str, Column]:
        share = "share of steps at which the target is predicted, in [0, 1]"
        curve = "1 where the target is predicted, else 0, from k = 0 on"
        return {
            "road_morf": Column(f"{share}, most relevant pixels removed first", higher_is_better=False),
            "road_lerf": Column(f"{share}, least relevant pixels removed first", higher_is_better=True),
            "road_morf_curve": Column(f"{curve}, most relevant pixels removed first", kind="curve", axis=self.axis),
            "road_lerf_curve": Column(f"{curve}, least relevant pixels removed first", kind="curve", axis=self.axis),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        replace = replacement(self.replacement, batch)
        morf, lerf = (self.curve(batch, replace, first) for first in (True, False))
        return {
            "road_morf": morf[:, 1:].mean(1),
            "road_lerf": lerf[:, 1:].mean(1),
            "road_morf_curve": morf,
            "road_lerf_curve": lerf,
        }

    def f(self, logits: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (logits.argmax(1) == target).double()
