"""Run one job: what cron, the timers and the scheduler all do."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Mapping
from typing import Any

from aggregator.app import Access
from aggregator.errors import AggregatorError, LockedError, explain
from aggregator.model.runs import Run
from aggregator.stores.runs import RunStore
from jobs import watch
from jobs.log import Event, Log
from jobs.table import Job


def run(job: Job, access: Access, log: Log) -> Mapping[str, Any]:
    """Run `job`, keep how it went, and tell the operator where there is cause.

    Raises what the job raises. A run that the lock refuses leaves no record: another works.
    """
    access.check()
    began = time.monotonic()
    confirmed = access.confirm_clock
    try:
        result = job.run(access)
    except LockedError:
        log.event(Event.JOB_LOCKED, job=job.name)
        # One that hangs keeps every other from its work; somebody has to say so.
        _tell(access, None, log)
        raise
    except Exception as error:
        problem, code = explain(error)
        log.event(Event.JOB_FAILED, job=job.name, exit_code=code, problem=problem)
        settle(job.name, access, time.monotonic() - began, code, problem, log)
        raise
    seconds = time.monotonic() - began
    log.event(
        Event.JOB_ENDED, job=job.name, seconds=round(seconds, 3), confirmed=confirmed or None,
        **_figures(result),
    )  # fmt: skip
    settle(job.name, access, seconds, 0, None, log)
    return result


def settle(
    job: str, access: Access, seconds: float, code: int, problem: str | None, log: Log
) -> None:
    """Keep how a run of `job` went, and tell the operator; what fails of it is logged."""
    record = Run(job, access.instant, round(seconds, 3), code, problem)
    try:
        record = RunStore(access.home.folder("runs")).save(record)
    except (AggregatorError, OSError) as error:
        record = record.after(None)
        log.event(Event.NOT_RECORDED, job=job, problem=explain(error)[0])
    ended = dt.timedelta(seconds=int(seconds))
    now = access.now + ended if access.now else None
    _tell(dataclasses.replace(access, now=now, wall=access.wall + ended), record, log)


def _tell(access: Access, run: Run | None, log: Log) -> None:
    try:
        watch.tell(access.read(), run, log)
    except (AggregatorError, OSError) as error:
        log.event(Event.NOT_TOLD, problem=explain(error)[0])


def _figures(result: Mapping[str, Any]) -> dict[str, int]:
    """Return a job's result as counts: how many days, months, mails by state."""
    figures: dict[str, int] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}_{one}": int(count) for one, count in value.items()}
        else:
            figures[name] = value if isinstance(value, int) else len(value)
    return figures
