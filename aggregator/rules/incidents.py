"""Which troubles a home is in, and of which of them the operator is told now.

A trouble is told when it begins, and again while it lasts; its end is told once. One that comes and
goes is told no oftener than one that lasts.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from aggregator.model.days import instant
from aggregator.model.runs import Facts, Incident, Known, Trouble
from aggregator.rules.health_agents import SILENT_AFTER

PURGE_LATE_AFTER: Final = dt.timedelta(hours=2)
"""The purge is tried every hour; later than this its job does not do its work (CL-2, CV-5)."""
DAYS_LATE_AFTER: Final = dt.timedelta(hours=48)
LITTLE_DISK: Final = 1_000_000_000
SILENT_SETTLES: Final = dt.timedelta(hours=2)
"""After an outage of the door, agents try again within a quarter of an hour."""


def find(facts: Facts) -> list[Incident]:
    """Return the troubles that last at `facts.now`, the worst first."""
    found = [
        *_purge(facts), *_clock(facts), *_failed(facts), *_overdue(facts), *_days(facts),
        *_silent(facts), *_disk(facts), *_settings(facts),
    ]  # fmt: skip
    order = list(Trouble)
    return sorted(found, key=lambda incident: (order.index(incident.trouble), incident.key))


def _purge(facts: Facts) -> Iterator[Incident]:
    if facts.purge_month is None or facts.purge_due_at is None:
        return
    if facts.now - facts.purge_due_at <= PURGE_LATE_AFTER:
        return
    month = facts.purge_month
    what = f"the purge of {month} is LATE: raw counters should be gone since"
    remedy = "run: aggregator purge" + (
        " --confirm-clock, if the time is right" * facts.purge_waits
    )
    yield Incident(
        f"purge_late:{month}",
        Trouble.PURGE_LATE,
        facts.purge_due_at,
        f"{what} {instant(facts.purge_due_at)}",
        remedy,
    )


def _clock(facts: Facts) -> Iterator[Incident]:
    if facts.clock_doubt_since is None:
        return
    yield Incident(
        "clock_in_doubt",
        Trouble.CLOCK_IN_DOUBT,
        facts.clock_doubt_since,
        "the clock jumped ahead by more than 48 h, so a purge waits",
        "check the time; if it is right, run: aggregator run month-end --confirm-clock",
    )


def _failed(facts: Facts) -> Iterator[Incident]:
    """Tell of jobs that fail; one that is switched off since is nobody's concern."""
    planned = {job for job, _ in facts.overdue_after}
    for run in facts.runs:
        if run.job in planned and run.failures and run.failing_since is not None:
            times = "" if run.failures == 1 else f", {run.failures} times in a row"
            yield Incident(
                f"job_failed:{run.job}",
                Trouble.JOB_FAILED,
                run.failing_since,
                f"the job {run.job} failed{times} (exit {run.exit_code}): {run.problem}",
                f"mend it, then run: aggregator run {run.job}",
            )


def _overdue(facts: Facts) -> Iterator[Incident]:
    """Tell of jobs that do not run at all; one that runs and fails is told of as that."""
    runs = {run.job: run for run in facts.runs}
    for job, patience in facts.overdue_after:
        run = runs.get(job)
        # A run in the future was one of a clock that was wrong.
        ran = run is not None and run.began_at <= facts.now
        last = max(facts.watched_since, run.began_at) if run and ran else facts.watched_since
        if facts.now - last > patience:
            yield Incident(
                f"job_overdue:{job}",
                Trouble.JOB_OVERDUE,
                last + patience,
                f"the job {job} has not run to its end since {instant(last)}",
                "see that cron, the timers or aggregator schedule runs it, and that none hangs",
                settles=patience / 2,
            )


def _days(facts: Facts) -> Iterator[Incident]:
    if facts.days_lag > DAYS_LATE_AFTER:
        count = len(facts.due_days)
        yield Incident(
            "days_late",
            Trouble.DAYS_LATE,
            facts.now - facts.days_lag,
            f"days that are due and not closed: {count}, the oldest {facts.due_days[0]}",
            "run: aggregator run daily",
        )


def _silent(facts: Facts) -> Iterator[Incident]:
    """Tell of all agents that are silent as of one trouble; the report names them."""
    if not facts.silent_since:
        return
    count = len(facts.silent_since)
    hours = int(SILENT_AFTER.total_seconds() // 3600)
    who = "1 agent was" if count == 1 else f"{count:,} agents were"
    yield Incident(
        "agents_silent",
        Trouble.AGENTS_SILENT,
        min(facts.silent_since) + SILENT_AFTER,
        f"{who} not heard for {hours} h",
        "see: aggregator report health",
        settles=SILENT_SETTLES,
    )


def _disk(facts: Facts) -> Iterator[Incident]:
    if facts.free_bytes is not None and facts.free_bytes < LITTLE_DISK:
        yield Incident(
            "little_disk",
            Trouble.LITTLE_DISK,
            facts.now,
            f"{facts.free_bytes / 1e9:.1f} GB free on the disk of the home",
            "make room: a full disk stops ingest and closing, and holds a purge up for a day",
        )


def _settings(facts: Facts) -> Iterator[Incident]:
    for section, problem in facts.settings_problems:
        yield Incident(
            f"settings:{section}",
            Trouble.SETTINGS,
            facts.now,
            problem,
            "see: aggregator config check",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Telling:
    """What to tell now: troubles that are new or last, and troubles that are over."""

    lasting: tuple[Incident, ...]
    over: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lasting or self.over)


def settled(
    found: Sequence[Incident], known: Mapping[str, Known], now: dt.datetime
) -> list[Incident]:
    """Return those of `found` that do not seem to pass by themselves."""
    return [one for one in found if _is_settled(one, known.get(one.key), now)]


def telling(
    found: Sequence[Incident], known: Mapping[str, Known], now: dt.datetime, repeat: dt.timedelta
) -> Telling:
    """Return what to tell of `found` now, when `known` is what was found and told before.

    An incident told less than `repeat` ago is not told again, even if it was over between. A clock
    that turned back does not silence anything: what was told in its future is told again.
    """
    lasting = tuple(one for one in found if _is_due(one, known.get(one.key), now, repeat))
    keys = {incident.key for incident in found}
    over = tuple(
        key
        for key, one in sorted(known.items())
        if key not in keys and one.told_at is not None and not one.is_over
    )
    return Telling(lasting, over)


def _is_due(
    incident: Incident, known: Known | None, now: dt.datetime, repeat: dt.timedelta
) -> bool:
    if known is None or known.told_at is None:
        return _is_settled(incident, known, now)
    return not dt.timedelta(0) <= now - known.told_at < repeat


def _is_settled(incident: Incident, known: Known | None, now: dt.datetime) -> bool:
    if known is None:
        return not incident.settles
    return not dt.timedelta(0) <= now - known.found_at < incident.settles


def after_telling(
    found: Sequence[Incident],
    known: Mapping[str, Known],
    now: dt.datetime,
    telling: Telling,
    repeat: dt.timedelta,
) -> dict[str, Known]:
    """Return what is known once `telling` is told; what ended long ago is forgotten."""
    after = {}
    for key, one in known.items():
        is_recent = one.told_at is not None and abs(now - one.told_at) < repeat
        if is_recent or key in telling.over:
            after[key] = dataclasses.replace(one, is_over=one.is_over or key in telling.over)
    for incident in found:
        after[incident.key] = known.get(incident.key) or Known(incident.what, now)
    for incident in telling.lasting:
        found_at = after[incident.key].found_at
        after[incident.key] = Known(incident.what, found_at, now)
    return after
