"""The evaluated network: the same function in every form, layout and precision, and how far it is from the exact."""

import copy
import logging
import os
import shutil

import pytest
import torch
from torch import nn

from canonxai.errors import UserError
from canonxai.models import evaluator, narrow
from canonxai.models.evaluator import Effect, Evaluator
from canonxai.models.normalization import Normalization
from canonxai.models.precision import tf32
from tests.networks import untouched

NORMALIZE = Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
EMBEDDED = {
    "resnet18": narrow.resnet18,
    "vgg16_bn": narrow.vgg16_bn,
    "densenet121": narrow.densenet121,
    "efficientnet_b0": narrow.efficientnet_b0,
}
IMAGES = torch.randint(256, (9, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TARGET = torch.arange(9)


def embedded(name="resnet18"):
    return EMBEDDED[name](weights=f"scenes_{name}.safetensors").eval()


@torch.no_grad()
def exact(model, images=IMAGES):
    return copy.deepcopy(model).double()(NORMALIZE(images, torch.float64))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("network", ["fused", "original"])
@pytest.mark.parametrize("precision, tolerance", [("32", 2e-5), (64, 1e-12), ("bf16", 0.1), ("fp16", 0.02)])
def test_logits_are_those_of_the_network_as_written(name, network, precision, tolerance):
    model = embedded(name)
    evaluate = Evaluator(model, NORMALIZE, network, precision)
    assert evaluate.is_fused == (network == "fused")
    with untouched(model, NORMALIZE(IMAGES[:2])):
        logits = evaluate(IMAGES)
    assert relative(logits, exact(model)) < tolerance
    assert logits.dtype == (torch.float64 if precision == 64 else torch.float32)
    if precision in ("bf16", "fp16"):
        assert relative(logits, exact(model)) > 1e-4  # else it is not used


@pytest.mark.parametrize(
    "images", [IMAGES, IMAGES.double() * 0.77, IMAGES.contiguous(memory_format=torch.channels_last)]
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_neither_layout_nor_batch_changes_a_logit_beyond_rounding(channels_last, images):
    model = embedded()
    evaluate = Evaluator(model, NORMALIZE, channels_last=channels_last)
    expected = exact(model, images)
    assert relative(evaluate(images), expected) < 2e-5
    parts = torch.cat([evaluate(part) for part in images.split(2)])  # the memory of the first is used again
    assert relative(parts, expected) < 2e-5
    smaller = images[:, :, :48, :40]
    assert relative(evaluate(smaller), exact(model, smaller)) < 2e-5


@pytest.mark.filterwarnings("ignore")
def test_compiled_batches_of_one_size_are_filled_up(monkeypatch):
    seen = []
    compiler = torch.compile

    def spy(function, **options):
        compiled = compiler(function, **options, backend="eager")
        return lambda input: seen.append(len(input)) or compiled(input)

    monkeypatch.setattr(evaluator.torch, "compile", lambda function, dynamic, mode: spy(function, dynamic=dynamic))
    model = embedded()
    evaluate = Evaluator(model, NORMALIZE, compile=True, batch_size=8)
    for count in (8, 5, 4, 1, 9, 7):
        assert relative(evaluate(IMAGES[:count]), exact(model, IMAGES[:count])) < 2e-5
    assert seen == [8, 8, 8]


@pytest.mark.skipif(
    shutil.which("g++") is None and os.environ.get("CI") != "true",
    reason="torch.compile needs g++; on CI it must be there",
)
@pytest.mark.filterwarnings("ignore")
def test_compiling_changes_nothing_beyond_rounding():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    evaluate = Evaluator(model, NORMALIZE, compile=True, batch_size=8)
    images = IMAGES[..., :8, :8]
    for count in (8, 5, 8):
        assert relative(evaluate(images[:count]), exact(model, images[:count])) < 2e-5
    assert evaluate._compiled is not None


def test_what_is_returned_may_be_kept_by_autograd_and_is_not_overwritten():
    evaluate = Evaluator(embedded(), NORMALIZE)
    first = evaluate(IMAGES[:2])
    kept = first.clone()
    evaluate(IMAGES[2:4])
    assert torch.equal(first, kept)
    assert not first.is_inference() and not first.requires_grad


@pytest.mark.parametrize("before", [(True, False), (False, True)])
def test_settings_of_the_backends_are_restored(before):
    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    start = flags()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    try:
        with pytest.raises(ZeroDivisionError), tf32(True):
            assert flags() == (True, True)
            raise ZeroDivisionError
        assert flags() == before
        seen = []

        class Network(nn.Module):
            def forward(self, input):
                seen.append(flags())
                return input.mean((2, 3))

        Evaluator(Network(), NORMALIZE)(IMAGES)
        assert seen[-1] == (False, False)  # exact, also where torch would round by default
        assert flags() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = start


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(
        UserError, match=r"^perturbation\.precision: expected 32, 64, bf16 or fp16 on a cpu, got 'tf32'"
    ):
        Evaluator(embedded(), NORMALIZE, precision="tf32")(IMAGES)


class Branching(nn.Module):
    def forward(self, input):
        return input.mean((2, 3)) if input.sum() > 0 else input.amax((2, 3))


@pytest.mark.parametrize("model, reason", [
    (Branching(), "a network that torch.fx can trace"),
    (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)), "no BatchNorm alone follows a linear layer"),
])  # fmt: skip
def test_what_cannot_be_fused_is_evaluated_as_written_and_that_is_said(model, reason, caplog):
    caplog.set_level(logging.INFO)
    evaluate = Evaluator(model, NORMALIZE)
    assert not evaluate.is_fused
    (told,) = [record.message for record in caplog.records if "evaluated as written" in record.message]
    assert reason in told
    assert relative(evaluate(IMAGES), exact(model)) < 1e-5
    evaluate.compare(model, IMAGES, TARGET.clamp(max=1))
    assert evaluate.agreement == {} and evaluate.effect.images == 9


@pytest.mark.parametrize("precision, most", [("32", 1e-5), ("64", 1e-12), ("bf16", 0.5)])
def test_the_effect_on_the_first_images_is_measured(precision, most):
    model = embedded()
    evaluate = Evaluator(model, NORMALIZE, precision=precision, verify=7)
    for start in range(0, 9, 3):
        evaluate.compare(model, IMAGES[start : start + 3], TARGET[start : start + 3])
    with torch.no_grad():
        fast = evaluate(IMAGES[:7]).double().softmax(1)
        difference = (fast - exact(model)[:7].softmax(1))[range(7), range(7)].abs()
    assert evaluate.effect.images == 7
    assert evaluate.effect.max == pytest.approx(
        float(difference.max()), rel=1e-2, abs=1e-8 if precision != "64" else 1e-15
    )
    assert evaluate.effect.mean == pytest.approx(
        float(difference.mean()), rel=1e-2, abs=1e-8 if precision != "64" else 1e-15
    )
    assert evaluate.effect.max < most
    assert evaluate.agreement["float64"].max_rel < 1e-12
    assert ("float32" in evaluate.agreement) == (precision != "64")


def test_a_fused_network_that_computes_something_else_is_refused(monkeypatch):
    def inexact(model):
        fast, count = fused(model)
        fast.fc.weight.data *= 1.001
        return fast, count

    fused = evaluator.fused
    monkeypatch.setattr(evaluator, "fused", inexact)
    model = embedded()
    with pytest.raises(UserError, match=r"^perturbation\.network: expected .*tolerance=0\.0001.*network=original"):
        Evaluator(model, NORMALIZE).compare(model, IMAGES, TARGET)
    Evaluator(model, NORMALIZE, tolerance=0.1).compare(model, IMAGES, TARGET)


def test_effects_are_joined_by_images():
    assert Effect(0.5, 0.25, 3) | Effect(0.75, 0.5, 1) == Effect(0.75, 0.3125, 4)


@pytest.mark.parametrize("options, message", [
    ({"network": "canonized"}, r"perturbation\.network: expected one of fused, original"),
    ({"precision": 16}, r"perturbation\.precision: expected one of 32, 64, tf32, bf16, fp16"),
    ({"verify": 0}, r"perturbation\.verify: expected an integer >= 1"),
    ({"tolerance": 0.0}, r"perturbation\.tolerance: expected a number > 0"),
    ({"compile": True, "batch_size": "auto"}, r"perturbation\.compile: expected false where .*batch_size=auto"),
])  # fmt: skip
def test_mistakes_are_told(options, message):
    with pytest.raises(UserError, match=message):
        Evaluator(embedded(), NORMALIZE, **options)
