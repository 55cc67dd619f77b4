"""The proof that a canonizer leaves the function unchanged: logits before and after, on the run's own data."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.core import Composite


@dataclass(frozen=True)
class Agreement:
    """How far two sets of logits are apart; 0 is perfect.

    Attributes:
        max_abs: the largest absolute difference.
        max_rel: the largest absolute difference of an image over the largest absolute logit of that image.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0

    def __or__(self, other: "Agreement") -> "Agreement":
        """The agreement over the images of both."""
        return Agreement(max(self.max_abs, other.max_abs), max(self.max_rel, other.max_rel))


class Agreements(dict[str, Agreement]):
    """By precision, over all images so far."""

    def add(self, dtype: str, agreement: Agreement) -> None:
        self[dtype] = self.get(dtype, Agreement()) | agreement


def logit_agreement(original: Float[Tensor, "batch classes"], canonized: Float[Tensor, "batch classes"]) -> Agreement:
    """Compares the logits of the original and the canonized network.

    Returns:
        The largest differences; they are infinite where a logit is not finite.
    """
    finite = (original.isfinite() & canonized.isfinite()).all(1)
    difference = (original - canonized).abs().amax(1).double().where(finite, torch.inf)
    scale = original.abs().amax(1).double().clamp(min=torch.finfo(original.dtype).tiny).where(finite, 1)
    return Agreement(float(difference.max()), float((difference / scale).max()))


@torch.no_grad()
def canonization_agreement(
    model: nn.Module,
    canonizers: Sequence[Canonizer],
    input: Float[Tensor, "batch channels height width"],
) -> Agreement:
    """Compares a network with its canonized form on ``input``, in its precision; ``model`` is not changed."""
    probe = copy.deepcopy(model).to(input.dtype)
    original = probe(input)
    with Composite(canonizers=list(canonizers)).context(probe):
        return logit_agreement(original, probe(input))
