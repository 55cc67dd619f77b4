"""The README, followed to the letter: its files are written as they stand, and its commands are run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python|yaml)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for language, block in BLOCKS if language == "bash" for line in block.splitlines()
]
OURS = [command for command in COMMANDS if command.startswith("python -m canonxai")]
#: what makes a command small; everything else stays as it is
SMALL = {"canonxai": ["data.size=2", "trainer=cpu"], "canonxai.train": ["samples=256", "trainer=cpu"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all files that the README shows."""
    folder = tmp_path_factory.mktemp("readme")
    for _, block in BLOCKS:
        if named := re.match(r"# (my_\S+)\n", block):
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
    return folder


def test_the_two_commands_stand_in_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:25])
    assert "make run" in first_screen
    assert "make test" in first_screen


def test_other_commands_are_those_of_make():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for command in COMMANDS:
        if command not in OURS:
            program, target = command.split()
            assert program == "make"
            assert f"\n{target}:" in makefile


@pytest.mark.parametrize("command", OURS)
def test_each_command_runs_as_it_stands(folder, command):
    _, _, module, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, *SMALL[module]],
        cwd=folder, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if "-m" not in arguments and module == "canonxai":
        folders = re.findall(r"results: (\S+)", done.stdout)
        assert (Path(folders[-1]) / "samples.parquet").is_file()


def test_the_files_a_run_leaves_are_those_of_the_table(folder):
    table = re.findall(r"^\| (`.*?`) \|", README, flags=re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`([\w.]+\.\w+)`", row)}
    assert named == {
        "samples.parquet", "summary.json", "rules.csv", "maps.npz", "maps.png", "config.yaml", "canonxai.log",
    }  # fmt: skip
    for path in (folder / "multirun" / "default").iterdir():
        if path.is_dir() and "lrp_eps-canonized" in path.name and "resnet18" in path.name:
            assert named <= {file.name for file in path.iterdir()}
            break
    else:
        pytest.fail("no run left a folder")
