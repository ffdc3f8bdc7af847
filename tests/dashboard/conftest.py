"""A dashboard with a password, for most tests of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import Running, opened, with_password


@pytest.fixture
def board(home: Path) -> Iterator[Running]:
    """Return a dashboard with a password, over a home that may be changed."""
    with_password(home)
    with opened(home) as running:
        yield running


@pytest.fixture(scope="module")
def shared(closed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a dashboard that a whole module asks, for tests that change nothing at it."""
    root = tmp_path_factory.mktemp("shared") / "home"
    shutil.copytree(closed_home, root)
    with_password(root)
    with opened(root) as running:
        yield running
