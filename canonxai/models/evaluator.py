"""The network as perturbation tests evaluate it: the same function in its fastest form, whichever state is explained.

With ``fused``, each BatchNorm that follows a linear layer alone is merged into it, in float64 and rounded once; both
states of canonization then see this very function. How far it is from the network as written is measured on the run's
own images.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64, Real, UInt8
from torch import Tensor, nn

from canonxai.batch_size import BatchSize
from canonxai.canonizers import Agreements, fused, logit_agreement
from canonxai.errors import UserError, check, check_choice
from canonxai.models.normalization import Normalization
from canonxai.models.precision import PRECISIONS, tf32
from canonxai.models.winograd import use_winograd

log = logging.getLogger(__name__)

NETWORKS = ("fused", "original")


@dataclass(frozen=True)
class Effect:
    """How far f, the target's probability, is from that of the network as written in float64; 0 is perfect.

    Attributes:
        max: the largest absolute difference.
        mean: the mean one.
        images: over how many.
    """

    max: float = 0.0
    mean: float = 0.0
    images: int = 0

    def __or__(self, other: "Effect") -> "Effect":
        """The effect over the images of both."""
        images = self.images + other.images
        mean = (self.mean * self.images + other.mean * other.images) / images
        return Effect(max(self.max, other.max), mean, images)


class Evaluator(nn.Module):
    """Logits of images, without gradients.

    Args:
        model: a classifier of normalised images in evaluation mode; it is copied, and not changed.
        normalize: from pixel values to the model's input.
        network: ``fused`` or ``original``; a network that torch.fx cannot trace, or in which there is nothing to
            merge, is evaluated as written.
        precision: ``32``, ``64``, ``tf32``, ``bf16`` or ``fp16``, see :mod:`canonxai.models.precision`.
        channels_last: whether the values of a pixel lie side by side in memory.
        winograd: whether large convolutions in precision ``32`` on a CPU are computed by Winograd's algorithm, see
            :mod:`canonxai.models.winograd`.
        compile: whether batches of ``batch_size`` go through torch.compile, on a GPU as one CUDA graph. Smaller ones
            are filled up, or go as they are if they are less than half as large.
        batch_size: images in one forward, an integer >= 1, or ``auto``.
        verify: how many images, from the first on, the differences are measured on.
        tolerance: largest relative difference of the logits of both forms, in the run's precision and, of the fused
            one, in float64.

    Attributes:
        convolutions: how many go by Winograd's algorithm where their images are large enough; known from the first
            image on.
        agreement: of its logits with those of the network as written, by precision; empty where it is that network.
        effect: of form and precision.

    Raises:
        UserError: if an argument is out of its range; on evaluation, if the device cannot compute in the precision;
            on verification, if the tolerance is exceeded.
    """

    def __init__(
        self,
        model: nn.Module,
        normalize: Normalization,
        network: str = "fused",
        precision: str | int = "32",
        channels_last: bool = True,
        winograd: bool = True,
        compile: bool = False,
        batch_size: int | str = 256,
        verify: int = 16,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        check_choice("perturbation.network", network, NETWORKS)
        check_choice("perturbation.precision", str(precision), PRECISIONS)
        check(verify >= 1, "perturbation.verify", "an integer >= 1", verify)
        check(tolerance > 0, "perturbation.tolerance", "a number > 0", tolerance)
        self.batch_size = BatchSize(batch_size)
        check(
            not compile or not self.batch_size.grows, "perturbation.compile",
            "false where perturbation.batch_size=auto, as each size is compiled for itself", compile,
        )  # fmt: skip
        self.precision = PRECISIONS[str(precision)]
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        model, self.is_fused = _form(model, network)
        self.network = model.to(self.precision.dtype).to(memory_format=self.layout)
        self.winograd = winograd and self.precision == PRECISIONS["32"]
        self.convolutions = 0
        self.normalize = normalize
        self.is_compiled = compile
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._input = self._scale = self._shift = torch.empty(0)
        self.verify, self.tolerance = verify, tolerance
        self.agreement = Agreements()
        self.effect = Effect()

    def forward(self, image: Real[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Logits of pixel values in [0, 255] that need not be whole."""
        if self.winograd and image.device.type == "cpu":
            self.winograd, self.convolutions = False, use_winograd(self.network)
        with torch.inference_mode(), self.precision.use(image.device):
            logits = self._logits(image)
        return logits.to(self.precision.dtype, copy=True)  # one that autograd may keep and no CUDA graph overwrites

    def compare(
        self,
        model: nn.Module,
        image: UInt8[Tensor, "batch channels height width"],
        target: Int64[Tensor, " batch"],
    ) -> None:
        """Measures on the first images how far logits and probabilities are from those of the network as written.

        Args:
            model: that network.
            image: pixel values.
            target: whose probability f is.

        Raises:
            UserError: if the logits of the fused network differ by more than the tolerance.
        """
        image, target = (values[: self.verify - self.effect.images] for values in (image, target))
        if not len(image):
            return

        def f(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
            return logits.double().softmax(1).gather(1, target[:, None])[:, 0]

        evaluated = f(self(image))
        with torch.no_grad(), tf32(False):
            written = copy.deepcopy(model).double()
            exact = self.normalize(image, torch.float64)
            logits = written(exact)
            if self.is_fused:
                self._agree(logits, fused(written)[0](exact))
            if self.is_fused or self.convolutions:
                input = self.normalize(image, self.precision.dtype)
                self._agree(written.to(input.dtype)(input), self.network(input))
        difference = (evaluated - f(logits)).abs()
        self.effect |= Effect(float(difference.max()), float(difference.mean()), len(difference))

    def _agree(self, written: Float[Tensor, "n classes"], merged: Float[Tensor, "n classes"]) -> None:
        agreement, name = logit_agreement(written, merged), str(written.dtype).removeprefix("torch.")
        used = {"network=original": self.is_fused, "winograd=false": self.convolutions and name != "float64"}
        self.agreement.add(name, agreement)
        check(
            agreement.max_rel <= self.tolerance, "perturbation.network",
            f"logits as those of the network as written, up to perturbation.tolerance={self.tolerance:g}",
            f"a relative difference of {agreement.max_rel:.3g} in {name}",
            f"Use {' and '.join(f'perturbation.{setting}' for setting, is_used in used.items() if is_used)}.",
        )  # fmt: skip

    def _logits(self, image: Real[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        size = self.batch_size.size
        if not self.is_compiled or not size < 2 * len(image) <= 2 * size:
            logits: Tensor = self.network(self._normalized(image, len(image)))
            return logits
        if self._compiled is None:
            mode = "max-autotune" if image.is_cuda else "default"
            self._compiled = torch.compile(partial(self.network), dynamic=False, mode=mode)
        logits = self._compiled(self._normalized(image, size))
        return logits[: len(image)]

    def _normalized(self, image: Real[Tensor, "n c h w"], rows: int) -> Float[Tensor, "rows c h w"]:
        """The network's input, at least so many rows, of which those without an image hold anything.

        Always the same memory: a new tensor costs more, in page faults, than all that is written into it.
        """
        if self._input.shape[1:] != image.shape[1:] or self._input.device != image.device or len(self._input) < rows:
            like = torch.zeros(rows, *image.shape[1:], dtype=self.precision.dtype, device=image.device)
            self._input = like.contiguous(memory_format=self.layout)
            mean, std = self.normalize.mean, self.normalize.std
            # of an image's size: on a CPU, a row of equal shape is added ten times as fast as three values
            self._scale = torch.empty_like(self._input[:1]).copy_(1 / (255 * std))
            self._shift = torch.empty_like(self._input[:1]).copy_(-mean / std)
        input = self._input[: len(image)].copy_(image)
        torch.addcmul(self._shift, input, self._scale, out=input)
        return self._input[:rows]


def _form(model: nn.Module, network: str) -> tuple[nn.Module, bool]:
    """A copy of a network in float64, and whether it is fused."""
    model = copy.deepcopy(model).eval().requires_grad_(False).double()
    if network == "fused":
        try:
            merged, count = fused(model)
        except UserError as error:
            reason = str(error)
        else:
            reason = "no BatchNorm alone follows a linear layer"
            if count:
                return merged, True
        log.info("perturbation: the network is evaluated as written: %s", reason)
    return model, False
