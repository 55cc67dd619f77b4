"""The 1,000 classes of ILSVRC2012 by name, WordNet id or index, in the order of torchvision's weights."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from torchvision.models._meta import _IMAGENET_CATEGORIES

from canonxai.errors import UserError, check

NAMES: tuple[str, ...] = tuple(_IMAGENET_CATEGORIES)
#: the classes of "Measurably Stronger Explanation Reliability via Model Canonization" (ICIP 2022), under its names
PAPER20 = {
    "airship": "n02692877",
    "balloon": "n02782093",
    "banana": "n07753592",
    "barometer": "n02794156",
    "binder": "n02840245",
    "bison": "n02410509",
    "broccoli": "n07714990",
    "electric guitar": "n03272010",
    "electric switch": "n04372370",  # torchvision: switch
    "freight car": "n03393912",
    "go-kart": "n03444034",
    "hourglass": "n03544143",
    "isopod": "n01990800",
    "ladybug": "n02165456",
    "red panda": "n02509815",  # torchvision: lesser panda
    "reel": "n04067472",
    "Shih-Tzu": "n02086240",
    "tiger": "n02129604",
    "toucan": "n01843383",
    "volleyball": "n04540053",
}
PAPER20_IMAGES = 9758  #: of train and val with boxes, as the study tells
_TWICE = {"crane": ("n02012849", "n03126707"), "maillot": ("n03710637", "n03710721")}  # WordNet names two classes so


@cache
def labels() -> dict[str, int]:
    """WordNet id to class index."""
    ids = (Path(__file__).parent / "imagenet_wnids.txt").read_text().split()
    return {wnid: index for index, wnid in enumerate(ids)}


def indices(classes: str | int | Sequence[str | int]) -> list[int]:
    """Class indices, ascending, of ``all``, ``paper20``, or any mixture of names, WordNet ids and indices.

    >>> indices(["tiger", "n02129604", 301, "Red_Panda"])
    [292, 301, 387]

    Raises:
        UserError: if a class is unknown (near ones are named), or a name stands for two.
    """
    if classes == "all":
        return list(range(len(NAMES)))
    if classes == "paper20":
        return sorted(labels()[wnid] for wnid in PAPER20.values())
    entries = [classes] if isinstance(classes, str | int) else list(classes)
    found = {str(entry): _matches(str(entry).strip()) for entry in entries}
    expected = "all, paper20 or ILSVRC's classes by name, WordNet id or index"
    unknown = [entry for entry, matches in found.items() if not matches]
    near = {entry: get_close_matches(_folded(entry), _by_name(), 3) for entry in unknown}
    hint = "; ".join(f"near {entry!r}: {', '.join(names)}" for entry, names in near.items() if names)
    check(bool(found) and not unknown, "data.classes", expected, ", ".join(unknown), f"{hint}." if hint else "")
    for entry, matches in found.items():
        if len(matches) > 1:
            ids = " or ".join(sorted(wnid for wnid, index in labels().items() if index in matches))
            raise UserError(f"data.classes: {entry!r} is the name of two classes, use the WordNet id {ids}.")
    return sorted({index for matches in found.values() for index in matches})


def _matches(entry: str) -> list[int]:
    if entry in labels():
        return [labels()[entry]]
    if entry.isdecimal():
        return [int(entry)] if int(entry) < len(NAMES) else []
    if entry in NAMES and entry not in _TWICE:
        return [NAMES.index(entry)]
    return _by_name().get(_folded(entry), [])


@cache
def _by_name() -> dict[str, list[int]]:
    names: dict[str, list[int]] = {}
    for index, name in enumerate(NAMES):
        names.setdefault(_folded(name), []).append(index)
    names |= {_folded(name): [labels()[wnid]] for name, wnid in PAPER20.items()}
    return names | {name: [labels()[wnid] for wnid in wnids] for name, wnids in _TWICE.items()}


def _folded(name: str) -> str:
    return name.strip().lower().replace("_", " ")
