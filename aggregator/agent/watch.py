"""One source of a running agent: its reader, its map, its totals, and how it fares."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import secrets
from collections.abc import Mapping
from typing import Final

from aggregator.agent.collectors import SOURCES
from aggregator.agent.config import SourceSettings
from aggregator.agent.connections import ConnectionTotals
from aggregator.agent.journal import Journal, Level, unexpected
from aggregator.agent.mapping import AccountBook, Say
from aggregator.agent.readings import Capture, Drop, Locate, Reader, SilentSourceError
from aggregator.agent.totals import RunningTotals
from aggregator.errors import AggregatorError, BadInputError, ConfigError
from aggregator.model.records import Record

_EPOCH_BYTES: Final = 8


class State(enum.StrEnum):
    """How the last reading of a source went."""

    WAITING = "waiting"
    OK = "ok"
    UNREADABLE = "unreadable"
    SILENT = "silent"


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """What may be told of a source: `failures` and `intervals` count readings, in a row."""

    state: State = State.WAITING
    intervals: int = 0
    failures: int = 0
    readings: int = 0
    dropped: Mapping[Drop, int] = dataclasses.field(default_factory=dict)


class Watch:
    """Reads one source again and again; a source that fails tells it once and is tried again.

    The epoch is random, of this process and this source, and is never stored. It is replaced where
    totals would otherwise begin anew under it: a forgotten day that comes back, by a clock that was
    set back, or captures of another form.
    """

    def __init__(self, settings: SourceSettings, locate: Locate, journal: Journal) -> None:
        """Watch the source that `settings` names; it is opened at the first reading."""
        self.settings = settings
        self.health = Health()
        self._row = SOURCES[settings.kind]
        self._locate = locate
        self._journal = journal
        self._reader: Reader | None = None
        self._forgotten: dt.date | None = None
        self._epoch = secrets.token_hex(_EPOCH_BYTES)
        self._totals = RunningTotals(self._row)
        self._connections = ConnectionTotals()
        self._book = _book(settings, self._say)

    @property
    def name(self) -> str:
        """What the source is called in words: its number, kind and location."""
        return f"source {self.settings.number} ({self.settings.kind}, {self.settings.location})"

    def take_map(self, settings: SourceSettings) -> None:
        """Read accounts as `settings` says from the next reading on; the totals stay."""
        if self._book is not None and settings.accounts == self.settings.accounts:
            # Not a new one: if the map is broken by now, the one before stays in use.
            self._book.forget_age()
        else:
            self._book = _book(settings, self._say)
        self.settings = settings

    def open(self) -> None:
        """Open the reader; ConfigError if its settings are wrong, BadInputError if it is away."""
        if self._reader is None:
            try:
                self._reader = self._row.connect(self.settings.settings, self._locate)
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error}") from None

    def read(self, now: dt.datetime, monotonic: float, day: dt.date) -> None:
        """Read the source once, and charge what grew to `day`; no error of it gets out."""
        try:
            capture = self._capture(now)
            if self._book is not None:
                capture = self._book.name(capture, monotonic)
            self._count(capture, day)
        except SilentSourceError as error:
            self._note(State.SILENT, str(error))
        except AggregatorError as error:
            self._note(State.UNREADABLE, str(error))
        except Exception as error:  # noqa: BLE001 - told, and the other sources go on
            self._note(State.UNREADABLE, unexpected(error))
        else:
            self._note(State.OK, "is read", capture)

    def records(self) -> list[Record]:
        """Return the totals so far of all days that were not forgotten."""
        location = self.settings.location
        usage: list[Record] = [*self._totals.records(location, self._epoch)]
        return [*usage, *self._connections.records(location, self._epoch)]

    def forget(self, before: dt.date) -> None:
        """Forget the totals of the days before `before`, handed over for the last time."""
        self._totals = self._totals.without_days_before(before)
        self._connections = self._connections.without_days_before(before)
        self._forgotten = max(before, self._forgotten or before)

    def close(self) -> None:
        """Let go of the reader."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _capture(self, now: dt.datetime) -> Capture:
        self.open()
        assert self._reader is not None
        return self._reader.read(now)

    def _count(self, capture: Capture, day: dt.date) -> None:
        if self._forgotten is not None and day < self._forgotten:
            # The clock was set back: under the old epoch the day's totals would begin below what
            # was sent, and be lost. What grows from here on counts in a new one; what is
            # counted already was handed over under the old one, and must not be said in both.
            self._epoch = secrets.token_hex(_EPOCH_BYTES)
            self._totals = self._totals.without_days_before(dt.date.max)
            self._connections = self._connections.without_days_before(dt.date.max)
            self._forgotten = None
        totals, connections = self._totals, self._connections
        try:
            totals, connections = totals.after(capture, day), connections.after(capture, day)
        except BadInputError:
            self._say("shows counters of another form; they are counted from here on")
            self._epoch = secrets.token_hex(_EPOCH_BYTES)
            totals = RunningTotals(self._row).after(capture, day)
            connections = ConnectionTotals().after(capture, day)
        self._totals, self._connections = totals, connections

    def _note(self, state: State, words: str, capture: Capture | None = None) -> None:
        before = self.health
        intervals = before.intervals + 1 if state is before.state else 1
        if capture is None:
            self.health = Health(state, intervals, before.failures + 1)
        else:
            dropped = {reason: count for reason, count in capture.dropped.items() if count}
            self.health = Health(state, intervals, 0, len(capture.readings), dropped)
        if state is not before.state:
            level = Level.INFO if state is State.OK else Level.WARNING
            self._say(words if state is State.OK else f"{state}: {words}", level)

    def _say(self, words: str, level: Level = Level.WARNING) -> None:
        self._journal.say(level, f"{self.name}: {words}")


def _book(settings: SourceSettings, say: Say) -> AccountBook | None:
    return None if settings.accounts is None else AccountBook(settings.accounts, say)
