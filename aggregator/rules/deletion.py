"""What a purge removes, in which order and on what grounds: a plan before it happens."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final


class Kind(enum.Enum):
    """What a file of a home is to a purge, in the order of removal."""

    KEYS = "key set"
    SEGMENT = "sealed counters"
    BATCH = "waiting batch"
    NOTICE = "unsent notice"
    TABLE = "published table"
    COPY = "copy of a published month"


PUBLISHED: Final = frozenset({Kind.TABLE, Kind.COPY})
"""What goes by its retention, not with its month."""


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One file that could go: its path below the home, its size in bytes, the month it is of."""

    path: str
    kind: Kind
    month: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One file that will go, how, and why."""

    action: str
    item: Item
    reason: str


_RULES: Final[Mapping[Kind, tuple[str, str]]] = MappingProxyType(
    {
        Kind.KEYS: ("destroy", "without them no counter of {month} can be read (CL-2, CV-5)"),
        Kind.SEGMENT: ("remove", "counters of {month} are kept during their month only (CL-2)"),
        Kind.BATCH: ("remove", "batches of {month} that nothing can open any more (CL-2, CV-5)"),
        Kind.NOTICE: ("remove", "notices of {month} expire with it"),
        Kind.TABLE: ("remove", "older than the profile's retention"),
        Kind.COPY: ("remove", "older than the profile's retention"),
    }
)


def plan(month: str, items: Iterable[Item]) -> list[Step]:
    """Return what goes when `month` is purged: its own files, keys first."""
    order = {kind: number for number, kind in enumerate(Kind)}
    mine = [item for item in items if item.month == month]
    steps = []
    for item in sorted(mine, key=lambda item: (order[item.kind], item.path)):
        action, reason = _RULES[item.kind]
        steps.append(Step(action, item, reason.format(month=month)))
    return steps


def expired(items: Iterable[Item], month: str, retention_months: Mapping[str, int]) -> list[Step]:
    """Return the table partitions, and copies of them, past their retention once `month` is over.

    A partition of month m is kept through m + retention; 0 keeps it for ever. The table's name
    is the second part of an item's path.
    """
    steps = []
    for item in items:
        if item.kind not in PUBLISHED:
            continue
        kept = retention_months.get(item.path.split("/")[1], 0)
        if kept and _number(month) > _number(item.month) + kept:
            action, reason = _RULES[item.kind]
            steps.append(Step(action, item, f"{reason} of {kept} months"))
    return steps


def _number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:])
