"""What is simulated, and what goes wrong on the way: all of it follows from a seed.

    SIMULATION_YEAR=2027 SIMULATION_YEARS=2 SIMULATION_SEED=7 pytest -m integration tests/simulation

SIMULATION_DAYS ends it earlier. Every month's end has a story of its own, and so has its middle;
which month has which is the seed's to choose.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import os
import random
from collections.abc import Iterator
from typing import Final

HOUR: Final = dt.timedelta(hours=1)
DAY: Final = 24 * HOUR
GRACE: Final = 48 * HOUR
"""From a month's end to its purge, as the default profile has it (CL-2)."""
TRUSTED: Final = 48 * HOUR
"""So far ahead a clock may jump without a doubt."""


class Kind(enum.StrEnum):
    """What goes wrong for a while."""

    DOWN = "the host is down"
    IDLE = "no job runs, the door is open"
    MASKED = "month-end alone does not run"
    CLOCK = "the clock is wrong"
    CRASHES = "most runs are killed"


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """One stretch of trouble, in true time; a wrong clock is ahead by `offset`."""

    kind: Kind
    begins: dt.datetime
    ends: dt.datetime
    offset: dt.timedelta = dt.timedelta(0)

    @property
    def unsettles(self) -> bool:
        """Whether a clock may be in doubt after it: it jumped, or nothing was written for long."""
        gap = self.offset if self.kind is Kind.CLOCK else self.ends - self.begins
        return self.kind is not Kind.MASKED and abs(gap) > TRUSTED - DAY

    @property
    def is_long(self) -> bool:
        """Whether an operator is asked afterwards to confirm a clock that is right."""
        return self.kind in (Kind.DOWN, Kind.IDLE) and self.unsettles


@dataclasses.dataclass(frozen=True, slots=True)
class _Story:
    """A trouble before it has its month: its hours from the purge, or from the month's 12th."""

    kind: Kind
    first_hour: float
    hours: float
    ahead: dt.timedelta = dt.timedelta(0)


# Clocks jump ahead right after agents have reported: what they handed over still waits.
_MONTH_ENDS: Final = (
    _Story(Kind.DOWN, -120, 168),  # a week over the month's end and the purge
    _Story(Kind.CLOCK, -32.25, 4, 40 * DAY),
    _Story(Kind.IDLE, -49, 79),  # late by more than a day; the month's last reports wait in vain
    _Story(Kind.CLOCK, -1, 6, -3 * DAY),
    _Story(Kind.CRASHES, -1, 6),
    _Story(Kind.MASKED, -1, 10),
    _Story(Kind.CLOCK, -8.25, 4, 3 * DAY),
    _Story(Kind.CLOCK, -8.25, 5, 30 * HOUR),  # trusted: early, but never before the month's end
    _Story(Kind.DOWN, -2, 5),
    _Story(Kind.CLOCK, -1, 4, -2 * HOUR),
    _Story(Kind.CRASHES, -30, 40),
)
_MIDDLES: Final = (
    _Story(Kind.CLOCK, 15.75, 2, 3653 * DAY),
    _Story(Kind.IDLE, 20, 76),
    _Story(Kind.CLOCK, 15, 3, -40 * DAY),
    _Story(Kind.DOWN, 3, 30),
    _Story(Kind.CLOCK, 22, 5, 20 * HOUR),
    _Story(Kind.DOWN, 14, 12),  # a suspended laptop
    _Story(Kind.CLOCK, 14, 4, -5 * DAY),
    _Story(Kind.CRASHES, 0, 48),
    _Story(Kind.CLOCK, 15.75, 3, 60 * HOUR),
    _Story(Kind.IDLE, 1, 9),
    _Story(Kind.CLOCK, 15, 2, -20_000 * DAY),  # a dead battery: the seventies
)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A simulated time: its first day, how many days, and the troubles, oldest first."""

    seed: int
    first: dt.date
    days: int
    troubles: tuple[Trouble, ...]

    @classmethod
    def of(cls, seed: int, first: dt.date, days: int) -> Plan:
        """Return the plan of a seed."""
        rng = random.Random(f"troubles {seed}")
        last = first + dt.timedelta(days=days)
        months = [month for month in _months(first) if month_end(month).date() <= last]
        found = []
        for number, month in enumerate(months):
            if number % len(_MONTH_ENDS) == 0:
                ends, middles = _shuffled(rng, _MONTH_ENDS), _shuffled(rng, _MIDDLES)
            begin = dt.datetime.fromisoformat(f"{month}-12T00:00Z")
            found += [_told(middles[number % len(middles)], begin)]
            found += [_told(ends[number % len(ends)], purge_at(month))]
        return cls(seed, first, days, tuple(found))

    @property
    def months(self) -> list[str]:
        """Return the months whose purge lies within the plan, oldest first."""
        last = start_of(self.first) + self.days * DAY
        return [month for month in _months(self.first) if month_end(month) <= last]

    def may_doubt(self, now: dt.datetime) -> bool:
        """Whether the clock may be in doubt: six hours of entries after the last jump settle it."""
        return any(
            one.unsettles and one.begins <= now <= one.ends + 7 * HOUR for one in self.troubles
        )

    def is_calm(self, now: dt.datetime, since: dt.timedelta) -> bool:
        """Whether nothing has gone wrong for so long."""
        return not any(one.begins <= now <= one.ends + since for one in self.troubles)


def from_environment() -> Plan:
    """Return the plan that the environment asks for: by default a leap year."""
    year, years = _number("SIMULATION_YEAR", 2028), _number("SIMULATION_YEARS", 1)
    first = dt.date(year, 1, 1)
    whole = (dt.date(year + years, 1, 1) - first).days
    return Plan.of(_number("SIMULATION_SEED", 1), first, _number("SIMULATION_DAYS", whole))


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _shuffled(rng: random.Random, stories: tuple[_Story, ...]) -> list[_Story]:
    return rng.sample(stories, len(stories))


def _told(story: _Story, begin: dt.datetime) -> Trouble:
    begins = begin + story.first_hour * HOUR
    return Trouble(story.kind, begins, begins + story.hours * HOUR, story.ahead)


def _months(first: dt.date) -> list[str]:
    """Return a hundred years of months from that of `first`."""
    numbers = range(12 * first.year + first.month - 1, 12 * (first.year + 100))
    return [f"{number // 12}-{number % 12 + 1:02d}" for number in numbers]


def start_of(day: dt.date) -> dt.datetime:
    """Return the instant at which `day` begins."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def month_end(month: str) -> dt.datetime:
    """Return the instant at which `month` ends."""
    year, number = int(month[:4]), int(month[5:])
    return dt.datetime(year + number // 12, number % 12 + 1, 1, tzinfo=dt.UTC)


def purge_at(month: str) -> dt.datetime:
    """Return the instant from which nothing of `month` may be kept."""
    return month_end(month) + GRACE


def closes_at(day: str) -> dt.datetime:
    """Return the instant from which `day` may be closed."""
    return min(start_of(dt.date.fromisoformat(day)) + 2 * DAY, purge_at(day[:7]))


def days_of(plan: Plan) -> Iterator[dt.date]:
    """Yield every day on which agents report."""
    for number in range(plan.days):
        yield plan.first + dt.timedelta(days=number)
