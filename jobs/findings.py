"""What the jobs' records say: for the screen of `status`, and for the doctor."""

from __future__ import annotations

import dataclasses
import datetime as dt

from aggregator.model.runs import Incident, Run, Trouble
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import Finding, State
from aggregator.stores.runs import RunStore
from jobs import times, watch
from jobs.table import JOBS

_OF_JOBS = (Trouble.JOB_FAILED, Trouble.JOB_OVERDUE)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One job as `status` tells of it; `next_at` is None for a job that is switched off."""

    name: str
    run: Run | None
    next_at: dt.datetime | None
    trouble: Incident | None


def rows(house: Deployment) -> list[Row]:
    """Return every job with its last run, in the table's order; [] where none has run yet."""
    known = {run.job: run for run in RunStore(house.home.folder("runs")).runs()}
    if not known:
        return []
    _, _, troubles = watch.look(house)
    crons = {one.job.name: one.cron for one in times.planned(house.config.schedule)}
    about = {one.key.partition(":")[2]: one for one in troubles if one.trouble in _OF_JOBS}
    return [
        Row(
            job.name,
            known.get(job.name),
            times.next_due(crons[job.name], house.now) if job.name in crons else None,
            about.get(job.name),
        )
        for job in JOBS
    ]


def examine(house: Deployment) -> list[Finding]:
    """Return what the doctor says of the jobs, and of the settings of schedule and watch."""
    found = [
        Finding("jobs", State.WARN, row.trouble.what, row.trouble.remedy)
        for row in rows(house)
        if row.trouble is not None
    ]
    config = house.config
    found += [
        Finding("jobs", State.FAIL, problem, "see: aggregator config check")
        for problem in (config.schedule_problem, config.watch_problem)
        if problem is not None
    ]
    if found:
        return found
    if rows(house):
        return [Finding("jobs", State.OK, "every job runs and ends well")]
    if house.config.rehearsal:
        return [Finding("jobs", State.OK, "no job has run here yet")]
    what = "no job has run here yet, so nothing is closed or purged by itself"
    return [Finding("jobs", State.WARN, what, "run: aggregator install-units")]
