"""Which software computed a result."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("canonxai", "torch", "torchvision", "zennit", "pytorch-lightning", "hydra-core", "numpy", "scipy")


def versions() -> dict[str, str | None]:
    """Of what computed the results; the git commit only where the package runs from a checkout."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | {"git_commit": _git_commit()}


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
