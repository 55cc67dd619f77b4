"""Insertion and deletion: the area under the output's curve while the most relevant pixels come, or go.

    AUC = int_0^1 f(x_t) dt

by the trapezoidal rule over the fraction t of pixels. Deletion begins with the image and removes pixels; insertion
begins with a blurred image, by which the network is not given sharp edges, and puts the image's pixels back. Petsiuk,
Das and Saenko, BMVC 2018, "RISE: randomized input sampling for explanation of black-box models".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonxai.errors import check_choice
from canonxai.metrics.base import Column, Explanation
from canonxai.metrics.perturbation_metric import PerturbationMetric
from canonxai.metrics.replacement import IMAGES, REPLACEMENTS, replacement
from canonxai.perturbation import paste


class InsertionDeletion(PerturbationMetric):
    """Both curves from none to all of the pixels, and the areas under them.

    Args:
        steps: number of intervals, >= 1.
        output: f is the target's softmax ``probability`` or its ``logit``.
        deletion: what replaces deleted pixels: ``mean``, ``black``, ``blur``, ``uniform`` noise, or ``inpaint``.
        insertion: what the pixels are put into: one of the first four, which need no pixel that is left.

    Raises:
        UserError: if an argument is out of its range; at the first batch also if the images are too small for it.
    """

    name = "insertion_deletion"

    def __init__(
        self, steps: int = 20, output: str = "probability", deletion: str = "mean", insertion: str = "blur"
    ) -> None:
        super().__init__(1, steps, 1.0, output=output)
        check_choice("metric.insertion_deletion.deletion", deletion, REPLACEMENTS)
        check_choice("metric.insertion_deletion.insertion", insertion, IMAGES)
        self.deletion, self.insertion = deletion, insertion

    @property
    def columns(self) -> dict[str, Column]:
        area = f"area under the curve of {self.output}, in [0, 1] for probabilities"
        curve = f"{self.output}, from no pixel to all"
        return {
            "insertion": Column(f"most relevant pixels put into a {self.insertion}: {area}", higher_is_better=True),
            "deletion": Column(f"most relevant pixels deleted to {self.deletion}: {area}", higher_is_better=False),
            "insertion_curve": Column(f"insertion: {curve}", kind="curve", axis=self.axis),
            "deletion_curve": Column(f"deletion: {curve}", kind="curve", axis=self.axis),
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, "batch *axis"]]:
        curves = {
            "insertion": self.curve(batch, paste(batch.image), image=IMAGES[self.insertion](batch)),
            "deletion": self.curve(batch, replacement(self.deletion, batch)),
        }
        axis = torch.tensor(self.axis, dtype=torch.float64, device=batch.image.device)
        areas = {name: torch.trapezoid(curve.double(), axis) for name, curve in curves.items()}
        return areas | {f"{name}_curve": curve for name, curve in curves.items()}
