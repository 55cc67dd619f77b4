"""A multirun ends with the report: the Hydra callback of ``conf/config.yaml``."""

import logging
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonxai.errors import UserError

log = logging.getLogger(__name__)


class ReportCallback(Callback):
    """Writes the report of the sweep's folder, also where cells of the sweep failed."""

    pending: ClassVar[DictConfig | None] = None  #: the config of a multirun that has not ended

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        ReportCallback.pending = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        report_pending()


def report_pending() -> None:
    """Writes the report of the multirun that is under way, once; what goes wrong is told, the cells are there."""
    config, ReportCallback.pending = ReportCallback.pending, None
    if config is None or config.report is None:
        return
    from canonxai.report.build import build_report, print_report

    try:
        folder = Path(config.hydra.sweep.dir)
    except OmegaConfBaseException:  # which has been told
        return
    try:
        options: Any = OmegaConf.to_object(config.report)
        is_wandb = config.logger is not None and str(config.logger.get("_target_", "")).endswith("wandb_logger")
        wandb = {key: value for key, value in config.logger.items() if key != "_target_"} if is_wandb else None
        print_report(build_report([folder], folder / "report", options, wandb), folder / "report")
    except UserError as error:
        log.error("report: %s", error)
    except Exception:
        log.exception("report: failed; the cells are complete, try python -m canonxai.report %s", folder)
