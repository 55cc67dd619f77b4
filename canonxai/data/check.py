"""Checks a data set before a long run: ``python -m canonxai.data data=voc data.root=PATH``.

All images are decoded and prepared as for a run. What is found is told on the terminal and written to ``check.json``;
``excluded.csv`` lists what is left out, ``contact_sheet.png`` shows samples. The exit code is 1 if a run would fail.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from jaxtyping import Int64, Shaped
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.utils.data import DataLoader, Dataset

from canonxai.cli import command, job
from canonxai.config import CONF, Command, Data, build, check_groups, register
from canonxai.data.base import ON_ERROR, DataModule, Excluded, LocalizationDataset
from canonxai.data.images import AnnotatedImages
from canonxai.data.sheet import draw_sheet, spread
from canonxai.errors import UserError, check, check_choice
from canonxai.files import write_csv
from canonxai.models.normalization import Normalization
from canonxai.progress import image_bar, output_console
from canonxai.results.store import writing
from canonxai.results.summary import STRATA

FILES = ("check.json", "excluded.csv", "contact_sheet.png")
SHOWN = 5  #: so many of the largest and of the smallest classes are told on the terminal
FAR_MEAN = 0.5  #: the images' mean is far from ``data.mean`` if it differs by more than so many ``data.std``
FAR_STD = 2.0  #: and their deviation from ``data.std`` if one is more than so many times the other

#: what is kept of a sample
ROW = np.dtype(
    [
        ("read", bool),
        ("sample_id", np.int64),
        ("label", np.int64),
        ("shape", np.int64, 2),
        ("box", np.float64),  # fraction of the image
        ("mask", np.float64),
        ("has_mask", bool),  # other than the box
        ("constant", bool),  # one colour only
        ("content", np.int64),  # hash of the file
        ("pixels", np.int64),  # hash of what the network sees
        ("mean", np.float64, 3),  # of the channels, in [0, 1]
        ("square", np.float64, 3),  # mean of the squares
    ]
)


@dataclass
class Check(Command):
    """What ``python -m canonxai.data`` reads."""

    samples: int = 40


class Rows(Dataset[Any]):
    """What is to be known of each sample of a data set (:data:`ROW`), so that no image needs to be kept."""

    def __init__(self, dataset: LocalizationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Shaped[np.ndarray, ""] | Excluded:
        sample = self.dataset[index]
        if isinstance(sample, Excluded):
            return sample
        image, box, mask = sample["image"].numpy(), sample["box"], sample["mask"]
        values = image.reshape(3, -1) / 255
        path = file_of(self.dataset, index)
        row = np.zeros((), ROW)
        row["read"] = True
        row["sample_id"], row["label"], row["shape"] = sample["sample_id"], sample["label"], image.shape[1:]
        row["box"], row["mask"] = box.double().mean().item(), mask.double().mean().item()
        row["has_mask"] = not mask.equal(box)
        row["constant"] = (image == image[:, :1, :1]).all()
        row["content"] = _hash(path.read_bytes()) if path else index  # without files none is another's copy
        row["pixels"] = _hash(image.tobytes())
        row["mean"], row["square"] = values.mean(1), (values**2).mean(1)
        return row


def file_of(dataset: LocalizationDataset, index: int) -> Path | None:
    """The image file of a sample; nothing if the data set does not read files."""
    return dataset.annotated[dataset.ids[index]].image if isinstance(dataset, AnnotatedImages) else None


def check_data(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Checks the data set of a config, tells what it found, and writes it to ``folder``.

    Args:
        cfg: the composed config, see ``conf/check.yaml``.
        folder: where to; what an earlier check wrote is replaced.

    Returns:
        What ``check.json`` holds.

    Raises:
        UserError: if a run with this config would fail.
    """
    check_groups(cfg)
    check(cfg.samples >= 1, "samples", "an integer >= 1", cfg.samples)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    Normalization(cfg.data.mean, cfg.data.std)  # checks them
    dataset: LocalizationDataset = build(cfg.data, "data", Data)
    check_choice("data.on_error", cfg.data.on_error, ON_ERROR)
    data = DataModule(dataset, cfg.data.batch_size, cfg.data.num_workers)  # which raises nothing, to count everything
    console = output_console()
    rows, unreadable = read(data, cfg.data.name, console)
    excluded = [*getattr(dataset, "excluded", ()), *dict.fromkeys(unreadable)]  # an image has several evaluations
    errors = find_errors(rows, dataset, excluded if cfg.data.on_error == "raise" else ())
    places = np.flatnonzero(rows["read"])
    summary = {
        "data": OmegaConf.to_container(cfg.data, resolve=True),
        **summarize(rows[places], places, dataset, excluded),
        "unreadable": len(unreadable),
        "doubtful": getattr(dataset, "doubtful", {}),
    }
    warnings = find_warnings(summary, cfg.data.mean, cfg.data.std)
    verdict = "cannot be used" if errors else "usable" if warnings else "fine"
    summary |= {"verdict": verdict, "errors": errors, "warnings": warnings, "folder": str(folder)}
    with writing(folder):
        (folder / "check.json").write_text(json.dumps(summary, indent=2, allow_nan=False))
        write_csv(folder / "excluded.csv", [field.name for field in fields(Excluded)], map(astuple, excluded))
        if not errors:
            chosen = places[spread(rows["label"][places], cfg.samples)]
            samples = (dataset[int(index)] for index in chosen)
            shown = [sample for sample in samples if not isinstance(sample, Excluded)]
            draw_sheet(folder / "contact_sheet.png", shown, dataset.classes)
    print_check(summary, console)
    if errors:
        raise UserError(f"data: expected a data set that can be used, got {'; '.join(errors)}. See {folder}.")
    return summary


def read(data: DataModule, name: str, console: Console) -> tuple[Shaped[np.ndarray, " n"], list[Excluded]]:
    """Reads all samples: a row each, and which could not be read."""
    rows = np.zeros(len(data.dataset), ROW)
    unreadable = []
    loader = DataLoader(Rows(data.dataset), data.batch_size, num_workers=data.num_workers, collate_fn=list)
    with image_bar(console) as bar:
        entries = bar.track(chain.from_iterable(loader), len(rows), description=name)
        for index, entry in enumerate(entries):
            if isinstance(entry, Excluded):
                unreadable.append(entry)
            else:
                rows[index] = entry
    return rows, unreadable


def find_errors(
    rows: Shaped[np.ndarray, " n"], dataset: LocalizationDataset, excluded: Sequence[Excluded] = ()
) -> list[str]:
    """Why a run would fail, as it does for errors among ``excluded``, or its results would be wrong."""
    read = rows[rows["read"]]
    if not len(read):
        return ["no image that can be read"]
    errors = []
    if wrong := sum(entry.is_error for entry in excluded):
        errors.append(f"files and annotations with errors, with data.on_error=raise: {wrong}")
    if len(sizes := np.unique(read["shape"], axis=0)) > 1:
        errors.append(f"images of different sizes: {len(sizes)}")
    if twice := len(read) - len(np.unique(read["sample_id"])):
        errors.append(f"sample_id that is not unique: {twice}")
    if wrong := int(((read["label"] < 0) | (read["label"] >= len(dataset.classes))).sum()):
        errors.append(f"labels that are not among the {len(dataset.classes)} classes: {wrong}")
    return errors


def summarize(
    rows: Shaped[np.ndarray, " n"],
    places: Int64[np.ndarray, " n"],
    dataset: LocalizationDataset,
    excluded: Sequence[Excluded],
) -> dict[str, Any]:
    """Counts what is there and what is odd.

    Args:
        rows: of the samples that could be read.
        places: of these in the data set.
        dataset: tells files and classes.
        excluded: what is left out.
    """
    ids = rows["sample_id"].tolist()
    names = [str(file_of(dataset, int(i)) or f"sample {key}") for i, key in zip(places, ids, strict=True)]
    _, image = np.unique(names, return_inverse=True)

    def named(chosen: Any) -> list[dict[str, Any]]:
        return [
            {"image": names[i], "sample_id": ids[i], "label": int(rows["label"][i])} for i in np.flatnonzero(chosen)
        ]

    strata = {stratum: rows["label"][rows["box"] < limit] for stratum, limit in STRATA.items()}
    counts = {stratum: Counter(labels.tolist()) for stratum, labels in strata.items()}
    deviation = np.sqrt(np.maximum(rows["square"].mean(0) - rows["mean"].mean(0) ** 2, 0)) if len(rows) else None
    return {
        "evaluations": len(rows),
        "images": len(np.unique(image)),
        "strata": {stratum: len(labels) for stratum, labels in strata.items()},
        "masks": int(rows["has_mask"].sum()),
        "boxes_alone": int((~rows["has_mask"]).sum()),
        "classes": [
            {"label": label, "name": name, **{stratum: count[label] for stratum, count in counts.items()}}
            for label, name in enumerate(dataset.classes)
        ],
        "excluded": dict(Counter(entry.reason for entry in excluded).most_common()),
        "duplicates": find_duplicates(rows, image, names),
        "empty_boxes": named(rows["box"] == 0),
        "empty_masks": named(rows["has_mask"] & (rows["mask"] == 0)),
        "constant": named(rows["constant"]),
        "mean": rows["mean"].mean(0).tolist() if len(rows) else None,
        "std": None if deviation is None else deviation.tolist(),
    }


def find_duplicates(
    rows: Shaped[np.ndarray, " n"], image: Int64[np.ndarray, " n"], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Groups of different images with the same file content, or only with the same pixels as the network sees them.

    Args:
        rows: of the samples.
        image: numbers from 0; samples of the same image share one, as in a data set with several labels an image.
        names: of the samples' images.

    Returns:
        For each group what is the same (``content`` or ``pixels``), the images with their labels, and whether these
        differ from image to image (``across_classes``).
    """
    first = np.unique(image, return_index=True)[1]
    labels: dict[int, set[int]] = {}
    for i, label in zip(image.tolist(), rows["label"].tolist(), strict=True):
        labels.setdefault(i, set()).add(label)
    found = []
    for key in ("content", "pixels"):
        for members in _groups(rows[key], image):
            places = first[members].tolist()
            if key == "pixels" and len(np.unique(rows["content"][places])) == 1:
                continue  # told before
            found.append(
                {
                    "same": key,
                    "across_classes": len({frozenset(labels[i]) for i in members}) > 1,
                    "images": [
                        {"image": names[place], "labels": sorted(labels[i])}
                        for i, place in zip(members, places, strict=True)
                    ],
                }
            )
    return found


def _groups(key: Int64[np.ndarray, " n"], image: Int64[np.ndarray, " n"]) -> list[list[int]]:
    """The images that share a key, where there are several."""
    keys, images = np.unique(np.stack([key, image]), axis=1)
    _, first, count = np.unique(keys, return_index=True, return_counts=True)
    several = count > 1
    return [images[i : i + n].tolist() for i, n in zip(first[several], count[several], strict=True)]


def find_warnings(summary: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """What somebody should look at, though a run would not fail."""
    counts = {
        "files or annotations left out": sum(summary["excluded"].values()),
        "evaluations without a box after cropping, where localization is not defined": len(summary["empty_boxes"]),
        "evaluations without a mask after cropping, where localization is not defined": len(summary["empty_masks"]),
        "evaluations on an image of one colour": len(summary["constant"]),
    }
    found = [f"{what}: {count}" for what, count in counts.items() if count]
    for same, what in (("content", "files with the same content"), ("pixels", "images with the same pixels")):
        if groups := [group for group in summary["duplicates"] if group["same"] == same]:
            across = sum(group["across_classes"] for group in groups)
            found.append(f"{what}: {len(groups)} groups, {across} across classes")
    if summary["mean"] is not None:
        given, measured, given_std, measured_std = map(np.asarray, (mean, summary["mean"], std, summary["std"]))
        if (np.abs(measured - given) > FAR_MEAN * given_std).any():
            found.append(f"the channels' mean is {_told(measured)}, far from data.mean={_told(given)}")
        if ((measured_std > FAR_STD * given_std) | (measured_std < given_std / FAR_STD)).any():
            found.append(
                f"the channels' standard deviation is {_told(measured_std)}, far from data.std={_told(given_std)}"
            )
    return found


def print_check(summary: Mapping[str, Any], console: Console) -> None:
    """Tells what was found."""
    title = f"{summary['data']['name']}: {summary['evaluations']:,} evaluations of {summary['images']:,} images"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("class")
    for stratum in STRATA:
        table.add_column(stratum, justify="right", no_wrap=True)
    table.add_row("all", *(f"{summary['strata'][stratum]:,}" for stratum in STRATA), end_section=True)
    classes = sorted(summary["classes"], key=lambda entry: -entry["all"])
    present, empty = [entry for entry in classes if entry["all"]], [entry for entry in classes if not entry["all"]]
    for place, entry in enumerate(present):
        if place == SHOWN and len(present) > 2 * SHOWN + 1:
            table.add_row(f"... {len(present) - 2 * SHOWN} more, see check.json")
        if place < SHOWN or place >= len(present) - SHOWN or len(present) <= 2 * SHOWN + 1:
            table.add_row(Text(entry["name"]), *(f"{entry[stratum]:,}" for stratum in STRATA))
    console.print(table)
    if summary["excluded"]:
        table = Table(title="left out, see excluded.csv", title_justify="left")
        table.add_column("reason")
        table.add_column("count", justify="right")
        for reason, count in summary["excluded"].items():
            table.add_row(Text(reason), f"{count:,}")
        console.print(table)
    lines = [f"{summary['boxes_alone']:,} evaluations with boxes alone, {summary['masks']:,} with another mask"]
    if empty:
        names = ", ".join(entry["name"] for entry in empty[: 2 * SHOWN]) + (", ..." if len(empty) > 2 * SHOWN else "")
        lines.append(f"{len(empty):,} of {len(classes):,} classes without samples: {names}")
    if summary["mean"] is not None:
        lines.append(f"channels: mean {_told(summary['mean'])}, standard deviation {_told(summary['std'])}")
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += [f"error: {error}" for error in summary["errors"]]
    lines.append(f"verdict: {summary['verdict']}" + (", with warnings" if summary["verdict"] == "usable" else ""))
    lines.append(f"results: {summary['folder']}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _told(values: Sequence[float] | np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def _name(*, _root_: DictConfig) -> str:
    """A folder's name that two checks share only if they check the same."""
    settings = json.dumps(OmegaConf.to_container(_root_.data, resolve=True), sort_keys=True, default=str)
    return f"{_root_.data.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


@command
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="check")
@job
def main(cfg: DictConfig) -> dict[str, Any]:
    return check_data(cfg, Path(HydraConfig.get().runtime.output_dir))


register()
OmegaConf.register_new_resolver("checked", _name, replace=True)
ConfigStore.instance().store(name="schema_check", node=Check)
