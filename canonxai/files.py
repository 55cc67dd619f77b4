"""Files that are there whole or not at all, locks that a process that dies gives back, and failures told in a line."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from canonxai.errors import UserError, check


def file_name(text: str) -> str:
    """A text as the name of a file or folder, which lies where it shall, whatever the text says.

    >>> file_name("scatter-../../.ssh/keys")
    'scatter-..-..-.ssh-keys'
    """
    return re.sub(r"[/\\:\x00-\x1f]+", "-", text)


def check_plain(folder: Path) -> None:
    """Looks at a cell's or a study's folder before it is written to, as it may be a stranger's.

    Raises:
        UserError: if it is or holds a link, which leads anywhere, or a pipe, whose reader waits for ever.
    """
    inside = (path for pattern in ("*", ".hydra/*", "parts/*") for path in folder.glob(pattern))
    found = [str(path) for path in (folder, *inside) if path.is_symlink() or path.is_fifo()]
    check(not found, "folder", "no links or pipes where results are written", found[:3], "Remove them.")


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there, when the block ends, whole and on the disk, and not at all if the block fails."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that was killed, or a stranger's link to another file
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def no_formula(value: Any) -> Any:
    """A cell of a table, with ' before a text that a spreadsheet would compute: names are strangers'.

    >>> no_formula("=HYPERLINK(A1).png")
    "'=HYPERLINK(A1).png"
    """
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, at once."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([no_formula(value) for value in row] for row in (names, *rows))
    with durable(path) as file:
        file.write(text.getvalue().encode())


@contextmanager
def held(path: Path, taken: Callable[[], None]) -> Iterator[None]:
    """Holds a lock; if another process does, waits for it after a call of ``taken``, unless that raises."""
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        taken()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def write_errors(message: Callable[[str], str]) -> Iterator[None]:
    """Tells a failure to write as a :class:`UserError`, by a message that is made of its reason."""
    try:
        yield
    except OSError as error:
        raise UserError(message(error.strerror or str(error))) from error
