"""Weights from and to files that cannot run code: safetensors, or a state dict read with ``weights_only=True``."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from canonxai.errors import UserError

LARGE = 10_000
WEIGHTS = Path(__file__).parent / "weights"  #: the trained weights that the package carries


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a file that ``torch.save(model.state_dict(), path)`` wrote.

    Raises:
        UserError: if the file is missing, damaged, or holds anything but a state dict.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"model.checkpoint: expected a file, got {str(path)!r}, which {what}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of any kind
        said = str(error).strip().partition("\n")[0]
        unclear = isinstance(error, pickle.UnpicklingError) or " " not in said  # as a KeyError's "105"
        reason = "it holds more than tensors, or is damaged" if unclear else said
        raise UserError(
            f"model.checkpoint: expected a safetensors file or a state dict, got {str(path)!r}, "
            f"which cannot be read ({reason}). Save one with torch.save(model.state_dict(), path)."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise UserError(
            f"model.checkpoint: expected a state dict (names to tensors), got {type(state).__name__} in {str(path)!r}. "
            "Save one with torch.save(model.state_dict(), path)."
        )
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills ``model`` from a file, every entry exactly once; values are converted to the model's precision.

    Raises:
        UserError: if the file cannot be read, or its names or shapes are not the model's.
    """
    state = read_state_dict(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [f"{name}: expected shape {shape}, got {got.get(name)}" for name, shape in expected.items()
             if got.get(name) != shape]  # fmt: skip
    wrong += [f"{name}: not in the model" for name in got if name not in expected]
    if wrong:
        hint = "Choose the model that the weights belong to."
        if got and all(name.startswith("module.") for name in got):
            hint = "All begin with 'module.', as DataParallel's do: save model.module.state_dict()."
        raise UserError(
            f"model.checkpoint: {str(path)!r} does not fit {type(model).__name__}: {len(wrong)} entries differ, "
            f"first {'; '.join(wrong[:3])}. {hint}"
        )
    model.load_state_dict(state)


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Writes a model's state as safetensors with ``metadata``: tensors of :data:`LARGE` values in half precision.

    Small ones, the first layer among them, keep theirs: sums of pixels weighted by half-precision numbers coincide now
    and then, and where two are equal max-pooling has no unique winner and the gradient no unique value.
    """
    state = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.numel() >= LARGE else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, path, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """What :func:`save_weights` recorded: accuracy, seed and recipe."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def weights_hash(model: nn.Module) -> str:
    """16 hexadecimal digits that two models share only if their states are equal to the bit."""
    hashed = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()
