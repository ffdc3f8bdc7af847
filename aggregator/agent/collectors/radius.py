"""RADIUS sessions: what the events of accounting add up to.

The number is what the NAS counts, as a rule payload of the tunnel; Acct-Input is what the user
sent. It is cumulative for a session, so duplicates, retransmissions and reordered packets change
nothing: a session is worth its largest number, never a sum. A session is known by its NAS, its
Acct-Session-Id, its User-Name and its generation, since NASes use ids again: a restart of the NAS
(Accounting-On or -Off), a Start after the Stop, or a number that fell begin the next generation,
which counts from zero. Where nothing tells a copy that came late from a new session, it is taken
for a copy: the result may be too small, but is never too large.

A NAS that sends no Gigawords must be declared in `wraps_at_32_bits`.

A session that is first heard of without its Start, and that may have begun before this agent did,
counts from that first number on: what was before may have been charged already.

Each generation is one connection. RADIUS accounting begins where a user was let in: failed attempts
are never seen, so that attempts and successes are the same number.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable
from itertools import pairwise
from typing import Final

from aggregator.agent.collectors.radius_records import RESTARTS, SLACK_SECONDS, WORD, Event, Status
from aggregator.agent.readings import (
    UNKNOWN_ORIGIN,
    Capture,
    Connection,
    Drop,
    Origin,
    Reading,
)

KEYED_BY: Final = "NAS, session, user and generation"

_DAY_SECONDS: Final = 86_400
# How long a session is remembered after its last event: one that ended, for its duplicates, and
# one that did not, for a NAS that tells nothing between Start and Stop.
_ENDED_SECONDS: Final = _DAY_SECONDS
_OPEN_SECONDS: Final = 40 * _DAY_SECONDS
_MAX_SESSIONS: Final = 250_000
_MAX_GENERATIONS: Final = 32


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class _Generation:
    """One session in the strict sense; its largest numbers so far, `at` its latest event.

    `base` is what it held before this agent knew of it, None until a number says so. `raised` is
    what wraps have added. `restarted`: a Start came after its last number. `began_before`: it may
    have begun before this agent did.
    """

    number: int
    begins: float
    at: float
    base: int | None
    origin: Origin
    began_before: bool
    received: int = 0
    sent: int = 0
    raised: tuple[int, int] = (0, 0)
    wide: bool = False
    elapsed: int | None = None
    restarted: bool = False
    closed: Status | None = None
    closed_at: float = 0
    shown: bool = False

    @property
    def bytes(self) -> int:
        """What counts."""
        return 0 if self.base is None else self.received + self.sent - self.base

    def values(self, event: Event) -> tuple[int, int]:
        """Return both numbers of `event` on the scale of this session; a missing one is as here."""
        received = self.received if event.received is None else event.received + self.raised[0]
        sent = self.sent if event.sent is None else event.sent + self.raised[1]
        return received, sent

    def holds(self, event: Event) -> bool:
        """Say whether `event` adds nothing."""
        received, sent = self.values(event)
        return received <= self.received and sent <= self.sent

    def echoes(self, event: Event) -> bool:
        """Say whether `event` may be a copy of one that was heard."""
        return event.status is not Status.START and self.holds(event)

    def below(self, event: Event) -> bool:
        """Say whether a number of `event` is smaller than here."""
        received, sent = self.values(event)
        return received < self.received or sent < self.sent

    def earlier(self, event: Event) -> bool:
        """Say whether `event` tells a younger session than what was heard last."""
        if event.elapsed is None or self.elapsed is None:
            return False
        return event.elapsed < self.elapsed

    def close(self, status: Status, at: float) -> None:
        """End the session; what comes later does not open it again."""
        if self.closed is None:
            self.shown = False
        self.closed, self.closed_at = status, at


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class _Session:
    """The generations of one NAS, session id and user; `cut`: the oldest were forgotten."""

    nas: bytes | None
    user: str
    touched: float
    generations: list[_Generation] = dataclasses.field(default_factory=list)
    count: int = 0
    cut: bool = False

    @property
    def last(self) -> _Generation:
        return self.generations[-1]

    @property
    def is_open(self) -> bool:
        return self.last.closed is None


class Sessions:
    """All sessions of one source, kept in memory only (CL-4); it knows no clock.

    What ended is remembered for a day, so that a duplicate is known as one. Beyond `limit` sessions
    the oldest are forgotten, ended ones first. What returns after it was forgotten counts only
    from then on.
    """

    def __init__(self, since: float | None = None, limit: int | None = _MAX_SESSIONS) -> None:
        """Begin empty. Sessions begun before the instant `since` may have been charged before."""
        self.since = since
        self._limit = limit
        self._known: dict[bytes, _Session] = {}
        self._of_nas: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._restarts: dict[bytes, float] = {}
        self._dropped: Counter[Drop] = Counter()

    def take(self, found: Event | Drop | None, now: float) -> None:
        """Take one record as `Meaning.event` returns it, at the instant `now`."""
        if isinstance(found, Drop):
            self._dropped[found] += 1
        elif found is not None and found.status in RESTARTS:
            self._restart(found)
        elif found is not None:
            self._count(found, now)

    def drop(self, reason: Drop) -> None:
        """Count one record that was no event."""
        self._dropped[reason] += 1

    def any_open(self) -> bool:
        """Say whether a session is known that has not ended."""
        return any(session.is_open for session in self._known.values())

    def capture(self) -> Capture:
        """Return all sessions, and what was dropped since the last call.

        A session that ended is shown as a connection once more, and as a reading until it is
        forgotten: a late event may still raise its number.
        """
        readings: list[Reading] = []
        connections: list[Connection] = []
        for key, session in self._known.items():
            for generation in session.generations:
                user, counter = session.user, (key, generation.number)
                readings.append(Reading(user, user, counter, generation.bytes))
                if not generation.shown:
                    connections.append(_connection(counter, user, generation))
                generation.shown = generation.closed is not None
        dropped, self._dropped = self._dropped, Counter()
        return Capture(tuple(readings), dropped, KEYED_BY, tuple(connections))

    def forget(self, now: float) -> None:
        """Forget the sessions, and the restarts, that are long past."""
        recent = {nas: at for nas, at in self._restarts.items() if now - at <= _OPEN_SECONDS}
        self._restarts = recent
        for key, session in list(self._known.items()):
            kept = _OPEN_SECONDS if session.is_open else _ENDED_SECONDS
            if now - session.touched > kept:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        session = self._known.pop(key)
        if session.nas is not None:
            self._of_nas[session.nas].discard(key)
            if not self._of_nas[session.nas]:
                del self._of_nas[session.nas]
        # Should it return, it must not be charged what it held.
        self.since = session.last.at if self.since is None else max(self.since, session.last.at)

    def _make_room(self) -> None:
        if self._limit is None or len(self._known) < self._limit:
            return
        ages = [(at.is_open, at.touched, at.last.at, key) for key, at in self._known.items()]
        for *_age, key in heapq.nsmallest(max(1, self._limit // 16), ages):
            self._forget(key)

    def _restart(self, event: Event) -> None:
        """Close the sessions of a NAS that was restarted.

        A NAS that is not named may be any of several: its sessions are left alone, and a reused id
        shows by its Start or by a smaller number.
        """
        if event.nas is None:
            return
        before = self._restarts.get(event.nas)
        if event.delayed and before is not None and abs(event.at - before) <= SLACK_SECONDS:
            return
        self._restarts[event.nas] = event.at if before is None else max(before, event.at)
        for key in self._of_nas.get(event.nas, ()):
            last = self._known[key].last
            if last.at <= event.at:
                last.close(event.status, event.at)

    def _count(self, event: Event, now: float) -> None:
        session = self._known.get(event.key)
        if session is None:
            self._make_room()
            session = self._known[event.key] = _Session(event.nas, event.user, now)
            if event.nas is not None:
                self._of_nas[event.nas].add(event.key)
        elif session.cut and event.at < session.generations[0].begins:
            self._dropped[Drop.REPEATED] += 1
            return
        session.touched = now
        generation = _generation(session.generations, event) if session.generations else None
        _record(self._begin(session, event) if generation is None else generation, event)

    def _begin(self, session: _Session, event: Event) -> _Generation:
        base = 0 if session.generations or self._begins_here(event) else None
        if session.generations and session.is_open:
            session.last.close(Status.STOP, event.at)
        generation = _Generation(
            session.count, event.at, event.at, base, event.origin, base is None
        )
        restart = None if event.nas is None else self._restarts.get(event.nas)
        if restart is not None and event.at < restart:
            generation.close(Status.ACCOUNTING_ON, restart)
        session.count += 1
        session.generations.append(generation)
        if len(session.generations) > _MAX_GENERATIONS:
            del session.generations[0]
            session.cut = True
        return generation

    def _begins_here(self, event: Event) -> bool:
        """Say whether a session that was not known began after this agent did."""
        if self.since is None:
            return True
        if event.began is not None:
            return event.began >= self.since
        restart = None if event.nas is None else self._restarts.get(event.nas)
        return restart is not None and self.since <= restart <= event.at


def _connection(counter: Hashable, user: str, generation: _Generation) -> Connection:
    origin, before = generation.origin, generation.began_before
    return Connection(counter, user, user, origin, established=True, began_before=before)


def _generation(generations: list[_Generation], event: Event) -> _Generation | None:
    """Return the generation that `event` is of, None if it begins the next one."""
    for generation, after in pairwise(generations):
        if event.at < after.begins and (event.at < generation.closed_at or generation.holds(event)):
            return generation
        if event.earliest < after.begins and generation.echoes(event):
            return generation
    last = generations[-1]
    if last.closed is None:
        begins = _began_again(last, event)
    elif event.at < last.closed_at or (event.earliest < last.closed_at and last.echoes(event)):
        begins = False
    elif last.closed is Status.STOP:
        # A late Interim-Update or a second Stop does not open it again, nor does a copy that comes
        # so late, and does not say so, that it seems to tell a session that began after the Stop.
        begins = event.began is not None and event.began > last.closed_at
        begins = begins and not (last.echoes(event) and event.elapsed == last.elapsed)
        begins = begins or event.status is Status.START
    else:
        begins = not _went_on(last, event)
    return None if begins else last


def _began_again(last: _Generation, event: Event) -> bool:
    """Say whether `event` shows that an open session has ended, and its id is used again."""
    if event.at < last.at or not last.below(event) or not (event.received or event.sent):
        return False
    if last.restarted:
        return True
    if last.earlier(event):
        # Either a copy that came late and does not say so, or a session that is younger.
        return event.began is not None and event.began >= last.at
    return last.wide or event.wide or not event.wraps


def _went_on(last: _Generation, event: Event) -> bool:
    """Say whether `event` is of a session that the restart of its NAS did not end, or an echo.

    A NAS that goes down may say so before it stops its sessions, and a second daemon under the same
    name may have been the one that was restarted.
    """
    if event.status is Status.START or last.below(event):
        return False
    stops = event.status is Status.STOP and last.closed is Status.ACCOUNTING_OFF
    return stops or last.holds(event) or _is_of(last, event)


def _is_of(closed: _Generation, event: Event) -> bool:
    """Say whether `event` tells a session that began before `closed` was closed."""
    return event.began is not None and event.began < closed.closed_at - SLACK_SECONDS


def _record(generation: _Generation, event: Event) -> None:
    if generation.origin == UNKNOWN_ORIGIN:
        generation.origin = event.origin
    if event.status is Status.START:
        moved = generation.received or generation.sent
        generation.restarted = event.at >= generation.at and bool(moved)
        return
    # A later session may be reported before its Start: its numbers must not be counted here.
    after = generation.closed is not None and event.at > generation.closed_at + SLACK_SECONDS
    if (event.received or event.sent) and (not after or _is_of(generation, event)):
        _raise(generation, event)
    if generation.base is None and (event.received, event.sent) != (None, None):
        generation.base = generation.received + generation.sent
    # A Stop that is not the largest number, and was followed by others, ended an older session.
    last = bool(event.received or event.sent) and not generation.below(event)
    older = event.at + SLACK_SECONDS < generation.at and not last
    if event.status is Status.STOP and generation.closed is None and not older:
        generation.close(Status.STOP, event.at)
    generation.at = max(generation.at, event.at)
    if event.elapsed is not None:
        generation.elapsed = max(generation.elapsed or 0, event.elapsed)


def _raise(generation: _Generation, event: Event) -> None:
    """Take over larger numbers; a smaller one that is no echo is a wrap, where one is declared."""
    late = event.at < generation.at or generation.earlier(event) or generation.closed is not None
    if late and any(generation.raised):
        # Before or after the wrap? Nothing tells.
        return
    generation.wide = generation.wide or event.wide
    generation.restarted = False
    received, sent = generation.values(event)
    if event.wraps and not generation.wide and not late:
        more = (
            WORD if event.received and received < generation.received else 0,
            WORD if event.sent and sent < generation.sent else 0,
        )
        received, sent = received + more[0], sent + more[1]
        generation.raised = (generation.raised[0] + more[0], generation.raised[1] + more[1])
    generation.received = max(generation.received, received)
    generation.sent = max(generation.sent, sent)
