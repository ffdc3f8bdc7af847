"""strongSwan: what is reported is what the server counted, to the end of every session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from aggregator.errors import BadInputError

from .net import reach, star, udp, wait_for
from .observer import Ledger, Observer
from .strongswan import INSIDE, Child, Server, User

pytestmark = pytest.mark.integration
NEEDS = ("charon-systemd", "swanctl", "unshare")

USERS = ("acct-1", "acct-2@example.org")
Children = tuple[Child, ...]


class Rig:
    """A server with its users, a reader, and what the server itself says of every CHILD SA.

    `look` asks the server only; `check` lets the reader read as well.
    """

    def __init__(self, server: Server, observer: Observer[Children]) -> None:
        """Take the baseline."""
        self.server = server
        self.observer = observer
        self._ledger = Ledger(_by_child(observer.read()))

    def send(self, user: User, count: int) -> None:
        """Send datagrams in both directions, twice as many upwards."""
        there, here = self.server.namespace, user.namespace
        udp(here, there, INSIDE, count=2 * count, size=1000)
        udp(there, here, user.address(), count=count, size=500)

    def look(self) -> dict[str, int]:
        """Return what all CHILD SAs that ever were grew by, by user."""
        self._ledger.look(_by_child(self.server.children()))
        return self.grown()

    def check(self) -> dict[str, int]:
        """Read, and hold the reader to what the server said; return it."""
        self._ledger.look(_by_child(self.observer.read()))
        grown = self.grown()
        assert self.observer.reported() == grown
        return grown

    def grown(self) -> dict[str, int]:
        """Return what was looked at so far."""
        total: Counter[str] = Counter()
        for child, number in self._ledger.grown.items():
            total[child.name] += number
        return dict(total)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running server with two connected users, the second one's outer network is IPv6."""
    with star(2, tmp_path) as net:
        server = Server(net, tmp_path, USERS)
        server.start()
        for user in server.users:
            user.start()
            _connect(server, user)
        yield server


@pytest.fixture
def rig(server: Server) -> Iterator[Rig]:
    settings = {"socket": str(server.vici)}
    with Observer("strongswan", settings, server.children) as observer:
        yield Rig(server, observer)


def _connect(server: Server, user: User) -> None:
    user.connect()
    reach(user.namespace, server.namespace, INSIDE)


def _by_child(children: Children) -> dict[Child, int]:
    return {child._replace(received=0, sent=0): child.received + child.sent for child in children}


def _bytes(count: int) -> int:
    """Return the bytes of `Rig.send`: whole IP packets."""
    return 2 * count * 1028 + count * 528


def test_inner_packets_are_reported_to_the_byte(rig: Rig) -> None:
    """The devices of the server and of both users say the same; the unit is as documented."""
    devices = [rig.server, *rig.server.users]
    before = [charon.device() for charon in devices]
    for user, count in zip(rig.server.users, (500, 300), strict=True):
        rig.send(user, count)
    due = dict(zip(USERS, map(_bytes, (500, 300)), strict=True))
    assert rig.check() == due
    grown = [charon.device() - start for charon, start in zip(devices, before, strict=True)]
    assert grown == [sum(due.values()), *due.values()]


def test_rekeys_and_reconnects_lose_nothing(rig: Rig) -> None:
    """Nobody reads between the traffic and the end of the CHILD SA that carried it."""
    first, second = rig.server.users
    for what in ("child", "ike", "child"):
        rig.send(first, 100)
        rig.look()
        old = rig.server.keys(first.name, what)
        assert old
        first.rekey(what)
        wait_for(partial(_gone, rig.server, first, what, old), f"the end of an old {what} SA")
        rig.send(first, 50)
        rig.check()
    for _ in range(2):
        rig.send(second, 100)
        rig.look()
        second.disconnect()
        wait_for(lambda: not rig.server.keys(second.name, "child"), "the end of a session")
        _connect(rig.server, second)
        rig.send(second, 50)
        rig.check()
    grown = rig.check()
    assert grown[USERS[0]] >= _bytes(450)
    assert grown[USERS[1]] >= _bytes(300)


def test_an_orderly_restart_loses_nothing(rig: Rig) -> None:
    """The server tells the last numbers while it ends; ids begin anew after it."""
    for _ in range(2):
        for user in rig.server.users:
            rig.send(user, 100)
        rig.look()
        rig.server.stop()
        with pytest.raises(BadInputError, match="vici cannot be reached"):
            rig.observer.read_alone()
        rig.server.start()
        for user in rig.server.users:
            user.forget()
            _connect(rig.server, user)
            rig.send(user, 10)
        grown = rig.check()
    assert all(grown[name] >= _bytes(220) for name in USERS)


def test_a_crash_loses_what_was_not_read_and_no_more(rig: Rig) -> None:
    first, second = rig.server.users
    rig.send(first, 100)
    rig.send(second, 100)
    rig.check()
    # Nobody asks for these.
    rig.send(first, 30)
    rig.server.kill()
    rig.server.start()
    for user in rig.server.users:
        user.forget()
        _connect(rig.server, user)
    rig.send(first, 10)
    rig.send(second, 20)
    grown = rig.check()
    assert _bytes(110) <= grown[USERS[0]] < _bytes(130)
    assert _bytes(120) <= grown[USERS[1]] < _bytes(130)


def _gone(server: Server, user: User, what: str, old: set[str]) -> bool:
    return not old & server.keys(user.name, what)
