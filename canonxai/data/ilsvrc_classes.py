"""The 1,000 classes of ILSVRC2012 by name, WordNet id or index, in the order of torchvision's weights."""

from functools import cache
from pathlib import Path

from torchvision.models._meta import _IMAGENET_CATEGORIES

from canonxai.data.classes import Classes, choose, folded, labels_by

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


def indices(classes: Classes) -> list[int]:
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
    expected = "all, paper20 or ILSVRC's classes by name, WordNet id or index"
    return choose(classes, *_known(), expected, list(labels()).__getitem__)


@cache
def _known() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Indices by WordNet id, index or exact name, and by folded name."""
    exact = {name: found for name, found in labels_by(NAMES).items() if name not in _TWICE}
    exact |= {str(index): [index] for index in range(len(NAMES))}
    exact |= {wnid: [index] for wnid, index in labels().items()}
    by_name = labels_by(map(folded, NAMES)) | {folded(name): [labels()[wnid]] for name, wnid in PAPER20.items()}
    return exact, by_name | {name: [labels()[wnid] for wnid in wnids] for name, wnids in _TWICE.items()}
