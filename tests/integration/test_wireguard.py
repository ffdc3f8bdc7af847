"""WireGuard (wireguard-go): what is reported is what the interface counted, to the byte."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from aggregator.errors import BadInputError

from .net import Star, reach, star, udp, wait_for
from .observer import Ledger, Observer
from .wireguard import INSIDE, Peer, Server, wireguard

pytestmark = pytest.mark.integration
NEEDS = ("wireguard-go", "wg")

USERS = ("acct-1", "acct-2")
Peers = dict[str, Peer]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Star]:
    with star(2, tmp_path) as net:
        yield net


@pytest.fixture
def server(net: Star) -> Iterator[Server]:
    """Return a running server with two connected users; the second one's outer network is IPv6."""
    with wireguard(net, *USERS) as server:
        server.connect("acct-1")
        server.connect("acct-2", v6=True)
        for user in server.users.values():
            reach(user.client, net.server, INSIDE)
        yield server


@pytest.fixture
def observer(server: Server) -> Iterator[Observer[Peers]]:
    """Return what reads the server through a wrapper, as `wg` in its namespace."""
    command = str(server.namespace.wrapper("wg"))
    settings = {"interface": server.device, "command": command}
    with Observer("wireguard", settings, server.peers, server.accounts) as observer:
        yield observer


def _bytes(peers: Peers) -> dict[str, int]:
    return {name: peer.bytes for name, peer in peers.items()}


def _send(server: Server, name: str, count: int, size: int) -> None:
    udp(server.users[name].client, server.namespace, INSIDE, count=count, size=size)


def _counted(server: Server, name: str, send: Callable[[], None], due: int) -> Peer:
    """Return what the counters of a user grew by while `send` ran: `due` bytes, in one direction.

    A handshake would count as well. Then it is done anew, which can hardly happen twice: one
    holds for two minutes.
    """
    while True:
        before = server.peers()[name]
        send()
        # The number of a packet may be added a moment after the packet arrived.
        grown = wait_for(partial(_grown, server, name, before, due), f"{due} bytes of growth")
        if grown.handshake == before.handshake:
            return grown


def _grown(server: Server, name: str, before: Peer, due: int) -> Peer | None:
    """Return the growth since `before`, once it is `due` bytes in one direction."""
    now = server.peers()[name]
    received, sent = now.received - before.received, now.sent - before.sent
    return Peer(received, sent, now.handshake) if max(received, sent) >= due else None


def _wire_bytes(count: int, size: int) -> int:
    """Return the bytes that so many datagrams are: an IP packet, padded to 16, and 32 around it."""
    padded = (size + 28 + 15) // 16 * 16
    return count * (padded + 32)


def test_datagrams_are_reported_to_the_byte(server: Server, observer: Observer[Peers]) -> None:
    """Both users, both outer networks, both directions; the daemon's unit is as documented."""
    ledger = Ledger(_bytes(observer.read()))
    assert observer.reported() == {}
    for name, count, size in (("acct-1", 1000, 1000), ("acct-2", 700, 900)):
        due = _wire_bytes(count, size)
        grown = _counted(server, name, partial(_send, server, name, count, size), due)
        assert grown.received == due
    due = _wire_bytes(300, 500)
    user = server.users["acct-1"]
    address = user.allowed.removesuffix("/32")
    back = partial(udp, server.namespace, user.client, address, count=300, size=500)
    assert _counted(server, "acct-1", back, due).sent == due
    ledger.look(_bytes(observer.read()))
    assert observer.reported() == ledger.grown
    assert ledger.grown["acct-1"] >= _wire_bytes(1000, 1000) + due
    assert ledger.grown["acct-2"] >= _wire_bytes(700, 900)


def test_reconnects_and_roaming_reset_nothing(server: Server, observer: Observer[Peers]) -> None:
    ledger = Ledger(_bytes(observer.read()))
    _send(server, "acct-1", 100, 1000)
    user = server.users["acct-1"]
    user.stop()
    server.connect("acct-1")
    reach(user.client, server.namespace, INSIDE)
    _send(server, "acct-1", 100, 1000)
    ledger.look(_bytes(observer.read()))
    assert observer.reported() == ledger.grown

    user.client.ip(f"addr del {user.client.address4}/24 dev {user.client.device}")
    user.client.ip(f"addr add 10.77.1.3/24 dev {user.client.device}")
    # Else it goes on from its old address for 15 s.
    user.client.run(["wg", "set", user.device, "listen-port", 51999])
    reach(user.client, server.namespace, INSIDE)
    _send(server, "acct-1", 100, 1000)
    assert "10.77.1.3:" in server.namespace.run(["wg", "show", server.device, "endpoints"])
    ledger.look(_bytes(observer.read()))
    assert observer.reported() == ledger.grown
    assert ledger.grown["acct-1"] >= _wire_bytes(300, 1000)


def test_a_restart_of_the_interface_is_a_reset(server: Server, observer: Observer[Peers]) -> None:
    """What was read before it stays, what follows is added; the gap is an error, never a zero."""
    ledger = Ledger(_bytes(observer.read()))
    _send(server, "acct-1", 1000, 1000)
    _send(server, "acct-2", 700, 900)
    ledger.look(_bytes(observer.read()))
    for _ in range(2):
        server.stop()
        with pytest.raises(BadInputError, match="`wg` failed") as caught:
            observer.reader.read(dt.datetime.now(dt.UTC))
        assert not any(user.public in str(caught.value) for user in server.users.values())
        server.run()
        ledger.reset()
        for name in USERS:
            _reconnect(server, name)
        # Before they pass their old values: a reset that is hidden is another test.
        ledger.look(_bytes(observer.read()))
        _send(server, "acct-1", 50, 1000)
        _send(server, "acct-2", 70, 900)
        ledger.look(_bytes(observer.read()))
        assert observer.reported() == ledger.grown
    assert ledger.grown["acct-1"] >= _wire_bytes(1100, 1000)
    assert ledger.grown["acct-2"] >= _wire_bytes(840, 900)


def test_a_reset_that_is_hidden_never_counts_too_much(
    server: Server, observer: Observer[Peers]
) -> None:
    """The counter passed its old value before it was read again: less is reported, never more."""
    ledger = Ledger(_bytes(observer.read()))
    _send(server, "acct-1", 100, 1000)
    ledger.look(_bytes(observer.read()))
    before = observer.reported()["acct-1"]
    server.stop()
    server.run()
    ledger.reset()
    _reconnect(server, "acct-1")
    _send(server, "acct-1", 400, 1000)
    ledger.look(_bytes(observer.read()))
    assert before < observer.reported()["acct-1"] < ledger.grown["acct-1"]


def test_a_user_added_anew_is_not_charged_history(
    server: Server, observer: Observer[Peers]
) -> None:
    """A panel removes a user and adds the same key again; the counter begins at 0."""
    _send(server, "acct-2", 500, 1000)
    ledger = Ledger(_bytes(observer.read()))
    server.remove("acct-2")
    ledger.look(_bytes(observer.read()))
    assert observer.reported() == ledger.grown
    server.add("acct-2")
    ledger.reset("acct-2")
    _reconnect(server, "acct-2", v6=True)
    _send(server, "acct-2", 20, 1000)
    ledger.look(_bytes(observer.read()))
    assert observer.reported() == ledger.grown
    assert _wire_bytes(20, 1000) <= ledger.grown["acct-2"] < _wire_bytes(100, 1000)


def test_keys_that_nobody_mapped_are_charged_to_nobody(server: Server) -> None:
    """Once the operator maps the key, only what follows is charged."""
    settings = {"interface": server.device, "command": str(server.namespace.wrapper("wg"))}
    known = server.accounts.splitlines(keepends=True)[1]
    with Observer("wireguard", settings, server.peers, known) as observer:
        ledger = Ledger(_bytes(observer.read()))
        _send(server, "acct-1", 500, 1000)
        _send(server, "acct-2", 10, 1000)
        ledger.look(_bytes(observer.read()))
        assert observer.reported() == {"acct-2": ledger.grown["acct-2"]}


def _reconnect(server: Server, name: str, *, v6: bool = False) -> None:
    """Let a user begin anew: by itself a client needs 15 s to notice that its server has gone."""
    user = server.users[name]
    user.stop()
    server.connect(name, v6=v6)
    reach(user.client, server.namespace, INSIDE)
