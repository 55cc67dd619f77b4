"""Files that are there whole or not at all."""

import csv
import os

from canonxai.files import durable, write_csv


def test_what_stands_under_a_temporary_name_is_replaced_and_not_written_to(tmp_path):
    mine, path = tmp_path / "mine", tmp_path / "results"
    mine.write_text("mine")
    (tmp_path / f"results.{os.getpid()}.tmp").symlink_to(mine)  # a stranger's, or of a process that was killed
    with durable(path) as file:
        file.write(b"results")
    assert (path.read_text(), mine.read_text()) == ("results", "mine")
    assert not path.is_symlink() and set(tmp_path.iterdir()) == {mine, path}


def test_a_stranger_s_file_name_is_no_formula_of_a_spreadsheet(tmp_path):
    names = ["=1+1.png", "+1.png", "-1.png", "@a.png", "\t=1.png", "\r=1.png", "a=1.png"]
    write_csv(tmp_path / "excluded.csv", ["file", "size"], [(name, -1) for name in names])
    with (tmp_path / "excluded.csv").open(newline="") as file:
        (_, *rows) = csv.reader(file)
    assert rows == [[name if name == "a=1.png" else f"'{name}", "-1"] for name in names]
