"""What several metrics need of a batch is computed once."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from canonxai.metrics import perturbation_metric
from canonxai.metrics.base import once_per_images, once_per_map
from canonxai.metrics.efficient_mprt import EfficientMPRT
from canonxai.metrics.input_perturbation import InputPerturbation
from canonxai.metrics.insertion_deletion import InsertionDeletion
from canonxai.metrics.parameter_randomization import ParameterRandomization
from canonxai.metrics.region_perturbation import RegionPerturbation
from canonxai.metrics.replacement import uniform
from canonxai.metrics.road import Road
from canonxai.metrics.sufficiency import Sufficiency
from tests.metrics.batches import explanation, select

ALL = [
    InputPerturbation(steps=2),
    InputPerturbation(region_size=2, steps=2),
    InsertionDeletion(steps=2, deletion="uniform"),
    RegionPerturbation(region_size=2, steps=2),
    Road(steps=2),
    Sufficiency(draws=2),
]


def batch():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    return explanation(
        torch.randn(3, 3, 8, 8), image=images, predict=lambda image: image.double().flatten(1)[:, :2] / 255
    )


def test_no_order_is_sorted_twice_and_no_noise_drawn_twice(monkeypatch):
    sorted_, drawn = Counter(), Counter()
    ranks, pixels = perturbation_metric.ranks, perturbation_metric.random.pixels

    def counted_ranks(scores, ties):
        sorted_[tuple(scores.shape), round(float(scores.sum()), 3)] += 1
        return ranks(scores, ties)

    def counted_pixels(seed, stream, sample_id, shape):
        drawn[stream.name] += 1
        return pixels(seed, stream, sample_id, shape)

    monkeypatch.setattr(perturbation_metric, "ranks", counted_ranks)
    monkeypatch.setattr(perturbation_metric.random, "pixels", counted_pixels)
    one = batch()
    values = [metric(one) for metric in ALL]
    assert len(sorted_) == 4  # pixels and regions, most and least relevant first
    assert set(sorted_.values()) == {1}
    assert drawn["NOISE"] == 1
    for metric, found in zip(ALL, values, strict=True):  # as alone
        expected = metric(batch())
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_random_network_is_explained_once():
    explained = []

    def explain(*_):
        explained.append(True)
        return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(len(explained)))

    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(6, 2))
    one = replace(batch(), network=network, explain=explain)
    metrics = [ParameterRandomization(2), EfficientMPRT(), ParameterRandomization(1, "cosine")]
    together = {name: value for metric in metrics for name, value in metric(one).items()}
    assert len(explained) == 2  # half random, and all of it
    for metric in metrics[1:]:
        explained[:] = [True]
        assert all(torch.equal(together[name], v) for name, v in metric(replace(one)).items())


def test_batches_share_nothing():
    one = batch()
    assert uniform(one) is uniform(one)
    other = select(one, [2, 0])
    assert not other.of_images and not other.of_map
    assert torch.equal(uniform(other), uniform(one)[[2, 0]])


@pytest.mark.parametrize("once", [once_per_images, once_per_map])
@pytest.mark.parametrize("arguments", [(), (1,), (1, "a")])
def test_arguments_tell_values_apart(once, arguments):
    seen = []

    @once
    def function(batch, *given):
        seen.append(given)
        return given

    one = batch()
    for _ in range(2):
        assert function(one, *arguments) == arguments
        assert function(one, "other") == ("other",)
    assert seen == [arguments, ("other",)]
