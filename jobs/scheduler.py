"""The daemon: every job at its time, as a process of its own, `aggregator run JOB`.

So it does what cron would do, and a job that dies takes nothing with it. It keeps no state: a job
finds in the home what is due. At the start every job runs once, in the table's order.

APScheduler plans by the wall clock and waits by it too. After a jump, or when a suspended machine
goes on, it might wait for an instant that is long past or far away; so both clocks are compared
every half minute, and after a jump everything is planned anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aggregator.agent.journal import Notifier
from aggregator.errors import LockedError, explain
from jobs.log import Event, Log
from jobs.times import Planned, trigger

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.base import BaseTrigger

TICK_SECONDS: Final = 30.0
JUMP_SECONDS: Final = 20.0
GRACE_SECONDS: Final = 25.0
"""How long a running job may go on after SIGTERM; it can be killed at any time and lose nothing."""
_KILL_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 3600.0
_BEAT: Final = "beat"
_LOOK: Final = "look"
_ALONE: Final = ("mail", "month-end")
_NOT_STARTED: Final = 126
_LAST_CODE: Final = 7
"""The last of our own exit codes; a job that ends with one of them has told of itself."""
_BEATS_LATE: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the scheduler runs: the jobs with their times, or each every so many seconds."""

    jobs: Sequence[Planned]
    every_seconds: float | None = None


class Scheduler:
    """Runs jobs until it is stopped.

    `command` gives the words that start a job. `record` returns something that a job's run changes
    when it keeps how it went; `died` is told of one that did not: its name, an exit code, a line.
    `look` is called every `look_seconds`, for what no job tells of since it hangs.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        command: Callable[[str], Sequence[str]],
        died: Callable[[str, int, str], None],
        log: Log,
        *,
        record: Callable[[str], object] = lambda _name: object(),
        look: Callable[[], None] = lambda: None,
        look_seconds: float = LOOK_SECONDS,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        """Take `plan` at the start and at each `reload`; the clocks are given for tests."""
        self._plan, self._command, self._died, self._log = plan, command, died, log
        self._record, self._look, self._look_seconds = record, look, look_seconds
        self._wall, self._monotonic, self._tick = wall, monotonic, tick_seconds
        self._stopping, self._reload = False, False
        # A lock, as in a threading.Event, could be taken already when a signal handler asks for it.
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._beat = monotonic()
        self._planned: tuple[str, ...] = ()

    def stop(self, *_signal: object) -> None:
        """Ask for the end; safe in a signal handler."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def reload(self, *_signal: object) -> None:
        """Ask for a new plan; safe in a signal handler."""
        self._reload = True
        os.eventfd_write(self._wake, 1)

    def run(self, notifier: Notifier | None = None) -> None:
        """Run until `stop`; jobs that run then may end for a while."""
        notifier = notifier or Notifier()
        scheduler = _new_scheduler(self._log)
        scheduler.add_job(self._pulse, "interval", seconds=self._tick, id=_BEAT, executor="beat")
        scheduler.add_job(self._look, "interval", seconds=self._look_seconds, id=_LOOK)
        self._set_plan(scheduler)
        scheduler.start()
        try:
            notifier.tell(READY="1")
            self._watch(scheduler, notifier)
        finally:
            notifier.tell(STOPPING="1")
            with self._lock:  # one that is just being started counts
                running = len(self._children)
            self._log.event(Event.STOPPING, running=running)
            scheduler.pause()
            self._end_children()
            scheduler.shutdown(wait=True)
            self._log.event(Event.STOPPED)

    def _watch(self, scheduler: BackgroundScheduler, notifier: Notifier) -> None:
        """Wait; compare the clocks, tell systemd that all is well, plan anew where needed."""
        offset = self._wall() - self._monotonic()
        while True:
            self._sleep()
            if self._stopping:
                return
            moved = self._wall() - self._monotonic() - offset
            offset += moved
            if abs(moved) >= JUMP_SECONDS:
                self._log.event(Event.CLOCK_MOVED, seconds=round(moved))
            if self._reload or abs(moved) >= JUMP_SECONDS:
                self._reload = False
                self._set_plan(scheduler)
                scheduler.reschedule_job(_BEAT, trigger="interval", seconds=self._tick)
                scheduler.reschedule_job(_LOOK, trigger="interval", seconds=self._look_seconds)
            if self._monotonic() - self._beat < _BEATS_LATE * self._tick:
                notifier.tell(WATCHDOG="1")

    def _sleep(self) -> None:
        """Wait for a tick, or until something is asked for."""
        if select.select([self._wake], [], [], self._tick)[0]:
            os.eventfd_read(self._wake)

    def _pulse(self) -> None:
        self._beat = self._monotonic()

    def _set_plan(self, scheduler: BackgroundScheduler) -> None:
        """Plan every job at its next time, and once now: what was missed is caught up."""
        plan = self._plan()
        for name in self._planned:
            scheduler.remove_job(name)
        self._planned = tuple(one.job.name for one in plan.jobs)
        for one in plan.jobs:
            name, own = one.job.name, _trigger(one, plan)
            scheduler.add_job(self._start, own, [name], id=name, executor=_executor(name))
            # A job of its own: it waits its turn, in the table's order. Once, however often asked,
            # but also where one runs already: that one may have looked before the clock jumped.
            scheduler.add_job(
                self._start, args=[name], id=f"{name} now", executor=_executor(name),
                replace_existing=True, max_instances=2,
            )  # fmt: skip
            self._log.event(Event.PLANNED, job=name, cron=None if plan.every_seconds else one.cron)

    def _start(self, name: str) -> None:
        """Run a job in a process of its own, and wait for it."""
        before = self._record(name)
        try:
            child = self._spawn(name)
        except OSError as error:
            problem = f"could not be started: {error.strerror}"
            self._log.event(Event.JOB_FAILED, job=name, problem=problem)
            self._died(name, _NOT_STARTED, problem)
            return
        if child is None:
            return
        try:
            code = child.wait()
        finally:
            with self._lock:
                del self._children[child.pid]
        if not self._stopping:
            self._look_at_end(name, code, is_recorded=self._record(name) != before)

    def _spawn(self, name: str) -> subprocess.Popen[bytes] | None:
        """Start a job's process; None when it is too late for that."""
        with self._lock:
            if self._stopping:
                return None
            # A session of its own: Ctrl-C on a terminal ends the scheduler, which waits for it.
            child = subprocess.Popen(  # noqa: S603 - our own command
                self._command(name), stdin=subprocess.DEVNULL, start_new_session=True
            )
            self._children[child.pid] = child
            return child

    def _look_at_end(self, name: str, code: int, *, is_recorded: bool) -> None:
        """Tell of a job that could not tell of itself."""
        if code < 0:
            how = signal.Signals(-code).name
            self._log.event(Event.JOB_KILLED, job=name, signal=how)
            memory = "; is there memory enough?" * (how == "SIGKILL")
            self._died(name, 128 - code, f"it was ended by {how}{memory}")
        elif not is_recorded and (code == 1 or code > _LAST_CODE) and code != LockedError.exit_code:
            problem = f"it ended with exit code {code} and kept no record; see what it printed"
            self._log.event(Event.JOB_FAILED, job=name, exit_code=code, problem=problem)
            self._died(name, code, problem)

    def _end_children(self) -> None:
        """Let running jobs end, then end them."""
        for seconds, how in ((GRACE_SECONDS, None), (_KILL_SECONDS, signal.SIGTERM),
                             (_KILL_SECONDS, signal.SIGKILL)):  # fmt: skip
            with self._lock:
                children = list(self._children.values())
            if how is not None:
                for child in children:
                    _signal(child, how)
            until = self._monotonic() + seconds
            while self._children and self._monotonic() < until:
                time.sleep(0.05)


def _signal(child: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a job and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, how)


def _executor(name: str) -> str:
    """Return whose turn a job waits for.

    Mail works under a lock of its own, and may take long. A purge waits for no job but by the
    home's lock: not for one that sends mail, nor for one that hangs without it.
    """
    return name if name in _ALONE else "home"


def _trigger(planned: Planned, plan: Plan) -> BaseTrigger:
    if plan.every_seconds is None:
        return trigger(planned.cron)
    from apscheduler.triggers.interval import IntervalTrigger  # noqa: PLC0415

    return IntervalTrigger(seconds=plan.every_seconds, timezone=dt.UTC)


def _new_scheduler(log: Log) -> BackgroundScheduler:
    # It loads in a tenth of a second, which no other command needs to wait for.
    import logging  # noqa: PLC0415

    from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent  # noqa: PLC0415
    from apscheduler.executors.pool import ThreadPoolExecutor  # noqa: PLC0415
    from apscheduler.schedulers.background import BackgroundScheduler  # noqa: PLC0415

    def on_error(event: JobExecutionEvent) -> None:
        log.event(Event.JOB_FAILED, problem=explain(event.exception)[0])

    # Its own words may hold anything; what fails in it comes as an event.
    logger = logging.getLogger("apscheduler")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    scheduler = BackgroundScheduler(
        executors={name: ThreadPoolExecutor(1) for name in ("default", "home", *_ALONE, "beat")},
        # By default a run that is a second late is dropped in silence.
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        timezone=dt.UTC,
    )
    scheduler.add_listener(on_error, EVENT_JOB_ERROR)
    return scheduler
