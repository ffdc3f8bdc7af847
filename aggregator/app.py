"""The only place that builds things: a home's folder becomes a deployment with opened stores."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from aggregator.errors import IntegrityError, LockedError, RefusedError
from aggregator.model.clock import Clock
from aggregator.model.config_table import Given
from aggregator.model.days import instant
from aggregator.pipeline import receive
from aggregator.pipeline.deployment import Deployment, Progress, quiet
from aggregator.pipeline.receive import Receiver
from aggregator.rules.clock import is_behind, observe
from aggregator.stores import atomic, custody, gathered, lock
from aggregator.stores.agents import AgentStore
from aggregator.stores.audit import AuditLog
from aggregator.stores.home import OWN_FOLDERS, Home
from aggregator.stores.inbox import Inbox
from aggregator.stores.keys import KeyStore
from aggregator.stores.outbox import Outbox
from aggregator.stores.receipts import ReceiptStore
from aggregator.stores.segments import SegmentStore
from aggregator.stores.tables import TableStore


@dataclasses.dataclass(slots=True)
class Access:
    """How a run opens its home, once or several times: to write, or to send notices.

    `now` is the clock that a rehearsal sets, `wall` the machine's. A clock is confirmed by the
    first writing only.
    """

    home: Home
    now: dt.datetime | None
    wall: dt.datetime
    confirm_clock: bool = False
    progress: Progress = quiet

    @property
    def instant(self) -> dt.datetime:
        """The instant of this run: that of the rehearsal, else the machine's."""
        return self.now or self.wall

    def check(self) -> None:
        """Raise ConfigError if there is no home or its settings are wrong.

        RefusedError for `now`, which is for rehearsal homes only, and for root in a home of another
        user.
        """
        _check(self.home, self.now)

    def read(self) -> Deployment:
        """Open it to look, without a lock."""
        return open_to_read(self.home, self.now, self.wall)

    def write(self) -> AbstractContextManager[Deployment]:
        """Open it under its lock, as `open_to_write` does."""
        confirmed, self.confirm_clock = self.confirm_clock, False
        return open_to_write(
            self.home, self.now, self.wall, confirm_clock=confirmed, progress=self.progress
        )

    def send(self) -> AbstractContextManager[Deployment]:
        """Open it under the outbox's own lock, as `open_to_send` does."""
        return open_to_send(self.home, self.now, self.wall, self.progress)


DOOR_LOCK: Final = ".door.lock"
"""In the inbox, the one folder of a home that the door may write to."""


def create(
    home: Home,
    now: dt.datetime,
    *,
    rehearsal: bool,
    accept_weak: bool,
    profile: str | None = None,
    given: Given | None = None,
) -> str | None:
    """Make a home with the settings `given`; return a warning if its keys may outlive their end.

    RefusedError if the file system would keep what is overwritten, unless this is a rehearsal
    or the operator accepts it. Stopped on the way, it leaves nothing in a folder that it made.
    """
    root = home.root
    existed = root.exists()
    atomic.make_folder(root)
    with lock.hold(home.lock_path):
        try:
            weakness = custody.weakness(root)
            if weakness and not (rehearsal or accept_weak):
                raise RefusedError(
                    f"keys in {root} could outlive their destruction: {weakness};"
                    " choose another file system, or accept it with --accept-weak-destruction"
                )
            home.create(rehearsal=rehearsal, accept_weak=accept_weak, profile=profile, given=given)
        except BaseException:
            if not existed:
                home.unmake()
            raise
        house = _open(home, now, quiet)
        house.record("init", {"rehearsal": rehearsal, "policy": house.profile.digest})
    return weakness


def open_to_read(
    home: Home, now: dt.datetime | None, wall: dt.datetime, progress: Progress = quiet
) -> Deployment:
    """Open `home` for a command that writes nothing."""
    return _open(home, now or wall, progress)


@contextlib.contextmanager
def open_to_write(
    home: Home,
    now: dt.datetime | None,
    wall: dt.datetime,
    *,
    confirm_clock: bool = False,
    progress: Progress = quiet,
) -> Iterator[Deployment]:
    """Open `home` under its lock, with the clock compared to the audit log.

    `now` is the clock that a rehearsal sets, `wall` the machine's. LockedError if another run
    has the lock; RefusedError for `now` on a home that is no rehearsal.
    """
    _check(home, now)
    with lock.hold(home.lock_path):
        atomic.sweep(home.root, below=False)
        for name in (*OWN_FOLDERS, gathered.FOLDER):
            atomic.sweep(home.folder(name))
        house = _open(home, now or wall, progress)
        before = house.clock
        house.clock = observe(before, house.now, confirmed=confirm_clock)
        doubted = observe(before, house.now)
        house.is_behind = is_behind(before, house.now) and not confirm_clock
        if confirm_clock and (doubted.in_doubt or is_behind(before, house.now)):
            house.record("clock_confirmed", {})
        elif doubted.in_doubt and doubted.doubt_since == house.now and before.last_at:
            house.record("clock_jump", {"from": instant(before.last_at), "to": instant(house.now)})
        yield house


@contextlib.contextmanager
def open_to_send(
    home: Home, now: dt.datetime | None, wall: dt.datetime, progress: Progress = quiet
) -> Iterator[Deployment]:
    """Open `home` for a run that sends notices: under the outbox's lock, not that of the home.

    So mail that takes long holds up no other run, and no purge. LockedError if another run sends;
    RefusedError for `now` on a home that is no rehearsal.
    """
    _check(home, now)
    house = _open(home, now or wall, progress)
    with house.outbox.lock():
        yield house


@contextlib.contextmanager
def open_door(home: Home, now: dt.datetime | None) -> Iterator[Receiver]:
    """Open what a door needs of `home`: no month keys, no records, and not the lock of runs.

    LockedError if another door serves this home; RefusedError for `now`, the clock that a
    rehearsal sets, on a home that is no rehearsal.
    """
    _check(home, now)
    receiver = Receiver(home)
    inbox = receiver.inbox.folder
    atomic.make_folder(inbox)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(inbox / DOOR_LOCK))
        except LockedError:
            raise LockedError("another door serves this home; stop that one first") from None
        receive.sweep(inbox)
        yield receiver


def _check(home: Home, now: dt.datetime | None) -> None:
    """Raise RefusedError where this user, or this clock, must not write."""
    config = home.load_config()
    if now is not None and not config.rehearsal:
        raise RefusedError(
            "--now sets the clock only in a rehearsal home, made with: aggregator --now … init"
        )
    home.check_user()


def _open(home: Home, now: dt.datetime, progress: Progress) -> Deployment:
    config, profile = home.load_config(), home.load_profile()
    audit = AuditLog(home.folder("audit"))
    return Deployment(
        home=home,
        config=config,
        profile=profile,
        agents=AgentStore(home.folder("agents")),
        inbox=Inbox(home.folder("inbox")),
        outbox=Outbox(home.folder("outbox")),
        keys=KeyStore(home.folder("keys")),
        segments=SegmentStore(home.folder("raw"), profile.digest),
        tables=TableStore(home.folder("tables")),
        audit=audit,
        receipts=ReceiptStore(home.folder("audit")),
        now=now,
        clock=_clock(home, audit, now),
        progress=progress,
    )


def _clock(home: Home, audit: AuditLog, now: dt.datetime) -> Clock:
    """Return what the audit log says of the clock; it is in doubt where the log says nothing.

    A log that was damaged or lost stops no work, but a purge, until someone looks.
    """
    doubted = Clock(now, now, now)
    try:
        last = audit.last()
    except IntegrityError:
        return doubted
    if last is not None:
        return last.clock
    return doubted if any(home.folder("tables").iterdir()) else Clock()
