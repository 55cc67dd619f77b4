"""Loggers of a finished cell: a CSV file, or Weights & Biases through Lightning's ``WandbLogger``.

The store is the source of truth; a logger never stops or delays a run. Each builder takes the cell and the options of
its YAML.
"""

import logging
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from canonxai.errors import UserError, check_choice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """What a logger knows of a cell before it runs."""

    study: str
    name: str
    folder: Path
    settings: Mapping[str, Any]
    tags: tuple[str, ...]


def no_logger(cell: Cell) -> None:
    """Nothing: the files of the run are all there is."""


def csv_logger(cell: Cell) -> CSVLogger:
    """Lightning's CSV logger: ``metrics.csv`` in the cell's folder."""
    return CSVLogger(save_dir=cell.folder.parent, name="", version=cell.folder.name)


def wandb_logger(
    cell: Cell, project: str = "canonxai", entity: str | None = None, mode: str = "auto", timeout: int = 10
) -> WandbLogger:
    """One Weights & Biases run for a cell, grouped by study, tagged by model, method and state.

    Args:
        cell: the cell.
        project: the project's name.
        entity: the user or team; ``None`` for the default one.
        mode: ``online``, ``offline``, or ``auto``: online where a key is configured, ``WANDB_MODE`` does not say
            otherwise, and the server answers.
        timeout: seconds to wait for the server: at the start, before the run goes offline, and at the end, before what
            it has not taken is left on the disk.

    Raises:
        UserError: if ``mode`` is none of these, or W&B refuses the project's name or a setting of the environment.
    """
    named = dict(zip(("model", "method", "state"), cell.tags, strict=False))
    run = start_run(
        cell.folder,
        project,
        entity,
        mode,
        timeout,
        group=cell.study,
        name=cell.name,
        job_type="cell",
        tags=list(cell.tags),
        config={**cell.settings, "cell": named},  # in a sweep, its own parameters replace settings of the same name
    )
    return WandbLogger(experiment=run)


def start_run(folder: Path, project: str, entity: str | None, mode: str, timeout: int, **about: Any) -> Any:
    """Starts a Weights & Biases run, offline if it cannot be online; never asks, and ends one that was left open.

    Args:
        folder: where its files go, below ``wandb``.
        project: the project's name.
        entity: the user or team; ``None`` for the default one.
        mode: as of :func:`wandb_logger`.
        timeout: as of :func:`wandb_logger`.
        about: further arguments of ``wandb.init``, as the group and the name.

    Raises:
        UserError: if ``mode`` is unknown, or W&B refuses the project's name or a setting of the environment.
    """
    check_choice("logger.mode", mode, ("auto", "online", "offline"))
    # else logging a table, and the reports of W&B about itself at the end, wait much longer
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(timeout))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    defaults = wandb_settings()
    online = mode == "online" or (mode == "auto" and defaults.mode == "online" and has_key(defaults.base_url))
    wandb.finish()  # a run that another job of this process left open

    def start(mode: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=project,
            entity=entity,
            dir=folder,
            mode=mode,
            settings=wandb.Settings(
                init_timeout=timeout,
                finish_timeout=timeout,
                finish_timeout_raises=True,
                x_graphql_timeout_seconds=timeout,
                x_graphql_retry_max=0,
                silent=True,
                console="off",
            ),
            **about,
        )

    run = None
    if online:
        try:
            run = start("online")
        except wandb.errors.Error as error:
            log.warning("W&B: could not go online within %d s (%s)", timeout, str(error).partition("\n")[0])
    if run is None:
        try:
            run = start("offline")
        except wandb.errors.UsageError as error:
            raise UserError(f"logger: expected options that W&B takes, got: {error}") from error
        log.info("W&B: offline; to upload this run later: wandb sync %s", Path(run.dir).parent)
    return run


def wandb_settings() -> Any:
    """What the environment and the files of W&B say.

    Raises:
        UserError: if W&B refuses a variable of the environment.
    """
    import wandb

    try:
        return wandb.setup().settings
    except ValueError as error:  # pydantic's
        raise UserError(f"WANDB_*: expected settings that W&B takes, got: {' '.join(str(error).split())}") from error


def has_key(base_url: str) -> bool:
    """Whether a key for the server is in the environment or in the netrc file, where ``wandb login`` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(path).authenticators(urlparse(base_url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def log_results(logger: Logger, cell: Cell, summary: Mapping[str, Any]) -> None:
    """Gives a cell's settings, figures, curves and maps to its logger; failures are told, not raised."""
    try:
        logger.log_hyperparams(dict(cell.settings))
        logger.log_metrics(scalars(summary))
        if isinstance(logger, WandbLogger):
            _log_media(logger, cell, summary)
    except Exception as error:  # whatever a logger raises, the results are in the store
        log.warning("logger: the results are stored, but could not be logged (%s: %s)", type(error).__name__, error)


def close(logger: Logger, failed: bool = False) -> None:
    """Ends a logger's run, so that the next job of this process gets its own; failures are told, not raised."""
    try:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=int(failed))
    except TimeoutError:
        where = Path(logger.experiment.dir).parent  # type: ignore[attr-defined]
        log.warning("W&B: the server has not taken all in time; to upload this run later: wandb sync %s", where)
    except Exception as error:
        log.warning("logger: its run could not be ended (%s: %s)", type(error).__name__, error)


def scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a summary by name, as ``localization/all``, ``localization/all/low``."""
    flat = {name: summary[name] for name in ("images", "accuracy", "probability")}
    flat |= {f"relevance/{name}": value for name, value in summary["relevance"].items()}
    for metric, values in summary["metrics"].items():
        for stratum, mean in values["strata"].items():
            flat[f"{metric}/{stratum}"] = mean["mean"]
            flat |= {f"{metric}/{stratum}/{name}": mean[name] for name in ("low", "high", "n", "undefined")}
    return {name: float(value) for name, value in flat.items() if value is not None}


def _log_media(logger: WandbLogger, cell: Cell, summary: Mapping[str, Any]) -> None:
    import wandb

    run = logger.experiment
    for name, curve in summary["curves"].items():
        points = zip(curve["axis"], curve["mean"], strict=True)
        table = wandb.Table(columns=["fraction", "f"], data=[list(point) for point in points])
        run.log({name: wandb.plot.line(table, "fraction", "f", title=f"{name}, mean over images")})
    picture = cell.folder / "maps.png"
    if picture.is_file():
        run.log({"maps": wandb.Image(str(picture))})
    run.summary.update(scalars(summary))
