"""How much relevance each layer conserves, against what the rules' formulas say."""

import pytest
import torch
from torch import nn

from canonxai.attribution.base import Query
from canonxai.attribution.flow import relevance_flow
from canonxai.attribution.lrp import LRPEpsilon
from canonxai.canonizers import ResNetCanonizer
from canonxai.models import narrow
from tests.networks import randomize


def query(model, *shape):
    input = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bound = torch.ones(shape[0], 1, 1, dtype=torch.float64)
    return Query(model.double().eval(), input, torch.tensor([1, 0]), -bound, bound, torch.arange(2), 0)


def test_without_bias_each_layer_conserves_relevance():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2, bias=False)
    )
    flows = relevance_flow(LRPEpsilon(epsilon=1e-12, stabilizer=1e-12), query(model, 3, 8, 8))
    assert list(flows) == ["0", "1", "2", "3", "4"]
    assert flows["4"].above == pytest.approx(2)  # 1 an image
    for flow in flows.values():
        assert flow.ratio == pytest.approx(1, abs=1e-6)


def test_a_bias_absorbs_its_share():
    layer = nn.Linear(3, 2)
    asked = query(nn.Sequential(nn.Flatten(), layer), 3, 1, 1)
    flow = relevance_flow(LRPEpsilon(epsilon=1e-12), asked)["1"]
    with torch.no_grad():
        logits = layer(asked.input.flatten(1))
        share = (logits - layer.bias) / logits
    assert flow.below == pytest.approx(float(share[0, 1] + share[1, 0]), rel=1e-6)


def test_calls_of_a_shared_layer_add_up():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.fc = nn.ReLU(), nn.Linear(3, 2, bias=False)

        def forward(self, x):
            return self.relu(self.fc(self.relu(x.flatten(1))))

    asked = query(Twice(), 3, 1, 1)
    asked.model.fc.weight.data.abs_()
    assert relevance_flow(LRPEpsilon(epsilon=1e-12), asked)["relu"].above == pytest.approx(4)


def test_an_add_without_a_module_doubles_relevance_and_the_model_stays_as_it_was():
    model = randomize(narrow.resnet18())
    asked, state = query(model, 3, 32, 32), {name: value.clone() for name, value in model.state_dict().items()}
    added = relevance_flow(LRPEpsilon(), asked, [ResNetCanonizer(["merge_bn"])])
    summed = relevance_flow(LRPEpsilon(), asked, [ResNetCanonizer()])
    both = "layer4.1.conv2", "layer4.1.relu"
    assert added[both[0]].above == pytest.approx(added["avgpool"].below)
    assert summed[both[0]].above != pytest.approx(summed["avgpool"].below, rel=1e-3)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_error_leaves_no_hooks():
    asked = query(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 3, 1, 1)
    with pytest.raises(RuntimeError):
        relevance_flow(LRPEpsilon(), asked)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in asked.model.modules())
