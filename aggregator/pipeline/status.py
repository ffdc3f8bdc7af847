"""Status: what is due, what ran, when the next purge is, and what the tables leave unsaid."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.errors import IntegrityError
from aggregator.model.days import end_of_day, instant
from aggregator.model.notices import State
from aggregator.pipeline import audit, close, month_end
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import notices
from aggregator.rules.clock import is_behind, observe
from aggregator.stores.audit import Entry

_HOUR = dt.timedelta(hours=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Days:
    """The days of which raw counters are here, by state, oldest first.

    `due` are those whose grace is over and that no roll-up has closed; `lag` is how long the
    oldest of them has been due.
    """

    open: tuple[str, ...]
    grace: tuple[str, ...]
    due: tuple[str, ...]
    closed: tuple[str, ...]
    lag: dt.timedelta


@dataclasses.dataclass(frozen=True, slots=True)
class Purge:
    """The next purge: of which month, when, and whether it is due but waits for the clock."""

    month: str
    due_at: dt.datetime
    is_due: bool
    waits: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """How much of one table's recent month may be named; percent is None without users."""

    table: str
    days: int
    withheld_days: int
    named_users_percent: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """Everything that the status screen tells; `broken` says how the audit log is, if it is."""

    days: Days
    last: Mapping[str, Entry]
    rollup_days: int
    purge: Purge | None
    kept_months: tuple[str, ...]
    last_closed_day: str | None
    month: str | None
    released: tuple[Released, ...]
    rejection_day: str | None
    rejections: Mapping[str, int]
    waiting_batches: int
    agents: int
    notices: Mapping[str, int]
    mail_configured: bool
    free_bytes: int
    broken: str | None


def gather(house: Deployment) -> Status:
    """Return the state of the home at its instant; reads only."""
    entries, broken = audit.read(house)
    last = {entry.kind: entry for entry in entries}
    rollup_at = last["close_day"].at if "close_day" in last else None
    closed = house.tables.periods("closings_daily")
    month = closed[-1][:7] if closed else None
    rejection_day = max(house.tables.periods("rejections_daily"), default=None)
    messages, damaged = messages_by_state(house)
    return Status(
        days=days_of(house),
        last=last,
        rollup_days=sum(
            1 for entry in entries if entry.kind == "close_day" and entry.at == rollup_at
        ),
        purge=next_purge(house),
        kept_months=tuple(month_end.kept_months(house)),
        last_closed_day=closed[-1] if closed else None,
        month=month,
        released=_released(house, month),
        rejection_day=rejection_day,
        rejections=_rejections(house, rejection_day),
        waiting_batches=len(house.inbox.paths()),
        agents=len(house.agents.ids()),
        notices=messages,
        mail_configured=house.config.mail is not None,
        free_bytes=shutil.disk_usage(house.home.root).free,
        broken=broken or damaged,
    )


def messages_by_state(house: Deployment) -> tuple[dict[str, int], str | None]:
    """Return how many messages of the months kept are in each state, and what does not open."""
    counts: dict[str, int] = {}
    damaged = None
    for month in house.outbox.months():
        try:
            book = notices.replay(house.outbox.read(house.month_keys(month)))
        except IntegrityError as error:
            damaged = str(error)
            continue
        for tracked in book.messages.values():
            counts[tracked.state.value] = counts.get(tracked.state.value, 0) + 1
    return counts, damaged


def next_purge(house: Deployment) -> Purge | None:
    """Return the purge of the oldest month kept, None if no raw counters are here."""
    months = month_end.kept_months(house)
    if not months:
        return None
    due_at = house.calendar.purges_at(months[0])
    is_due = due_at <= house.now
    return Purge(months[0], due_at, is_due, is_due and would_doubt_clock(house))


def would_doubt_clock(house: Deployment) -> bool:
    """Say whether a run now would have its clock in doubt, so that a purge would wait."""
    return observe(house.clock, house.now).in_doubt


def is_clock_behind(house: Deployment) -> bool:
    """Say whether the clock turned back, so that batches of days that have not begun wait."""
    return is_behind(house.clock, house.now)


def days_of(house: Deployment) -> Days:
    """Return the days of which raw counters are here, by state."""
    due = close.due_days(house)
    days = [
        day
        for month in house.segments.months()
        if month > house.receipts.purged_through()
        for day in house.segments.days(month)
    ]
    closed = {day for day in days if house.tables.has("closings_daily", day)}
    waiting = [day for day in days if day not in closed and day not in set(due)]
    over = {day for day in waiting if end_of_day(dt.date.fromisoformat(day)) <= house.now}
    lag = dt.timedelta(0)
    if due:
        lag = house.now - house.calendar.closes_at(dt.date.fromisoformat(due[0]))
    return Days(
        open=tuple(day for day in waiting if day not in over),
        grace=tuple(day for day in waiting if day in over),
        due=tuple(due),
        closed=tuple(sorted(closed)),
        lag=lag,
    )


def _released(house: Deployment, month: str | None) -> tuple[Released, ...]:
    if month is None:
        return ()
    periods = house.tables.periods("closings_daily", month)
    by_table: dict[str, list[Mapping[str, Any]]] = {}
    for row in house.tables.rows("closings_daily", periods):
        by_table.setdefault(row["table"], []).append(row)
    return tuple(_released_of(table, rows) for table, rows in sorted(by_table.items()))


def _released_of(table: str, rows: Sequence[Mapping[str, Any]]) -> Released:
    users = sum(row["users"] for row in rows)
    named = sum(row["named_users"] for row in rows)
    return Released(
        table=table,
        days=len(rows),
        withheld_days=sum(1 for row in rows if row["withheld"]),
        named_users_percent=round(100 * named / users, 1) if users else None,
    )


def _rejections(house: Deployment, day: str | None) -> dict[str, int]:
    """Return the records rejected on `day` by reason, most first."""
    counts: dict[str, int] = {}
    for row in house.tables.rows("rejections_daily", [day] if day else []):
        counts[row["reason"]] = counts.get(row["reason"], 0) + row["records"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def fields(house: Deployment, status: Status) -> dict[str, Any]:
    """Return the same facts as flat JSON fields; counts of days, instants as text."""
    days, purge, clock = status.days, status.purge, house.clock
    ingest, purged = status.last.get("ingest"), status.last.get("purge")
    rollup = status.last.get("close_day")
    return {
        "home": str(house.home.root),
        "rehearsal": house.config.rehearsal,
        "now": instant(house.now),
        "profile": house.profile.name,
        "profile_version": house.profile.version,
        "k": house.profile.k,
        "clock_in_doubt": would_doubt_clock(house),
        "clock_behind": is_clock_behind(house),
        "clock_doubt_since": instant(clock.doubt_since) if clock.doubt_since else None,
        "last_entry_at": instant(clock.last_at) if clock.last_at else None,
        "audit_problem": status.broken,
        "days_open": len(days.open),
        "days_in_grace": len(days.grace),
        "days_due": len(days.due),
        "oldest_due_day": days.due[0] if days.due else None,
        "lag_hours": round(days.lag / _HOUR, 1),
        "last_closed_day": status.last_closed_day,
        "last_ingest_at": ingest.at if ingest else None,
        "last_ingest_accepted": ingest.detail["accepted"] if ingest else None,
        "last_ingest_rejected": ingest.detail["rejected"] if ingest else None,
        "last_rollup_at": rollup.at if rollup else None,
        "last_rollup_days": status.rollup_days,
        "last_purge_at": purged.at if purged else None,
        "last_purge_month": purged.detail["month"] if purged else None,
        "last_purge_verified": purged.detail["verified"] if purged else None,
        "last_purge_late": purged.detail["late"] if purged else None,
        "kept_months": list(status.kept_months),
        "next_purge_month": purge.month if purge else None,
        "next_purge_at": instant(purge.due_at) if purge else None,
        "next_purge_due": bool(purge and purge.is_due),
        "next_purge_waits_for_clock": bool(purge and purge.waits),
        "released_month": status.month,
        "released": [dataclasses.asdict(row) for row in status.released],
        "rejection_day": status.rejection_day,
        "rejections": [
            {"reason": reason, "records": count} for reason, count in status.rejections.items()
        ],
        "inbox_batches": status.waiting_batches,
        "agents": status.agents,
        **{
            f"messages_{state.value}": status.notices.get(state.value, 0)
            for state in State
            if state is not State.EXPIRED
        },
        "mail_configured": status.mail_configured,
        "last_mail_at": status.last["mail"].at if "mail" in status.last else None,
        "disk_free_bytes": status.free_bytes,
    }
