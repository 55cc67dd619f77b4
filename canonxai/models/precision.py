"""In which precision a network is evaluated.

``64`` and ``32``
    IEEE double and single precision, also where torch would by itself round the factors of convolutions to TF32;
``tf32``
    single precision with factors rounded to 10 bits, on GPUs that can;
``bf16`` and ``fp16``
    torch's autocast: convolutions and matrix products in half precision, the rest in single precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.backends import cuda, cudnn

from canonxai.errors import check


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products of single precision may be rounded to TF32 within the block; restored after it."""
    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = before


@dataclass(frozen=True)
class Precision:
    """One of :data:`PRECISIONS`.

    Attributes:
        dtype: of parameters, and of what is returned.
        autocast: of products, if another.
        tf32: whether factors are rounded to TF32.
    """

    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    tf32: bool = False

    @contextmanager
    def use(self, device: torch.device) -> Iterator[None]:
        """Evaluates in this precision within the block.

        Raises:
            UserError: for TF32 on another device than a GPU.
        """
        check(
            not self.tf32 or device.type == "cuda", "perturbation.precision",
            f"32, 64, bf16 or fp16 on a {device.type}", "tf32", "Only GPUs have TF32.",
        )  # fmt: skip
        with tf32(self.tf32), torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            yield


PRECISIONS = {
    "32": Precision(),
    "64": Precision(torch.float64),
    "tf32": Precision(tf32=True),
    "bf16": Precision(autocast=torch.bfloat16),
    "fp16": Precision(autocast=torch.float16),
}
