"""What a method is asked and what it answers.

A method is at most three things: a zennit composite (which rule each layer gets), a zennit attributor (what is done
with the modified gradient), and what the result is multiplied with. The canonizers are given to the composite, as in
zennit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from zennit.attribution import Attributor, Gradient
from zennit.canonizers import Canonizer
from zennit.core import Composite

from canonxai.models.snapshot import restored


@dataclass(frozen=True)
class Query:
    """What is to be explained.

    Attributes:
        model: a network in evaluation mode; changed only while it is explained.
        input: normalised images.
        target: the class whose logit is explained.
        low: the smallest value that a normalised pixel can take, per channel.
        high: the largest.
        sample_id: names of the samples; all that random numbers depend on, besides the seed.
        seed: the run's seed.
    """

    model: nn.Module
    input: Float[Tensor, "batch channels height width"]
    target: Int64[Tensor, " batch"]
    low: Float[Tensor, "channels 1 1"]
    high: Float[Tensor, "channels 1 1"]
    sample_id: Int64[Tensor, " batch"]
    seed: int


class Method:
    """The gradient of the target's logit, modified by a composite; subclasses say how."""

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        """The zennit composite; without rules it only carries the canonizers."""
        return Composite(canonizers=list(canonizers))

    def attributor(self, query: Query, composite: Composite) -> Attributor:
        """The zennit attributor."""
        return Gradient(query.model, composite)

    def __call__(
        self, query: Query, canonizers: Sequence[Canonizer] = ()
    ) -> Float[Tensor, "batch map_channels height width"]:
        """The attribution of the target's logit to each input value.

        Floats of the images' batch, height and width; there may be another number of channels, which are summed.
        """
        attributor = self.attributor(query, self.composite(query, canonizers))
        relevance: Tensor
        with torch.enable_grad(), restored(query.model):
            _, relevance = attributor(query.input.detach(), lambda logits: one_hot(query.target, logits))
        return relevance.detach()


def one_hot(target: Int64[Tensor, " batch"], logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """One at the target and zero elsewhere: propagating it back explains the target's logit."""
    return nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
