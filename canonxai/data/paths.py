"""Paths as users and annotations write them."""

from pathlib import Path


def user_path(path: str | None) -> Path:
    """A path, with the home folder for a leading ``~``, which shells leave in ``data.root=~/data``."""
    try:
        return Path(str(path)).expanduser()
    except RuntimeError:  # no such user
        return Path(str(path))


def is_file(path: Path) -> bool:
    """Whether there is a file; no error for a name that cannot be one, or a folder that may not be read."""
    try:
        return path.is_file()
    except OSError:
        return False
