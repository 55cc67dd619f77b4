"""The order of a network's outputs: told by names, and checked by chance."""

import itertools
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from scipy.stats import norm

from canonxai.data.ilsvrc_classes import NAMES, labels
from canonxai.errors import UserError
from canonxai.models.labels import LabelCheck, is_chance, outputs_of_labels

WNIDS = list(labels())


def test_the_same_names_are_the_same_order_even_if_some_are_twice():
    assert outputs_of_labels(NAMES, NAMES) == list(range(1000))


def test_another_order_is_found_by_names():
    assert outputs_of_labels(["dog", "Cat ", "grey_wolf"], ["cat", "grey wolf", "dog"]) == [1, 2, 0]


def test_classes_without_an_output_have_none():
    assert outputs_of_labels(["dog"], ["cat", "dog"]) == [None, 0]


def test_wordnet_ids_are_names_too():
    backwards = WNIDS[::-1]
    assert outputs_of_labels(backwards, NAMES, WNIDS) == list(range(1000))[::-1]


@pytest.mark.parametrize("classes, expected", [
    (["fish", "bird"], r"expected names as cat, dog, got \['fish', 'bird'\]"),
    (["cat", "Cat", "dog"], "'cat' is the name of several classes; use their WordNet ids"),
])  # fmt: skip
def test_what_cannot_be_matched_is_told(classes, expected):
    with pytest.raises(UserError, match=rf"^model\.classes: {expected}"):
        outputs_of_labels(classes, ["cat", "dog"])


def test_a_name_of_two_labels_is_refused_and_their_ids_are_not():
    classes, ids = ["crane", "cat", "crane"], ["n02012849", "n02123045", "n03126707"]
    with pytest.raises(UserError, match="'crane' is the name of several classes"):
        outputs_of_labels(["crane", "cat"], classes, ids)
    assert outputs_of_labels(["n03126707", "cat", "n02012849"], classes, ids) == [2, 1, 0]


@pytest.mark.parametrize("images", [10, 64, 100])
@pytest.mark.parametrize("correct, warned", [(0.0, True), (0.1, True), (0.6, False), (1.0, False)])
def test_predictions_as_by_chance_are_told_once(correct, warned, images, caplog):
    label = torch.arange(images) % 10
    right = torch.arange(images) < round(correct * min(images, 64))
    check, lightning = LabelCheck(outputs=10, images=64), (Trainer(logger=False, accelerator="cpu"), LightningModule())
    with caplog.at_level(logging.WARNING):
        for batch in torch.arange(images).split(8):
            columns = {"label": label[batch], "prediction": torch.where(right, label, label + 1)[batch]}
            check.on_predict_batch_end(*lightning, {"columns": columns}, None, 0)
            check.on_predict_batch_end(*lightning, None, None, 0)  # a batch of which nothing could be read
        check.on_predict_end(*lightning)
    assert len([record for record in caplog.records if record.name == "canonxai.models.labels"]) == warned
    assert f"top-1 is {int(right.sum())} of the first {min(images, 64)} images" in caplog.text or not warned


def warnings(labels, predictions, caplog):
    check, lightning = (
        LabelCheck(outputs=1000, images=64),
        (Trainer(logger=False, accelerator="cpu"), LightningModule()),
    )
    with caplog.at_level(logging.WARNING):
        for label, prediction in zip(labels.split(16), predictions.split(16), strict=True):
            check.on_predict_batch_end(*lightning, {"columns": {"label": label, "prediction": prediction}}, None, 0)
        check.on_predict_end(*lightning)
    return [record.args for record in caplog.records if record.name == "canonxai.models.labels"]


def test_always_the_class_of_the_first_images_is_noticed_in_the_end(caplog):
    labels = torch.arange(3).repeat_interleave(70)
    assert warnings(labels, torch.zeros_like(labels), caplog) == [(70, 210)]


@pytest.mark.parametrize("sizes", [(70,), (200, 9), (62, 3, 70), (54, 10), (1,) * 70])
def test_a_fair_network_is_not_suspected_for_the_order_of_the_classes(sizes, caplog):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    wrong = torch.arange(len(labels)) % 3 == 0
    assert warnings(labels, torch.where(wrong, 500 + torch.arange(len(labels)), labels), caplog) == []


@pytest.mark.parametrize("side", [-1e-9, 1e-9])
def test_chance_is_that_of_shuffled_predictions(monkeypatch, side):
    """The threshold against mean and deviation over all permutations, which are few enough to be listed."""
    labels, predictions = np.array([0, 0, 0, 1, 1, 2, 3]), np.array([0, 0, 2, 1, 2, 2, 0])
    agreed = [np.count_nonzero(labels == order) for order in itertools.permutations(predictions)]
    level = norm.sf((np.count_nonzero(labels == predictions) - np.mean(agreed)) / np.std(agreed))
    monkeypatch.setattr("canonxai.models.labels.OTHERS", 0)
    monkeypatch.setattr("canonxai.models.labels.LEVEL", level + side)
    assert is_chance(Counter(zip(labels.tolist(), predictions.tolist(), strict=True)), 4) == (side < 0)
