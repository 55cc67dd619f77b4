"""The command line: Hydra composes the config, :func:`canonxai.run.run` does the work.

Torch is imported only when a job starts, so that ``--help`` and ``--cfg`` answer at once.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from canonxai.config import CONF, register
from canonxai.errors import UserError

log = logging.getLogger(__name__)


def reports_errors(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Tells a user's mistake in one line and exits with 1; ``HYDRA_FULL_ERROR=1`` shows the traceback instead."""

    @functools.wraps(task)
    def wrapper(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except (UserError, OmegaConfBaseException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            log.error(" ".join(str(error).split()))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # so that Hydra goes on with the next job and the sweep ends with 1
            sys.exit(1)

    return wrapper


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
@reports_errors
def main(cfg: DictConfig) -> Any:
    from canonxai.run import run

    return run(cfg, Path(HydraConfig.get().runtime.output_dir))


register()
