"""Every metric on maps whose value is known: the object itself, its inverse, a constant, one pixel, and noise.

The network sees nothing but the object: its first logit is the mean of the box's 16 pixels, its second a threshold.
"""

from dataclasses import replace
from math import log, sqrt

import pytest
import torch
from torch import nn

from canonxai import random
from canonxai.batch_size import BatchSize
from canonxai.metrics.local_lipschitz import LocalLipschitz
from canonxai.metrics.parameter_randomization import ParameterRandomization
from canonxai.metrics.pointing_game import PointingGame
from canonxai.metrics.random_logit import RandomLogit
from canonxai.metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from canonxai.metrics.sensitivity import Sensitivity
from canonxai.models.normalization import Normalization
from canonxai.random import Stream
from tests.metrics.batches import METRICS, built, explanation, of_map

SAMPLES, SIDE = 400, 8
BOX = torch.zeros(SIDE, SIDE, dtype=torch.bool)
BOX[2:6, 4:8] = True
ONE = torch.zeros(SIDE, SIDE)
ONE[3, 5] = 1
MAPS = {
    "perfect": BOX.double().expand(SAMPLES, SIDE, SIDE),
    "inverted": (~BOX).double().expand(SAMPLES, SIDE, SIDE),
    "constant": torch.ones(SAMPLES, SIDE, SIDE, dtype=torch.float64),
    "one pixel": ONE.double().expand(SAMPLES, SIDE, SIDE),
    "random": torch.randn(SAMPLES, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
}
NAN = float("nan")
LOGIT = {"output": "logit", "replacement": "black"}
EVERY_PIXEL = {"region_size": 1, "steps": 64, "fraction": 1.0, **LOGIT}
INSIDE = (1, 0, 0.25, 1, 0.25)
FALLS = (56.5 / 64, 8.5 / 64, 32.5 / 64, 34 / 64, 32.5 / 64)
THRESHOLD = {"sufficiency": 0.9}  #: the box must be nearly white; noise in its place is grey
#: of each metric of ``conf/metric``: what makes its answers known, and its columns' means for the maps, in their order
KNOWN = {
    "localization": ({}, {"localization": INSIDE}),
    "energy_pointing_game": ({}, {"energy_pointing_game": INSIDE}),
    "relevance_mass_accuracy": ({}, {"relevance_mass_accuracy": INSIDE}),
    "pointing_game": ({}, {"pointing_game": INSIDE}),
    # what is not the pixel is in any order
    "relevance_rank_accuracy": ({}, {"relevance_rank_accuracy": (1, 0, 0.25, (1 + 15 * 15 / 63) / 16, 0.25)}),
    "top_k_intersection": ({"fraction": 8 / 64}, {"top_k_intersection": (1, 0, 0.25, (1 + 7 * 15 / 63) / 8, 0.25)}),
    "localization_auc": ({}, {"localization_auc": (1, 0, 0.5, (1 + 15 / 2) / 16, 0.5)}),
    # of absolute normal values; 64 of them are a little less sparse than all
    "sparseness": ({}, {"sparseness": (48 / 64, 16 / 64, 0, 63 / 64, (sqrt(2) - 1) * 63 / 64)}),
    "complexity": ({}, {"complexity": (log(16), log(48), log(64), 0, pytest.approx(log(64) - 0.284, abs=0.01))}),
    "effective_complexity": ({}, {"effective_complexity": (16, 48, 64, 1, pytest.approx(64, abs=0.01))}),
    # the fall after k pixels: k/16 until the box is gone, or nothing until all else is; else k/64 on average
    "input_perturbation": (EVERY_PIXEL, {"input_perturbation": FALLS}),
    "region_perturbation": (
        EVERY_PIXEL,
        {
            "region_perturbation_morf": FALLS,
            "region_perturbation_lerf": (8.5 / 64, 56.5 / 64, 32.5 / 64, 31 / 64, 32.5 / 64),
            "region_perturbation_abpc": (0.75, -0.75, 0, 3 / 64, 0),
        },
    ),
    "insertion_deletion": (
        {"steps": 64, "output": "logit", "deletion": "black", "insertion": "black"},
        {"deletion": (0.125, 0.875, 0.5, 30.5 / 64, 0.5), "insertion": (0.875, 0.125, 0.5, 33.5 / 64, 0.5)},
    ),
    # without the box, it is imputed from the black; with a fourth of the pixels gone anywhere, enough is left
    "road": ({"steps": 1, "fraction": 0.25}, {"road_morf": (0, 1, 1, 1, 1), "road_lerf": (1, 0, 1, 1, 1)}),
    "faithfulness_correlation": (
        {"subsets": 40, "fraction": 0.2, **LOGIT},
        {"faithfulness_correlation": (1, -1, NAN, pytest.approx(sqrt(48 / 63 / 16), abs=0.02), 0)},
    ),
    # a square is one pixel; the fall, 1/16 in the box, is foretold, or by the best multiple of the map in part
    "infidelity": (
        {"region_size": 1, **LOGIT},
        {"infidelity": (0, 1 / 1024, 0, 15 / 16 / 1024, 15 / 16 / 1024)},
    ),
    "sufficiency": ({}, {"sufficiency": (1, 0, 0, pytest.approx(0, abs=0.02), pytest.approx(0, abs=0.01))}),
    # the network's maps are the same for every input, class and parameter
    "sensitivity": ({"samples": 2}, {"max_sensitivity": (0, 0, 0, 0, 0), "avg_sensitivity": (0, 0, 0, 0, 0)}),
    "local_lipschitz": ({"samples": 2}, {"local_lipschitz": (0, 0, 0, 0, 0)}),
    "random_logit": ({}, {"random_logit": (1, 1, NAN, 1, 1)}),
    "parameter_randomization": ({"steps": 2}, {"parameter_randomization": (1, 1, NAN, 1, 1)}),
    "efficient_mprt": ({}, {"efficient_mprt": (0, 0, NAN, 0, 0)}),
    # to the perfect map
    "distance": ({}, {"distance": (0, 1, 0.5, 0.75, 1)}),
}


def network(threshold):
    """The mean of the box, 1 for a white one and 0 for a black one, and a threshold."""

    def predict(pixels):
        inside = pixels.double().mean(1)[:, BOX].mean(1) / 255
        return torch.stack([inside, torch.full_like(inside, threshold)], 1)

    return predict


def constructed(relevance, threshold=0.5, **changes):
    """White objects on black."""
    image = (255 * BOX).to(torch.uint8).expand(SAMPLES, 3, SIDE, SIDE)
    attribution = of_map(relevance)
    return explanation(
        attribution,
        image=image,
        box=BOX.expand(SAMPLES, SIDE, SIDE),
        mask=BOX.expand(SAMPLES, SIDE, SIDE),
        logits=network(threshold)(image),
        predict=network(threshold),
        normalize=Normalization([0.0] * 3, [1.0] * 3),
        explain=lambda *_: attribution,
        network=nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)),
        original=of_map(MAPS["perfect"]),
        batch_size=BatchSize(10_000),
        **changes,
    )


@pytest.mark.parametrize("case", range(5), ids=list(MAPS))
@pytest.mark.parametrize("name", METRICS)
def test_value_is_the_known_one(name, case):
    """A YAML in ``conf/metric`` of which no answers are stated fails here."""
    arguments, answers = KNOWN[name]
    metric = built(name, **arguments)
    assert answers.keys() == {name for name, column in metric.columns.items() if column.kind == "number"}
    values = metric(constructed(list(MAPS.values())[case], THRESHOLD.get(name, 0.5)))
    for column, expected in answers.items():
        value = values[column].double()
        error = float(value.std() / SAMPLES**0.5)  # of the mean; 0 where nothing is random
        known = expected[case]
        if isinstance(known, int | float):
            known = pytest.approx(known, abs=5 * error + 1e-9, nan_ok=True)
        assert float(value.mean()) == known, column


def test_no_answers_are_stated_of_what_does_not_exist():
    assert KNOWN.keys() == set(METRICS)


def test_a_map_that_turns_around_has_the_largest_changes():
    batch = constructed(MAPS["random"])
    turned = replace(batch, explain=lambda *_: -batch.attribution)
    assert Sensitivity(3)(turned)["avg_sensitivity"].tolist() == pytest.approx([2] * SAMPLES)
    assert Sensitivity(3, normalize=True)(turned)["max_sensitivity"].tolist() == pytest.approx([2] * SAMPLES)
    length = 0.1 * random.normal(0, Stream.LIPSCHITZ, turned.sample_id, (3, SIDE, SIDE)).flatten(1).norm(dim=1)
    scaled = MAPS["random"] / MAPS["random"].abs().amax((1, 2), keepdim=True)
    expected = 2 * scaled.flatten(1).norm(dim=1) / length
    assert LocalLipschitz(1)(turned)["local_lipschitz"].tolist() == pytest.approx(expected.tolist())
    assert RandomLogit("cosine")(turned)["random_logit"].tolist() == pytest.approx([-1] * SAMPLES)
    assert ParameterRandomization(2)(turned)["parameter_randomization"].tolist() == pytest.approx([-1] * SAMPLES)


@pytest.mark.parametrize(("tolerance", "expected"), [(0, [1, 0, 0, 0]), (1, [1, 1, 0, 0]), (2, [1, 1, 1, 1])])
def test_a_maximum_within_the_tolerance_of_the_object_is_a_hit(tolerance, expected):
    """In the box, beside it, two pixels away, and at its corner's corner, at a distance of the root of two."""
    relevance = torch.zeros(4, SIDE, SIDE)
    for sample, (row, column) in enumerate([(2, 4), (2, 3), (2, 2), (1, 3)]):
        relevance[sample, row, column] = 1
    batch = explanation(of_map(relevance), box=BOX.expand(4, SIDE, SIDE))
    assert PointingGame(tolerance=tolerance)(batch)["pointing_game"].tolist() == expected


@pytest.mark.parametrize(
    ("pooling", "inside", "outside"),
    [("positive", 3, 2), ("absolute", 3 + 1, 2), ("l2_squared", 5 + 1, 2), ("max_norm", 2 + 1, 1)],
)
def test_pooling_makes_one_value_of_the_channels(pooling, inside, outside):
    """Two pixels in the object, one of them negative, and one outside."""
    attribution = torch.zeros(1, 3, 2, 2)
    attribution[0, :, 0, 0] = torch.tensor([2.0, 0, 1])
    attribution[0, :, 0, 1] = torch.tensor([0, 0, -1.0])
    attribution[0, :, 1, 0] = torch.tensor([1.0, 0, 1])
    batch = explanation(attribution, box=torch.tensor([[[True, True], [False, False]]]))
    value = RelevanceMassAccuracy(pooling=pooling)(batch)["relevance_mass_accuracy"]
    assert value.tolist() == pytest.approx([inside / (inside + outside)])
