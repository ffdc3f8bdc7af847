"""What is remembered of the jobs' runs, and the troubles that the operator is told of.

No line of it holds a person: a job's problem is the one line that the command line prints.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """The last run of one job, and how those before it went.

    Instants are UTC; `seconds` is the run's own duration. `problem` is None after a success.
    `failures` counts the failed runs in a row, the first of which began at `failing_since`.
    """

    job: str
    began_at: dt.datetime
    seconds: float
    exit_code: int
    problem: str | None = None
    succeeded_at: dt.datetime | None = None
    failures: int = 0
    failing_since: dt.datetime | None = None

    def after(self, previous: Run | None) -> Run:
        """Return this run with what `previous` knows of success and failure before it."""
        if self.exit_code == 0:
            return dataclasses.replace(self, succeeded_at=self.began_at)
        return dataclasses.replace(
            self,
            succeeded_at=previous.succeeded_at if previous else None,
            failures=(previous.failures if previous else 0) + 1,
            failing_since=(previous.failing_since if previous else None) or self.began_at,
        )


class Trouble(enum.StrEnum):
    """What an incident is about, the worst first."""

    PURGE_LATE = "purge_late"
    CLOCK_IN_DOUBT = "clock_in_doubt"
    JOB_FAILED = "job_failed"
    JOB_OVERDUE = "job_overdue"
    DAYS_LATE = "days_late"
    AGENTS_SILENT = "agents_silent"
    LITTLE_DISK = "little_disk"
    SETTINGS = "settings"


@dataclasses.dataclass(frozen=True, slots=True)
class Incident:
    """One trouble, while it lasts; `key` names it from run to run, `remedy` is what to do.

    It is told of once it was found for as long as `settles`: after an outage much is late that the
    next hour mends.
    """

    key: str
    trouble: Trouble
    since: dt.datetime
    what: str
    remedy: str
    settles: dt.timedelta = dt.timedelta(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What is known of an incident: since when it is found, and when it was last told.

    `told_at` is None if it was not told yet; `is_over` says that its end was told since.
    """

    what: str
    found_at: dt.datetime
    told_at: dt.datetime | None = None
    is_over: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What incidents are found from, at the instant `now`.

    `overdue_after` has the jobs that are expected to run, each with the time after its last
    success at which it is missed; `watched_since` is when the first job of this home ran.
    `settings_problems` are sections of the settings, or "home", each with what is wrong.
    `silent_since` has, for each agent that was heard at the door and is not any more, when it was
    heard last.
    """

    now: dt.datetime
    watched_since: dt.datetime
    runs: tuple[Run, ...]
    overdue_after: tuple[tuple[str, dt.timedelta], ...]
    purge_month: str | None = None
    purge_due_at: dt.datetime | None = None
    purge_waits: bool = False
    clock_doubt_since: dt.datetime | None = None
    due_days: tuple[str, ...] = ()
    days_lag: dt.timedelta = dt.timedelta(0)
    free_bytes: int | None = None
    settings_problems: tuple[tuple[str, str], ...] = ()
    silent_since: tuple[dt.datetime, ...] = ()
