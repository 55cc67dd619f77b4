"""Which of Quantus' metrics run through the adapter, ``metric=quantus``: each is tried on colour images."""

import quantus

from canonxai.errors import UserError
from canonxai.metrics.quantus import OF_SEVERAL_IMAGES, Quantus
from tests.metrics.batches import select
from tests.metrics.colour_images import colour_images

#: what images of 12 x 12 pixels, or a test's patience, need
ARGUMENTS = {
    "FaithfulnessCorrelation": {"nr_runs": 5, "subset_size": 20},
    "MonotonicityCorrelation": {"nr_samples": 3},
    "SensitivityN": {"features_in_step": 12},
    "TopKIntersection": {"k": 20},
}
#: what there is to know of a metric
NOTES = {
    "BatchSufficiency": "Sufficiency under another name; Quantus' own fails for more than one image",
    "Completeness": "yes or no, by `==`: no for nearly every map",
    "Consistency": "higher is better, where Quantus says lower; "
    "its default, `top_n_sign`, compares the signs of the first five pixels, not of the most relevant",
    "FaithfulnessCorrelation": "its `subset_size` must be less than the pixels",
    "Focus": "of mosaics of four images; null without another image of the class, and two of others, in the group",
    "IROF": "of colour images and with NumPy 2, where Quantus takes grey ones alone and NumPy 1",
    "InputInvariance": "of any first layer, where Quantus needs a convolution with a bias in float32; yes or no",
    "ModelParameterRandomisation": "an old name of MPRT",
    "Monotonicity": "yes or no: on natural images, no for nearly every map",
    "NonSensitivity": "with its `features_in_step=1` alone, a forward for each value of each channel",
    "ROAD": "of whole pixels, where Quantus takes grey images alone; 0 or 1 for each percentage",
    "RegionPerturbation": "higher is better by its `order=morf`, where Quantus says lower; lower by `lerf`",
    "SensitivityN": "one score a group",
    "Sufficiency": "the share of similar maps in the group that have the same prediction",
    "TopKIntersection": "its `k` must be less than the pixels",
}
MEANING = """### Which metrics of Quantus run through the adapter

`metric=quantus metric.name=X` gives Quantus one colour image at a time. Each metric of Quantus was tried: *yes* gives a
number an image, *curve=mean* needs `metric.quantus.curve=mean`, which takes the mean of its several numbers, and
*group* compares images with each other: those of a group of `metric.quantus.group=16` that follow each other in the
data, on which its scores depend. The report takes images to be independent, which those of a group are not."""


def kinds() -> list[str]:
    """The metrics of Quantus."""
    return sorted(name for name, kind in vars(quantus.metrics).items() if hasattr(kind, "score_direction"))


def outcome(name: str) -> str:
    """What a metric needs, or why it fails."""
    of_group = name in OF_SEVERAL_IMAGES
    batch, needs = colour_images() if of_group else select(colour_images(), [0, 1]), ["group"] * of_group
    for curve, more in ((None, []), ("mean", ["curve=mean"])):
        try:
            (values,) = Quantus(name, ARGUMENTS.get(name, {}), curve=curve, group=4)(batch).values()
        except UserError as error:
            told = str(error)
        else:
            is_defined = values.isfinite()
            return ", ".join(needs + more) or "yes" if is_defined.all() or (of_group and is_defined.any()) else "null"
    return told


def rows() -> list[str]:
    """The table of all."""
    return [
        "| metric | runs | note |",
        "| --- | :-: | --- |",
        *(f"| {name} | {outcome(name)} | {NOTES.get(name, '')} |" for name in kinds()),
    ]
