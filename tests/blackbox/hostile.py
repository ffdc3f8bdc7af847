"""Hostile records by the thousand, each with the reasons that DESIGN's order of checks allows.

The clock is `NOW`: October is open, September is past its purge instant, and tomorrow starts in
an hour and a half. Where a record breaks two rules and DESIGN names no order, any of the reasons
that apply is right.
"""

from __future__ import annotations

from typing import Final

from .factory import Factory, Hostile, Kind
from .hostile_fields import days, field_set, formats, locations, shapes
from .hostile_json import bad_numbers, duplicate_key, implausible, not_json, size

KINDS: Final[tuple[Kind, ...]] = (
    size,
    not_json,
    bad_numbers,
    implausible,
    duplicate_key,
    field_set,
    days,
    locations,
    formats,
    shapes,
)


def make_hostile(count: int, seed: int = 1) -> list[Hostile]:
    """Return `count` hostile lines, every kind of them again and again with new values."""
    make = Factory(seed)
    cases: list[Hostile] = []
    while len(cases) < count:
        for kind in KINDS:
            cases += kind(make)
    return make.rng.sample(cases, count) if len(cases) > count else cases
