"""One cell of the grid, or several that share data and network: config -> objects -> ``Trainer.predict`` -> summary."""

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import Trainer

from canonxai.assemble import build_data, build_explainers, build_metrics, build_trainer, choose_devices, is_gpu
from canonxai.callbacks import OfCell, StopAfterBatch
from canonxai.config import cell_name, check_groups, state
from canonxai.data import DataModule
from canonxai.determinism import deterministic
from canonxai.errors import UserError, check
from canonxai.explainer import Explainers
from canonxai.files import check_plain
from canonxai.metrics import columns_of
from canonxai.models.checkpoint import weights_hash
from canonxai.models.labels import LabelCheck
from canonxai.objective import check_objective
from canonxai.parallel import Processes, Share, parent
from canonxai.progress import ImageProgress, output_console
from canonxai.results.output import CellOutput, Session, plain
from canonxai.results.store import locked
from canonxai.results.summary import print_summary
from canonxai.resume import complete
from canonxai.signals import batches

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """Computes one cell and writes its results to ``folder``, or what is lacking of them.

    Args:
        cfg: the composed config, see ``conf/config.yaml``.
        folder: the cell's own folder.

    Returns:
        The summary that ``summary.json`` holds; ``None`` if batches of other shards are lacking.

    Raises:
        UserError: for a mistake in the config, the model, the data or the folder.
    """
    return run_together([(cfg, folder)])[0]


def run_together(cells: Sequence[tuple[DictConfig, Path]]) -> list[dict[str, Any] | None]:
    """Computes cells whose configs differ in their methods alone.

    They share network and data: each batch is loaded, and evaluated without perturbation, once for all. A cell that
    fails does not stop the others. What is already there is kept, cells and batches.

    Args:
        cells: the config of each, and its folder.

    Returns:
        The summary of each.

    Raises:
        UserError: as :func:`run`; of a cell that failed once all others are complete.
    """
    quiet()
    names = {folder: cell_name(cfg) for cfg, folder in cells}  # as Hydra names their folders, before defaults are added
    for cfg, folder in cells:
        check_groups(cfg)
        check_plain(folder)
    summaries = [complete(folder, plain(cfg)) if cfg.run.resume else None for cfg, folder in cells]
    for (_, folder), summary in zip(cells, summaries, strict=True):
        if summary is not None:
            print_summary(summary, output_console())
            print("complete before; run.resume=false computes it anew")
            shutil.rmtree(folder / "parts", ignore_errors=True)  # of a run that was killed at the very end
    lacking = [cell for cell, summary in zip(cells, summaries, strict=True) if summary is None]
    computed = iter(compute(lacking, names) if lacking else ())
    return [next(computed) if summary is None else summary for summary in summaries]


def compute(cells: Sequence[tuple[DictConfig, Path]], names: Mapping[Path, str]) -> list[dict[str, Any] | None]:
    """Computes what is lacking of cells that are not complete; else as :func:`run_together`."""
    cfgs = [cfg for cfg, _ in cells]
    cfg, is_lead = cfgs[0], parent() is None
    check(0 <= cfg.seed < 2**63, "seed", "an integer >= 0, < 2^63", cfg.seed)
    check(cfg.save_maps >= 0, "save_maps", "an integer >= 0", cfg.save_maps)
    by_hand = is_lead and cfg.data.shard is not None
    check(cfg.run.resume or not by_hand, "run.resume", "true with data.shard", False, "Remove the folder.")
    metrics = build_metrics(cfg)
    check_objective(cfg.objective or (), columns_of(metrics))
    data, classes = build_data(cfg, metrics)
    share, devices = Share.of(cfg.data.shard), choose_devices(cfg)
    own, *others = (share.split(rank, len(devices)) for rank in range(len(devices)))
    processes = Processes(others, [f"[{number}]" if is_gpu(cfg) else "1" for number in devices[1:]])
    with ExitStack() as stack:
        stack.enter_context(deterministic(cfg.run.deterministic))
        explainers = build_explainers(cfgs, metrics, len(classes))
        trainer = build_trainer(cfg)
        if is_lead:
            for _, folder in cells:
                stack.enter_context(locked(folder, f"shard-{share.index + 1}-of-{share.count}"))
        about = metrics, data, len(cells), weights_hash(explainers[0].explained)
        outputs = [CellOutput(cfg, folder, names[folder], *about) for cfg, folder in cells]
        if is_lead:
            for output, explainer in zip(outputs, explainers, strict=True):
                output.begin(explainer)
                stack.callback(output.close_logger, failed=True)
            outputs[0].open_logger()
        done = [set(output.store.done) for output in outputs]
        data.todo = [batch for batch in own.batches(data.batches) if not all(batch in d for d in done)]
        if any(done):
            log.info("resume: %s of %d batches are there", ", ".join(str(len(d)) for d in done), data.batches)
        module, console = Explainers(explainers, done), output_console()
        stack.callback(tell_failures, module.errors, cfgs)
        callbacks = [
            Session(outputs, cfg, explainers[0]),
            *(OfCell(output.writer, place) for place, output in enumerate(outputs)),
            ImageProgress(title(cfgs, own), data.images(data.todo), console),
            OfCell(LabelCheck(len(classes)), 0),
            StopAfterBatch(processes),
        ]
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        with processes:
            predict(trainer, module, data)
            processes.wait()
        summaries: list[dict[str, Any] | None] = [None] * len(cells)
        if is_lead:  # which finds out what lacks
            for place, output in enumerate(outputs):
                if place not in module.errors:
                    try:
                        summaries[place] = output.conclude(share, console)
                    except UserError as error:
                        module.errors[place] = error
        raise_failures(module.errors, len(cells), is_lead)
    return summaries


def tell_failures(errors: Mapping[int, Exception], cfgs: Sequence[DictConfig]) -> None:
    """Names the cells that failed, of several."""
    for place, error in errors.items() if len(cfgs) > 1 else ():
        log.error("%s: %s", cfgs[place].method.name, error)


def raise_failures(errors: Mapping[int, Exception], cells: int, is_lead: bool) -> None:
    """Raises an error of someone's own code with its traceback, others as one."""
    for error in errors.values():
        if not isinstance(error, UserError) or cells == 1:
            raise error
    if errors and is_lead:
        raise UserError(f"method: expected all to succeed, got errors of {len(errors)} of {cells}.")


def title(cfgs: Sequence[DictConfig], share: Share) -> str:
    """Of the progress bar."""
    cfg = cfgs[0]
    what = cfg.method.title if len(cfgs) == 1 else f"{len(cfgs)} methods"
    return f"{what}, {cfg.model.name}, {state(cfg)}" + ("" if share.count == 1 else f", {share}")


def predict(trainer: Trainer, module: Explainers, data: DataModule) -> None:
    """Lightning's predict loop; a signal ends it after a batch."""
    with batches():
        try:
            if data.todo:
                trainer.predict(module, datamodule=data, return_predictions=False)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"data.num_workers: expected loading processes that live, got: {reason} What was computed is kept, and "
                "the same command goes on. Too little memory is a frequent cause: use fewer of them."
            ) from error


def quiet() -> None:
    """Keeps Lightning's hints, which are for training, out of the log."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    warnings.filterwarnings("ignore", message="Experiment logs directory")
