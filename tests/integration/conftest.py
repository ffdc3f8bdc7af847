"""Skips the tests whose daemons are not here, or fails them where they must be.

A module says in `NEEDS` which programs it needs in network namespaces, None if it needs none.
"""

from __future__ import annotations

import os

import pytest

from .net import missing


@pytest.fixture(scope="module", autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Skip a module whose `NEEDS` are not met; with INTEGRATION=1 its tests fail instead."""
    if request.module.NEEDS is None:
        return
    reason = missing(request.module.NEEDS)
    if reason and os.environ.get("INTEGRATION") == "1":
        pytest.fail(f"INTEGRATION=1, but this {reason}")
    if reason:
        pytest.skip(f"{reason} (see `make integration`)")
