"""Infidelity: how badly the map, taken as a linear model, foretells the fall of the output under a perturbation.

    INFD = E_I (beta I^T R - (f(x) - f(x - I)))^2

Yeh et al., NeurIPS 2019, "On the (in)fidelity and sensitivity of explanations". The perturbations I replace one square
of a grid each, so that the expectation is a mean over the squares and nothing is drawn. With ``scaled`` the factor beta
is the best one for each image, as in the authors' and Captum's code: without it, maps of different scale, as relevance
and gradients, cannot be compared. In Quantus each square stays replaced when the next one is; here it is alone.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from canonxai.errors import check, check_choice
from canonxai.metrics.base import Column, Explanation, Metric
from canonxai.metrics.output import Output
from canonxai.metrics.replacement import REPLACEMENTS, replacement
from canonxai.metrics.similarity import rescaled
from canonxai.perturbation import every_step, perturbed_pixels


class Infidelity(Metric):
    """The mean squared error over the squares of a grid; I is measured in the network's input.

    Args:
        region_size: side of the squares in pixels, from 1 to the shorter side of the image; each costs a forward.
        scaled: whether each map is first scaled by the factor that makes the error least.
        output: f is the target's softmax ``probability`` or its ``logit``.
        replacement: ``black``, ``uniform`` noise, the data's ``mean`` colour, a ``blur``, or ``inpaint``.

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the images are too small for it, or
            the maps have other channels than the network's input.
    """

    def __init__(
        self, region_size: int = 8, scaled: bool = True, output: str = "logit", replacement: str = "black"
    ) -> None:
        check(region_size >= 1, "metric.infidelity.region_size", "an integer >= 1", region_size)
        check_choice("metric.infidelity.replacement", replacement, REPLACEMENTS)
        self.output = Output(output, "infidelity")
        self.region_size, self.scaled, self.replacement = region_size, scaled, replacement

    @property
    def columns(self) -> dict[str, Column]:
        text = f"mean squared error of the fall of {self.output}, that the map foretells for a square; >= 0"
        return {"infidelity": Column(text, higher_is_better=False)}

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        height, width = batch.image.shape[2:]
        side = min(height, width)
        check(
            self.region_size <= side, "metric.infidelity.region_size", f"at most the image's shorter side, {side}",
            self.region_size,
        )  # fmt: skip
        rows, columns = -(-height // self.region_size), -(-width // self.region_size)
        grid = torch.arange(rows * columns, device=batch.image.device).view(1, rows, columns)
        square = perturbed_pixels(grid, self.region_size, height, width)
        replace, input, start = (
            replacement(self.replacement, batch),
            batch.input,
            self.output(batch.logits, batch.target),
        )
        relevance = rescaled(batch.attribution) if self.scaled else batch.attribution
        check(
            relevance.shape[1] in (1, input.shape[1]), "metric.infidelity",
            f"maps of 1 channel or the {input.shape[1]} of the network's input", relevance.shape[1],
        )  # fmt: skip

        def score(sample: Int64[Tensor, " n"], step: Int64[Tensor, " n"]) -> Float[Tensor, "n 2"]:
            images = replace(batch.image[sample], (square == step[:, None, None])[:, None], sample)
            change = input[sample] - batch.normalize(images, input.dtype)
            foretold = (change * relevance[sample]).sum((1, 2, 3))
            fall = start[sample] - self.output(batch.predict(images), batch.target[sample])
            return torch.stack([foretold.double(), fall.double()], 1)

        foretold, fall = every_step(score, len(input), rows * columns, batch.batch_size, input.device).unbind(2)
        return {"infidelity": squared_error(foretold, fall, self.scaled)}


def squared_error(
    foretold: Float[Tensor, "batch steps"], fall: Float[Tensor, "batch steps"], scaled: bool
) -> Float[Tensor, " batch"]:
    """The mean squared error of ``foretold``, or of its best multiple."""
    if scaled:
        square = foretold.square().sum(1, keepdim=True)
        factor = (foretold * fall).sum(1, keepdim=True) / square
        foretold = foretold * factor.where(square > 0, 0)
    return (foretold - fall).square().mean(1)
