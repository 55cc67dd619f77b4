"""Region perturbation: the output's fall when regions are replaced in the order of the map, and in the opposite one.

    AOPC = mean_k f(x_0) - f(x_k),    ABPC = AOPC_MoRF - AOPC_LeRF

with the most relevant regions first (MoRF) or the least relevant ones (LeRF). Samek et al., IEEE TNNLS 2017,
"Evaluating the visualization of what a deep neural network has learned"; the area between the two curves ranks methods
alike whatever replaces the regions: Blücher, Vielhaben and Strodthoff, TMLR 2024, "Decoupling pixel flipping and
occlusion strategy for consistent XAI benchmarks", who call it symmetric relevance gain. The mean goes over the
evaluated k > 0, where Samek et al. count k = 0, which adds a zero, too.
"""

from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Column, Explanation
from canonxai.metrics.perturbation_metric import PerturbationMetric, mean_fall
from canonxai.metrics.replacement import replacement


class RegionPerturbation(PerturbationMetric):
    """The curves of both orders, their mean falls, and the area between them."""

    name = "region_perturbation"

    @property
    def columns(self) -> dict[str, Column]:
        fall = f"mean over k > 0 of f(x_0) - f(x_k), {self.output}; in [-1, 1] for probabilities"
        return {
            "region_perturbation_morf": Column(f"most relevant regions first: {fall}", higher_is_better=True),
            "region_perturbation_lerf": Column(f"least relevant regions first: {fall}", higher_is_better=False),
            "region_perturbation_abpc": Column(
                "area between the curves: the fall of most minus least relevant first, in [-1, 1] for probabilities",
                higher_is_better=True,
            ),
            "region_perturbation_morf_curve": Column(
                f"f(x_k) from k = 0 on, most relevant regions first; {self.output}", kind="curve", axis=self.axis
            ),
            "region_perturbation_lerf_curve": Column(
                f"f(x_k) from k = 0 on, least relevant regions first; {self.output}", kind="curve", axis=self.axis
            ),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        replace = replacement(self.replacement, batch)
        morf, lerf = (self.curve(batch, replace, first) for first in (True, False))
        return {
            "region_perturbation_morf": mean_fall(morf),
            "region_perturbation_lerf": mean_fall(lerf),
            "region_perturbation_abpc": (lerf[:, 1:] - morf[:, 1:]).mean(1),
            "region_perturbation_morf_curve": morf,
            "region_perturbation_lerf_curve": lerf,
        }
