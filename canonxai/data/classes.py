"""Which classes of a data set are evaluated: chosen by name or index."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from canonxai.data.paths import user_path
from canonxai.errors import UserError, check

Classes: TypeAlias = str | int | Sequence[str | int]  #: as a config names them; ``all``, one, or several


def read_names(argument: str, names: str | Sequence[str | int], base: Path = Path()) -> list[str]:
    """Names in their order: given as a list, or as a file with a name a line, sought from ``base`` on.

    Raises:
        UserError: if the file does not exist.
    """
    if isinstance(names, str):
        file = base / user_path(names)
        check(file.is_file(), argument, "a list, or an existing file with a name a line", str(file))
        names = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return [str(name).strip() for name in names]


def chosen_labels(classes: Classes, names: Sequence[str]) -> list[int]:
    """Labels, ascending, of ``all`` or any mixture of names and indices; the case of a name does not matter.

    >>> chosen_labels(["Dog", 0], ["cat", "cow", "dog"])
    [0, 2]

    Raises:
        UserError: if a class is unknown (near ones are named), or a name stands for several.
    """
    if classes == "all":
        return list(range(len(names)))
    exact = {str(index): [index] for index in range(len(names))}
    exact |= labels_by(names)
    return choose(classes, exact, labels_by(map(folded, names)), "all or classes by name or index")


def choose(
    classes: Classes,
    exact: Mapping[str, Sequence[int]],
    by_name: Mapping[str, Sequence[int]],
    expected: str,
    unique: Callable[[int], str] = str,
) -> list[int]:
    """Labels, ascending, of some classes.

    Args:
        classes: as the user names them.
        exact: labels by what stands for a class as it is.
        by_name: labels by :func:`folded` name, asked then.
        expected: what can be given, for messages.
        unique: what stands for one class alone.

    Raises:
        UserError: as :func:`chosen_labels`.
    """
    several = isinstance(classes, Sequence) and not isinstance(classes, str)
    entries = [str(entry).strip() for entry in (classes if several else [classes])]  # type: ignore[union-attr]
    found = {entry: exact.get(entry) or by_name.get(folded(entry), ()) for entry in entries}
    unknown = [entry for entry, labels in found.items() if not labels]
    near = {entry: get_close_matches(folded(entry), by_name, 3) for entry in unknown}
    hint = "; ".join(f"near {entry!r}: {', '.join(names)}" for entry, names in near.items() if names)
    check(bool(found) and not unknown, "data.classes", expected, ", ".join(unknown), f"{hint}." if hint else "")
    for entry, labels in found.items():
        if len(labels) > 1:
            one = " or ".join(sorted(map(unique, labels)))
            raise UserError(f"data.classes: {entry!r} is the name of {len(labels)} classes, use {one}.")
    return sorted({label for labels in found.values() for label in labels})


def labels_by(names: Iterable[str]) -> dict[str, list[int]]:
    """Labels by name; several where a name occurs several times."""
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        labels.setdefault(name, []).append(label)
    return labels


def folded(name: str) -> str:
    """A name without what people write differently: case and underscores."""
    return name.strip().lower().replace("_", " ")
