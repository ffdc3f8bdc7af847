"""Run one job: what cron, the timers and the scheduler all do."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Mapping
from typing import Any, Final

from aggregator.app import Access
from aggregator.errors import AggregatorError, LockedError, RefusedError, explain
from aggregator.model.runs import Run
from aggregator.stores.runs import RunStore
from jobs import watch
from jobs.log import Event, Log
from jobs.table import Job

_PAUSE_SECONDS: Final = 1.0


def run(job: Job, access: Access, log: Log, *, wait: bool = False) -> Mapping[str, Any]:
    """Run `job`, keep how it went, and tell the operator where there is cause.

    With `wait` it waits for another run's lock, as long as the job's row says. Raises what the
    job raises. A run that the lock refuses leaves no record: another works.
    """
    began = time.monotonic()
    confirmed = access.confirm_clock
    try:
        access.check()
    except Exception as error:
        _refused(job, access, error, log)
        raise
    try:
        result = _run(job, access, job.wait_seconds if wait else 0.0, log)
    except LockedError:
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


def _refused(job: Job, access: Access, error: Exception, log: Log) -> None:
    """Log that `job` could not begin, and keep it where there is a home to keep it in."""
    problem, code = explain(error)
    log.event(Event.JOB_FAILED, job=job.name, exit_code=code, problem=problem)
    try:
        access.home.mark()
    except (AggregatorError, OSError):
        return
    if isinstance(error, RefusedError):  # a clock for rehearsals; it would be written down
        return
    _tell(access, _keep(Run(job.name, access.instant, 0.0, code, problem), access, log), log)


def _run(job: Job, access: Access, wait_seconds: float, log: Log) -> Mapping[str, Any]:
    """Run `job`; while another run has the lock, try again until `wait_seconds` are over."""
    began, passed, is_told = time.monotonic(), 0.0, False
    while True:
        try:
            return job.run(_later(access, passed))
        except LockedError:
            if not is_told:
                log.event(Event.JOB_LOCKED, job=job.name)
                # One that hangs keeps every other from its work; somebody has to say so.
                _tell(access, None, log)
                is_told = True
            if passed >= wait_seconds:
                raise
        time.sleep(_PAUSE_SECONDS)
        passed = time.monotonic() - began


def _later(access: Access, seconds: float) -> Access:
    """Return how the home is opened so many seconds later; the clock is confirmed there as well."""
    passed = dt.timedelta(seconds=int(seconds))
    now = access.now + passed if access.now else None
    return dataclasses.replace(access, now=now, wall=access.wall + passed)


def settle(
    job: str, access: Access, seconds: float, code: int, problem: str | None, log: Log
) -> None:
    """Keep how a run of `job` went, and tell the operator; what fails of it is logged."""
    record = _keep(Run(job, access.instant, round(seconds, 3), code, problem), access, log)
    _tell(_later(access, seconds), record, log)


def _keep(run: Run, access: Access, log: Log) -> Run:
    """Keep `run` as its job's last; return it with what is known of those before."""
    try:
        return RunStore(access.home.folder("runs")).save(run)
    except (AggregatorError, OSError) as error:
        log.event(Event.NOT_RECORDED, job=run.job, problem=explain(error)[0])
        return run.after(None)


def look(access: Access, log: Log) -> None:
    """Tell the operator where there is cause, though no job ended."""
    _tell(access, None, log)


def _tell(access: Access, run: Run | None, log: Log) -> None:
    try:
        watch.tell(access, run, log)
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
