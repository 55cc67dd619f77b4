"""The fastest form of a network: the same function, fewer operations, the network itself untouched."""

from collections import Counter

import pytest
import torch
from torch import nn
from zennit.types import Linear

from canonxai.canonizers import fused
from canonxai.canonizers.graph.affine import is_batch_norm
from canonxai.canonizers.graph.trace import trace
from canonxai.models import narrow
from tests.canonizers.graph.networks import built
from tests.canonizers.graph.test_merge import MERGED, on_the_path
from tests.networks import difference, query, randomize, untouched


def calls(model):
    """How often the forward pass calls a BatchNorm, and a linear layer."""
    modules = [model.get_submodule(node.target) for node in trace(model).nodes if node.op == "call_module"]
    return Counter(
        "BatchNorm" if is_batch_norm(m) else "linear" for m in modules if is_batch_norm(m) or isinstance(m, Linear)
    )


@pytest.mark.parametrize("name", MERGED)
def test_outputs_are_the_same_and_no_layer_is_added(name):
    model, input = built(MERGED[name])
    before = calls(model)
    with untouched(model, input):
        fast, count = fused(model)
    assert difference(fast(input), model(input)) < 1e-9
    after = calls(fast)
    assert after["linear"] == before["linear"]
    assert count >= before["BatchNorm"] - after["BatchNorm"]
    assert (count > 0) == (on_the_path(fast) != on_the_path(model))
    if name.startswith("left"):
        assert not on_the_path(fast)


@pytest.mark.parametrize("build, left", [
    (narrow.resnet18, 0), (narrow.vgg16_bn, 0), (narrow.densenet121, 27), (narrow.efficientnet_b0, 0),
])  # fmt: skip
def test_batch_norms_that_remain(build, left):
    model = randomize(build())
    fast, count = fused(model)
    input = query(model).input
    assert difference(fast(input), model(input)) < 1e-9
    assert calls(fast)["BatchNorm"] == left
    assert count == calls(model)["BatchNorm"] - left


class InPlace(nn.Module):
    """Writes in place in every way, also where the result is not used by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.last = nn.Conv2d(3, 3, 3)

    def forward(self, input):
        x = self.conv(input)
        y = self.bn(x)
        self.relu(y)
        y.mul_(2)
        y += 1
        torch.relu_(y)
        y = y + self.last(y).mean()
        y *= 3
        return y


def test_what_is_written_in_place_still_is():
    model = randomize(InPlace())
    fast, count = fused(model)
    input = query(model).input
    assert count == 1
    assert fast.relu.inplace
    assert difference(fast(input.clone()), model(input.clone())) < 1e-9
