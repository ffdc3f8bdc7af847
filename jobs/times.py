"""When a job is due: its row of the table, unless [schedule] in config.toml says otherwise."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from aggregator.model import cron as cron_text
from aggregator.model.cron import Cron
from jobs.table import JOBS, Job

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

OFF: Final = "off"
_DAYS: Final = 28 * 365 + 7
"""The calendar's leap days and weekdays repeat after 28 years."""
_A_DAY: Final = dt.date(2001, 1, 1)
_MINUTES_A_DAY: Final = 24 * 60
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
    """Return the first instant from `now` on at which `cron` is due, None if it never is."""
    found: dt.datetime | None = trigger(cron).get_next_fire_time(None, now)
    return found.astimezone(dt.UTC) if found else None


@functools.lru_cache
def patience(cron: str) -> dt.timedelta:
    """Return how long after a run's beginning the job is missed.

    Twice the longest time between two runs, and at least an hour more than it: so a late start,
    a long run or one that was skipped is no trouble yet. CronError if `cron` is no cron text.
    """
    times = cron_text.parse(cron)
    minutes = sorted(60 * hour + minute for hour in times.hours for minute in times.minutes)
    night = minutes[0] + _longest_wait(times) * _MINUTES_A_DAY - minutes[-1]
    inner = [later - earlier for earlier, later in itertools.pairwise(minutes)]
    longest = dt.timedelta(minutes=max([night, *inner]))
    return max(2 * longest, longest + _LEAST_PATIENCE)


def _longest_wait(times: Cron) -> int:
    """Return the most days from one day on which it is due to the next such."""
    if times.is_every_day:
        return 1
    due = [number for number in range(_DAYS) if _is_on(times, _A_DAY + dt.timedelta(number))]
    around = due[0] + _DAYS - due[-1]
    return max([around, *(later - earlier for earlier, later in itertools.pairwise(due))])


def _is_on(times: Cron, day: dt.date) -> bool:
    return day.month in times.months and day.day in times.days and day.weekday() in times.weekdays
