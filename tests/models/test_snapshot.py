"""Whatever is done to a network's modules is undone."""

import copy

import pytest
import torch
from torch import nn

from canonxai.models.snapshot import restored
from tests.networks import network, query, untouched


def meddle(model):
    """All that zennit's versions are known to do to a module, and leave behind."""
    object.__setattr__(model.conv1, "weight", 2 * model.conv1.weight)  # a shadow
    model.conv1.bias = nn.Parameter(torch.ones(model.conv1.out_channels).double())
    model.bn1.eps = 0.0
    model.bn1.running_var = torch.ones_like(model.bn1.running_var)
    model.layer1[0].extra = nn.Identity()
    model.layer1[0].forward = lambda x: x
    del model.layer2


def test_attributes_parameters_buffers_and_modules_are_put_back():
    model = network("resnet18")
    with untouched(model, query(model).input), restored(model):
        meddle(model)


def test_they_are_put_back_after_an_error_too():
    model = network("resnet18")
    with untouched(model, query(model).input), pytest.raises(ZeroDivisionError), restored(model):
        meddle(model)
        raise ZeroDivisionError


def test_a_copy_in_another_precision_has_no_shadows():
    model = network("resnet18")
    with restored(model):
        meddle(model)
    copied = copy.deepcopy(model).float()
    assert copied.conv1.weight.dtype == copied(query(model).input.float()).dtype == torch.float32
