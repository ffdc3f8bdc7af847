"""FreeRADIUS: what its `detail` files and what it forwards say is reported, to the byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from aggregator.agent.collectors.radius_packet import Refusal
from aggregator.agent.collectors.radius_receiver import RadiusReader

from .net import Namespace, star
from .observer import Observer
from .radius import RECEIVER_PORT, FreeRadius, Nas

pytestmark = pytest.mark.integration
NEEDS = ("freeradius", "radclient")

GIB = 1 << 30
Totals = dict[str, int]


class Rig:
    """FreeRADIUS, two NASes, and both readers; what was told before the first reading is known."""

    def __init__(self, server: FreeRadius, observers: list[Observer[Totals]]) -> None:
        """Tell of one session, which is open when the readers begin."""
        self.server = server
        self.first, self.second = Nas(server, "nas-1"), Nas(server, "nas-2")
        self.observers = observers
        self.old = self.first.start("acct-1", "0001")
        self.first.update(self.old, 3 * GIB, 2 * GIB)
        self.read()
        self._before = Counter(self.told())

    def told(self) -> Totals:
        """Return what the NASes told of all sessions, by user."""
        return dict(self.first.totals() + self.second.totals())

    def read(self) -> None:
        """Let both readers read."""
        for observer in self.observers:
            observer.read_alone()

    def check(self) -> Totals:
        """Read, and hold both readers to what was told since the first reading; return it."""
        self.read()
        due = dict(Counter(self.told()) - self._before)
        for observer in self.observers:
            assert observer.reported() == due
        return due


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    with star(0, tmp_path) as net:
        yield net.server


@pytest.fixture
def server(namespace: Namespace, tmp_path: Path) -> FreeRadius:
    return FreeRadius(namespace, tmp_path)


@pytest.fixture
def receiver(server: FreeRadius) -> Iterator[Observer[Totals]]:
    """Return what listens in the namespace of the server."""
    settings = {
        "clients": (f"127.0.0.1={server.secret_file}",),
        "listen": f"127.0.0.1:{RECEIVER_PORT}",
    }
    with server.namespace.call(Observer[Totals], "radius", settings, dict) as observer:
        yield observer


@pytest.fixture
def rig(server: FreeRadius, receiver: Observer[Totals]) -> Iterator[Rig]:
    server.start()
    with Observer[Totals]("radius-detail", {"path": str(server.detail)}, dict) as detail:
        yield Rig(server, [detail, receiver])


def test_the_last_numbers_of_all_sessions_are_reported(rig: Rig) -> None:
    """Gigawords, the same session id at two NASes, and a session older than the agent."""
    assert rig.check() == {}
    other = rig.second.start("acct-2", "0001")
    rig.second.update(other, 1_000, 5 * GIB)
    rig.first.update(rig.old, 2 * GIB, 7)
    assert rig.check() == {"acct-1": 2 * GIB + 7, "acct-2": 5 * GIB + 1_000}
    rig.first.stop(rig.old, 10 * GIB, 100)
    rig.second.stop(other)
    new = rig.first.start("acct-1", "0002")
    rig.first.stop(new, 11, 22)
    assert rig.check()["acct-1"] == 12 * GIB + 140


def test_a_packet_that_comes_twice_counts_once(rig: Rig) -> None:
    session = rig.second.start("acct-2", "0002")
    rig.second.update(session, 4_000, 6_000)
    rig.second.tell("Interim-Update", session)
    # So that a delay of a second is true.
    session.wait(1)
    rig.second.tell("Interim-Update", session, delay=1)
    assert rig.check() == {"acct-2": 10_000}
    rig.second.stop(session, 500, 500)
    rig.second.tell("Stop", session)
    session.wait(3)
    rig.second.tell("Stop", session, delay=1)
    assert rig.check() == {"acct-2": 11_000}


def test_a_restarted_nas_uses_its_session_ids_again(rig: Rig) -> None:
    """Also when the new session passes the old one's number before anybody reads."""
    for more in (1_000, 70_000):
        session = rig.second.start("acct-2", "0002")
        rig.second.update(session, more, 2 * more)
        rig.check()
        rig.second.restart()
    rig.second.stop(rig.second.start("acct-2", "0002"), 5, 5)
    # Of the NAS that was not restarted.
    rig.first.update(rig.old, 300, 0)
    assert rig.check() == {"acct-1": 300, "acct-2": 213_010}


def test_rotation_and_a_restart_lose_nothing(rig: Rig) -> None:
    """What was written before each is read after it; a NAS asks again until there is an answer."""
    session = rig.second.start("acct-2", "0002")
    for number in range(3):
        rig.first.update(rig.old, 1_000, 2_000)
        rig.second.update(session, 100, 200)
        rig.server.rotate("nas-1", f"detail.{number}")
        rig.first.update(rig.old, 10, 20)
        rig.check()
    rig.first.update(rig.old, 0, 5)
    rig.server.stop()
    session.received += 7 * GIB
    asking = rig.second.ask("Stop", session, seconds=60)
    rig.server.start()
    assert asking.wait() == 0, asking.text()
    assert rig.check() == {"acct-1": 9_095, "acct-2": 900 + 7 * GIB}
    rig.first.stop(rig.old, 1, 1)
    assert rig.check()["acct-1"] == 9_097


def test_what_the_configuration_suppresses_never_reaches_the_disk(rig: Rig) -> None:
    """The documented configuration: without addresses, the reader needs none (CS-1)."""
    written = rig.server.written("nas-1")
    assert "Acct-Input-Gigawords" not in written
    assert "Acct-Output-Octets" in written
    assert "198.51.100.7" not in written
    assert "10.66.0.11" not in written


def test_a_nas_may_send_to_the_agent_itself(server: FreeRadius, receiver: Observer[Totals]) -> None:
    """It is answered as RFC 2866 says; with another secret it is not answered, and not counted."""
    nas = Nas(server, "nas-1", RECEIVER_PORT)
    receiver.read_alone()
    session = nas.start("acct-1", "0001")
    nas.update(session, 6 * GIB, 1)
    right = server.secret_file.read_text()
    server.secret_file.write_text("another secret\n")
    forged = nas.ask("Interim-Update", session, seconds=1)
    assert forged.wait() != 0
    assert "Received" not in forged.text()
    server.secret_file.write_text(right)
    receiver.read_alone()
    assert receiver.reported() == {"acct-1": 6 * GIB + 1}
    assert cast(RadiusReader, receiver.reader).refused == {Refusal.BAD_AUTHENTICATOR: 1}
