"""What many tests need: a small closed deployment, made once, and the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from closed import NOW, Run, Said, build

from aggregator.cli.main import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the command line on a home at an instant: `run(home, "status")`."""
    for name in ("COLUMNS", "AGGREGATOR_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def call(home: Path, *words: str | Path, now: str | None = NOW) -> Said:
        capfd.readouterr()
        clock = [] if now is None else ["--now", now]
        code = main(["--home", str(home), *map(str, words), *clock])
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def closed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the closed home, which nobody may change; `home` is a copy to change."""
    return build(tmp_path_factory.mktemp("closed"))


@pytest.fixture
def home(closed_home: Path, tmp_path: Path) -> Path:
    """Return a copy of the closed home, to change."""
    copy = tmp_path / "home"
    shutil.copytree(closed_home, copy)
    return copy
