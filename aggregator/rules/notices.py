"""Notices: from events to what is told, what waits, and what becomes of it (CS-9, CS-10).

Everything here is pure. The outbox keeps events; a book is what they come to.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from aggregator.errors import IntegrityError
from aggregator.model.days import instant, parse_instant
from aggregator.model.fairuse import Excess, RuleKind, excess_from
from aggregator.model.notices import Audience, Deferral, Message, Notice, State, Withheld

DIGEST_USERS: Final = 1000
"""So many users are in one digest at the most."""

_MINUTE: Final = dt.timedelta(minutes=1)
_BEST_FIRST: Final[tuple[State, ...]] = (
    State.SENT, State.DEFERRED, State.QUEUED, State.FAILED, State.WITHHELD,
)  # fmt: skip
_BACK_OFF: Final = tuple(_MINUTE * n for n in (5, 15, 30, 60, 120, 240, 360))

Key = tuple[int, str]
"""A user, by pseudonym, and a rule."""

Event = Mapping[str, Any]


@dataclasses.dataclass(slots=True)
class Tracked:
    """One message and what became of it so far.

    `pending` were put off by the last try; `withheld` has the reason of each notice that this
    message may not tell, `told` those that somebody has got. `was_deferred` stays.
    """

    message: Message
    attempts: int = 0
    accepted: list[str] = dataclasses.field(default_factory=list)
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    pending: tuple[str, ...] = ()
    withheld: dict[str, str] = dataclasses.field(default_factory=dict)
    told: set[str] = dataclasses.field(default_factory=set)
    reason: str | None = None
    next_at: dt.datetime | None = None
    was_deferred: bool = False

    @property
    def state(self) -> State:
        """What became of it."""
        is_open = any(reference not in self.withheld for reference in self.message.references)
        if self.pending and is_open:
            return State.DEFERRED
        if self.accepted:
            return State.SENT
        if self.refused:
            return State.FAILED
        if not is_open:
            return State.WITHHELD
        return State.DEFERRED if self.was_deferred else State.QUEUED

    @property
    def was_unanswered(self) -> bool:
        """Whether the last try ended without an answer: such a message must not hold up others."""
        return self.reason in (Deferral.CUT.value, Deferral.SLOW.value)


@dataclasses.dataclass(slots=True)
class Book:
    """What the events of a month come to: notices by reference, messages by Message-ID."""

    notices: dict[str, Notice] = dataclasses.field(default_factory=dict)
    messages: dict[str, Tracked] = dataclasses.field(default_factory=dict)
    noted: dict[Key, list[str]] = dataclasses.field(default_factory=dict)
    told_by: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    acknowledged: set[Key] = dataclasses.field(default_factory=set)
    snoozed: dict[Key, str] = dataclasses.field(default_factory=dict)

    def key(self, reference: str) -> Key:
        """Return whom and which rule a notice is about."""
        excess = self.notices[reference].excess
        return excess.pseudonym, excess.rule

    def highest(self, key: Key) -> int:
        """Return the highest step that was noted of a user and a rule, 0 for none."""
        return max((self.notices[one].excess.percent for one in self.noted.get(key, ())), default=0)


def replay(events: Iterable[Event]) -> Book:
    """Return the book of a month's events; IntegrityError if one of them is none."""
    book = Book()
    try:
        for event in events:
            _HANDLERS[event["event"]](book, event)
    except (KeyError, TypeError, ValueError, IndexError):
        raise IntegrityError("an outbox holds an event that this version cannot read") from None
    return book


def fresh(excesses: Iterable[Excess], book: Book, today: str) -> list[Excess]:
    """Return what is to be noted now: a user and rule for the first time, or at a higher step."""
    return [
        excess
        for excess in excesses
        if excess.percent > book.highest((excess.pseudonym, excess.rule))
        and (excess.pseudonym, excess.rule) not in book.acknowledged
        and today >= book.snoozed.get((excess.pseudonym, excess.rule), "")
    ]


def queued(at: dt.datetime, notices: Sequence[Notice], messages: Sequence[Message]) -> Event:
    """Return the event that new notices and their messages are queued with."""
    return {
        "event": "queued",
        "at": instant(at),
        "notices": [
            {"reference": one.reference, "day": one.day, "excess": one.excess.fields()}
            for one in notices
        ],
        "messages": [
            {
                "message_id": one.message_id,
                "audience": one.audience.value,
                "at": one.at,
                "references": list(one.references),
            }
            for one in messages
        ],
    }


def superseded(book: Book, notices: Iterable[Notice], at: dt.datetime) -> list[Event]:
    """Return the events that withhold lower steps of `notices` which nobody was told of yet."""
    events: list[Event] = []
    for notice in notices:
        key = (notice.excess.pseudonym, notice.excess.rule)
        for reference in book.noted.get(key, ()):
            for tracked in _of(book, reference):
                untold = tracked.state.waits and not tracked.accepted
                if untold and reference not in tracked.withheld:
                    events.append(withheld(tracked, reference, Withheld.SUPERSEDED, at))
    return events


def withheld(tracked: Tracked, reference: str, reason: Withheld, at: dt.datetime) -> dict[str, Any]:
    """Return the event that a message does not tell of one of its notices."""
    return {
        "event": "withheld",
        "at": instant(at),
        "message_id": tracked.message.message_id,
        "reference": reference,
        "reason": reason.value,
    }


def messages_for(
    notices: Sequence[Notice],
    at: dt.datetime,
    *,
    to_user: bool,
    digest_over: int,
    k: int,
    message_id: Callable[[], str],
) -> list[Message]:
    """Return the messages that tell of `notices`: to the desk, and to users if they are told.

    One a user for the desk, or digests if there are more users than `digest_over`. A user's own
    tells nothing that compares with fewer than `k` others: these could be known from it.
    """
    by_user: dict[int, list[Notice]] = {}
    for notice in notices:
        by_user.setdefault(notice.excess.pseudonym, []).append(notice)
    users = list(by_user.values())
    size = DIGEST_USERS if len(users) > digest_over else 1
    letters = [
        (Audience.DESK, [one for group in users[start : start + size] for one in group])
        for start in range(0, len(users), size)
    ]
    if to_user:
        told = ([one for one in group if may_tell_user(one.excess, k)] for group in users)
        letters += [(Audience.USER, group) for group in told if group]
    return [
        Message(message_id(), audience, instant(at), tuple(one.reference for one in group))
        for audience, group in letters
    ]


def may_tell_user(excess: Excess, k: int) -> bool:
    """Say whether the arithmetic may be told to the user: it must tell of k others or more."""
    if not excess.kind.compares:
        return True
    if excess.kind is RuleKind.LOCATION_SHARE:
        return (excess.location_users or 0) - 1 >= k
    if excess.kind is RuleKind.TIMES_MEDIAN:  # a percentile needs k users above it
        return excess.users // 2 >= k
    return excess.users - 1 >= k


def due(book: Book, now: dt.datetime, impatient: bool, *, again: bool = False) -> list[Tracked]:
    """Return the messages to send now, oldest first; `impatient` also those of a later try.

    With `again` also those that were refused for good and that nobody has got. What the server
    did not answer for comes last, so that it cannot keep the others waiting.
    """
    today = now.date().isoformat()
    found = []
    for tracked in book.messages.values():
        if not tracked.state.waits and not (again and tracked.state is State.FAILED):
            continue
        if not impatient and tracked.next_at is not None and _is_later(tracked.next_at, now):
            continue
        references = open_references(tracked)
        if references and all(rests(book, one, today) for one in references):
            continue
        found.append(tracked)
    return sorted(found, key=lambda tracked: tracked.was_unanswered)


def _is_later(next_at: dt.datetime, now: dt.datetime) -> bool:
    """Say whether `next_at` is to come; one too far ahead was set by a clock that was wrong."""
    return now < next_at <= now + _BACK_OFF[-1]


def rests(book: Book, reference: str, today: str) -> bool:
    """Say whether a notice is snoozed on the UTC day `today`."""
    return today < book.snoozed.get(book.key(reference), "")


def open_references(tracked: Tracked) -> list[str]:
    """Return the notices that a message still tells of."""
    return [one for one in tracked.message.references if one not in tracked.withheld]


def retry_at(attempts: int, now: dt.datetime) -> dt.datetime:
    """Return when to try again after so many tries: soon, then less and less often."""
    return now + _BACK_OFF[min(max(attempts, 1), len(_BACK_OFF)) - 1]


def figures(book: Book, month: str, *, expired: bool) -> list[dict[str, Any]]:
    """Return the rows of notices_monthly; with `expired`, what still waits has expired.

    A notice counts once for each audience, by the best that became of it in any message.
    """
    became: dict[tuple[str, str], set[State]] = {}
    delayed: set[tuple[str, str]] = set()
    for tracked in book.messages.values():
        for reference in tracked.message.references:
            key = (reference, tracked.message.audience.value)
            is_withheld = reference in tracked.withheld and reference not in tracked.told
            became.setdefault(key, set()).add(State.WITHHELD if is_withheld else tracked.state)
            if tracked.was_deferred and not is_withheld:
                delayed.add(key)
    counts: Counter[tuple[str, int, str, str]] = Counter()
    for (reference, audience), states in became.items():
        excess = book.notices[reference].excess
        row = (excess.rule, excess.percent, audience)
        state: State = next(one for one in _BEST_FIRST if one in states)
        state = State.EXPIRED if expired and state.waits else state
        counts[*row, "notices"] += 1
        counts[*row, state.value] += 1
        counts[*row, "delayed"] += (reference, audience) in delayed
    columns = ("notices", "sent", "delayed", "failed", "withheld", "expired")
    return [
        {
            "month": month, "rule": row[0], "percent": row[1], "audience": row[2],
            **{column: counts[*row, column] for column in columns},
        }
        for row in sorted({key[:3] for key in counts})
    ]  # fmt: skip


def _of(book: Book, reference: str) -> Iterator[Tracked]:
    for message_id in book.told_by.get(reference, ()):
        yield book.messages[message_id]


def _queued(book: Book, event: Event) -> None:
    for fields in event["notices"]:
        notice = Notice(fields["reference"], fields["day"], excess_from(fields["excess"]))
        book.notices[notice.reference] = notice
        book.noted.setdefault(book.key(notice.reference), []).append(notice.reference)
    for fields in event["messages"]:
        message = Message(
            fields["message_id"],
            Audience(fields["audience"]),
            fields["at"],
            tuple(fields["references"]),
        )
        book.messages[message.message_id] = Tracked(message)
        for reference in message.references:
            book.told_by.setdefault(reference, []).append(message.message_id)


def _tried(book: Book, event: Event) -> None:
    tracked = book.messages[event["message_id"]]
    tracked.attempts += 1
    tracked.accepted += event["accepted"]
    tracked.refused |= dict(event["refused"])
    for recipient in event["accepted"]:
        tracked.refused.pop(recipient, None)
    if event["accepted"]:
        tracked.told |= set(open_references(tracked))
    tracked.pending = tuple(recipient for recipient, _reason in event["deferred"])
    tracked.reason = event["deferred"][0][1] if event["deferred"] else None
    tracked.next_at = parse_instant(event["next_at"]) if event["next_at"] else None
    tracked.was_deferred |= bool(event["deferred"])
    if tracked.refused and not tracked.reason:
        tracked.reason = str(next(iter(tracked.refused.values())))


def _deferred(book: Book, event: Event) -> None:
    for message_id in event["message_ids"]:
        tracked = book.messages[message_id]
        # What nobody was asked for is no try: its next one comes as soon as after the first.
        tracked.attempts += event.get("tried", True)
        tracked.reason = event["reason"]
        tracked.next_at = parse_instant(event["next_at"])
        tracked.was_deferred = True


def _withheld(book: Book, event: Event) -> None:
    tracked = book.messages[event["message_id"]]
    tracked.withheld[event["reference"]] = event["reason"]
    if tracked.state is State.WITHHELD:
        tracked.reason = event["reason"]


def _acknowledged(book: Book, event: Event) -> None:
    """Let go of every message about this user and rule that nobody has got yet."""
    key = book.key(event["reference"])
    book.acknowledged.add(key)
    for reference in book.noted[key]:
        for tracked in _of(book, reference):
            if tracked.state.waits:
                tracked.withheld[reference] = Withheld.ACKNOWLEDGED.value
                if not open_references(tracked):
                    tracked.pending = ()
                    tracked.reason = Withheld.ACKNOWLEDGED.value


def _snoozed(book: Book, event: Event) -> None:
    book.snoozed[book.key(event["reference"])] = event["until"]


_HANDLERS: Final[Mapping[str, Callable[[Book, Event], None]]] = {
    "queued": _queued,
    "tried": _tried,
    "deferred": _deferred,
    "withheld": _withheld,
    "acknowledged": _acknowledged,
    "snoozed": _snoozed,
}
