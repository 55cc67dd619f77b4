"""Which of Quantus' metrics run through the adapter, ``metric=quantus``: each is tried on colour images."""

import re

import quantus
import torch

from canonxai.errors import UserError
from canonxai.metrics.quantus import OF_SEVERAL_IMAGES, Quantus
from tests.metrics.batches import select
from tests.metrics.colour_images import colour_images

#: what images of 12 x 12 pixels, or a test's patience, need
ARGUMENTS = {
    "FaithfulnessCorrelation": {"nr_runs": 5, "subset_size": 20},
    "MonotonicityCorrelation": {"nr_samples": 3},
    "TopKIntersection": {"k": 20},
}
#: what there is to know of a metric, or why Quantus 0.6.0 itself fails
NOTES = {
    "FaithfulnessCorrelation": "its `subset_size` must be less than the pixels",
    "IROF": "takes grey images alone, and NumPy 1, by `numpy.trapz`",
    "InputInvariance": "needs a first layer with a bias and a network in float32; canonxai explains in float64",
    "ModelParameterRandomisation": "an old name of MPRT",
    "Monotonicity": "yes or no: on natural images, no for nearly every map",
    "NonSensitivity": "with its `features_in_step=1` alone, a forward for each value of each channel",
    "ROAD": "of whole pixels, where Quantus takes grey images alone; 0 or 1 for each percentage",
    "TopKIntersection": "its `k` must be less than the pixels",
}
MEANING = """### Which metrics of Quantus run through the adapter

`metric=quantus metric.name=X` gives Quantus one colour image at a time. Each metric of Quantus was tried: *yes* gives a
number an image, *curve=mean* needs `metric.quantus.curve=mean`, which takes the mean of its several numbers, and *no*
ends with a message."""


def kinds() -> list[str]:
    """The metrics of Quantus."""
    return sorted(name for name, kind in vars(quantus.metrics).items() if hasattr(kind, "score_direction"))


def outcome(name: str) -> str:
    """What the adapter makes of a metric."""
    batch = select(colour_images(), [0, 1])
    for curve, answer in ((None, "yes"), ("mean", "curve=mean")):
        try:
            (values,) = Quantus(name, ARGUMENTS.get(name, {}), curve=curve)(batch).values()
        except UserError as error:
            if not re.match(r"metric\.(name|quantus): ", str(error)):
                raise
        else:
            return answer if torch.isfinite(values).all() else "no"
    return "no"


def rows() -> list[str]:
    """The table of all."""
    return [
        "| metric | runs | note |",
        "| --- | :-: | --- |",
        *(f"| {name} | {outcome(name)} | {NOTES.get(name, OF_SEVERAL_IMAGES.get(name, ''))} |" for name in kinds()),
    ]
