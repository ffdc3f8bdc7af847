"""The agent's loop without its clock: what is read, what is sealed, what is sent, and when.

One thread, one thing at a time. Reading comes first: the totals of a source go to the outbox right
after its reading, are sealed into the spool, and wait there for the door.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from aggregator.agent.config import Config
from aggregator.agent.enrolment import Enrolment
from aggregator.agent.journal import Journal, Level, Notifier, write_status
from aggregator.agent.keyring import KeyRing, is_over
from aggregator.agent.outbox import Outbox
from aggregator.agent.readings import Locate
from aggregator.agent.sender import Clock, Door, Sender
from aggregator.agent.spool import Spool
from aggregator.agent.timetable import Timetable
from aggregator.agent.watch import State, Watch
from aggregator.errors import BadInputError
from aggregator.wire import batch
from aggregator.wire.keys import PublishedKey

LAST_READ_SECONDS: Final = 5.0
LAST_SEND_SECONDS: Final = 10.0
_OVERDUE_SECONDS: Final = 6 * 3600.0
_UNANNOUNCED: Final = dt.timedelta(days=40)

Limited = Callable[[float], AbstractContextManager[None]]
"""Ends its block after so many seconds, in silence."""


class Service:
    """A running agent: `step` does what is due, `stop` ends it."""

    def __init__(
        self,
        config: Config,
        enrolment: Enrolment,
        door: Door,
        spool: Spool,
        clock: Clock,
        *,
        locate: Locate,
        faults: Callable[[], list[str]],
        journal: Journal,
        notifier: Notifier,
        chance: random.Random,
    ) -> None:
        """Set everything up; nothing is read or sent before the first `step`.

        `faults` says what is wrong with `locate` at present.
        """
        self._config = config
        self._enrolment = enrolment
        self._spool = spool
        self._clock = clock
        self._journal = journal
        self._notifier = notifier
        self._faults = faults
        self._keys = KeyRing(enrolment.door_key)
        self._outbox = Outbox(spool, enrolment.locations, self._seal)
        self._watches = [Watch(each, locate, journal) for each in config.sources]
        self._timetable = Timetable.start(
            config.interval_seconds,
            config.door.timeout_seconds,
            chance,
            clock.monotonic(),
            clock.now(),
        )
        self._sender = Sender(
            door,
            spool,
            self._outbox,
            self._keys,
            self._timetable,
            clock,
            journal,
            self._seal_changed,
        )
        self._sender.take_kept_keys()
        self._overdue: dict[str, float] = {}
        self._told_faults: list[str] = []
        self._told_missing: frozenset[str] = frozenset()
        self._told_spool: str | None = None
        self._told_status: str | None = None

    @property
    def in_request(self) -> bool:
        """Whether the door is being waited for; that may be interrupted, unlike a reading."""
        return self._sender.in_request

    def open(self) -> None:
        """Open every source; ConfigError if one is not configured well, but not if it is away."""
        for watch in self._watches:
            with contextlib.suppress(BadInputError):
                watch.open()

    def step(self) -> float:
        """Do what is due; return the seconds for which nothing is."""
        clock = self._clock
        due = self._timetable.due(clock.monotonic(), clock.now())
        if due.read is not None:
            self._read(due.read)
        elif due.send:
            self._sender.round(self._may_go_on)
        if due.read is not None or due.send:
            self._tell_status()
        return self._timetable.wait(clock.monotonic(), clock.now())

    def stop(self, limited: Limited) -> None:
        """Read and send once more, in bounded time; what was not sent stays in the spool."""
        with limited(LAST_READ_SECONDS):
            self._read(self._clock.now().date())
        self._seal_changed()
        self._sender.door.hurry(LAST_SEND_SECONDS)
        until = self._clock.monotonic() + LAST_SEND_SECONDS
        with limited(LAST_SEND_SECONDS):
            self._sender.round(lambda: self._clock.monotonic() < until)
        self._tell_status()
        left = self._outbox.pending_records
        if left:
            kept = self._spool.folder is not None and self._outbox.pending_batches
            place = "and wait in the spool" if kept else "and are lost: no key to seal them with"
            if self._spool.folder is None:
                place = "and are lost: there is no spool"
            self._journal.say(Level.WARNING, f"ended; {left} records were not sent {place}")

    def close(self) -> None:
        """Let go of sources and of the door."""
        for watch in self._watches:
            watch.close()
        self._sender.door.close()

    def reload(self, config: Config, enrolment: Enrolment, door: Door) -> None:
        """Take maps, certificates and the token anew; the sources themselves need a restart."""
        self._sender.door.close()
        self._sender.door = door
        self._enrolment = enrolment
        self._outbox.reseal()
        # A pause was meant for the settings before.
        self._timetable.sent()
        known = {(each.kind, each.location, each.settings): each for each in config.sources}
        changed = len(known) != len(self._watches)
        for watch in self._watches:
            mine = watch.settings
            found = known.get((mine.kind, mine.location, mine.settings))
            changed = changed or found is None
            watch.take_map(mine if found is None else found)
        if changed:
            self._journal.say(Level.WARNING, "the sources changed: restart the agent for them")
        self._journal.say(Level.INFO, "took maps, certificates and the enrolment anew")

    def _read(self, day: dt.date) -> None:
        """Read every source, hand over its totals, and seal what changed."""
        for watch in self._watches:
            self._notifier.tell(WATCHDOG="1")
            watch.read(self._clock.now(), self._clock.monotonic(), day)
            self._outbox.put(watch.records())
        self._forget()
        faults = self._faults()
        for fault in faults:
            if fault not in self._told_faults:
                self._journal.say(Level.WARNING, fault)
        self._told_faults = faults
        self._drop_overdue()
        self._seal_changed()

    def _may_go_on(self) -> bool:
        self._notifier.tell(WATCHDOG="1")
        return self._timetable.may_send(self._clock.now())

    def _seal(self, records: bytes, key: PublishedKey) -> bytes:
        mine = self._enrolment
        return batch.seal(
            records, key.month, mine.agent, key.key_id, key.public_key, mine.signing_key
        )

    def _seal_changed(self) -> None:
        missing = frozenset(self._outbox.seal(self._keys.key))
        if missing and self._spool.folder is not None:
            # Where there is no door, somebody brings a newer announcement into the spool.
            self._sender.take_kept_keys()
            missing = frozenset(self._outbox.seal(self._keys.key))
        if missing - self._told_missing and self._keys.is_known:
            words = f"no key is announced for {', '.join(sorted(missing))}: its totals wait"
            self._journal.say(Level.WARNING, words)
            self._told_missing = missing
        trouble = self._outbox.spool_trouble
        if trouble is not None and trouble != self._told_spool:
            self._journal.say(Level.WARNING, f"spool: {trouble}; memory goes on")
        self._told_spool = trouble

    def _drop_overdue(self) -> None:
        """Drop what no aggregator takes any more, also while the door is away (CL-2).

        The clock has to say so for hours on end: one that jumped for a moment destroys nothing.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._overdue = {
            month: self._overdue.get(month, monotonic)
            for month in self._outbox.kept_months()
            if self._is_overdue(month, now)
        }
        for month, since in self._overdue.items():
            if monotonic - since >= _OVERDUE_SECONDS:
                self._sender.drop_month(month)

    def _is_overdue(self, month: str, now: dt.datetime) -> bool:
        key = self._keys.key(month)
        return now >= key.purge_at if key is not None else is_over(month, now - _UNANNOUNCED)

    def _forget(self) -> None:
        """Forget the days that are over: what waits of them is in the outbox."""
        today = self._clock.now().date()
        self._outbox.forget(today.isoformat())
        for watch in self._watches:
            watch.forget(today)

    def _tell_status(self) -> None:
        sources = [watch.health for watch in self._watches]
        good = sum(health.state is State.OK for health in sources)
        waiting = self._outbox.pending_records
        words = f"{good} of {len(sources)} sources are read; {waiting} records wait"
        self._notifier.tell(STATUS=words)
        if self._config.status is not None:
            trouble = write_status(self._config.status, self._status())
            if trouble is not None and trouble != self._told_status:
                self._journal.say(Level.WARNING, trouble)
            self._told_status = trouble

    def _status(self) -> dict[str, object]:
        """Return how the agent is: counts and states, and nobody's name."""
        rows = [
            {
                "source": watch.settings.number,
                "kind": watch.settings.kind,
                "location": watch.settings.location,
                "state": str(watch.health.state),
                "intervals": watch.health.intervals,
                "failures": watch.health.failures,
                "readings": watch.health.readings,
                "dropped": {str(why): count for why, count in watch.health.dropped.items()},
            }
            for watch in self._watches
        ]
        outcome = self._sender.outcome
        return {
            "schema_version": 1,
            "rows": rows,
            "last_outcome": None if outcome is None else str(outcome),
            "pending_records": self._outbox.pending_records,
            "pending_batches": self._outbox.pending_batches,
            "rejected": {str(why): count for why, count in self._outbox.rejected.items()},
            "spool": "memory" if self._spool.folder is None else "folder",
            "spool_full": self._outbox.spool_trouble is not None,
        }
