"""Queue notices: judge the months that are kept, and note what was not noted before (CS-9).

The decision and its place in the queue are one append to the outbox: either both are there after a
crash, or neither. What outlives the month is a table of counts (CS-10).
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from aggregator.errors import IntegrityError, UsageError
from aggregator.model.days import instant
from aggregator.model.fairuse import Excess
from aggregator.model.notices import Message, Notice
from aggregator.model.settings import MailSettings
from aggregator.pipeline import fairuse
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import notices
from aggregator.rules.notices import Book
from aggregator.stores.keys import MonthKeys

TABLE: Final = "notices_monthly"
_NO_DOMAIN: Final = "aggregator.invalid"
_DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]{1,128}")
_DIGEST_OVER: Final = 3

Judge = Callable[[Deployment, str], list[Excess]]


@dataclasses.dataclass(frozen=True, slots=True)
class Queued:
    """What a run queued, by month; months without anything new are left out."""

    months: Mapping[str, int]

    @property
    def notices(self) -> int:
        """How many notices are new."""
        return sum(self.months.values())


def queue(house: Deployment, judge: Judge = fairuse.judge) -> Queued:
    """Judge every month that is kept, and queue what is new, under the home's lock.

    Run again, it queues nothing twice. A month that cannot be judged stops no other:
    IntegrityError after all of them. ConfigError where [mail] cannot be used: who is to be told
    would not be known.
    """
    house.config.check_mail()
    counts: dict[str, int] = {}
    damaged: IntegrityError | None = None
    for month in fairuse.months(house):
        try:
            found = _queue_month(house, month, judge(house, month))
        except IntegrityError as error:
            damaged = error
            continue
        if found:
            counts[month] = found
            house.record("notices", {"month": month, "queued": found})
    if damaged is not None:
        raise damaged
    return Queued(counts)


def _queue_month(house: Deployment, month: str, excesses: list[Excess]) -> int:
    """Queue what is new of one month; return how many notices."""
    if not excesses and not house.outbox.path(month).exists():
        return 0
    keys = house.month_keys(month)
    book = notices.replay(house.outbox.read(keys))
    found = _noted(house, book, notices.fresh(excesses, book, house.now.date().isoformat()))
    if found:
        events = [
            *notices.superseded(book, found, house.now),
            notices.queued(house.now, found, _messages(house, found)),
        ]
        house.outbox.append(keys, events, create=True)
        book = notices.replay(house.outbox.read(keys))
    _write(house, month, book)
    return len(found)


def _noted(house: Deployment, book: Book, excesses: list[Excess]) -> list[Notice]:
    day = house.now.date().isoformat()
    taken = set(book.notices)
    found = []
    for excess in excesses:
        reference = _reference()
        while reference in taken:
            reference = _reference()
        taken.add(reference)
        found.append(Notice(reference, day, excess))
    return found


def _reference() -> str:
    return f"n-{secrets.token_hex(5)}"


def _messages(house: Deployment, found: list[Notice]) -> list[Message]:
    settings = house.config.mail
    domain = _domain(settings)
    return notices.messages_for(
        found,
        house.now,
        to_user=settings is not None and settings.to_user,
        digest_over=_DIGEST_OVER if settings is None else settings.digest_over,
        k=house.profile.k,
        message_id=lambda: f"{secrets.token_hex(16)}@{domain}",
    )


def _domain(settings: MailSettings | None) -> str:
    """Return the domain of the sender, for Message-IDs: ASCII, or one that nobody has."""
    if settings is None:
        return _NO_DOMAIN
    domain = settings.sender.rpartition("@")[2].rstrip("> ")
    return domain if _DOMAIN.fullmatch(domain) else _NO_DOMAIN


def acknowledge(house: Deployment, reference: str) -> None:
    """Note that the desk looks after a notice; UsageError if there is none of this reference."""
    keys, _book = _found(house, reference)
    event = {"event": "acknowledged", "at": instant(house.now), "reference": reference}
    _note(house, keys, event)


def snooze(house: Deployment, reference: str, until: str) -> None:
    """Let a notice rest until the UTC day `until`; UsageError if there is none like this."""
    if until <= house.now.date().isoformat():
        raise UsageError("the day until which a notice rests must be one to come")
    keys, _book = _found(house, reference)
    event = {
        "event": "snoozed", "at": instant(house.now), "reference": reference, "until": until,
    }  # fmt: skip
    _note(house, keys, event)


def _note(house: Deployment, keys: MonthKeys, event: Mapping[str, Any]) -> None:
    house.outbox.append(keys, [event], create=False)
    write_figures(house, keys.month)


def _found(house: Deployment, reference: str) -> tuple[MonthKeys, Book]:
    for month in _months(house):
        keys = house.month_keys(month)
        book = notices.replay(house.outbox.read(keys))
        if reference in book.notices:
            return keys, book
    raise UsageError("no notice of a month that is kept has this reference; see: fairuse list")


def _months(house: Deployment) -> list[str]:
    """Return the months with notices that are not over, oldest first."""
    return [month for month in house.outbox.months() if not house.gate.is_over(month)]


def write_figures(house: Deployment, month: str, *, expired: bool = False) -> None:
    """Write the counts of a month's notices; with `expired`, as they are when it is purged."""
    if house.outbox.path(month).exists():
        book = notices.replay(house.outbox.read(house.month_keys(month)))
        _write(house, month, book, expired=expired)


def _write(house: Deployment, month: str, book: Book, *, expired: bool = False) -> None:
    house.tables.write(TABLE, month, notices.figures(book, month, expired=expired))


def listed(house: Deployment) -> list[dict[str, Any]]:
    """Return a row for each notice and message of it, of the months that are kept."""
    rows = []
    for month in _months(house):
        book = notices.replay(house.outbox.read(house.month_keys(month)))
        for tracked in book.messages.values():
            for reference in tracked.message.references:
                notice = book.notices[reference]
                held = tracked.withheld.get(reference)
                rows.append(
                    {
                        "reference": reference,
                        "month": month,
                        "day": notice.day,
                        "rule": notice.excess.rule,
                        "percent": notice.excess.percent,
                        "pseudonym": f"{notice.excess.pseudonym:016x}",
                        "audience": tracked.message.audience.value,
                        "state": "withheld" if held else tracked.state.value,
                        "attempts": tracked.attempts,
                        "next_at": instant(tracked.next_at) if tracked.next_at else None,
                        "reason": held or tracked.reason,
                        "acknowledged": book.key(reference) in book.acknowledged,
                        "snoozed_until": book.snoozed.get(book.key(reference)),
                    }
                )
    return rows
