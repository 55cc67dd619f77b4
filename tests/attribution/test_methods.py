import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from zennit.rules import Epsilon
from zennit.types import Convolution

from canonxai.attribution import Query
from canonxai.errors import UserError
from tests.networks import cosine_distance, difference, network, query, untouched
from tests.reference.methods import METHODS, NETWORKS, attribution, canonizers, method
from tests.reference.methods_zennit import gamma_box, gamma_flat, gammas, lrp

UNCHANGED = ["gradient", "ixg", "ig", "smoothgrad", "gbp", "deconvnet", "random"]  # by exact canonization
every_method = pytest.mark.parametrize("name", METHODS)
every_network = pytest.mark.parametrize("net", NETWORKS)
every_state = pytest.mark.parametrize("canonize", [False, True], ids=["original", "canonized"])


def sample(query: Query, i: int) -> Query:
    parts = {key: getattr(query, key)[i : i + 1] for key in ("input", "target", "sample_id")}
    return dataclasses.replace(query, **parts)


@every_method
@every_network
def test_exact_canonization_changes_the_maps_of_rules_and_no_others(name, net):
    distance = cosine_distance(attribution(name, net, False), attribution(name, net, True))
    assert (distance.abs() < 1e-10).all() if name in UNCHANGED else (distance > 1e-6).all()


@every_method
@every_network
@every_state
def test_a_sample_s_map_does_not_depend_on_the_batch_it_is_in(name, net, canonize):
    whole, batch = attribution(name, net, canonize), query(network(net))
    for i in (0, 2):
        assert difference(method(name)(sample(batch, i), canonizers(net, canonize))[0], whole[i]) < 1e-9


@every_method
@every_network
@every_state
def test_nothing_is_left_behind(name, net, canonize):
    batch = query(network(net))
    image, random_state = batch.input.clone(), torch.get_rng_state()
    with untouched(batch.model, batch.input):
        relevance = method(name)(batch, canonizers(net, canonize))
    assert relevance.shape == image.shape and relevance.dtype == image.dtype
    assert not relevance.requires_grad and not batch.input.requires_grad
    assert all(parameter.grad is None for parameter in batch.model.parameters())
    assert torch.equal(batch.input, image) and torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "random"])
@every_network
def test_nothing_is_left_behind_by_a_failure_either(name, net):
    batch = query(network(net))
    gray = dataclasses.replace(batch, input=batch.input[:, :1], low=batch.low[:1], high=batch.high[:1])
    with pytest.raises(RuntimeError, match="channels"), untouched(batch.model, batch.input):
        method(name)(gray, canonizers(net, canonize=True))


@every_method
@every_network
@every_state
def test_relus_that_overwrite_their_input_do_not_matter(name, net, canonize):
    model = network(net)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert all(relu.inplace for relu in relus)
    for relu in relus:
        relu.inplace = False
    assert torch.equal(method(name)(query(model), canonizers(net, canonize)), attribution(name, net, canonize))


@every_method
@every_network
def test_another_target_has_another_map(name, net):
    batch = query(network(net))
    other = method(name)(dataclasses.replace(batch, target=batch.target.roll(1)))
    if name == "random":
        assert torch.equal(other, attribution(name, net, False))
    else:
        assert (cosine_distance(other, attribution(name, net, False)) > 1e-6).all()


@every_method
@every_network
def test_maps_have_the_precision_of_the_input(name, net):
    batch = query(network(net).float())
    single = dataclasses.replace(batch, input=batch.input.float(), low=batch.low.float(), high=batch.high.float())
    relevance = method(name)(single, canonizers(net, canonize=True))
    assert relevance.dtype == torch.float32 and relevance.isfinite().all()


@every_method
def test_only_smoothgrad_and_random_depend_on_seed_and_sample_id(name):
    batch = query(network("resnet18"))
    for key, value in (("seed", 5), ("sample_id", batch.sample_id + 1)):
        other = method(name)(dataclasses.replace(batch, **{key: value}))
        difference = cosine_distance(other, attribution(name, "resnet18", False))
        assert (difference > 1e-6).all() if name in ("smoothgrad", "random") else (difference.abs() < 1e-14).all()


# Properties on networks of which the answer is known.


def classifier(*layers: nn.Module) -> Query:
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()
    return query(nn.Sequential(*layers).double().eval(), size=6)


def linear_query(bias: bool) -> Query:
    return classifier(nn.Conv2d(3, 4, 3, bias=bias), nn.Flatten(), nn.Linear(64, 10, bias=bias))


def target_logit(query: Query, input: Tensor) -> Tensor:
    return query.model(input).gather(1, query.target[:, None])[:, 0]


def test_the_gradient_is_that_of_the_target_s_logit_by_finite_differences():
    batch = classifier(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 10))
    step = 1e-5 * torch.randn(3, 3, 6, 6).double()
    change = target_logit(batch, batch.input + step) - target_logit(batch, batch.input - step)
    predicted = (2 * step * method("gradient")(batch)).sum((1, 2, 3))
    torch.testing.assert_close(predicted, change, rtol=1e-6, atol=0)


def test_input_x_gradient_of_a_linear_network_without_bias_sums_to_the_logit():
    batch = linear_query(bias=False)
    total = method("ixg")(batch).sum((1, 2, 3))
    torch.testing.assert_close(total, target_logit(batch, batch.input), rtol=1e-12, atol=0)


BASELINES = {
    "mean": lambda query: torch.zeros_like(query.input),
    "black": lambda query: query.low.expand_as(query.input),
    "white": lambda query: query.high.expand_as(query.input),
}


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("steps", [1, 3])
def test_integrated_gradients_are_complete_on_a_linear_network_with_any_number_of_steps(baseline, steps):
    batch = linear_query(bias=True)
    total = method("ig", baseline=baseline, steps=steps)(batch).sum((1, 2, 3))
    expected = target_logit(batch, batch.input) - target_logit(batch, BASELINES[baseline](batch))
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_become_complete_with_many_steps(baseline):
    batch = classifier(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(64, 10))
    expected = target_logit(batch, batch.input) - target_logit(batch, BASELINES[baseline](batch))
    errors = []
    for steps in (10, 100, 1000):
        total = method("ig", baseline=baseline, steps=steps)(batch).sum((1, 2, 3))
        errors.append(difference(total, expected))
    assert errors[2] < 2e-3 and errors[1] < 0.15 * errors[0] and errors[2] < 0.15 * errors[1]


def test_integrated_gradients_with_one_step_are_the_gradient_times_the_way():
    batch = query(network("resnet18"))
    gradient = attribution("gradient", "resnet18", False)
    for baseline, colour in BASELINES.items():
        expected = (batch.input - colour(batch)) * gradient
        assert difference(method("ig", baseline=baseline, steps=1)(batch), expected) < 1e-12


@pytest.mark.parametrize("arguments", [{"samples": 1}, {"noise": 0.0}])
def test_smoothgrad_without_noise_is_the_gradient(arguments):
    relevance = method("smoothgrad", **arguments)(query(network("resnet18")))
    assert difference(relevance, attribution("gradient", "resnet18", False)) < 1e-12


def test_smoothgrad_s_noise_is_standard_normal_times_the_range_and_one_copy_has_none():
    batch, seen = linear_query(bias=True), []
    batch = dataclasses.replace(batch, input=batch.input * torch.tensor([1, 10, 100]).view(3, 1, 1, 1))
    batch.model[0].register_forward_pre_hook(lambda module, input: seen.append(input[0].detach()))
    method("smoothgrad", samples=60, noise=0.3)(batch)
    spread = batch.input.amax((1, 2, 3)) - batch.input.amin((1, 2, 3))
    noise = (torch.stack(seen) - batch.input) / (0.3 * spread.view(3, 1, 1, 1))
    is_clean = (noise == 0).flatten(1).all(1)
    assert len(noise) == 60 and is_clean.sum() == 1
    noise = noise[~is_clean].transpose(0, 1).flatten(1)
    assert (noise.mean(1).abs() < 0.05).all() and ((noise.std(1) - 1).abs() < 0.05).all()
    assert (noise.corrcoef() - torch.eye(3)).abs().max() < 0.05
    assert len(noise.unique()) == noise.numel()


def test_random_maps_are_standard_normal_and_know_nothing_of_the_input():
    batch = query(network("resnet18"), size=64)
    noise = method("random")(batch)
    assert (noise.mean((1, 2, 3)).abs() < 0.05).all() and ((noise.std((1, 2, 3)) - 1).abs() < 0.05).all()
    assert (noise.flatten(1).corrcoef() - torch.eye(3)).abs().max() < 0.05
    assert torch.equal(method("random")(dataclasses.replace(batch, input=batch.input.flip(0))), noise)


# Arguments.

LRP = [name for name in METHODS if name.startswith("lrp_")]
WRONG = [
    *((name, "epsilon", value) for name in LRP for value in (-1e-6, 0.0, torch.nan)),
    *((name, "stabilizer", value) for name in [*LRP, "ebp"] for value in (0.0, -1.0)),
    *((name, "zero_params", value) for name in [*LRP, "ebp"] for value in (["foo"], ["bias", "foo"])),
    *((name, "gamma", -1.0) for name in LRP if "gamma" in name),
    ("ig", "steps", 0),
    ("ig", "baseline", "pink"),
    ("smoothgrad", "samples", 0),
    ("smoothgrad", "noise", -1.0),
]


@pytest.mark.parametrize("name, argument, value", WRONG)
def test_an_argument_out_of_its_range_is_refused_by_name(name, argument, value):
    with pytest.raises(UserError, match=rf"^method\.{argument}: expected .*, got "):
        method(name, **{argument: value})


@pytest.mark.parametrize("name, composite", {"lrp_eps_gamma_box": gamma_box, "lrp_eps_gamma_flat": gamma_flat}.items())
@every_state
def test_gamma_may_be_zero_which_makes_it_the_epsilon_rule(name, composite, canonize):
    batch, merge = query(network("vgg16_bn")), canonizers("vgg16_bn", canonize)
    epsilon = lrp(partial(composite, layer_map=[(Convolution, Epsilon(1e-6))]))
    assert difference(method(name, gamma=0.0)(batch, merge), epsilon(batch, merge)) < 1e-9


@every_network
@every_state
def test_each_third_of_the_convolutions_has_its_gamma(net: str, canonize: bool) -> None:
    asked = query(network(net))
    given = {"low": 0.0, "middle": 0.7, "high": 5.0}
    expected = lrp(lambda query: gammas(query, **given))(asked, canonizers(net, canonize))
    maps = method("lrp_groups", **{f"gamma_{group}": value for group, value in given.items()})(
        asked, canonizers(net, canonize)
    )
    assert difference(maps, expected) < 1e-12
    for group in given:
        assert (
            cosine_distance(
                maps, method("lrp_groups", **{f"gamma_{group}": 1.5})(asked, canonizers(net, canonize))
            ).min()
            > 1e-4
        )


def test_a_gamma_of_a_group_out_of_its_range_is_told() -> None:
    with pytest.raises(UserError, match=r"method\.gamma_high: expected a number >= 0, got -1"):
        method("lrp_groups", gamma_high=-1)
