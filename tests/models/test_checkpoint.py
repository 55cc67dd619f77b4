"""Checkpoints: what is written is read, nothing else is, and no file can run code."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from canonxai.errors import UserError
from canonxai.models import checkpoint
from canonxai.models.checkpoint import load_weights, read_metadata, read_state_dict, save_weights


def network(channels=4, dtype=torch.float32):
    """A network in whose state no two values are equal, so that nothing can be mistaken."""
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Flatten(), nn.Linear(channels, 2))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape).abs() if tensor.is_floating_point() else torch.tensor(12_345))
    return model.to(dtype)


def assert_equal(state, expected, **tolerance):
    assert state.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], **tolerance or {"rtol": 0, "atol": 0})


SAVE = {"a.safetensors": save_file, "a.pt": torch.save, "a.pth": torch.save}


@pytest.mark.parametrize("name", SAVE)
def test_weights_are_restored_exactly(name, tmp_path):
    model, other = network(), network()
    SAVE[name](model.state_dict(), tmp_path / name)
    load_weights(other, tmp_path / name)
    assert_equal(other.state_dict(), model.state_dict())
    assert other[1].num_batches_tracked == 12_345


def test_a_training_checkpoint_gives_its_state_dict(tmp_path):
    model, other = network(), network()
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.ckpt")
    load_weights(other, tmp_path / "a.ckpt")
    assert_equal(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float64])
def test_values_are_converted_to_the_precision_of_the_model(stored, wanted, tmp_path):
    model, other = network(dtype=stored), network(dtype=wanted)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    load_weights(other, tmp_path / "a.pt")
    assert_equal(other.state_dict(), model.to(wanted).state_dict())


def test_large_tensors_are_saved_in_half_precision_and_small_ones_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGE", 108)
    model, other, path = network(), network(), tmp_path / "a.safetensors"
    save_weights(model, path, {"accuracy": "0.9712", "seed": "0"})
    assert read_metadata(path) == {"accuracy": "0.9712", "seed": "0"}
    expected = model.state_dict()
    expected["0.weight"] = expected["0.weight"].half()  # 4 x 3 x 3 x 3 = 108 values
    assert_equal(load_file(path), expected)
    load_weights(other, path)
    assert_equal(other.state_dict(), expected | {"0.weight": expected["0.weight"].float()})
    assert other[1].num_batches_tracked == 12_345


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(model, tmp_path / "a.safetensors", {})
    assert_equal(model.state_dict(), before)


def test_the_layout_in_memory_does_not_matter(tmp_path):
    model, other = network().to(memory_format=torch.channels_last), network()
    save_weights(model, tmp_path / "a.safetensors", {})
    load_weights(other, tmp_path / "a.safetensors")
    assert_equal(other.state_dict(), model.state_dict())


def test_a_file_without_metadata_has_none(tmp_path):
    save_file(network().state_dict(), tmp_path / "a.safetensors")
    assert read_metadata(tmp_path / "a.safetensors") == {}


@pytest.mark.parametrize("name", SAVE)
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(
        UserError, match=rf"^model\.checkpoint: expected a file, got '{tmp_path / name}', which does not"
    ):
        load_weights(network(), tmp_path / name)


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b"no weights\n", lambda b: b[: len(b) // 2], lambda b: b[9:]]
)
def test_a_damaged_file_is_refused(name, damage, tmp_path):
    path = tmp_path / name
    SAVE[name](network().state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    told = r"^model\.checkpoint: expected a safetensors file or a state dict, got .*cannot be read \(.+ .+\)\. Save one"
    with pytest.raises(UserError, match=told):
        load_weights(network(), path)


@pytest.mark.parametrize("length", [0, 100, 500, 1000, -100, -1])
def test_a_file_of_the_older_format_is_read_and_a_truncated_one_refused(length, tmp_path):
    model, other, path = network(), network(), tmp_path / "a.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    load_weights(other, path)
    assert_equal(other.state_dict(), model.state_dict())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"^model\.checkpoint: expected .*cannot be read"):
        load_weights(network(), path)


class Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def as_state(trap):
    return {**network().state_dict(), "extra": trap}


@pytest.mark.parametrize(
    "save",
    [
        lambda trap, path: path.write_bytes(pickle.dumps(trap, protocol=2)),
        lambda trap, path: torch.save(trap, path),
        lambda trap, path: torch.save(as_state(trap), path),
        lambda trap, path: torch.save({"state_dict": network().state_dict(), "hook": trap}, path),
        lambda trap, path: torch.save(as_state(trap), path, _use_new_zipfile_serialization=False),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_with_code_is_refused_and_the_code_does_not_run(save, suffix, tmp_path):
    trap, path = tmp_path / "sprung", tmp_path / f"a{suffix}"
    save(Trap(trap), path)
    with pytest.raises(UserError, match=r"^model\.checkpoint: expected .*cannot be read"):
        load_weights(network(), path)
    assert not trap.exists()


def test_the_trap_of_the_test_above_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], {"a": {"b": torch.zeros(2)}}, {"a": 1.0}, {1: torch.zeros(2)}, torch.zeros(2), "text"]
)
def test_anything_but_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(
        UserError, match=rf"^model\.checkpoint: expected a state dict .*, got {type(content).__name__} in"
    ):
        read_state_dict(tmp_path / "a.pt")


def test_weights_saved_from_several_devices_get_a_hint(tmp_path):
    torch.save(torch.nn.DataParallel(network()).state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"All begin with 'module\.', .*save model\.module\.state_dict\(\)"):
        load_weights(network(), tmp_path / "a.pt")


def test_weights_of_another_network_are_refused_with_their_number_and_names(tmp_path):
    model = network(channels=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = network(channels=4).state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state | {"head.weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(UserError) as error:
        load_weights(model, tmp_path / "a.pt")
    message = str(error.value)
    # 2 of the convolution, 5 of the BatchNorm, the linear layer's matrix, and the one too many
    assert message.startswith(f"model.checkpoint: '{tmp_path / 'a.pt'}' does not fit Sequential: 9 entries differ")
    assert "0.weight: expected shape (5, 3, 3, 3), got (4, 3, 3, 3)" in message
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda state: state.pop("3.bias"), "1 entries differ, first 3.bias: expected shape (2,), got None"),
        (lambda state: state.update(more=torch.zeros(1)), "1 entries differ, first more: not in the model"),
        (lambda state: state.update({"3.bias": torch.zeros(2, 1)}), "3.bias: expected shape (2,), got (2, 1)"),
    ],
)
def test_one_entry_too_few_or_too_many_or_of_another_shape_is_enough(change, told, tmp_path):
    state = network().state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError) as error:
        load_weights(network(), tmp_path / "a.pt")
    assert told in str(error.value)
