"""Properties of the rules on small networks; their formulas stand in ``tests/reference/methods_formulas.py``."""

import pytest
import torch

from canonxai.attribution.lrp import LRPEpsilon
from tests.networks import query
from tests.reference.methods_formulas import LRP, backward, build, classifier

every_head = pytest.mark.parametrize("pool", [True, False], ids=["pool", "flatten"])


@pytest.mark.parametrize("kind", LRP)
@every_head
def test_without_weights_there_is_no_relevance(kind, pool):
    image = query(classifier(pool), size=8)
    assert backward(image, LRP[kind](image), ["weight"]).abs().max() == 0
    assert build(kind, zero_params=["weight"])(image).abs().max() == 0


@every_head
def test_the_epsilon_rule_conserves_the_relevance_of_a_network_without_biases(pool):
    image = query(classifier(pool, bias=False), size=8)
    total = LRPEpsilon(epsilon=1e-12, stabilizer=1e-12)(image).sum((1, 2, 3))
    torch.testing.assert_close(total, torch.ones(3).double(), rtol=1e-6, atol=0)


@every_head
def test_the_epsilon_rule_conserves_relevance_if_biases_count_as_zero(pool):
    image = query(classifier(pool), size=8)
    with_bias, without = (
        LRPEpsilon(epsilon=1e-12, stabilizer=1e-12, zero_params=zero_params)(image).sum((1, 2, 3))
        for zero_params in (None, ["bias"])
    )
    torch.testing.assert_close(without, torch.ones(3).double(), rtol=1e-6, atol=0)
    assert ((with_bias - 1).abs() > 0.01).all()
