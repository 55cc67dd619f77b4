"""``run.deterministic``: only operations that give the same bits each time they run on the same device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from canonxai.errors import UserError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  #: what torch's documentation asks for


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Sets torch's flags, and puts them back when the block ends.

    These are ``torch.use_deterministic_algorithms(True)``, ``cudnn.deterministic=True``, ``cudnn.benchmark=False``, and
    ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` unless it is set.

    Raises:
        UserError: for an operation that has no deterministic form.
    """
    if not enabled:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise UserError(f"run.deterministic: expected operations that can be deterministic, got: {reason}.") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is None:
            del os.environ[CUBLAS]
