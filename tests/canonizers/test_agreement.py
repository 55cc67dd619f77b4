from importlib.metadata import version

import pytest
import torch
from torch import nan

from canonxai.canonizers import Agreement, canonization_agreement, logit_agreement
from tests.networks import BATCH_NORM, CANONIZERS, network, query, untouched

inf = torch.inf


def test_differences_are_the_largest_of_an_image_over_its_largest_logit():
    original = torch.tensor([[1.0, -4.0], [100.0, 50.0]])
    assert logit_agreement(original, original) == Agreement(0.0, 0.0)
    assert logit_agreement(original, torch.tensor([[1.5, -4.0], [101.0, 48.0]])) == Agreement(2.0, 0.125)
    assert logit_agreement(original, torch.tensor([[1.0, -3.0], [100.0, 50.0]])) == Agreement(1.0, 0.25)


def test_logits_that_are_all_zero_have_a_scale_too():
    zero = torch.zeros(1, 3)
    assert logit_agreement(zero, zero) == Agreement(0.0, 0.0)
    assert logit_agreement(zero, zero + 1).max_rel > 1e30


NOT_FINITE = [
    ([1.0, 2], [1, nan]),
    ([1.0, 2], [1, inf]),
    ([1.0, 2], [-inf, 2]),
    ([1.0, nan], [1, 2]),
    ([1.0, inf], [1, 2]),
    ([1.0, inf], [1, inf]),
    ([nan, nan], [nan, nan]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("original, canonized", NOT_FINITE)
def test_what_is_not_finite_differs_infinitely_whatever_the_other_images(original, canonized, dtype):
    fine = [0.0, 1.0]
    agreement = logit_agreement(*(torch.tensor([fine, row, fine], dtype=dtype) for row in (original, canonized)))
    assert agreement == Agreement(inf, inf)
    assert Agreement() | agreement == Agreement(inf, inf)


def test_agreements_join_to_the_larger_of_each():
    a, b = Agreement(1.0, 0.5), Agreement(0.25, 2.0)
    assert a | b == b | a == Agreement(1.0, 2.0)
    assert Agreement() | Agreement(3.0, 4.0) == Agreement(3.0, 4.0)


@pytest.mark.parametrize("name", CANONIZERS)
@pytest.mark.parametrize("dtype, smallest, largest", [(torch.float64, 1e-17, 1e-13), (torch.float32, 1e-8, 1e-4)])
def test_exact_canonization_agrees_up_to_the_rounding_of_the_input_s_precision(name, dtype, smallest, largest):
    model = network(name).float()
    input = query(model).input.float()
    with untouched(model, input):
        agreement = canonization_agreement(model, [CANONIZERS[name]()], input.to(dtype))
    assert smallest < agreement.max_rel < largest
    assert canonization_agreement(model, [], input.to(dtype)) == Agreement(0.0, 0.0)


@pytest.mark.parametrize("name", CANONIZERS)
def test_zennits_own_merge_disagrees_when_eps_is_large(name):
    model = network(name)
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            module.eps = 1e-2
    zennits, exact = (
        canonization_agreement(model, [CANONIZERS[name](exact=exact)], query(model).input) for exact in (False, True)
    )
    if version("zennit").startswith("0.5."):  # later ones set eps to zero
        assert zennits.max_rel > 1e-5
    assert exact.max_rel < 1e-13
