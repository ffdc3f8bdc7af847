"""When to read and when to send: decisions without a clock of their own.

Intervals go by the monotonic clock, so that no change of the wall clock makes reading faster or
slower; days go by the wall clock in UTC. Seconds everywhere.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import random
from typing import Final

from aggregator.model.days import end_of_day, start_of

CLOSING_SECONDS: Final = 30.0
"""A reading at most so long after midnight still belongs to the day that ended."""
LONGEST_WAIT: Final = 20.0
"""A wait is cut into pieces, since the wall clock may be set at any moment."""
_QUIET_SECONDS: Final = 5.0
_FIRST_SEND_SECONDS: Final = 10.0
_SEND_SPREAD: Final = 0.5
_READ_SPREAD: Final = 0.02

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 15 * 60.0
LONGEST_RETRY_AFTER: Final = 3600.0
REFUSED_PAUSE: Final = 5 * 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """What is due now: a reading, by the day that it is charged to, or a sending, or neither."""

    read: dt.date | None
    send: bool


@dataclasses.dataclass(slots=True)
class Timetable:
    """The next reading and the next sending, on the monotonic clock, and the UTC day that is open.

    Readings keep a grid whose phase is random at each start, each a little off it. A sending
    follows its reading after a random part of the interval, so that neither the door nor someone
    who watches the line sees a fleet in step. None begins in the last `quiet` seconds of a day,
    which are what a request may take: the reading at midnight waits for nothing.
    """

    interval: float
    quiet: float
    chance: random.Random
    _grid_at: float
    _read_at: float
    _send_at: float
    _open_day: dt.date
    _paused_until: float = 0.0
    _failures: int = 0
    _started: bool = False

    @classmethod
    def start(
        cls,
        interval: float,
        request_seconds: float,
        chance: random.Random,
        monotonic: float,
        now: dt.datetime,
    ) -> Timetable:
        """Return a timetable whose first reading is due at once."""
        grid = monotonic - chance.uniform(0, interval)
        quiet = request_seconds + _QUIET_SECONDS
        return cls(interval, quiet, chance, grid, monotonic, math.inf, now.date())

    def due(self, monotonic: float, now: dt.datetime) -> Due:
        """Return what is due, and take what it names as begun.

        The first moment of a new UTC day has a reading of its own. It closes the day that ended,
        unless it comes late, after a pause of the machine or a jump of the clock: then nobody
        knows when the bytes flowed, and they are charged to the day that it is.
        """
        today = now.date()
        if today != self._open_day or monotonic >= self._read_at:
            day = self._open_day if self._closes(now) else today
            self._open_day = today
            self._plan_read(monotonic)
            return Due(day, send=False)
        sends = monotonic >= self._next_send() and self.may_send(now)
        if sends:
            self._send_at = math.inf
        return Due(None, sends)

    def wait(self, monotonic: float, now: dt.datetime) -> float:
        """Return how long nothing is due, at most `LONGEST_WAIT`, never below 0."""
        if now.date() != self._open_day:
            return 0.0
        ahead = [self._read_at - monotonic, _until_midnight(now)]
        if self.may_send(now):
            ahead.append(self._next_send() - monotonic)
        return min(max(min(ahead), 0.0), LONGEST_WAIT)

    def may_send(self, now: dt.datetime) -> bool:
        """Say whether a request may begin: none does right before the reading at midnight."""
        return now.date() == self._open_day and _until_midnight(now) > self.quiet

    def sent(self) -> None:
        """Note that the door answered as it should."""
        self._failures = 0
        self._paused_until = 0.0

    def pause(self, monotonic: float, at_least: float, retry_after: float | None) -> float:
        """Send nothing for a while and return how long: back-off with full jitter, or as asked."""
        self._failures += 1
        if retry_after is not None:
            # A little later than asked: the others were told the same.
            pause = min(retry_after, LONGEST_RETRY_AFTER) + self.chance.uniform(0, FIRST_PAUSE)
        else:
            ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
            pause = self.chance.uniform(0, ceiling)
        pause = max(pause, at_least)
        self._paused_until = monotonic + pause
        self._send_at = monotonic
        return pause

    def _next_send(self) -> float:
        return max(self._send_at, self._paused_until)

    def _closes(self, now: dt.datetime) -> bool:
        if now.date() != self._open_day + dt.timedelta(days=1):
            return False
        return (now - start_of(now.date())).total_seconds() <= CLOSING_SECONDS

    def _plan_read(self, monotonic: float) -> None:
        """Plan the next reading; missed ones are not made up for, since one tells all they would.

        A point of the grid less than half an interval ahead is the one that this reading was for.
        """
        ahead = self._grid_at - monotonic
        if ahead <= self.interval / 2:
            self._grid_at += ((self.interval / 2 - ahead) // self.interval + 1) * self.interval
        self._read_at = self._grid_at + self.interval * self.chance.uniform(
            -_READ_SPREAD, _READ_SPREAD
        )
        spread = self.interval * _SEND_SPREAD
        if not self._started:
            # The keys and what an earlier process left should not wait for long.
            spread = min(spread, _FIRST_SEND_SECONDS)
            self._started = True
        # One that is due earlier, such as a second attempt, is not put off.
        self._send_at = min(self._send_at, monotonic + self.chance.uniform(0, spread))


def _until_midnight(now: dt.datetime) -> float:
    return (end_of_day(now.date()) - now).total_seconds()
