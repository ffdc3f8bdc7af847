"""`aggregator status`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.errors import IntegrityError
from aggregator.model.days import instant

if TYPE_CHECKING:
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.status import Status
    from jobs.findings import Row

_EPILOG = """\b
Examples:
  aggregator status
  aggregator status --json
"""
_LABEL_WIDTH = 13


@command("status", epilog=_EPILOG)
def status_command(said: Globals) -> None:
    """One screen: what is due, what ran, when the next purge is, what is withheld."""
    from aggregator.pipeline import status
    from jobs import findings

    house = said.read()
    found, jobs = status.gather(house), findings.rows(house)
    if said.json:
        show.as_json({**status.fields(house, found), "jobs": [_job_fields(row) for row in jobs]})
    else:
        for label, text in (*_lines(house, found), *_jobs(jobs, house.now)):
            print(f"{label:<{_LABEL_WIDTH}} {text}")
    if found.broken:
        raise IntegrityError(f"{found.broken}; see: aggregator audit verify")


def _lines(house: Deployment, found: Status) -> Iterator[tuple[str, str]]:
    kind = "a rehearsal home" if house.config.rehearsal else "a live home"
    profile = house.profile
    yield "home", f"{house.home.root} ({kind})"
    yield "now", instant(house.now)
    yield "profile", f"{profile.name}, version {profile.version}, k = {profile.k}"
    if profile.k < 2:
        yield "WARNING", "this profile publishes cells of fewer than 2 users"
    yield from _clock(house)
    yield from _work(found)
    yield from _purge(house, found)
    yield from _notices(found)
    yield from _tables(found)
    yield "disk", f"{show.size(found.free_bytes)} free"


def _clock(house: Deployment) -> Iterator[tuple[str, str]]:
    from aggregator.pipeline.status import is_clock_behind, would_doubt_clock

    clock = house.clock
    last = instant(clock.last_at) if clock.last_at else "none"
    if is_clock_behind(house):
        yield "CLOCK", f"BEHIND the last entry, {last}; batches of days that have not begun wait"
        yield "", "check the time; if it is right: aggregator ingest --confirm-clock"
        return
    if not would_doubt_clock(house):
        yield "clock", f"not in doubt; last entry {last}"
        return
    if clock.doubt_since and clock.before_jump:
        jump = f"from {instant(clock.before_jump)} to {instant(clock.doubt_since)}"
    else:
        jump = f"from the last entry, {last}, to now"
    yield "CLOCK", f"IN DOUBT: it jumped {jump}; the purge waits"
    yield "", "check the time, then give the next run --confirm-clock"


def _work(found: Status) -> Iterator[tuple[str, str]]:
    days = found.days
    yield "days", f"{len(days.open)} open, {len(days.grace)} in grace, {len(days.due)} due"
    if days.due:
        yield (
            "LAG",
            (
                f"{_days_text(days.due)} to be closed, due for {_duration(days.lag)};"
                " run: aggregator rollup"
            ),
        )
    yield "last closed", found.last_closed_day or "no day yet"
    ingest, rollup, purged = (found.last.get(kind) for kind in ("ingest", "close_day", "purge"))
    if ingest:
        counts = f"accepted {ingest.detail['accepted']:,}, rejected {ingest.detail['rejected']:,}"
        yield "last ingest", f"{ingest.at}: {counts}"
    else:
        yield "last ingest", "none yet"
    if found.agents or found.waiting_batches:
        waiting = show.counted(found.waiting_batches, "batch", "batches")
        yield "inbox", f"{waiting} waiting; {_count(found.agents, 'agent')} enrolled"
    if rollup:
        yield "last roll-up", f"{rollup.at}: closed {_count(found.rollup_days, 'day')}"
    else:
        yield "last roll-up", "none yet"
    if purged:
        verified = "verified" if purged.detail["verified"] else "NOT VERIFIED"
        late = ", LATE" if purged.detail["late"] else ""
        yield "last purge", f"{purged.at}: {purged.detail['month']}, {verified}{late}"
    else:
        yield "last purge", "none yet"


def _purge(house: Deployment, found: Status) -> Iterator[tuple[str, str]]:
    if found.purge is None:
        yield "next purge", "none: no raw counters are kept"
        return
    purge, grace = found.purge, house.profile.purge_grace_hours
    when = f"{purge.month}, due {instant(purge.due_at)}"
    if purge.is_due:
        overdue = _duration(house.now - purge.due_at)
        why = "; it waits for the clock" if purge.waits else "; run: aggregator purge"
        yield "PURGE LATE", f"{when}, {overdue} ago{why}"
    else:
        left = _duration(purge.due_at - house.now)
        yield "next purge", f"{when}, in {left}: month end and {grace} h of grace"
    yield "raw months", ", ".join(found.kept_months)


def _notices(found: Status) -> Iterator[tuple[str, str]]:
    """Tell of fair-use mail, where there is any; what failed or waits for settings is loud."""
    if not found.notices:
        return
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(found.notices.items()))
    told = f"mails: {told}"
    waits = found.notices.get("queued", 0) + found.notices.get("deferred", 0)
    if waits and not found.mail_configured:
        told += "; config.toml has no [mail], so they wait"
    loud = found.notices.get("failed", 0) or found.notices.get("deferred", 0)
    yield ("NOTICES" if loud else "notices"), f"{told}; see: aggregator fairuse list"


def _jobs(rows: Sequence[Row], now: dt.datetime) -> Iterator[tuple[str, str]]:
    """Tell of every job: its last run, how it ended, its next; what is wrong is loud."""
    if not rows:
        yield "jobs", "none has run here yet; see: aggregator install-units"
    for number, row in enumerate(rows):
        label = "jobs" if number == 0 else ""
        due = f"next {_from_now(row.next_at, now)}" if row.next_at else "switched off"
        if row.run is None:
            last = "has not run yet"
        else:
            ended = "well" if row.run.exit_code == 0 else f"FAILED (exit {row.run.exit_code})"
            last = f"{_from_now(row.run.began_at, now)}, {ended}"
        yield label, f"{row.name:<11}{last}; {due}"
        if row.trouble is not None:
            yield "TROUBLE", row.trouble.what


def _job_fields(row: Row) -> dict[str, object]:
    run = row.run
    moments = {
        "last_run_at": run.began_at if run else None,
        "last_success_at": run.succeeded_at if run else None,
        "next_at": row.next_at,
    }
    return {
        "name": row.name,
        **{name: instant(at) if at else None for name, at in moments.items()},
        "seconds": run.seconds if run else None,
        "exit_code": run.exit_code if run else None,
        "problem": run.problem if run else None,
        "failures": run.failures if run else 0,
        "trouble": row.trouble.what if row.trouble else None,
    }


def _from_now(moment: dt.datetime, now: dt.datetime) -> str:
    return f"in {_duration(moment - now)}" if moment > now else f"{_duration(now - moment)} ago"


def _tables(found: Status) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(found.released):
        percent = row.named_users_percent
        named = "no users" if percent is None else f"{percent:.1f} % of users in named cells"
        withheld = f", {_count(row.withheld_days, 'day')} WITHHELD" if row.withheld_days else ""
        label = f"in {found.month}" if number == 0 else ""
        yield label, f"{row.table}: {_count(row.days, 'day')}, {named}{withheld}"
    if found.rejection_day:
        total = sum(found.rejections.values())
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.rejections.items())
        yield "rejected", f"{total:,} records on {found.rejection_day}: {reasons}"
    else:
        yield "rejected", "no record yet"


def _days_text(days: tuple[str, ...]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days since {days[0]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(span: dt.timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    if hours < 48:
        return f"{hours} h" if hours else f"{int(span.total_seconds() // 60)} min"
    return f"{hours // 24} days"
