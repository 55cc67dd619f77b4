"""Effective complexity: how many pixels are attributed more than next to nothing.

    EC = |{p : |R(p)| > threshold max |R|}|

After Nguyen and Martinez, 2020, "On quantitative aspects of model interpretability", whose own definition, the fewest
features that keep the expected loss below a threshold, needs an expectation over the features left out; this is the one
that Quantus and with it most of the field use.
"""

from jaxtyping import Float
from torch import Tensor

from canonxai.errors import check
from canonxai.metrics.base import Column, Explanation, Metric, heatmap


class EffectiveComplexity(Metric):
    """The number of pixels of the channel-summed map above a threshold.

    Args:
        threshold: as a fraction of the largest absolute value, in [0, 1).

    Raises:
        UserError: if ``threshold`` is out of its range.
    """

    def __init__(self, threshold: float = 1e-5) -> None:
        check(0 <= threshold < 1, "metric.effective_complexity.threshold", "a number in [0, 1)", threshold)
        self.threshold = threshold

    @property
    def columns(self) -> dict[str, Column]:
        text = f"pixels with |R| > {self.threshold:g} max |R|, in [1, pixels]; null where the map is zero"
        return {"effective_complexity": Column(text, higher_is_better=False)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        values = heatmap(batch.attribution).flatten(1).double().abs()
        largest = values.amax(1)
        count = (values / largest[:, None] > self.threshold).sum(1)
        return {"effective_complexity": count.double().where(largest > 0, float("nan"))}
