"""SoftEther: what is reported is what the server counted; a crash makes it count nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from aggregator.errors import BadInputError

from .net import reach, star, udp, wait_for
from .observer import Ledger, Observer
from .softether import INSIDE, Server, User

pytestmark = pytest.mark.integration
NEEDS = ("vpnserver", "vpnclient", "vpncmd", "unshare")

USERS = ("acct-1", "acct-2")
HEADERS = 14 + 28
"""What a datagram is more on the virtual wire: Ethernet, IP and UDP headers."""
SLIPS_IN = 5_000
"""More than what ARP is, in bytes."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running server with two connected users."""
    with star(2, tmp_path) as net:
        server = Server(net, tmp_path, USERS)
        server.set_up()
        for user in server.users:
            reach(user.namespace, server.namespace, INSIDE)
        yield server


@pytest.fixture
def observer(server: Server) -> Iterator[Observer[dict[str, int]]]:
    with Observer("softether", server.settings, server.told) as observer:
        yield observer


def _read(server: Server, observer: Observer[dict[str, int]]) -> dict[str, int]:
    """Return the server's own numbers, after a reading at the same instant, on its own host."""
    return server.namespace.call(observer.read)


def _send(server: Server, user: User, count: int) -> None:
    """Send datagrams in both directions, twice as many upwards."""
    udp(user.namespace, server.namespace, INSIDE, count=2 * count, size=1000)
    udp(server.namespace, user.namespace, user.address, count=count, size=500)


def _bytes(count: int) -> int:
    return 2 * count * (1000 + HEADERS) + count * (500 + HEADERS)


def test_what_the_server_counted_is_reported(
    server: Server, observer: Observer[dict[str, int]]
) -> None:
    """Traffic, a reconnect, an orderly restart with bytes that nobody read, and a crash."""
    first, second = server.users
    start = _read(server, observer)
    ledger = Ledger(start)

    def check(*due: int) -> dict[str, int]:
        """Wait for so many bytes of each user, which the server shows some seconds later."""
        wait_for(partial(_shows, server, start, due), f"{due} bytes at the server")
        numbers = _read(server, observer)
        ledger.look(numbers)
        assert observer.reported() == ledger.grown
        return numbers

    _send(server, first, 500)
    _send(server, second, 300)
    check(_bytes(500), _bytes(300))
    # Some ARP slips in.
    assert 0 <= ledger.grown["acct-1"] - _bytes(500) < SLIPS_IN
    assert 0 <= ledger.grown["acct-2"] - _bytes(300) < SLIPS_IN

    _send(server, first, 100)
    first.disconnect()
    first.connect()
    reach(first.namespace, server.namespace, INSIDE)

    # One session has ended before the server does, the other ends with it.
    _send(server, first, 100)
    first.disconnect()
    _send(server, second, 100)
    server.stop()
    with pytest.raises(BadInputError, match="cannot be reached"):
        server.namespace.call(observer.read_alone)
    server.start()
    first.connect()
    saved = check(_bytes(700), _bytes(400))

    for user in server.users:
        reach(user.namespace, server.namespace, INSIDE)
        _send(server, user, 200)
        user.disconnect()
    check(_bytes(900), _bytes(600))
    before = observer.reported()
    server.kill()
    server.start()
    fallen = _read(server, observer)
    assert all(saved[name] <= fallen[name] < saved[name] + _bytes(200) for name in USERS)
    assert observer.reported() == before

    after = Ledger(fallen)
    for user in server.users:
        user.connect()
        reach(user.namespace, server.namespace, INSIDE)
    _send(server, second, 50)
    # So that it shows at once what it counted.
    server.stop()
    server.start()
    after.look(_read(server, observer))
    assert observer.reported() == {name: before[name] + after.grown.get(name, 0) for name in USERS}
    assert 0 <= after.grown["acct-2"] - _bytes(50) < SLIPS_IN


def _shows(server: Server, start: dict[str, int], due: tuple[int, ...]) -> bool:
    told = server.told()
    return all(told[name] - start[name] >= each for name, each in zip(USERS, due, strict=True))
