"""Deliver: send every message that is due, month by month, a part at a time.

The home's lock is not held: a server that is slow or dead holds up nothing else.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from aggregator.errors import IntegrityError
from aggregator.model.notices import Audience
from aggregator.model.settings import MailSettings
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.send import Elapsed, Month, Pause, Run
from aggregator.rules import notices
from aggregator.rules.notices import Book, Tracked

_PART: Final = 1_000
_PART_MINUTES: Final = 5
"""So many messages, or so many minutes of them, are sent on one reading of the directory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Delivered:
    """What a run came to, in messages; `withheld` counts notices of a message.

    `waiting` are those whose next try is later, or that wait for mail settings (`configured` is
    False). `problems` says why something that was tried could not be delivered.
    """

    months: tuple[str, ...]
    sent: int
    deferred: int
    failed: int
    withheld: int
    waiting: int
    problems: frozenset[str]
    configured: bool

    def counts(self) -> dict[str, int]:
        """Return the counts by what became of the messages."""
        names = ("sent", "deferred", "failed", "withheld", "waiting")
        return {name: getattr(self, name) for name in names}


def deliver(
    house: Deployment,
    *,
    pause: Pause,
    elapsed: Elapsed = lambda: 0.0,
    impatient: bool = False,
    again: bool = False,
) -> Delivered:
    """Send every message that is due; `impatient` also those whose next try is later.

    With `again` also what was refused for good. Without mail settings nothing is sent. ConfigError
    if a setting, a secret or a template is not usable; IntegrityError if a month's outbox is
    damaged, after the others were seen to.
    """
    house.config.check_mail()
    run = Run(house, pause, elapsed, again=again)
    damaged: IntegrityError | None = None
    for month in house.outbox.months():
        if house.gate.is_over(month):
            continue
        try:
            _deliver_month(run, month, impatient)
        except IntegrityError as error:
            damaged = error
    if damaged is not None:
        raise damaged
    return _delivered(run)


def _deliver_month(run: Run, month: str, impatient: bool) -> None:
    """Send what is due of one month.

    Each part begins with what the outbox, the directory and the clock say then: an acknowledgement,
    an objection or a purge that comes meanwhile is heeded.
    """
    house, settings = run.house, run.house.config.mail
    keys = house.month_keys(month)
    seen: set[str] = set()
    first = True
    while not house.calendar.is_purgeable(month, run.now()):
        book = notices.replay(house.outbox.read(keys))
        due = [one for one in _due(run, book, impatient) if one.message.message_id not in seen]
        if first:
            waits = sum(tracked.state.waits for tracked in book.messages.values())
            run.counts["waiting"] += waits - sum(one.state.waits for one in due)
        if settings is None or not due:
            return
        if first:
            run.months.append(month)
        first = False
        part = _part(settings)
        seen |= {one.message.message_id for one in due[:part]}
        if not Month(run, keys, book, settings).send(due, part):
            return


def _due(run: Run, book: Book, impatient: bool) -> list[Tracked]:
    settings = run.house.config.mail
    if settings is None:
        return []
    found = notices.due(book, run.now(), impatient, again=run.again)
    # Whoever stops writing to users means those mails too that are queued already.
    return [one for one in found if settings.to_user or one.message.audience is Audience.DESK]


def _part(settings: MailSettings) -> int:
    if settings.per_minute:
        return min(_PART, max(10, settings.per_minute * _PART_MINUTES))
    return _PART


def _delivered(run: Run) -> Delivered:
    names = ("sent", "deferred", "failed", "withheld", "waiting")
    return Delivered(
        months=tuple(run.months),
        problems=frozenset(run.problems),
        configured=run.house.config.mail is not None,
        **{name: run.counts[name] for name in names},
    )
