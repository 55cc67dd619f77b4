"""Files that are there whole or not at all."""

import os

from canonxai.files import durable


def test_what_stands_under_a_temporary_name_is_replaced_and_not_written_to(tmp_path):
    mine, path = tmp_path / "mine", tmp_path / "results"
    mine.write_text("mine")
    (tmp_path / f"results.{os.getpid()}.tmp").symlink_to(mine)  # a stranger's, or of a process that was killed
    with durable(path) as file:
        file.write(b"results")
    assert (path.read_text(), mine.read_text()) == ("results", "mine")
    assert not path.is_symlink() and set(tmp_path.iterdir()) == {mine, path}
