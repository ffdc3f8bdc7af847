"""What the tables must say, from plain Python and the specification alone.

Nothing here knows how the package works: sets, dictionaries and sorting, written to be read
beside DESIGN sections 2 (merge) and 3 (release rule).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

K: Final = 10
LARGEST_PERCENT: Final = 50
TWO_LARGEST_PERCENT: Final = 85
OTHER: Final = "other"

Cell = dict[str, int]  # user → bytes


class Reading(NamedTuple):
    """One usage counter: a running total of one account on one server process for one day."""

    day: str
    user: str
    location: str
    epoch: str
    bytes: int


def merge(readings: Iterable[Reading]) -> dict[str, dict[str, Cell]]:
    """Return day → location → user → bytes: max per (epoch, day, user, location), then sum."""
    highest: dict[tuple[str, str, str, str], int] = {}
    for reading in readings:
        key = (reading.day, reading.location, reading.user, reading.epoch)
        highest[key] = max(highest.get(key, 0), reading.bytes)
    days: dict[str, dict[str, Cell]] = {}
    for (day, location, user, _), value in highest.items():
        cell = days.setdefault(day, {}).setdefault(location, {})
        cell[user] = cell.get(user, 0) + value
    return days


def passes(cell: Cell, k: int = K) -> bool:
    """Say whether a cell may be published: enough users, and none that dominates it."""
    total = sum(cell.values())
    top = [*sorted(cell.values(), reverse=True), 0, 0]
    return (
        len(cell) >= k
        and 100 * top[0] <= LARGEST_PERCENT * total
        and 100 * (top[0] + top[1]) <= TWO_LARGEST_PERCENT * total
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """What may be said of a day or a month; `withheld` when that is nothing at all."""

    named: dict[str, Cell]
    residual: Cell
    withheld: bool = False

    def cells(self) -> dict[str, Cell]:
        """Return every published cell, the residual under the name `other`."""
        return {**self.named, OTHER: self.residual} if self.residual else dict(self.named)


def release(cells: Mapping[str, Cell], folded: Cell | None = None, k: int = K) -> Release:
    """Fold what fails into `other`, which takes in the next smallest cell until it passes.

    `folded` is what is in `other` from the start (a month's folded days).
    """
    named = {name: cell for name, cell in cells.items() if passes(cell, k)}
    residual = dict(folded or {})
    for name, cell in cells.items():
        if name not in named:
            _add(residual, cell)
    while residual and not passes(residual, k):
        if not named:
            return Release({}, {}, withheld=True)
        smallest = min(named, key=lambda name: (len(named[name]), name))
        _add(residual, named.pop(smallest))
    return Release(named, residual)


def release_month(days: Mapping[str, Release], k: int = K) -> Release:
    """Build the month from what the days published: named days by name, the rest in `other`."""
    cells: dict[str, Cell] = {}
    folded: Cell = {}
    for day in days.values():
        for name, cell in day.named.items():
            _add(cells.setdefault(name, {}), cell)
        _add(folded, day.residual)
    return release(cells, folded, k)


def _add(cell: Cell, more: Cell) -> None:
    for user, value in more.items():
        cell[user] = cell.get(user, 0) + value


def percentile(values: Iterable[int], percent: int, k: int = K) -> int | None:
    """Return the nearest rank to three significant digits, if >= k values lie strictly above."""
    ordered = sorted(values)
    rank = -(-percent * len(ordered) // 100)
    value = ordered[max(rank, 1) - 1]
    above = sum(1 for other in ordered if other > value)
    return three_digits(value) if above >= k else None


def three_digits(value: int) -> int:
    """Round to three significant digits, halves up."""
    unit: int = 10 ** max(len(str(value)) - 3, 0)
    return (2 * value + unit) // (2 * unit) * unit


def usage_row(cell: Cell, k: int = K) -> dict[str, int | None]:
    """Return the columns that a published usage cell has besides its dimensions."""
    row: dict[str, int | None] = {"users": len(cell), "bytes": sum(cell.values())}
    for percent in (50, 90, 99):
        row[f"p{percent}_bytes"] = percentile(cell.values(), percent, k)
    return row


def usage_daily(readings: Iterable[Reading], k: int = K) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (day, location) → the row that usage_daily must hold."""
    return {
        (day, name): usage_row(cell, k)
        for day, cells in merge(readings).items()
        for name, cell in release(cells, k=k).cells().items()
    }


def usage_monthly(readings: Iterable[Reading], k: int = K) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (month, location) → the row that usage_monthly must hold, late bytes apart."""
    months: dict[str, dict[str, Release]] = defaultdict(dict)
    for day, cells in merge(readings).items():
        months[day[:7]][day] = release(cells, k=k)
    return {
        (month, name): usage_row(cell, k)
        for month, days in months.items()
        for name, cell in release_month(days, k).cells().items()
    }


_STEPS: Final = (1, 2, 5)
_FIRST_EDGE: Final = 1000  # below it one bucket from 0; DESIGN leaves the ends open


def histogram(values: Iterable[int], k: int = K) -> dict[int, int]:
    """Return lower edge → users on 1-2-5 decimal edges; a bucket below k merges downward."""
    counts: dict[int, int] = defaultdict(int)
    for value in values:
        counts[_edge(value)] += 1
    merged: dict[int, int] = {}
    carried = 0
    for edge in sorted(counts, reverse=True):
        carried += counts[edge]
        if carried >= k:
            merged[edge], carried = carried, 0
    if carried and merged:
        lowest = min(merged)
        merged[min(counts)] = merged.pop(lowest) + carried
    return merged


def _edge(value: int) -> int:
    if value < _FIRST_EDGE:
        return 0
    unit: int = 10 ** (len(str(value)) - 1)
    return max(step * unit for step in _STEPS if step * unit <= value)
