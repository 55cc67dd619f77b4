"""The results of a cell made of its parts, by the process that computes the last one or by the report.

What is needed for it besides the parts, and does not depend on who computed them, lies beside them from the beginning.
"""

import json
import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Any

from canonxai.canonizers import Agreement, Agreements
from canonxai.config import differing_keys, flat
from canonxai.data import Excluded
from canonxai.errors import check
from canonxai.files import check_plain, durable, write_csv
from canonxai.metrics import Column
from canonxai.models.evaluator import Effect
from canonxai.results.maps import write_maps
from canonxai.results.store import Store, locked, sample_schema, writing
from canonxai.results.summary import summarize

log = logging.getLogger(__name__)
FILE = "cell.json"


@dataclass(frozen=True)
class Plan:
    """What a cell will be when it is complete.

    Attributes:
        about: what its summary begins with.
        columns: of its metrics.
        batches: how many there are.
        batch_size: images in each.
        images: in all of them, those that cannot be read included.
        maps: how many are kept.
        weights: a hash of the network's.
        excluded: what the data set left out from the beginning.
    """

    about: dict[str, Any]
    columns: dict[str, Column]
    batches: int
    batch_size: int
    images: int
    maps: int
    weights: str
    excluded: list[tuple[Any, ...]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Puts it beside the parts."""
        with writing(folder), durable(folder / "parts" / FILE) as file:
            file.write(json.dumps(asdict(self)).encode())

    def check_parts(self, folder: Path) -> None:
        """Compares it with that of the parts that are there, of which settings are not all: a file may have changed.

        Raises:
            UserError: if they are of other weights, or of another number of images or maps.
        """
        try:
            before = Plan.read(folder)
        except (OSError, ValueError, TypeError):  # not there, or damaged
            return
        for argument, key in {"model": "weights", "data": "images", "save_maps": "maps"}.items():
            there, here = getattr(before, key), getattr(self, key)
            hint = "Choose another folder or study, or run.resume=false to compute all anew."
            check(there == here, argument, f"{key} as in {str(folder)!r}, where parts are kept, {there}", here, hint)

    @staticmethod
    def read(folder: Path) -> "Plan":
        """The plan of a cell that is not complete.

        Raises:
            OSError, ValueError: if it is not there, or damaged.
        """
        path = folder / "parts" / FILE
        if not path.is_file():  # a stranger's pipe would never end
            raise FileNotFoundError(path)
        values = json.loads(path.read_bytes())
        columns = {name: Column(**{**c, "axis": tuple(c["axis"])}) for name, c in values.pop("columns").items()}
        return Plan(**values, columns=columns)


def finish(store: Store, plan: Plan) -> dict[str, Any]:
    """Completes a cell of which all batches are there, and returns its summary, which is written last."""
    store.finish()
    notes = list(store.notes())
    excluded = [*plan.excluded, *(entry for note in notes for entry in note.get("excluded", ()))]
    seconds = sum(note.get("seconds", 0.0) for note in notes)
    with writing(store.folder):
        (store.folder / "excluded.csv").unlink(missing_ok=True)
        if excluded:
            write_csv(store.folder / "excluded.csv", [entry.name for entry in fields(Excluded)], excluded)
        write_maps(store.folder, store.maps(plan.maps))
    summary = {
        **plan.about,
        **summarize(store, plan.columns),
        "excluded": len(excluded),
        "seconds": seconds,
        "images_per_second": plan.images / seconds,
        **joined(store.sessions()),
        "weights": plan.weights,
        "folder": str(store.folder),
    }
    form = summary["evaluation"]
    log.info(
        "perturbation: %s network, precision %s: f is that of the network as written in float64 up to %.1e, on average "
        "%.1e (%d images)", form["network"], form["precision"], *form["effect"].values(),
    )  # fmt: skip
    with writing(store.folder), durable(store.folder / "summary.json") as file:
        file.write(json.dumps(summary, indent=2, allow_nan=False).encode())
    store.close()
    return summary


def merge(folders: Sequence[Path]) -> bool:
    """Completes the first of several folders, each of which has some shards of one cell, if they have all together.

    Returns:
        Whether they have.

    Raises:
        OSError, ValueError: if a plan is not there, or damaged.
        UserError: if plans differ, a part is damaged or a folder cannot be written to.
    """
    for folder in folders:
        check_plain(folder)
    plan, *plans = (Plan.read(folder) for folder in folders)
    for folder, planned in zip(folders[1:], plans, strict=True):
        keys = ", ".join(differing_keys(flat(asdict(plan)), flat(asdict(planned))))
        check(not keys, "folder", f"shards of the same plan in {folders[0]} and {folder}", f"others: {keys}")
    first, *others = (Store(folder, sample_schema(plan.columns)) for folder in folders)
    for store in (first, *others):
        store.drop_sessions()
    if len(first.done.union(*(other.done for other in others))) < plan.batches:
        return False
    with locked(folders[0], "merge", wait=True), writing(folders[0]):
        for other in others:
            for path in [*other.parts.glob("part-*"), *other.parts.glob("session-*")]:
                with durable(first.parts / path.name) as file:
                    file.write(path.read_bytes())
        finish(first, plan)
    return True


def joined(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the processes that computed a cell measured of the networks, over the images of all of them."""
    if any(session["versions"] != sessions[0]["versions"] for session in sessions):
        log.warning("results: parts of this cell were computed by other versions of the software, see summary.json")
    verified = [session["agreement"] for session in sessions if session["agreement"] is not None]
    evaluations = [session["evaluation"] for session in sessions]
    effects = [effect for evaluation in evaluations if (effect := Effect(**evaluation["effect"])).images]
    agreement = {
        "images": sum(one["images"] for one in verified),
        "difference": _worst([one["difference"] for one in verified]),
    }
    return {
        "agreement": agreement if verified else None,
        "evaluation": {
            **evaluations[-1],
            "difference": _worst([evaluation["difference"] for evaluation in evaluations]),
            "effect": asdict(reduce(operator.or_, effects or [Effect()])),
        },
        "device": ", ".join(sorted({session["device"] for session in sessions})),
        "versions": sessions[-1]["versions"],
    }


def _worst(differences: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    found = Agreements()
    for difference in differences:
        for dtype, values in difference.items():
            found.add(dtype, Agreement(**values))
    return {dtype: asdict(value) for dtype, value in found.items()}
