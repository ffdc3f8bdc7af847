"""A door that runs, for most tests of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.door.limits import Limits

from .running import Certificates, Running, opened


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates that nobody changes."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def door(tmp_path: Path, certificates: Certificates) -> Iterator[Running]:
    """Return a door with its usual limits."""
    with opened(tmp_path / "home", certificates) as running:
        yield running


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Running]:
    """Return a door that a whole module asks, for tests that change nothing at it."""
    limits = Limits(burst=10**6)
    with opened(tmp_path_factory.mktemp("shared") / "home", certificates, limits) as running:
        yield running
