"""BatchNorm merged exactly into the linear layer before it.

A BatchNorm in evaluation mode after a linear layer is linear itself. With ``s = gamma / sqrt(var + eps)``::

    BN(W x + b) = (s W) x + (b - mean) s + beta

zennit 0.5.1 computes this in the model's precision and then makes the BatchNorm an identity by its parameters, but
leaves ``eps``, so that it still divides by ``sqrt(1 + eps)``. Here the merge is computed in float64 and rounded once,
and the BatchNorm is bypassed: its output is its input, to the bit.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import collect_leaves

from canonxai.canonizers.graph.affine import batch_norm_affine, channels, fold, obstacle
from canonxai.errors import UserError


class ExactMergeBatchNorm(SequentialMergeBatchNorm):  # type: ignore[misc]
    """zennit's ``SequentialMergeBatchNorm`` without its rounding: every BatchNorm right after a linear layer is merged.

    "Right after" is the order in which the modules are defined, as in zennit. Removal puts the very same parameter
    objects back, so outputs and ``state_dict`` are bit-equal to before.

    Raises:
        UserError: on ``apply``, before anything is changed, if a BatchNorm is in training mode, has no running
            statistics, has another number of features than the layer before it, or is one of several partners; or if
            one of the two does not compute what torch's own does.
    """

    def apply(self, root_module: nn.Module) -> list["ExactMergeBatchNorm"]:
        names = {module: name for name, module in root_module.named_modules()}
        leaves = list(collect_leaves(root_module))
        pairs = dict.fromkeys(
            (linear, batch_norm)
            for linear, batch_norm in pairwise(leaves)
            if isinstance(linear, self.linear_type) and isinstance(batch_norm, self.batch_norm_type)
        )
        partners = Counter(module for pair in pairs for module in pair)
        for linear, batch_norm in pairs:
            _check_mergeable(names[linear], linear, names[batch_norm], batch_norm)
            for module in (linear, batch_norm):
                if partners[module] > 1:
                    raise UserError(
                        f"canonizer, BatchNorm {names[batch_norm]}: expected one layer before each BatchNorm and one "
                        f"BatchNorm after each layer, got {names[module]} with {partners[module]}. Give each use its "
                        "own module, or set canonize=false."
                    )
        instances = []
        for linear, batch_norm in pairs:
            instance = self.copy()
            instance.register((linear,), batch_norm)
            instances.append(instance)
        return instances

    def register(self, linears: Sequence[Any], batch_norm: Any) -> None:
        self.linears, self.batch_norm = linears, batch_norm
        self.linear_params = [(linear.weight, linear.bias) for linear in linears]
        for linear in linears:
            fold(linear, None, batch_norm_affine(batch_norm))
        batch_norm.forward = _identity

    def remove(self) -> None:
        for linear, (weight, bias) in zip(self.linears, self.linear_params, strict=True):
            linear.weight, linear.bias = weight, bias
        del self.batch_norm.forward


def _identity(input: Tensor) -> Tensor:
    return input


def _check_mergeable(linear_name: str, linear: Any, name: str, batch_norm: Any) -> None:
    problem = None
    _, outputs = channels(linear)
    if batch_norm.training:
        problem = "a BatchNorm in evaluation mode, got one in training mode. Call model.eval() first"
    elif batch_norm.running_mean is None or batch_norm.running_var is None:
        problem = "a BatchNorm with running statistics, got one without. It cannot be merged: set canonize=false"
    elif type(batch_norm).forward is not _BatchNorm.forward or "forward" in vars(batch_norm):
        problem = f"a BatchNorm, got {type(batch_norm).__name__} with a forward pass of its own. Use canonizer=graph"
    elif reason := obstacle(linear):
        problem = (
            f"a linear layer before it, got {linear_name}: {reason}. Use canonizer=graph, which leaves it as it is"
        )
    elif outputs != batch_norm.num_features:
        problem = (
            f"{outputs} features as {linear_name} before it, got {batch_norm.num_features}: the two follow each other "
            "in the model's definition, not in its forward pass. Use a canonizer made for this network"
        )
    if problem:
        raise UserError(f"canonizer, BatchNorm {name}: expected {problem}.")
