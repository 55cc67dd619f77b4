"""How many images are evaluated at once: a number, or what turns out to be fastest and to fit into memory."""

import logging
import time
from collections.abc import Callable

import torch
from jaxtyping import Shaped
from pytorch_lightning.utilities.memory import is_oom_error
from torch import Tensor

from canonxai.errors import UserError, check

log = logging.getLogger(__name__)

FIRST = 8  #: where the search begins
GAIN = 1.05  #: the search goes on while twice the size gives at least this factor of images per second
REPEATS = 2  #: measurements of each size; the first includes what is made once for it

#: values of each step of each sample, of a range of steps and a range of samples
Evaluate = Callable[[range, range], Shaped[Tensor, "steps samples *values"]]


class BatchSize:
    """Evaluates a table of steps x samples in chunks, each with at most ``size`` entries.

    ``auto`` doubles the size until that does not pay any more. A chunk that does not fit into memory is evaluated in
    halves, and so are all after it. Results do not depend on the size, up to rounding.

    Args:
        size: an integer >= 1, or ``auto``.
        argument: the setting that it is, for messages.

    Attributes:
        size: that of the next chunk.

    Raises:
        UserError: if ``size`` is neither; on evaluation, if a single image does not fit into memory.
    """

    def __init__(self, size: int | str = 256, argument: str = "perturbation.batch_size") -> None:
        number = size if isinstance(size, int) else 1
        check(size == "auto" or (isinstance(size, int) and number >= 1), argument, "an integer >= 1, or auto", size)
        self.argument = argument
        self.grows = size == "auto"
        self.size = FIRST if self.grows else number
        self._rates: list[float] = []
        self._best = 0.0

    def table(self, evaluate: Evaluate, samples: int, steps: int) -> Shaped[Tensor, "samples steps *values"]:
        """The values of all steps of all samples."""
        blocks, start = [], 0
        while start < samples:
            block = range(start, min(start + self.size, samples))
            chunks: list[Tensor] = []
            step = 0
            while step < steps:
                chunk = range(step, min(step + max(1, self.size // len(block)), steps))
                chunks.append(self._chunk(evaluate, chunk, block))
                step = chunk.stop
            blocks.append(torch.cat(chunks))
            start = block.stop
        return torch.cat(blocks, 1).transpose(0, 1).contiguous()

    def rows(self, compute: Callable[[slice], Tensor], samples: int) -> Shaped[Tensor, "samples *values"]:
        """What is computed of each sample: of all at once, or of fewer if memory is too small for all."""
        return self._chunk(lambda _, part: compute(slice(part.start, part.stop))[None], range(1), range(samples))[0]

    def _chunk(self, evaluate: Evaluate, steps: range, samples: range) -> Tensor:
        start, count = time.perf_counter(), len(steps) * len(samples)
        if count > self.size:
            return self._halves(evaluate, steps, samples)
        try:
            values = evaluate(steps, samples)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)):
                raise
        else:
            if self.grows and 2 * count > self.size:
                self._measured(values, count, start)
            return values
        torch.cuda.empty_cache()  # here, and not above, where the error still holds what did not fit
        self._step_back(count)
        return self._halves(evaluate, steps, samples)

    def _halves(self, evaluate: Evaluate, steps: range, samples: range) -> Tensor:
        if len(steps) > 1:
            half = len(steps) // 2
            return torch.cat([self._chunk(evaluate, part, samples) for part in (steps[:half], steps[half:])])
        half = len(samples) // 2
        return torch.cat([self._chunk(evaluate, steps, part) for part in (samples[:half], samples[half:])], 1)

    def _step_back(self, count: int) -> None:
        if count == 1:
            raise UserError(
                f"{self.argument}: expected memory for one image at least, got too little. Free memory of the device, "
                "or use smaller images or a smaller data.batch_size."
            )
        self.size, self.grows = count // 2, False
        log.warning("%s: %d images at once do not fit into memory, now %d", self.argument, count, self.size)

    def _measured(self, values: Tensor, count: int, start: float) -> None:
        """Takes note of the rate at this size and, once it is known, chooses the next."""
        if values.is_cuda:
            torch.cuda.synchronize(values.device)
        self._rates.append(count / (time.perf_counter() - start))
        if len(self._rates) < REPEATS:
            return
        rate, self._rates = max(self._rates), []
        if rate > GAIN * self._best:
            self._best, self.size = rate, 2 * self.size
        else:
            self.size, self.grows = self.size // 2, False
            log.info("perturbation: %d images at once, %.0f images/s", self.size, self._best)
