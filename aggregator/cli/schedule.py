"""`aggregator schedule`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from aggregator.cli.options import Globals, command, log_option
from aggregator.errors import AggregatorError, RefusedError, UsageError, explain
from aggregator.model.days import instant

if TYPE_CHECKING:
    from aggregator.model.runs import Facts, Incident
    from aggregator.pipeline.deployment import Deployment
    from aggregator.stores.home import Home
    from jobs.log import Log
    from jobs.scheduler import Plan

_EPILOG = """\b
Signals:
  TERM, INT   start no job any more, let those that run end for 25 s, then end them
  HUP         take [schedule] in config.toml anew, and run what is due
\b
Examples:
  aggregator --home /srv/usage schedule
  aggregator --home /srv/usage schedule --log json
  aggregator --home rehearsal --now 2026-10-01T00:00:00Z schedule --every 5 --speed 3600
"""


@command("schedule", epilog=_EPILOG)
@click.option(
    "--every",
    type=click.FloatRange(0.1, 86_400),
    metavar="SECONDS",
    help="Run each job so often, in place of its own times; in a rehearsal home.",
)
@click.option(
    "--speed",
    type=click.FloatRange(1, 1_000_000),
    metavar="FACTOR",
    help="Let the clock of --now run so many times as fast; in a rehearsal home.",
)
@log_option
def schedule_command(
    said: Globals, every: float | None, speed: float | None, log: str | None
) -> None:
    """Run every job at its time until it is ended; the same as cron with `aggregator run`.

    Times are in [schedule] of config.toml, else the table's own; all of them UTC. Each job is a
    process of its own. At the start every job runs once: what was missed is caught up.
    """
    from jobs.log import Form, Log
    from jobs.scheduler import LOOK_SECONDS, Scheduler

    home = said.located()
    config = home.load_config()
    if (every or speed or said.now) and not config.rehearsal:
        raise RefusedError("--every, --speed and --now are for a rehearsal home")
    if speed and not said.now:
        raise UsageError("--speed needs --now, the instant at which the clock begins")
    form = Form(log or "text")
    journal = Log(form, quiet=said.quiet)
    clock = _clock(said.now, speed or 1.0)
    scheduler = Scheduler(
        _Planner(said, every, journal),
        lambda job: _words(said, job, clock(), form.value),
        lambda job, code, problem: _died(said, job, clock(), code, problem, journal),
        journal,
        record=lambda job: _record(home, job),
        look=lambda: _look(said, clock(), journal),
        look_seconds=every or LOOK_SECONDS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, scheduler.stop)
    signal.signal(signal.SIGHUP, scheduler.reload)
    with _alone(home, journal), _metrics(said, clock, journal):
        scheduler.run()


@contextlib.contextmanager
def _alone(home: Home, log: Log) -> Iterator[None]:
    """Be this home's only scheduler; a disk that takes no lock file does not keep it from working.

    Two would do no harm, but each alert and each ping would come twice.
    """
    from aggregator.stores.runs import RunStore
    from jobs.log import Event

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(RunStore(home.folder("runs")).scheduling())
        except OSError as error:
            log.event(Event.NOT_RECORDED, problem=explain(error)[0])
        yield


def _clock(start: dt.datetime | None, speed: float) -> Callable[[], dt.datetime | None]:
    """Return a rehearsal's clock, which runs on from `start`; None is the machine's."""
    began = time.monotonic()

    def now() -> dt.datetime | None:
        if start is None:
            return None
        passed = dt.timedelta(seconds=int((time.monotonic() - began) * speed))
        return start + passed

    return now


class _Planner:
    """Takes the times from config.toml; what is wrong there leaves the plan as it was."""

    def __init__(self, said: Globals, every: float | None, log: Log) -> None:
        self._said, self._every, self._log = said, every, log
        self._last: Mapping[str, str] = {}

    def __call__(self) -> Plan:
        from jobs import times
        from jobs.log import Event
        from jobs.scheduler import Plan

        try:
            config = self._said.located().load_config()
            if config.schedule_problem is not None:
                self._log.event(Event.NOT_PLANNED, problem=config.schedule_problem)
            else:
                self._last = config.schedule
        except (AggregatorError, OSError) as error:
            self._log.event(Event.NOT_PLANNED, problem=explain(error)[0])
        return Plan(times.planned(self._last), self._every)


def _words(said: Globals, job: str, now: dt.datetime | None, log: str) -> list[str]:
    """Return the command that runs `job` once, as cron would."""
    # -P: code that lies in the folder where this was started is not ours.
    words = [sys.executable, "-P", "-m", "aggregator", "--home", str(said.located().root)]
    words += ["-q"] if said.quiet else []
    if said.config is not None:
        words += ["--config", str(said.config)]
    if now is not None:
        words += ["--now", instant(now)]
    return [*words, "run", job, "--wait", "--log", log]


def _record(home: Home, job: str) -> object:
    """Return something that changes when a run of `job` keeps how it went."""
    try:
        found = home.folder("runs").joinpath(f"{job}.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _died(
    said: Globals, job: str, now: dt.datetime | None, code: int, problem: str, log: Log
) -> None:
    """Keep how `job` ended, which could not do so itself."""
    from jobs import runner

    runner.settle(job, dataclasses.replace(said.access(), now=now), 0.0, code, problem, log)


def _look(said: Globals, now: dt.datetime | None, log: Log) -> None:
    """Tell of what no job tells of, since it hangs."""
    from jobs import runner

    runner.look(dataclasses.replace(said.access(), now=now), log)


@contextlib.contextmanager
def _metrics(said: Globals, clock: Callable[[], dt.datetime | None], log: Log) -> Iterator[None]:
    """Answer /metrics meanwhile, where [watch] says at which address."""
    from jobs import metrics, watch
    from jobs.log import Event

    def look() -> tuple[Deployment, Facts, Sequence[Incident]]:
        return watch.look(dataclasses.replace(said.access(), now=clock()).read())

    def unread(problem: str) -> None:
        log.event(Event.NOT_TOLD, problem=problem)

    listen = said.located().load_config().watch.metrics_listen
    with contextlib.ExitStack() as stack:
        if listen is not None:
            try:
                stack.enter_context(metrics.served(listen, look, unread))
            except OSError as error:
                problem = f"watch.metrics_listen cannot be used: {error.strerror}"
                log.event(Event.NOT_TOLD, problem=problem)
        yield
