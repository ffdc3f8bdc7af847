"""Gather how a deployment does: agents, counters, inbox, rejections, days, tables and jobs.

Reads only, and no audit log: it is to be quick, and is looked at often.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pyarrow.compute as pc

from aggregator.errors import IntegrityError
from aggregator.model.days import text_of
from aggregator.model.settings import OFF
from aggregator.pipeline import contacts, raw, status
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import health, health_agents
from aggregator.rules.health import Check, Closing, Finding, Late, State
from aggregator.rules.health_agents import AGENT_CHECKS, Counted, Fleet
from aggregator.stores.runs import RunStore
from aggregator.stores.segments import Segment

_DAYS_BEFORE: Final = 7
_CLOSINGS: Final = 30
_LATE_MONTHS: Final = 2
_ONE_DAY: Final = dt.timedelta(days=1)
_LONGEST_GRACE_DAYS: Final = 16


def gather(house: Deployment) -> list[Finding]:
    """Return every finding, those that are well too, the worst first.

    What cannot be looked at is a finding as well.
    """
    fleet = contacts.fleet(house)
    found: list[Finding] = []
    checks: tuple[tuple[Check, Callable[[], Iterator[Finding]]], ...] = (
        (Check.SILENT, lambda: health_agents.agents(fleet, house.now)),
        (Check.FROZEN, lambda: _frozen(house, fleet)),
        (Check.LAG, lambda: _days(house)),
        (Check.JOB, lambda: _jobs(house)),
        (Check.WAITING, lambda: _inbox(house)),
        (Check.REJECTED, lambda: _rejections(house)),
        (Check.LATE, lambda: _late_bytes(house)),
        (Check.NAMED, lambda: _released(house)),
    )
    for check, look in checks:
        try:
            found += look()
        except IntegrityError as error:
            remedy = "see: aggregator doctor"
            found.append(Finding(check, "", State.PROBLEM, None, str(error), remedy))
        except OSError as error:
            what = f"could not be looked at: {error.strerror or type(error).__name__}"
            remedy = "run it as the user who owns the home"
            found.append(Finding(check, "", State.WARNING, None, what, remedy))
    return health.ordered(found)


def summary(findings: Sequence[Finding]) -> str:
    """Return one line of all that `gather` found: how many agents are heard, what is wrong."""
    counts = Counter(one.check for one in findings if one.check in AGENT_CHECKS)
    heard = sum(counts[check] for check in (Check.HEARD, Check.NO_RECORDS, Check.OLD_RECORDS))
    hours = int(health_agents.SILENT_AFTER.total_seconds() // 3600)
    parts = [f"{health.counted(heard, 'agent')} heard within {hours} h"]
    told = (
        (Check.SILENT, "silent"), (Check.NEVER_HEARD, "never heard"), (Check.NEW, "not heard yet")
    )  # fmt: skip
    parts += [f"{counts[check]:,} {word}" for check, word in told if counts[check]]
    states = Counter(one.state for one in findings)
    wrong = [
        health.counted(states[state], state.value)
        for state in (State.PROBLEM, State.WARNING)
        if states[state]
    ]
    agents = ", ".join(parts) if counts else "no agent is enrolled"
    return f"{agents}; {', '.join(wrong) or 'nothing is wrong'}"


def _frozen(house: Deployment, fleet: Fleet) -> Iterator[Finding]:
    """Look into the sealed counters of the last closed day, while they are kept."""
    days = house.tables.periods("closings_daily")[-1:]
    segments = [one for day in days for one in house.segments.list(day, raw.FLAGS + raw.FROZEN)]
    if not segments:
        return
    day = days[0]
    connected = _connected(house, day, segments)
    # Most locations are named in the day's table: of these no counter needs to be opened.
    counted = _published(house, day)
    if connected - counted:
        counted |= _counted(house, day)
    before: dict[str, str] = {}
    missing = connected - counted
    for earlier in _days_before(day) if missing else ():
        for place in missing & (_published(house, earlier) | _counted(house, earlier)):
            before.setdefault(place, earlier)
    yield from health_agents.frozen(Counted(day, connected, counted, before), fleet, house.now)


def _connected(house: Deployment, day: str, segments: Sequence[Segment]) -> set[str]:
    """Return the locations with as many successful connections as a cell needs users."""
    rows = raw.read_bucket(house, house.month_keys(day[:7]), segments)
    sums = rows.group_by("location").aggregate([("successes", "sum")])
    enough = sums.filter(pc.greater_equal(sums["successes_sum"], house.profile.k))
    return set(enough["location"].to_pylist())


def _published(house: Deployment, day: str) -> set[str]:
    return set(house.tables.read("usage_daily", [day])["location"].to_pylist())


def _counted(house: Deployment, day: str) -> set[str]:
    """Return the locations with a usage counter of `day`, late ones too; none after its purge."""
    places: set[str] = set()
    segments = house.segments.list(day, raw.FOLDS)
    if segments:
        places |= _places(house, day, segments)
    if not places:  # a day that is not closed, or that is withheld and so has no cells
        segments = house.segments.list(day, raw.USAGE + raw.FROZEN)
        places |= _places(house, day, segments)
    return places | _places(house, day, house.segments.list(day, raw.USAGE))


def _places(house: Deployment, day: str, segments: Sequence[Segment]) -> set[str]:
    """Return the locations in sealed segments, reading so many rows at a time as fit in memory."""
    if not segments:
        return set()
    keys = house.month_keys(day[:7])
    places: set[str] = set()
    for one in segments:
        parts = min(raw.parts_for(raw.rows_of([one])), one.buckets)
        for part in range(parts):
            rows = raw.read_bucket(house, keys, [one], part, parts)
            places.update(pc.unique(rows["location"]).to_pylist())
    return places


def _days_before(day: str) -> list[str]:
    """Return the days before `day`, the latest first."""
    last = dt.date.fromisoformat(day)
    return [(last - _ONE_DAY * age).isoformat() for age in range(1, _DAYS_BEFORE + 1)]


def _days(house: Deployment) -> Iterator[Finding]:
    days = status.days_of(house)
    yield health.lag(days.due, days.lag)
    closed = house.tables.periods("closings_daily")
    yield health.closed(closed[-1] if closed else None, _expected(house), days.due)


def _expected(house: Deployment) -> str:
    """Return the latest day that is to be closed by now, by a job that runs once a day."""
    today = house.now.date()
    days = (today - _ONE_DAY * age for age in range(_LONGEST_GRACE_DAYS + 2))
    over = (day for day in days if house.calendar.closes_at(day) + _ONE_DAY <= house.now)
    return next(over, dt.date.min).isoformat()


def _jobs(house: Deployment) -> Iterator[Finding]:
    switched_off = {job for job, cron in house.config.schedule.items() if cron == OFF}
    yield from health.jobs(RunStore(house.home.folder("runs")).runs(), switched_off)


def _inbox(house: Deployment) -> Iterator[Finding]:
    taken = contacts.noted(house)
    waiting, refused = (taken.waiting, taken.refused) if taken else ({}, {})
    today = house.now.date().isoformat()
    yield from health.inbox(len(house.inbox.paths()), waiting, refused, today)


def _rejections(house: Deployment) -> Iterator[Finding]:
    today = house.now.date().isoformat()
    days = house.tables.periods("rejections_daily")[-_DAYS_BEFORE - 2 :]
    by_day: dict[str, Counter[str]] = {}
    for row in house.tables.rows("rejections_daily", days):
        by_day.setdefault(row["day"].isoformat(), Counter())[row["reason"]] += row["records"]
    yield from health.rejections(by_day, today)


def _late_bytes(house: Deployment) -> Iterator[Finding]:
    months = house.tables.periods("usage_monthly")[-_LATE_MONTHS:]
    names = ("month", "location", "bytes", "late_bytes")
    rows = house.tables.rows("usage_monthly", months)
    yield from health.late_bytes([Late(*(row[name] for name in names)) for row in rows])


def _released(house: Deployment) -> Iterator[Finding]:
    days = house.tables.periods("closings_daily")[-_CLOSINGS:]
    names = ("day", "table", "users", "named_users", "withheld")
    rows = house.tables.rows("closings_daily", days)
    yield from health.released(Closing(*(text_of(row[name]) for name in names)) for row in rows)
