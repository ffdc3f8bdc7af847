"""Fixtures of the black-box tests: fresh homes, and one ready month a session."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from .cli import Home
from .months import Month, Shape, make_month
from .variants import Variant, records_of, write

ALL_IN = "2026-10-31T23:00:00Z"
ALL_CLOSED = "2026-11-02T00:30:00Z"
ALL_PURGED = "2026-11-03T00:30:00Z"


@dataclasses.dataclass(frozen=True, slots=True)
class Deployment:
    """A home beside the month that went into it."""

    home: Home
    month: Month
    files: list[Path]


def deploy(
    folder: Path, month: Month, variant: Variant | None = None, *, close: bool = True
) -> Deployment:
    """Make a home below `folder`, hand over `month` as `variant`, and close its days."""
    files = write(records_of(month), variant or Variant("plain"), folder / "files")
    home = Home(folder / "home").init()
    home.ingest(files, ALL_IN)
    if close:
        home.rollup(ALL_CLOSED)
    return Deployment(home, month, files)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a fresh rehearsal home."""
    return Home(tmp_path / "home").init()


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment whose October is closed; tests only read it."""
    return deploy(tmp_path_factory.mktemp("closed"), make_month(100, Shape(days=3)))
