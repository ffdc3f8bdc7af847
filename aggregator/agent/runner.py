"""The agent as a process: its signals, its limits, its lock, and the clock of the machine.

SIGTERM and SIGINT end it after one last reading and sending; a second one ends it at once. SIGHUP
reads maps, certificates and the enrolment anew.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import random
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from aggregator.agent.client import DoorClient
from aggregator.agent.config import Config, check_enrolled, load_config
from aggregator.agent.enrolment import Enrolment, load_enrolment
from aggregator.agent.journal import Journal, Level, Notifier
from aggregator.agent.origin import Locator
from aggregator.agent.service import Service
from aggregator.agent.spool import Spool, check_folder
from aggregator.errors import ConfigError, LockedError

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class _Interrupted(BaseException):
    """A signal came while the door was being waited for."""


class _TimeUp(BaseException):
    """A block took longer than it may."""


class MachineClock:
    """The machine's clocks."""

    def now(self) -> dt.datetime:
        """Return the instant, in UTC."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment; they go on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def load(path: Path) -> tuple[Config, Enrolment]:
    """Return configuration and enrolment, checked against each other; ConfigError if wrong."""
    config = load_config(path)
    enrolment = load_enrolment(config.enrolment)
    check_enrolled(config, enrolment)
    if config.spool is not None:
        check_folder(config.spool)
    return config, enrolment


def run(path: Path) -> None:
    """Run the agent that the configuration `path` describes, until a signal ends it.

    ConfigError if the configuration is wrong, LockedError if the agent runs already.
    """
    # A core dump would put accounts and keys on disk (CL-4).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    config, enrolment = load(path)
    spool = Spool(config.spool)
    journal, notifier = Journal(), Notifier()
    with _only_one(config.enrolment), _only_one(config.spool):
        locator = Locator(config.country_database, config.asn_database)
        service = Service(
            config,
            enrolment,
            _door(config, enrolment),
            spool,
            MachineClock(),
            locate=locator,
            faults=locator.faults,
            journal=journal,
            notifier=notifier,
            chance=random.Random(),
        )
        try:
            service.open()
            _Loop(path, service, journal, notifier).run()
        finally:
            service.close()
            locator.close()


class _Loop:
    """Steps, waits between them, and minds signals."""

    def __init__(self, path: Path, service: Service, journal: Journal, notifier: Notifier) -> None:
        self._path = path
        self._service = service
        self._journal = journal
        self._notifier = notifier
        self._ending = False
        self._reloading = False

    def run(self) -> None:
        """Run until a signal ends it, then stop in good order."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload)
        try:
            self._step()
            self._notifier.tell(READY="1")
            while not self._ending:
                wait = self._step()
                self._notifier.tell(WATCHDOG="1")
                # A signal writes to the pipe, also one that came right before this.
                select.select([reading], [], [], wait)
                with contextlib.suppress(BlockingIOError):
                    os.read(reading, 512)
            self._notifier.tell(STOPPING="1")
            self._service.stop(limited)
        finally:
            signal.set_wakeup_fd(-1)
            os.close(reading)
            os.close(writing)

    def _step(self) -> float:
        if self._reloading:
            self._reloading = False
            self._take_anew()
        try:
            return self._service.step()
        except _Interrupted:
            return 0.0

    def _take_anew(self) -> None:
        try:
            config, enrolment = load(self._path)
            self._service.reload(config, enrolment, _door(config, enrolment))
        except ConfigError as error:
            self._journal.say(Level.ERROR, f"{error}; what was read before stays in use")

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        for number in _ENDING:
            # The second one ends the process at once.
            signal.signal(number, signal.SIG_DFL)
        self._ending = True
        if self._service.in_request:
            raise _Interrupted

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reloading = True


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End the block after so many seconds, in silence."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, end)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TimeUp:
        pass
    finally:
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _only_one(path: Path | None) -> Iterator[None]:
    """Hold a lock on `path`: two agents that read the same would count every byte twice."""
    if path is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{path}: another agent runs with it; end that one first") from None
        yield
    finally:
        os.close(descriptor)


def _door(config: Config, enrolment: Enrolment) -> DoorClient:
    return DoorClient(config.door.url or enrolment.door, enrolment.token, config.door)
