"""Input perturbation: how fast the network's output falls when what the map calls relevant is replaced by noise.

After Samek et al., IEEE TNNLS 2017, "Evaluating the visualization of what a deep neural network has learned". Regions
are replaced in the descending order of their attribution, and::

    IP(x, k) = f(x_0) - f(x_k)

where ``x_k`` has ``k`` regions replaced, in the study by pixel values drawn uniformly from all possible ones.
"""

from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Column, Explanation
from canonxai.metrics.perturbation_metric import PerturbationMetric, mean_fall
from canonxai.metrics.replacement import replacement


class InputPerturbation(PerturbationMetric):
    """The curve f(x_k) and its mean fall, the mean of IP(x, k) over the evaluated k > 0."""

    name = "input_perturbation"

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "input_perturbation": Column(
                f"mean over k > 0 of IP(x, k) = f(x_0) - f(x_k), {self.output}; in [-1, 1] for probabilities",
                higher_is_better=True,
            ),
            "perturbation_curve": Column(
                f"f(x_k) from k = 0 on; {self.output}; "
                "the axis is the fraction of all regions, rounded in use to whole ones",
                kind="curve",
                axis=self.axis,
            ),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        curve = self.curve(batch, replacement(self.replacement, batch))
        return {"input_perturbation": mean_fall(curve), "perturbation_curve": curve}
