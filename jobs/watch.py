"""After each job: see how the home is, and tell the operator in the ways that [watch] names.

Whether somebody could be told never changes what the job did, nor its exit code.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aggregator.app import Access
from aggregator.errors import AggregatorError, ConfigError, explain
from aggregator.model.runs import Facts, Incident, Known, Run
from aggregator.pipeline import contacts, status
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import incidents
from aggregator.rules.incidents import Telling
from aggregator.stores import secret
from aggregator.stores.config import Contact
from aggregator.stores.runs import RunStore
from jobs import alert, metrics, ping, times
from jobs.log import Event, Log

_HOURLY: Final = dt.timedelta(hours=2)  # the patience with a job that runs every hour


def facts(house: Deployment, runs: RunStore, watched_since: dt.datetime) -> Facts:
    """Return how the home is at its instant, for finding troubles; no audit log is read for it."""
    purge, days, clock = status.next_purge(house), status.days_of(house), house.clock
    doubted = status.would_doubt_clock(house)
    config = house.config
    return Facts(
        now=house.now,
        watched_since=watched_since,
        runs=runs.runs(),
        overdue_after=tuple(
            (one.job.name, times.patience(one.cron)) for one in times.planned(config.schedule)
        ),
        purge_month=purge.month if purge else None,
        purge_due_at=purge.due_at if purge else None,
        purge_waits=bool(purge and purge.waits),
        clock_doubt_since=(clock.doubt_since or house.now) if doubted else None,
        due_days=days.due,
        days_lag=days.lag,
        free_bytes=shutil.disk_usage(house.home.root).free,
        settings_problems=tuple(config.problems.items()),
        # By a clock that jumped ahead everybody is silent; it is told of by itself.
        silent_since=() if doubted else _silent_since(house),
    )


def _silent_since(house: Deployment) -> tuple[dt.datetime, ...]:
    return tuple(one.seen_at for one in contacts.silent(house) if one.seen_at is not None)


def look(house: Deployment) -> tuple[Deployment, Facts, list[Incident]]:
    """Return how a home is now and the troubles it is in, the worst first.

    Where no job has run yet it is watched from now on, so none is missed.
    """
    runs = RunStore(house.home.folder("runs"))
    now = facts(house, runs, _since(runs, house.now))
    return house, now, incidents.find(now)


def tell(access: Access, run: Run | None, log: Log) -> None:
    """Write the metrics, ask the ping URL after `run`, and send a mail if there is cause.

    `run` is None where no job ended: then none is spoken of. What fails is logged, and tried again
    after the next job. ConfigError if the settings cannot be read at all.
    """
    contact = access.home.load_contact()
    view = _View(access.home.root, access.instant, contact, RunStore(access.home.folder("runs")))
    try:
        house = access.read()
        now = facts(house, view.runs, _since(view.runs, view.now))
    except (AggregatorError, OSError) as error:
        # What keeps every job from its work must not keep it from being told.
        house, now = None, _facts_of_runs(view, explain(error)[0])
    if run is not None:
        now = _with(now, run)
    troubles = incidents.find(now)
    if house is not None:
        _try(log, functools.partial(_write_metrics, house, now, troubles))
    if run is not None:
        _try(log, functools.partial(_ping, view, troubles, run))
    _try(log, functools.partial(_alert, view, troubles, run, log))


@dataclasses.dataclass(frozen=True, slots=True)
class _View:
    """What telling takes of a home, be it sound or not."""

    root: Path
    now: dt.datetime
    contact: Contact
    runs: RunStore


def _since(runs: RunStore, now: dt.datetime) -> dt.datetime:
    """Return since when the home is watched; not since a time that is yet to come."""
    since, _ = runs.known()
    return min(since or now, now)


def _overdue_after(schedule: Mapping[str, str]) -> tuple[tuple[str, dt.timedelta], ...]:
    return tuple((one.job.name, times.patience(one.cron)) for one in times.planned(schedule))


def _facts_of_runs(view: _View, problem: str) -> Facts:
    """Return what is known of a home that cannot be opened."""
    return Facts(
        now=view.now,
        watched_since=_since(view.runs, view.now),
        runs=view.runs.runs(),
        overdue_after=_overdue_after(view.contact.schedule),
        settings_problems=(("home", problem),),
    )


def _with(facts: Facts, run: Run) -> Facts:
    """Put `run` in its place, where the disk took no record of it."""
    others = tuple(one for one in facts.runs if one.job != run.job)
    return dataclasses.replace(facts, runs=(*others, run))


def _try(log: Log, act: Callable[[], None]) -> None:
    try:
        act()
    except (AggregatorError, OSError) as error:
        log.event(Event.NOT_TOLD, problem=explain(error)[0])


def _write_metrics(house: Deployment, facts: Facts, troubles: list[Incident]) -> None:
    path = house.config.watch.metrics_file
    if path is not None:
        written = metrics.text(lambda: (house, facts, troubles))
        with RunStore(house.home.folder("runs")).writing():
            metrics.write(Path(path), written)


def _ping(view: _View, troubles: list[Incident], run: Run) -> None:
    url = view.contact.watch.ping_url
    if url is None:
        return
    if not isinstance(url, str):
        url = secret.read(url, "watch.ping_url")
    if not url:
        raise ConfigError("watch.ping_url is empty")
    fine = run.exit_code == 0
    if not ping.is_for_each_job(url):
        # It speaks for all jobs: one that succeeds must not hide one that fails.
        _, known = view.runs.known()
        fine = not incidents.settled(troubles, known, view.now)
    ping.ask(ping.address(url, run.job, fine=fine))


def _alert(view: _View, troubles: list[Incident], run: Run | None, log: Log) -> None:
    """Tell of `troubles` what is to be told now, and remember it."""
    runs, repeat = view.runs, dt.timedelta(hours=view.contact.watch.repeat_hours)
    try:
        with runs.telling() as mine:
            if not mine:
                return
            since, known = runs.known()
            telling = incidents.telling(troubles, known, view.now, repeat)
            after = incidents.after_telling(troubles, known, view.now, telling, repeat)
            watched = min(since or view.now, view.now)
            if since == watched and after == known:
                return
            if telling:
                # First, so that a disk that takes no write does not send a mail every minute.
                runs.save_known(watched, known)
                _mail(view, telling, known, log)
            runs.save_known(watched, after)
    except OSError:
        # What cannot be remembered is told all the same, but by the less frequent jobs only.
        if run is not None and _is_rare(view, run.job):
            _mail(view, incidents.telling(troubles, {}, view.now, repeat), {}, log)
        raise


def _is_rare(view: _View, job: str) -> bool:
    """Say whether `job` runs once an hour at the most."""
    crons = {one.job.name: one.cron for one in times.planned(view.contact.schedule)}
    return job in crons and times.patience(crons[job]) >= _HOURLY


def _mail(view: _View, telling: Telling, known: Mapping[str, Known], log: Log) -> None:
    """Send what is to be told by mail; without an address it is told to the log alone.

    ConfigError if there is an address, but no mail server that could be used.
    """
    for incident in telling.lasting:
        log.event(
            Event.INCIDENT,
            kind=incident.trouble.value,
            what=incident.what,
            remedy=incident.remedy,
        )
    settings, to = view.contact.mail, view.contact.watch.alert
    if not telling or not to:
        return
    if settings is None:
        raise ConfigError(
            "nobody could be told: [mail] cannot be used; see: aggregator config check"
        )
    words = alert.text(telling, known, view.root, view.now)
    alert.send(settings, to, alert.subject(telling), words, view.now)
    log.event(Event.TOLD, incidents=len(telling.lasting), over=len(telling.over))
