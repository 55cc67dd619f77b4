"""Excitation Backprop: the probability of passing through each unit in a winner-take-all walk down the network.

    R_i = sum_j  (x_i w_ij)+ / sum_i' (x_i' w_i'j)+  R_j    in every linear layer

Zhang et al., ECCV 2016, "Top-down neural attention by Excitation Backprop"; zennit's ``ExcitationBackprop``: the z+
rule in all linear layers, nothing for BatchNorm, which therefore multiplies by its gradient gamma / sigma unless it is
merged or given a rule, see ``canonxai.attribution.batchnorm``.
"""

from collections.abc import Sequence

from zennit.canonizers import Canonizer
from zennit.composites import ExcitationBackprop as ExcitationBackpropComposite
from zennit.core import Composite

from canonxai.attribution.base import Method, Query
from canonxai.attribution.batchnorm import BATCHNORM_RULES, batchnorm_map
from canonxai.attribution.lrp import check_rule_arguments
from canonxai.errors import check_choice


class ExcitationBackprop(Method):
    """Excitation Backprop.

    Args:
        stabilizer: added to denominators, with their sign, > 0.
        zero_params: parameters that count as zero, of ``weight`` and ``bias``; ``[bias]`` keeps the bias from absorbing
            relevance.
        batchnorm_rule: of each BatchNorm that is not merged: ``gradient``, ``pass``, ``epsilon`` or ``omega``.

    Raises:
        UserError: if an argument is out of its range.
    """

    def __init__(
        self, stabilizer: float = 1e-6, zero_params: list[str] | None = None, batchnorm_rule: str = "gradient"
    ) -> None:
        check_rule_arguments(stabilizer=stabilizer, zero_params=zero_params)
        check_choice("method.batchnorm_rule", batchnorm_rule, ("gradient", *BATCHNORM_RULES))
        self.stabilizer, self.zero_params, self.batchnorm_rule = stabilizer, zero_params, batchnorm_rule

    def composite(self, query: Query, canonizers: Sequence[Canonizer] = ()) -> Composite:
        return ExcitationBackpropComposite(
            stabilizer=self.stabilizer,
            zero_params=self.zero_params,
            layer_map=batchnorm_map(self.batchnorm_rule, self.stabilizer, self.stabilizer, self.zero_params),
            canonizers=list(canonizers),
        )
