"""The README, followed to the letter: its files are written as they stand, and its commands are run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from canonxai.errors import UserError
from canonxai.report.readme import BEGIN, END, update
from canonxai.run import run

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python|yaml)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for language, block in BLOCKS if language == "bash" for line in block.splitlines()
]
OURS = [command for command in COMMANDS if command.startswith("python -m canonxai")]
#: what makes a command small; everything else stays as it is
SMALL = {
    "canonxai": ["data.size=2", "trainer=cpu", "save_maps=1"],
    "canonxai.train": ["samples=256", "trainer=cpu"],
    "canonxai.report": [],
    "canonxai.audit": ["samples=1"],
}
ARCHITECTURES = "python -m canonxai -m experiment=architectures"  # and a variant


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
    if "data.root=PATH" in arguments:  # data that only its users have
        arguments = [argument for argument in arguments if argument != "-m"] + ["--cfg", "job"]
    else:
        arguments += [*SMALL[module], *(["method=lrp_eps"] if command.startswith(ARCHITECTURES) else [])]
        arguments += ["hydra.sweeper.n_trials=2"] if "=search" in command else []
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if "-m" not in arguments and "--cfg" not in arguments and module == "canonxai":
        folders = re.findall(r"results: (\S+)", done.stdout)
        assert (Path(folders[-1]) / "samples.parquet").is_file()


def test_the_files_a_run_leaves_are_those_of_the_table(folder):
    table = re.findall(r"^\| (`.*?`) \|", README.partition("## Next")[0], flags=re.MULTILINE)
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


def test_the_files_of_the_report_are_those_of_the_table(folder):
    table = README.partition("## The report")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(.*?)` \|(.*)\|$", table, flags=re.MULTILINE)
    expected = {"report.html", "figures"}
    for name, text in named:
        if name.endswith(".*"):
            formats = [word for code in re.findall(r"`([a-z ]+)`", text) for word in code.split()]
            expected |= {name.replace("*", suffix) for suffix in formats}
    assert {path.name for path in (folder / "multirun" / "paper" / "report").iterdir()} == expected
    assert len(expected) == 18


def test_the_numbers_of_the_study_are_computed_and_not_typed(config, tmp_path):
    """One of the README's cells again; the table is written from the study's tables by ``make docs``."""
    summary = run(config("canonize=true", "metric=[localization]", "save_maps=0", "trainer=cpu"), tmp_path)
    strata = summary["metrics"]["localization"]["strata"]
    begin, end = (mark.format("paper comparison") for mark in (BEGIN, END))
    block = README.partition(begin)[2].partition(end)[0].partition("resnet18 on scenes")[2]
    (line,) = re.findall(r"^\| LRP-ε \|(.*)", block.partition("vgg16_bn")[0], flags=re.MULTILINE)
    for cell, stratum in zip(line.split("|"), ("all", "box < 25 %"), strict=False):
        assert cell.strip(" *").endswith(f"→ {strata[stratum]['mean']:.3f}")


def test_studies_are_written_between_their_marks_and_their_pictures_beside(folder, tmp_path):
    report, readme = folder / "multirun" / "paper" / "report", tmp_path / "README.md"
    before = re.sub(r"(<!-- paper .*?: written .*? -->\n).*?(\n<!-- end)", r"\1old\2", README, flags=re.DOTALL)
    assert before.count("old\n<!-- end of paper") == 2
    readme.write_text(before)
    for _ in range(2):
        update(readme, report)
        text = readme.read_text()
        assert (report / "comparison.md").read_text().strip() in text and "| C5: " in text
        assert "old\n<!-- end of paper" not in text
        assert text.partition("<!-- paper")[0] == README.partition("<!-- paper")[0]
        assert text.rpartition("<!-- end of paper")[2] == README.rpartition("<!-- end of paper")[2]
    shown = re.findall(r"\]\(docs/paper/(.*?\.png)\)", README)
    assert sorted(path.name for path in (tmp_path / "docs/paper").iterdir()) == sorted(shown) and len(shown) == 4


def test_a_picture_that_the_report_lacks_is_a_mistake(tmp_path):
    report = tmp_path / "paper" / "report"
    report.mkdir(parents=True)
    (report / "comparison.md").write_text("table")
    text = f"{BEGIN.format('paper comparison')}{END.format('paper comparison')}![](docs/paper/heatmaps.png)"
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match=r"README: expected pictures that are in '.*figures', got 'heatmaps.png'"):
        update(tmp_path / "README.md", report)
    assert (tmp_path / "README.md").read_text() == text and not (tmp_path / "docs").exists()


def test_every_study_of_the_readme_was_written():
    for study in ("architectures", "threshold"):
        begin, end = (mark.format(f"{study} comparison") for mark in (BEGIN, END))
        assert "| LRP-ε | " in README.partition(begin)[2].partition(end)[0]


def test_a_readme_without_marks_is_a_mistake(folder, tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="README: expected marks as '<!-- paper comparison: written by make docs"):
        update(tmp_path / "README.md", folder / "multirun" / "paper" / "report")
