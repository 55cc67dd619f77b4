"""Integrated Gradients: the gradient's mean on the straight path from a baseline, times the way.

    R = (x - x') * 1/n sum_{i=1..n} df_c/dx (x' + i/n (x - x'))

Sundararajan, Taly and Yan, ICML 2017, "Axiomatic attribution for deep networks"; zennit's ``IntegratedGradients``.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from zennit import attribution as zennit
from zennit.core import Composite

from canonxai.attribution.base import Method, Query
from canonxai.errors import check, check_choice


class IntegratedGradients(Method):
    """Integrated Gradients; canonization cannot change it.

    Args:
        steps: number n of points on the path, >= 1.
        baseline: where the path begins: ``mean`` (the data's mean colour, zero after normalisation), ``black`` or
            ``white``.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(self, steps: int = 20, baseline: str = "mean") -> None:
        check(steps >= 1, "method.steps", "an integer >= 1", steps)
        check_choice("method.baseline", baseline, ("mean", "black", "white"))
        self.steps, self.baseline = steps, baseline

    def attributor(self, query: Query, composite: Composite) -> zennit.Attributor:
        colour = {"mean": torch.zeros_like(query.low), "black": query.low, "white": query.high}[self.baseline]

        def baseline(input: Float[Tensor, "batch channels height width"]) -> Tensor:
            return colour.expand_as(input)

        return zennit.IntegratedGradients(query.model, composite, baseline_fn=baseline, n_iter=self.steps)
