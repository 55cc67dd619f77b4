"""The command line: Hydra composes the config, :func:`canonxai.run.run_together` does the work.

Torch is imported only when a job starts, so that ``--help`` and ``--cfg`` answer at once. A user's mistake is told in
one line, with exit code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback instead.
"""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from canonxai.config import CONF, register
from canonxai.errors import UserError, conversion, printable
from canonxai.hydra_part import check_names, guard
from canonxai.parallel import parent
from canonxai.report.callback import report_pending
from canonxai.signals import Interrupted, heeded
from canonxai.targets import allow, check_targets, guarded
from canonxai.together import cells_of_job

log = logging.getLogger(__name__)
FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"  #: what the user asked for
_RESOLVING = "UserError raised while resolving interpolation: "
#: what Hydra's plugins need that is not installed by default
PLUGINS = {"hydra/launcher": "'canonxai[slurm]' or 'canonxai[ray]'", "hydra/sweeper": "'canonxai[optuna]'"}
PLACE = "Choose another place by hydra.run.dir=PATH (hydra.sweep.dir in a multirun)."
MISTAKES = (UserError, HydraException, OmegaConfBaseException, OSError)


def command(main: Callable[[], Any]) -> Callable[[], Any]:
    """Makes a function decorated by ``hydra.main`` tell mistakes in one line."""

    @functools.wraps(main)
    def wrapper() -> Any:
        sys.argv[1:] = map(at_home, sys.argv[1:])
        allow(sys.argv[1:])
        if FULL_ERROR:
            return main()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on instead of printing them
        try:
            with heeded():
                return main()
        except Interrupted as error:
            if parent() is None:  # which tells it itself
                print(error.told, file=sys.stderr)
            raise
        except RuntimeError as error:
            if "slurm" not in str(error).lower():  # submitit's
                raise
            print(f"error: hydra/launcher: {error}", file=sys.stderr)
            sys.exit(1)
        except MISTAKES as error:
            print(f"error: {printable(message(error))}", file=sys.stderr)
            report_pending()  # of the cells that did not fail
            sys.exit(1)
        except ValueError as error:
            if not isinstance(reason := error.__cause__, OSError):  # logging's, of a log that cannot be written
                raise
            print(f"error: folder: expected to write the log, got: {reason}. {PLACE}", file=sys.stderr)
            report_pending()
            sys.exit(1)
        finally:
            del os.environ["HYDRA_FULL_ERROR"]

    return wrapper


def at_home(argument: str) -> str:
    """An override with the home folder for a leading ``~``, which shells leave there, and Hydra cannot read.

    >>> at_home("data.root=~/data") == f"data.root={Path.home()}/data"
    True
    """
    return re.sub("(?<=[=,])~(?=/|$)", lambda _: str(Path.home()), argument)


def job(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Puts a mistake into the job's log; in a multirun the next job goes on, and the sweep ends with exit code 1."""

    @functools.wraps(task)
    def wrapper(cfg: DictConfig) -> Any:
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.RUN and hydra_config.sweeper.get("params"):
            log.info("this experiment is a grid of cells, and this is one of them; for all add -m")
        try:
            check_targets(cfg, CONF)
            check_names(cfg)  # which may be others than Hydra's own part, which a job's config lacks, made them
            with guarded(CONF), heeded():  # here, too, for launchers that have processes of their own
                return task(cfg)
        except MISTAKES as error:
            log.error(message(error))
            if FULL_ERROR or hydra_config.mode == RunMode.MULTIRUN:
                raise
            raise SystemExit(1) from error

    return wrapper


def message(error: BaseException) -> str:
    """One line: the argument, what was expected, what was got, what to do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        known = ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))
        if plugins := PLUGINS.get(group):
            plugins = f"pip install {plugins}"
            return f"{group}: expected one of {known}, or that of an installed plugin, got {option!r}. See {plugins}."
        return f"{group}: expected one of {known}, got {option!r}."
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        error = error.__cause__
    first, _, rest = str(error).partition("\n")
    if _RESOLVING in first:  # a mistake that was found while a value of the config was computed
        return first.partition(_RESOLVING)[2]
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {conversion(first).rstrip('.')}. See --cfg job for all keys and their values."
    return " ".join(f"{first} {rest}".split())


@job
def cells(cfg: DictConfig) -> Any:
    """A job of Hydra. By this name other processes find it, and with it what this module registers."""
    found = cells_of_job(cfg, Path(HydraConfig.get().runtime.output_dir))
    from canonxai.objective import objective
    from canonxai.run import run_together

    summaries = run_together(found)
    if not cfg.objective or HydraConfig.get().mode == RunMode.RUN:
        return summaries
    return objective(summaries, cfg.objective, HydraConfig.get().sweeper.get("direction", "maximize"))


main = command(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(cells))

register()
guard(CONF)
