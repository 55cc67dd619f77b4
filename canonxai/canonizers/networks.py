"""The canonizers of torchvision's VGG and ResNet, after zennit's, with parts that can be switched apart.

The study (ICIP 2022) merged BatchNorm and made the residual add a module at once; the follow-up (Pahde et al.,
CVPR-W 2023) toggled only the first. ``parts`` says which are done.
"""

from torch import nn
from zennit.canonizers import Canonizer, CompositeCanonizer, SequentialMergeBatchNorm
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer

from canonxai.canonizers.merge import ExactMergeBatchNorm
from canonxai.canonizers.parts import chosen_parts
from canonxai.models.snapshot import Snapshot


class PartsCanonizer(CompositeCanonizer):  # type: ignore[misc]
    """Applies the canonizers of the chosen parts; if one fails, those before it are undone.

    Args:
        parts: names from the class's ``available``, each at most once; ``None`` for all of them, an empty list for the
            network as written.
        exact: merge BatchNorm exactly; ``False`` takes zennit's own merge, to compare with published numbers.

    Raises:
        UserError: if a part is not one of the available ones.
    """

    available: tuple[str, ...] = ("merge_bn", "sum")

    def __init__(self, parts: list[str] | None = None, exact: bool = True) -> None:
        self.parts, self.exact = chosen_parts(parts, self.available), exact
        canonizers: list[Canonizer] = []
        if "merge_bn" in self.parts:
            canonizers.append(ExactMergeBatchNorm() if exact else SequentialMergeBatchNorm())
        if "sum" in self.parts:
            canonizers += [ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()]
        super().__init__(canonizers)

    def apply(self, root_module: nn.Module) -> list[Canonizer | Snapshot]:
        before = Snapshot(root_module)  # to be restored last
        instances: list[Canonizer | Snapshot] = []
        try:
            for canonizer in self.canonizers:
                instances += canonizer.apply(root_module)
        except Exception:
            for instance in [*reversed(instances), before]:
                instance.remove()
            raise
        return [*instances, before]

    def copy(self) -> "PartsCanonizer":
        return type(self)(self.parts, self.exact)


class VGGCanonizer(PartsCanonizer):
    """For torchvision's VGGs: ``merge_bn`` merges each BatchNorm into the convolution before it."""

    available = ("merge_bn",)


class ResNetCanonizer(PartsCanonizer):
    """For torchvision's ResNets: ``merge_bn`` as for VGG, ``sum`` makes each residual add a zennit ``Sum`` module."""
