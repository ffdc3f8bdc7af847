"""Run the door of one home until it is told to end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import ssl
from collections.abc import Callable, Iterator

from aggregator import app
from aggregator.door.application import Door
from aggregator.door.journal import Journal
from aggregator.door.limits import Limits
from aggregator.door.server import DoorServer, listen, more_files
from aggregator.door.tls import server_context
from aggregator.stores.home import Home


def serve(
    home: Home,
    now: dt.datetime | None,
    clock: Callable[[], dt.datetime],
    journal: Journal,
    *,
    plain: bool,
) -> None:
    """Take batches for `home` until SIGTERM; `now` is a clock that stands still, for rehearsals."""
    limits = Limits()
    limits = dataclasses.replace(limits, connections=more_files(limits))
    with prepared(home, now, clock, limits, journal, plain=plain) as server:
        server.run()


@contextlib.contextmanager
def prepared(
    home: Home,
    now: dt.datetime | None,
    clock: Callable[[], dt.datetime],
    limits: Limits,
    journal: Journal,
    *,
    plain: bool,
) -> Iterator[DoorServer]:
    """Give the server of `home`, bound and not yet running; close everything afterwards."""

    def make_context() -> ssl.SSLContext | None:
        return None if plain else server_context(home.load_config().door)

    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(app.open_door(home, now))
        stack.enter_context(journal.in_charge())
        door = Door(receiver, clock if now is None else lambda: now, limits, journal)
        stack.callback(door.close)
        listener = stack.enter_context(listen(home.load_config().door, plain=plain))
        yield DoorServer(door, listener, make_context, limits, journal)
