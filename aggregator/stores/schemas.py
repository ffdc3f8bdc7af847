"""The schema files that are shipped with the package: the single source of what columns mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aggregator
from aggregator.errors import IntegrityError


def path(name: str) -> Path:
    """Return a file of `schemas/`: it lies in the package, or beside it in the source."""
    package = Path(aggregator.__file__).parent
    places = [folder / "schemas" / name for folder in (package, package.parent)]
    return next((place for place in places if place.exists()), places[0])


def load(name: str) -> dict[str, Any]:
    """Return the schema called `name`, such as usage_daily.table.

    IntegrityError if the installation has none.
    """
    try:
        schema: dict[str, Any] = json.loads(path(f"{name}.schema.json").read_bytes())
    except (OSError, ValueError):
        raise IntegrityError(f"the schema of {name} is missing; install the package anew") from None
    return schema
