"""Whether agents are heard, send, and count: a verdict for each, and for each location.

A location's verdict is all that leaves its sealed counters: no number of them is in any finding.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from aggregator.rules.health import Check, Finding, State, counted, span_text

SILENT_AFTER: Final = dt.timedelta(hours=27)
"""An agent asks for keys every hour, one of version 0.1 with nothing to send every 24 h, at its
longest interval every 25.5 h; and contacts are noted to the hour."""
NO_RECORDS_AFTER: Final = dt.timedelta(hours=48)
AGENT_CHECKS: Final = frozenset(
    {
        Check.SILENT,
        Check.NEVER_HEARD,
        Check.NO_RECORDS,
        Check.OLD_RECORDS,
        Check.NEW,
        Check.HEARD,
    }
)
"""Of which every agent has exactly one."""
_AHEAD: Final = dt.timedelta(hours=2)
_OLD_RECORDS_DAYS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Contact:
    """What is known of one agent that is enrolled: instants to the hour, None for never.

    `day` is the latest day of the records that were taken in at `taken_at`.
    """

    agent: str
    locations: tuple[str, ...]
    enrolled_at: dt.datetime
    heard_at: dt.datetime | None = None
    taken_at: dt.datetime | None = None
    day: str | None = None

    @property
    def seen_at(self) -> dt.datetime | None:
        """When it was heard; one that drops files knows no door, and is seen by its records."""
        return self.heard_at or self.taken_at


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """Every agent that is enrolled and not revoked; since when contacts and records are noted."""

    contacts: tuple[Contact, ...]
    heard_since: dt.datetime | None = None
    taken_since: dt.datetime | None = None

    @property
    def noted_since(self) -> dt.datetime | None:
        """Since when anything is noted of agents at all."""
        return min(filter(None, (self.heard_since, self.taken_since)), default=None)


def believed(
    moment: dt.datetime | None, now: dt.datetime, *, rehearsal: bool
) -> dt.datetime | None:
    """Return a noted instant as far as it says something at `now`.

    One that lies ahead is of a clock that was wrong, and says nothing; in a rehearsal the machine
    that served the door may have had its own time.
    """
    if moment is None or moment - now <= _AHEAD:
        return moment
    return now if rehearsal else None


def silent(fleet: Fleet, now: dt.datetime) -> list[Contact]:
    """Return the agents that were heard, but not for `SILENT_AFTER`."""
    return [one for one in fleet.contacts if one.seen_at and now - one.seen_at > SILENT_AFTER]


def agents(fleet: Fleet, now: dt.datetime) -> Iterator[Finding]:
    """Yield one finding an agent, and one of the door where nobody at all is heard."""
    gone = {one.agent for one in silent(fleet, now)}
    seen = [one for one in fleet.contacts if one.seen_at is not None]
    if fleet.contacts and fleet.noted_since is None:
        yield Finding(
            Check.DOOR, "", State.WARNING, None, "no contact of any agent is noted yet",
            "see that the door runs: systemctl status aggregator-door",
        )  # fmt: skip
    elif len(gone) > 1 and len(gone) == len(seen):
        last = max(one.seen_at for one in seen if one.seen_at)
        yield Finding(
            Check.DOOR, "", State.PROBLEM, _day(last),
            f"none of {counted(len(gone), 'agent')} is heard",
            "see that the door runs: systemctl status aggregator-door; then: aggregator doctor",
        )  # fmt: skip
    sending = {one.agent for one in fleet.contacts if _sends(one, now)}
    for one in fleet.contacts:
        others_send = bool(sending - {one.agent})
        yield _agent(one, fleet, now, is_silent=one.agent in gone, others_send=others_send)


def _sends(one: Contact, now: dt.datetime) -> bool:
    return one.taken_at is not None and now - one.taken_at <= NO_RECORDS_AFTER


def _agent(
    one: Contact, fleet: Fleet, now: dt.datetime, *, is_silent: bool, others_send: bool
) -> Finding:
    places, seen = ", ".join(one.locations), one.seen_at
    if is_silent and seen is not None:
        return Finding(
            Check.SILENT, one.agent, State.PROBLEM, _day(seen),
            f"not heard for {span_text(now - seen)} ({places})",
            "on its server: systemctl status aggregator-agent; or: aggregator agent revoke",
        )  # fmt: skip
    if seen is None:
        return _never_heard(one, fleet, now)
    if _stopped(one, fleet, now) and others_send:
        last = (
            f"no records for {span_text(now - one.taken_at)}" if one.taken_at else "no records yet"
        )
        since = None if one.taken_at is None else _day(one.taken_at)
        return Finding(
            Check.NO_RECORDS, one.agent, State.WARNING, since,
            f"heard, but {last}, while others send ({places})",
            "on its server: journalctl -u aggregator-agent; does its daemon have users?",
        )  # fmt: skip
    if _is_old(one) and _sends(one, now):
        return Finding(
            Check.OLD_RECORDS, one.agent, State.WARNING, one.day,
            f"its latest records are of {one.day} ({places})", "compare its server's clock with UTC"
        )  # fmt: skip
    until = f", records up to {one.day}" if one.day else ""
    return Finding(Check.HEARD, one.agent, State.OK, None, f"heard{until} ({places})")


def _never_heard(one: Contact, fleet: Fleet, now: dt.datetime) -> Finding:
    places = ", ".join(one.locations)
    noted = fleet.noted_since
    if noted is None or now - max(one.enrolled_at, noted) <= SILENT_AFTER:
        return Finding(Check.NEW, one.agent, State.OK, None, f"enrolled, not heard yet ({places})")
    return Finding(
        Check.NEVER_HEARD, one.agent, State.WARNING, _day(one.enrolled_at),
        f"enrolled, and not heard so far ({places})",
        "on its server: systemctl status aggregator-agent",
    )  # fmt: skip


def _stopped(one: Contact, fleet: Fleet, now: dt.datetime) -> bool:
    """Say whether nothing of an agent was taken in for long, though it would have been noted."""
    if fleet.taken_since is None:
        return False
    last = max(one.taken_at or one.enrolled_at, fleet.taken_since)
    return now - last > NO_RECORDS_AFTER


def _is_old(one: Contact) -> bool:
    if one.day is None or one.taken_at is None:
        return False
    return (one.taken_at.date() - dt.date.fromisoformat(one.day)).days > _OLD_RECORDS_DAYS


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """Where counters came in on the closed `day`; nothing but names leaves the sealed segments.

    `connected` are locations with as many successful connections as a cell needs users, `counted`
    those with a usage counter, `before` those with one in the days before, each with its latest.
    """

    day: str
    connected: Collection[str]
    counted: Collection[str]
    before: Mapping[str, str]


def frozen(found: Counted, fleet: Fleet, now: dt.datetime) -> Iterator[Finding]:
    """Yield the locations where connections succeed while no counter moves any more."""
    gone = {one.agent for one in silent(fleet, now)}
    hit = False
    for place in sorted(set(found.connected) & set(found.before) - set(found.counted)):
        senders = [one.agent for one in fleet.contacts if place in one.locations]
        heard = [agent for agent in senders if agent not in gone]
        if senders and not heard:
            continue  # told as silent
        hit = True
        who = f" of {', '.join(heard[:3])}" if heard else ""
        yield Finding(
            Check.FROZEN, place, State.PROBLEM, found.before[place],
            f"connections succeed on {found.day}, but no usage counter moves",
            f"see what the agent says of its sources{who}: journalctl -u aggregator-agent",
        )  # fmt: skip
    if not hit:
        what = f"on {found.day} counters move wherever connections succeed"
        yield Finding(Check.FROZEN, "", State.OK, None, what)


def _day(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d}"
