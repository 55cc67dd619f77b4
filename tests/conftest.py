"""What all tests share."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from canonxai.config import CONF, register
from canonxai.targets import ENVIRONMENT

ROOT = Path(__file__).parent.parent
register()


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """What Hydra set for one test's log does not reach the next test."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
def config() -> Iterator[Callable[..., DictConfig]]:
    """Composes the config with overrides, as the command line does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides, name="config": compose(name, overrides=list(overrides))


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m canonxai`` as a process in an empty folder."""

    def run(*arguments: str, module: str = "canonxai", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls the command line's function in this process, in an empty folder."""

    def call(*arguments: str) -> Any:
        from canonxai.cli import main

        GlobalHydra.instance().clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(ENVIRONMENT, "")
        monkeypatch.setattr(sys, "argv", ["canonxai", *arguments])
        return main()

    return call
