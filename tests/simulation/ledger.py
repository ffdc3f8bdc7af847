"""What the tables must say: every batch from the door on, and plain sums of what was in it.

Nothing here knows how the package works. Of the home it is told only which batches have left the
inbox, and which days were closed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from blackbox import truth
from blackbox.flags import Flags, Outcome, by_asn, by_pair, merge_flags
from blackbox.truth import OTHER, Cell, Reading, Release

from .fleet import Report

Usage = dict[tuple[str, str, str], int]
Totals = dict[tuple[Any, ...], tuple[int, int, int]]


@dataclasses.dataclass(slots=True)
class Day:
    """Largest totals of one day: all that came in, and what was in when the day was closed."""

    usage: Usage = dataclasses.field(default_factory=dict)
    flags: Totals = dataclasses.field(default_factory=dict)
    closed_usage: Usage | None = None
    closed_flags: Totals | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can change its tables."""
        return self.closed_usage is not None and self.closed_flags is not None

    def add(self, readings: Iterable[Reading], flags: Iterable[Flags]) -> None:
        """Take in the records of a batch; the same ones once more change nothing."""
        for one in readings:
            key = (one.location, one.user, one.epoch)
            self.usage[key] = max(self.usage.get(key, 0), one.bytes)
        for row in flags:
            name = tuple(row[1:7])
            old = self.flags.get(name, (0, 0, 0))
            new = (row.users, row.attempts, row.successes)
            self.flags[name] = (max(old[0], new[0]), max(old[1], new[1]), max(old[2], new[2]))


class Ledger:
    """Every batch that the door kept, and every day that was reported."""

    def __init__(self) -> None:
        self.waiting: dict[str, Report] = {}
        self.days: dict[str, Day] = {}
        self.open: set[str] = set()
        self.taken_in = 0
        self.overtaken: list[Report] = []

    def keep(self, report: Report, now: dt.datetime) -> None:
        """Note a batch that lies in the inbox."""
        if report.name not in self.waiting:
            report.kept_at = now
        self.waiting[report.name] = report

    def left(self, inbox: set[str], is_over: Callable[[str], bool]) -> list[Report]:
        """Note which batches have left the inbox; return those whose month was over by then."""
        over = []
        for name in [name for name in self.waiting if name not in inbox]:
            report = self.waiting.pop(name)
            if is_over(report.month):
                over.append(report)
                continue
            self.taken_in += 1
            day = self.days.setdefault(report.day, Day())
            day.add(report.readings, report.flags)
            if not day.is_closed:
                self.open.add(report.day)
        self.overtaken += over
        return over

    def close(self, name: str, *, usage: bool, flags: bool) -> None:
        """Note that the usage, the flags or both of a day are frozen from now on."""
        day = self.days[name]
        if usage and day.closed_usage is None:
            day.closed_usage = dict(day.usage)
        if flags and day.closed_flags is None:
            day.closed_flags = dict(day.flags)
        if day.is_closed:
            self.open.discard(name)

    def of_month(self, month: str) -> dict[str, Day]:
        """Return the days of a month, by name."""
        return {name: day for name, day in sorted(self.days.items()) if name.startswith(month)}


def readings(name: str, usage: Usage | None) -> list[Reading]:
    """Return totals of a day as the truth wants them."""
    return [
        Reading(name, user, place, epoch, n) for (place, user, epoch), n in (usage or {}).items()
    ]


def cells(name: str, usage: Usage | None) -> dict[str, Cell]:
    """Return location → user → bytes of one day."""
    return truth.merge(readings(name, usage)).get(name, {})


def outcomes(name: str, totals: Totals | None) -> dict[Flags, Outcome]:
    """Return the finest cells of one day's flags."""
    return merge_flags(Flags._make((name, *key, *n)) for key, n in (totals or {}).items())


def pairs(name: str, totals: Totals | None, first: str, second: str) -> Mapping[Any, Outcome]:
    """Return (first, second) → outcome of one day."""
    return by_pair(outcomes(name, totals), first, second).get(name, {})


def isps(name: str, totals: Totals | None) -> Mapping[int, Outcome]:
    """Return asn → outcome of one day."""
    return by_asn(outcomes(name, totals)).get(name, {})


def late(days: Mapping[str, Day], month: Release) -> dict[str, int | None]:
    """Return published cell → bytes that came after their day was closed; None: may not be told."""
    published = month.cells()
    came: dict[str, Cell] = {}
    for name, day in days.items():
        before = cells(name, day.closed_usage)
        for place, users in cells(name, day.usage).items():
            cell = came.setdefault(place if place in month.named else OTHER, {})
            for user, total in users.items():
                more = total - before.get(place, {}).get(user, 0)
                if more:
                    cell[user] = cell.get(user, 0) + more
    came = {name: cell for name, cell in came.items() if cell}
    told: dict[str, int | None] = dict.fromkeys(published, 0)
    rest = came.pop(OTHER, {})
    released = truth.release(came, rest)
    for name in [*came, OTHER] if rest else came:
        if name in told:
            alone = released.cells().get(name)
            told[name] = None if alone is None else sum(alone.values())
    if released.residual and OTHER in told:
        told[OTHER] = sum(released.residual.values())
    return told
