"""When a job is due: its row of the table, unless [schedule] in config.toml says otherwise."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from jobs.table import JOBS, Job

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

OFF: Final = "off"
_ENOUGH: Final = 300
_LONGEST: Final = dt.timedelta(days=62)
_LEAST_PATIENCE: Final = dt.timedelta(hours=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A job that is to run, and when (cron, UTC)."""

    job: Job
    cron: str


def planned(schedule: Mapping[str, str], jobs: Sequence[Job] = JOBS) -> tuple[Planned, ...]:
    """Return the jobs that are not switched off, each with its time, in the table's order."""
    crons = [(job, schedule.get(job.name, job.cron)) for job in jobs]
    return tuple(Planned(job, cron) for job, cron in crons if cron != OFF)


def trigger(cron: str) -> CronTrigger:
    """Return what tells the scheduler when `cron` is due, in UTC whatever the host's zone is.

    ValueError if it is no cron text.
    """
    # It loads in a tenth of a second, which no other command needs to wait for.
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415

    return CronTrigger.from_crontab(cron, timezone=dt.UTC)


def next_due(cron: str, now: dt.datetime) -> dt.datetime | None:
    """Return the first instant after `now` at which `cron` is due, None if it never is."""
    found: dt.datetime | None = trigger(cron).get_next_fire_time(None, now)
    return found.astimezone(dt.UTC) if found else None


def patience(cron: str, now: dt.datetime) -> dt.timedelta:
    """Return how long after a run's beginning the job is missed.

    Twice the longest time between two runs, and at least an hour more than it: so a late start,
    a long run or one that was skipped is no trouble yet.
    """
    due, longest = trigger(cron), dt.timedelta(0)
    last: dt.datetime | None = None
    moment: dt.datetime | None = now
    for _ in range(_ENOUGH):
        moment = due.get_next_fire_time(last, moment)
        if moment is None or moment - now > _LONGEST:
            break
        if last is not None:
            longest = max(longest, moment - last)
        last = moment
        moment += dt.timedelta(seconds=1)
    gap = longest or _LONGEST
    return max(2 * gap, gap + _LEAST_PATIENCE)
