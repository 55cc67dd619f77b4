import pytest
import torch
from torch import Tensor

from canonxai.attribution.gbp import GuidedBackprop
from canonxai.canonizers import GraphCanonizer
from canonxai.canonizers.graph.affine import Affine
from canonxai.canonizers.graph.threshold import thresholded
from tests.canonizers.graph.networks import Network, bn, built, conv, relu
from tests.networks import difference, query

SCALES = [1.5, -0.7, 0.0, 0.0, 0.0, 1e-7, -1e-7, 1e-7, 2.0]
SHIFTS = [0.3, -0.2, 0.8, -0.8, 0.0, 0.9, 0.9, -0.9, 0.0]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_scaled_and_shifted_it_is_the_relu_behind_the_batch_norm(dtype, tolerance):
    """Also where gamma is zero, or so small that the threshold is infinite in float16."""
    affine = Affine(torch.tensor(SCALES).double(), torch.tensor(SHIFTS).double())
    activation, after = thresholded(affine, dtype)
    x = torch.linspace(-3, 3, 41, dtype=dtype)[:, None].expand(-1, len(SCALES)).clone().requires_grad_()

    def gradient(y: Tensor) -> Tensor:
        return torch.autograd.grad(y.sum(), x)[0].double()

    expected, got = (affine.scale * x + affine.shift).relu(), after.scale * activation(x) + after.shift
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * 3)
    torch.testing.assert_close(gradient(got), gradient(expected), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("preactivation", ["threshold", "untangle"])
def test_guided_backpropagation_does_not_change(preactivation):
    assert isinstance(thresholded(Affine(torch.ones(1).double(), torch.ones(1).double()), torch.float64)[0], relu)

    def run(m: Network, x: Tensor) -> Tensor:
        y = m.wide(x)
        return m.conv(m.relu(m.bn(torch.cat([y, y.tanh()], 1)))).mean((2, 3))

    model, _ = built(lambda: Network(run, wide=conv(3, 4), bn=bn(8), relu=relu(), conv=conv(8, 5, padding=1)))
    original = GuidedBackprop()(query(model))
    canonized = GuidedBackprop()(query(model), [GraphCanonizer(["merge_bn"], preactivation)])
    assert difference(canonized, original) < 1e-10
