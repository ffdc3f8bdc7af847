"""Handing over what waits: one round at the door, and what each of its answers leads to."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from typing import Final, Protocol

from aggregator.agent.client import Answer, Outcome
from aggregator.agent.journal import Journal, Level
from aggregator.agent.keyring import KeyRing, is_over
from aggregator.agent.outbox import Outbox, Sealed
from aggregator.agent.spool import Spool
from aggregator.agent.timetable import REFUSED_PAUSE, Timetable
from aggregator.errors import BadInputError, IntegrityError

_SHORTEST_PAUSE: Final = 1.0
_REFUSED_SECONDS: Final = 3600.0
_REFUSED: Final = frozenset({Outcome.MALFORMED, Outcome.FORBIDDEN, Outcome.UNAUTHORISED})


class Clock(Protocol):
    """The time: of day in UTC, and in seconds that are never set back."""

    def now(self) -> dt.datetime:
        """Return the instant."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""


class Door(Protocol):
    """What is needed of `DoorClient`."""

    def keys(self) -> Answer:
        """Ask for the announcement of keys."""

    def send(self, batch: bytes) -> Answer:
        """Hand over one sealed batch."""

    def hurry(self, seconds: float) -> None:
        """Give every request from now on at most so long."""

    def close(self) -> None:
        """Let go of the connection."""


class Sender:
    """Sends from the outbox; tells each change at the door once."""

    def __init__(
        self,
        door: Door,
        spool: Spool,
        outbox: Outbox,
        keys: KeyRing,
        timetable: Timetable,
        clock: Clock,
        journal: Journal,
        seal: Callable[[], None],
    ) -> None:
        """Send what `outbox` holds, after `seal` sealed what changed in it."""
        self.door = door
        self.outcome: Outcome | None = None
        self.in_request = False
        self._spool = spool
        self._outbox = outbox
        self._keys = keys
        self._timetable = timetable
        self._clock = clock
        self._journal = journal
        self._seal = seal
        self._told: str | None = None
        self._refused = False

    def take_kept_keys(self) -> None:
        """Take the announcement that an earlier process left: the door may be away."""
        content = self._spool.announcement()
        if content is None:
            return
        try:
            self._keys.take(content)
        except (BadInputError, IntegrityError):
            self._journal.say(Level.WARNING, "the announcement in the spool is of no use")

    def round(self, may_go_on: Callable[[], bool]) -> None:
        """Hand over what waits, until nothing is left or the door wants no more."""
        self._refused = False
        if not may_go_on() or not self._fetch_keys():
            return
        self._seal()
        tried: set[Sealed] = set()
        asked_again = False
        while (sealed := self._outbox.next(self._clock.monotonic(), tried)) and may_go_on():
            tried.add(sealed)
            content = self._outbox.content(sealed)
            if content is None:
                continue
            answer = self._ask(functools.partial(self.door.send, content))
            if answer.outcome is Outcome.KEY_UNKNOWN and not asked_again:
                asked_again = True
                self._keys.doubt()
                if not self._fetch_keys():
                    return
                # What has another key now is sealed anew, and this batch is gone.
                self._seal()
            if not self._act(answer, sealed):
                return
        if self._refused:
            self._timetable.pause(self._clock.monotonic(), REFUSED_PAUSE, None)
        else:
            self._timetable.sent()

    def drop_month(self, month: str) -> None:
        """Drop a month that no aggregator takes any more, and say so."""
        lost = self._outbox.drop_month(month)
        words = f"{month} is over at the aggregator: dropped its totals, {lost} records unsent"
        self._journal.say(Level.WARNING, words)

    def _ask(self, request: Callable[[], Answer]) -> Answer:
        self.in_request = True
        try:
            answer = request()
        finally:
            self.in_request = False
        self.outcome = answer.outcome
        done = answer.outcome is Outcome.DONE
        words = None if done else answer.words
        if words != self._told:
            level = Level.ERROR if answer.outcome in _REFUSED else Level.WARNING
            again = "the door takes batches again"
            self._journal.say(Level.INFO if done else level, words or again)
        self._told = words
        return answer

    def _act(self, answer: Answer, sealed: Sealed) -> bool:
        """Do what the answer to a batch asks for; return whether the round goes on."""
        match answer.outcome:
            case Outcome.DONE:
                self._outbox.acknowledge(sealed)
            case Outcome.MONTH_OVER:
                self._month_is_over(sealed)
            case Outcome.TOO_LARGE if self._outbox.split(sealed):
                self._seal()
            case Outcome.KEY_UNKNOWN | Outcome.TOO_LARGE | Outcome.MALFORMED:
                self._put_off(sealed)
            case Outcome.FORBIDDEN if sealed.day is None:
                # Signed, perhaps, with a key that was rotated since; ours may do.
                self._put_off(sealed)
            case _:
                return self._give_up(answer)
        return True

    def _give_up(self, answer: Answer) -> bool:
        at_least = REFUSED_PAUSE if answer.outcome in _REFUSED else _SHORTEST_PAUSE
        self._timetable.pause(self._clock.monotonic(), at_least, answer.retry_after)
        return False

    def _put_off(self, sealed: Sealed) -> None:
        """Keep a batch that was refused, and try it again much later: others go on."""
        sealed.not_before = self._clock.monotonic() + _REFUSED_SECONDS
        self._refused = self._refused or sealed.day is not None

    def _month_is_over(self, sealed: Sealed) -> None:
        """Drop the month if our own clock says so too: one wrong clock alone destroys nothing."""
        if sealed.month is None:
            self._outbox.drop(sealed)
            self._journal.say(Level.WARNING, "dropped a batch of an earlier start: it is none")
        elif is_over(sealed.month, self._clock.now()):
            self.drop_month(sealed.month)
        else:
            self._journal.say(
                Level.ERROR, "the door says that this month is over: compare both clocks"
            )
            self._put_off(sealed)

    def _fetch_keys(self) -> bool:
        """Ask for keys if it is time to; return whether the round goes on."""
        clock = self._clock
        if not self._keys.is_stale(clock.monotonic()):
            return True
        answer = self._ask(self.door.keys)
        if answer.outcome is not Outcome.DONE:
            return self._give_up(answer)
        self._keys.fetched(clock.monotonic())
        try:
            self._keys.take(answer.body)
            self._spool.keep_announcement(answer.body)
        except IntegrityError as error:
            self._journal.say(Level.ERROR, str(error))
        except BadInputError as error:
            self._journal.say(Level.WARNING, str(error))
        return True
