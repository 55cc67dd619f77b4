"""The wheel: built, installed into a fresh environment, run from another folder."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; its dependencies are those of this one, seen by a .pth file."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--quiet",
        wheel,
    ]
    subprocess.run(install, check=True)
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def test_the_wheel_carries_configs_and_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for folder in ("conf", "canonxai") for path in (ROOT / folder).rglob("*")]
    for path in files:
        if path.suffix in {".yaml", ".py", ".safetensors", ".txt"}:
            inside = path.relative_to(ROOT)
            assert str("canonxai" / inside if inside.parts[0] == "conf" else inside) in names
    assert not [name for name in names if name.startswith(("tests", "multirun"))]


@pytest.mark.parametrize("program", [["canonxai"], ["python", "-m", "canonxai"]], ids=["script", "module"])
def test_the_installed_program_works_from_any_folder(environment, tmp_path, program):
    command = [environment / program[0], *program[1:]]
    where = "import canonxai; print(canonxai.__file__)"
    found = subprocess.run(
        [environment / "python", "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(environment.parent)
    tiny = ["method=lrp_eps", "canonize=true", "data.size=2", "trainer=cpu"]
    done = subprocess.run([*command, *tiny], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("multirun/default/*/samples.parquet"))) == 1
