"""The output f of the network that a faithfulness metric watches."""

from jaxtyping import Float, Int64
from torch import Tensor

from canonxai.errors import check_choice

OUTPUTS = {
    "probability": lambda logits: logits.softmax(1),
    "logit": lambda logits: logits,
}


class Output:
    """The target's softmax ``probability`` or its ``logit``.

    Args:
        kind: which of the two.
        name: of the metric, for the message.

    Raises:
        UserError: if ``kind`` is neither.
    """

    def __init__(self, kind: str, name: str) -> None:
        check_choice(f"metric.{name}.output", kind, OUTPUTS)
        self.kind = kind

    def __call__(self, logits: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The output of each image for its target."""
        values: Tensor = OUTPUTS[self.kind](logits)
        return values.gather(1, target[:, None])[:, 0]

    def __str__(self) -> str:
        return f"f, the target's {self.kind}"
