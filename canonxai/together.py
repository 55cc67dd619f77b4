"""Cells that are computed together: ``method=[lrp_eps,ixg]`` instead of one method.

Hydra merges what is chosen from a group into one config. So the config of each cell is composed again, as if its method
had been chosen alone, and has the very folder and results that it would have then.
"""

from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from canonxai.config import CONF, TOGETHER, cell_name, methods_together
from canonxai.errors import UserError
from canonxai.hydra_part import check_names
from canonxai.targets import check_targets


def cells_of_job(cfg: DictConfig, folder: Path) -> list[tuple[DictConfig, Path]]:
    """The config and folder of each cell that a job of Hydra stands for.

    Args:
        cfg: the job's config.
        folder: the job's folder; that of the cell, if it is one.

    Raises:
        UserError: for a target that is not allowed, or an override that does not fit a method.
    """
    job = HydraConfig.get()
    methods = methods_together(job.overrides.task)
    if not methods:
        return [(cfg, folder)]
    others = [override for override in job.overrides.task if not override.lstrip("+").startswith("method=")]
    study = folder.parent.parent if folder.parent.name == TOGETHER else folder
    cells = []
    for method in dict.fromkeys(methods):
        try:
            cell = compose(job.job.config_name, [*others, f"method={method}"])
        except HydraException as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"method={method}, of {', '.join(methods)}: {reason}") from error
        check_targets(cell, CONF)
        check_names(cell)
        cells.append((cell, study / cell_name(cell)))
    return cells
