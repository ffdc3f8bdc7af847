"""OpenVPN: what is reported is what the server counted, to the byte, to the end of each session."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.agent.readings import SilentSourceError
from aggregator.errors import BadInputError

from .net import Star, reach, star, tcp, udp, wait_for
from .observer import Ledger, Observer
from .openvpn import INSIDE, Server, Session, Snapshot, User

pytestmark = pytest.mark.integration
NEEDS = ("openvpn",)

# A comma is what makes other versions of the status ambiguous.
USERS = ("acct-1", "acct,2")
WAYS = ("client", "soft", "hard")
OVERHEAD = 28 + 24
"""What a datagram is more on the wire: IP and UDP headers, and OpenVPN's own 24 bytes."""


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Star]:
    with star(2, tmp_path) as net:
        yield net


@pytest.fixture
def server(net: Star, tmp_path: Path) -> Server:
    """Return a running server with two connected users."""
    server = Server(net, tmp_path, USERS)
    server.start()
    for user in server.users:
        user.connect()
        reach(user.client, net.server, INSIDE)
    return server


def _settings(server: Server, kind: str) -> dict[str, Any]:
    """Return the settings of a source: `status` or `management`, with `+hook` or without."""
    way, _, hook = kind.partition("+")
    path = server.status if way == "status" else server.management
    return {way: str(path), **({"hook_socket": str(server.hook)} if hook else {})}


def _observer(server: Server, kind: str) -> Observer[Snapshot]:
    ask = server.written if kind.startswith("status") else server.told
    return Observer("openvpn", _settings(server, kind), ask)


def _send(server: Server, user: User, count: int) -> None:
    udp(user.client, server.namespace, INSIDE, count=count, size=1000)


def _look(server: Server, observer: Observer[Snapshot]) -> Snapshot:
    """Return the server's own numbers, after a reading at the same instant."""
    if observer.ask == server.written:
        server.freshly_written()
    return observer.read()


def _by_name(sessions: Ledger[Session]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for session, number in sessions.grown.items():
        total[session.name] += number
    return dict(total)


def _end_sessions(server: Server, way: str, meanwhile: Callable[[], None]) -> None:
    """End sessions in one of the ways that the server notices, and wait until all are back.

    The client of the first user begins anew; or the server does, in its process or in a new one.
    """
    marks = [user.mark() for user in server.users]
    if way == "client":
        server.users[0].reconnect()
    elif way == "soft":
        server.restart_softly()
    else:
        server.stop()
        meanwhile()
        server.start()
    meanwhile()
    for user, mark in zip(server.users, marks, strict=True):
        if way != "client":
            user.wait_until_back(mark)
        meanwhile()
        reach(user.client, server.namespace, INSIDE)
        meanwhile()


@pytest.mark.parametrize("kind", ["management+hook", "status+hook"])
def test_with_the_hook_nothing_is_lost(server: Server, kind: str) -> None:
    """Reconnects and restarts of every kind: the total is what the server counted, to the byte."""
    with _observer(server, kind) as observer:

        def read_whatever_there_is() -> None:
            """Such as an old status beside new ends, or nothing."""
            with contextlib.suppress(BadInputError):
                observer.read_alone()

        ledger = Ledger(_look(server, observer).by_name())
        assert observer.reported() == {}
        _send(server, server.users[0], 1000)
        _send(server, server.users[1], 700)
        ledger.look(_look(server, observer).by_name())
        assert observer.reported() == ledger.grown
        for way in WAYS:
            # Nobody reads this before the sessions end.
            _send(server, server.users[0], 300)
            _send(server, server.users[1], 200)
            _end_sessions(server, way, read_whatever_there_is)
            snapshot = _look(server, observer)
            ledger.look(snapshot.by_name())
            assert observer.reported() == ledger.grown, way
        assert len(snapshot.ends) >= 5
        assert ledger.grown["acct-1"] >= 1900 * (1000 + OVERHEAD)
        assert ledger.grown["acct,2"] >= 1300 * (1000 + OVERHEAD)


@pytest.mark.parametrize("kind", ["management", "status"])
def test_without_the_hook_only_the_tail_is_lost(server: Server, kind: str) -> None:
    """The total is what the server showed of each session last."""
    with _observer(server, kind) as observer:
        shown = Ledger(_look(server, observer).by_session())
        counted = Ledger(server.told().by_name())
        for way in WAYS:
            _send(server, server.users[0], 300)
            _send(server, server.users[1], 200)
            shown.look(_look(server, observer).by_session())
            _send(server, server.users[0], 100)
            _end_sessions(server, way, lambda: None)
            shown.look(_look(server, observer).by_session())
            counted.look(server.told().by_name())
            reported = observer.reported()
            assert reported == _by_name(shown), way
            assert reported["acct-1"] <= counted.grown["acct-1"] - 100 * (1000 + OVERHEAD)
            assert reported["acct,2"] <= counted.grown["acct,2"]


def test_a_crash_loses_what_was_not_read_and_no_more(server: Server) -> None:
    """A killed server calls no hook; its status file stays, and grows old."""
    kind = "status+hook"
    with _observer(server, kind) as observer:
        shown = Ledger(_look(server, observer).by_session())
        _send(server, server.users[0], 300)
        # So that it is not killed while it writes.
        server.freshly_written()
        server.kill()
        shown.look(observer.read().by_session())
        later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)
        with pytest.raises(SilentSourceError, match="older than 180 s"):
            observer.reader.read(later)
        for user in server.users:
            user.kill()
        server.start()
        for user in server.users:
            user.connect()
            reach(user.client, server.namespace, INSIDE)
        _send(server, server.users[0], 50)
        shown.look(_look(server, observer).by_session())
        assert observer.reported() == _by_name(shown)
        assert observer.reported()["acct-1"] >= 350 * (1000 + OVERHEAD)


def test_datagrams_are_counted_in_the_documented_unit(server: Server) -> None:
    """Payload of the outer UDP: an inner packet and 24 bytes; the agent sees what the test sent."""
    user = server.users[0]
    with _observer(server, "management") as observer:
        before = _look(server, observer).by_name()["acct-1"]
        _send(server, user, 1000)
        after = _look(server, observer).by_name()["acct-1"]
        # A ping each five seconds slips in, or what IPv6 has to say.
        assert 0 <= after - before - 1000 * (1000 + OVERHEAD) < 2000
        assert observer.reported() == {"acct-1": after - before}


def test_a_float_is_no_new_session(server: Server) -> None:
    """The client's address changes below the session."""
    user = server.users[0]
    with _observer(server, "management+hook") as observer:
        ledger = Ledger(_look(server, observer).by_name())
        _send(server, user, 100)
        user.client.ip(f"addr del {user.client.address4}/24 dev {user.client.device}")
        user.client.ip(f"addr add 10.77.1.3/24 dev {user.client.device}")
        reach(user.client, server.namespace, INSIDE)
        _send(server, user, 100)
        snapshot = _look(server, observer)
        ledger.look(snapshot.by_name())
        assert observer.reported() == ledger.grown
        assert ledger.grown["acct-1"] >= 200 * (1000 + OVERHEAD)
        assert not snapshot.ends


def test_two_sessions_of_one_user_are_added(net: Star, tmp_path: Path) -> None:
    """`duplicate-cn`: each session has a counter, and ends by itself."""
    server = Server(net, tmp_path, ("acct-1", "acct-1"))
    server.start("duplicate-cn\n")
    first, second = server.users
    first.connect()
    reach(first.client, net.server, INSIDE)
    with _observer(server, "management+hook") as observer:
        ledger = Ledger(_look(server, observer).by_name())
        second.connect()
        reach(second.client, net.server, INSIDE)
        for _ in range(2):
            _send(server, first, 100)
            _send(server, second, 200)
            snapshot = _look(server, observer)
            assert len(snapshot.sessions) > 1
            ledger.look(snapshot.by_name())
            assert observer.reported() == ledger.grown
            tcp(second.client, net.server, INSIDE, up=100_000, down=300_000)
            second.disconnect()
            second.connect()
            reach(second.client, net.server, INSIDE)
        # The server lists a session for 5 s after its client said farewell.
        wait_for(lambda: len(server.told().ends) == 2, "the end of two sessions")
        ledger.look(_look(server, observer).by_name())
        assert observer.reported() == ledger.grown
        assert ledger.grown["acct-1"] >= 600 * (1000 + OVERHEAD) + 2 * 400_000
