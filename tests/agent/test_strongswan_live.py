"""strongSwan live: a scripted charon behind a real unix socket that speaks vici."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from captures import text_of
from hypothesis import example, given
from hypothesis import strategies as st
from vici.protocol import Message, Packet, Transport

from aggregator.agent.collectors import Source, strongswan
from aggregator.agent.collectors.strongswan import Settings, StrongSwanReader, connect
from aggregator.agent.collectors.strongswan_text import sa_of
from aggregator.agent.collectors.strongswan_vici import Listener
from aggregator.agent.readings import Capture, Connection, Drop, Origin, nowhere
from aggregator.agent.resets import from_zero
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError, ConfigError

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
PATIENCE_SECONDS = 30.0
SOURCE = Source(
    strongswan.parse,
    from_zero,
    counters_return=False,
    names_accounts=True,
    settings=Settings,
    connect=connect,
)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail if it never does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


class Charon:
    """Answers `list-sas` from a script, and sends events to whoever registered for them."""

    def __init__(self, path: Path) -> None:
        self.sas: list[dict[str, Any]] = []
        self.answers = True
        self.raw_answer: bytes | None = None
        self.known_events = {"list-sa", "child-updown", "child-rekey", "ike-rekey"}
        self._path = path
        self._lock = threading.Lock()
        self._registered: dict[str, list[Transport]] = {}
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        transport = Transport(connection)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            while True:
                packet = transport.receive()
                kind, length = packet[0], packet[1]
                name = packet[2 : 2 + length].decode()
                with self._lock:
                    self._react(transport, kind, name)

    def _react(self, transport: Transport, kind: int, name: str) -> None:
        if not self.answers:
            return
        if kind == Packet.EVENT_REGISTER and name not in self.known_events:
            transport.send(struct.pack("!B", Packet.EVENT_UNKNOWN))
        elif kind == Packet.EVENT_REGISTER:
            self._registered.setdefault(name, []).append(transport)
            transport.send(struct.pack("!B", Packet.EVENT_CONFIRM))
        elif kind == Packet.EVENT_UNREGISTER:
            self._registered[name].remove(transport)
            transport.send(struct.pack("!B", Packet.EVENT_CONFIRM))
        elif kind == Packet.CMD_REQUEST and self.raw_answer is not None:
            transport.send(self.raw_answer)
        elif kind == Packet.CMD_REQUEST:
            assert name == "list-sas"
            for sa in self.sas:
                transport.send(self._event("list-sa", Message.serialize(sa)))
            transport.send(struct.pack("!B", Packet.CMD_RESPONSE))

    @staticmethod
    def _event(name: str, payload: bytes) -> bytes:
        return struct.pack("!BB", Packet.EVENT, len(name)) + name.encode() + payload

    def emit(self, name: str, message: dict[str, Any] | bytes) -> None:
        """Send one event to those who registered for it, as charon does."""
        payload = message if isinstance(message, bytes) else Message.serialize(message)
        with self._lock:
            for transport in self._registered.get(name, []):
                transport.send(self._event(name, payload))

    def listeners(self) -> int:
        with self._lock:
            return len(self._registered.get("ike-rekey", []))

    def stop(self) -> None:
        """Go away as charon does: the socket vanishes, and all connections end."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._path.unlink()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def path() -> Iterator[Path]:
    """A path short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="vici-"))
    yield folder / "charon.vici"
    shutil.rmtree(folder)


@pytest.fixture
def charon(path: Path) -> Iterator[Charon]:
    """One charon that stops at the end, unless it was stopped."""
    running = Charon(path)
    yield running
    if path.exists():
        running.stop()


@pytest.fixture
def reader(path: Path) -> Iterator[StrongSwanReader]:
    found = connect(Settings(str(path), timeout_seconds=30), nowhere)
    yield found
    found.close()


class Agent:
    """Reads again and again, and adds up."""

    def __init__(self, reader: StrongSwanReader) -> None:
        self.reader = reader
        self.state = RunningTotals(SOURCE)
        self.capture: Capture | None = None

    def read(self) -> dict[str, int]:
        """Read once; return bytes by account so far."""
        self.capture = self.reader.read(NOW)
        self.state = self.state.after(self.capture, NOW.date())
        return {r.user: r.bytes for r in self.state.records("us-nyc", "9f3c2b7a11d04e55")}


def child(number: int, count: int, state: str = "INSTALLED") -> dict[str, Any]:
    return {
        "name": "net",
        "uniqueid": str(number),
        "state": state,
        "spi-in": f"{number:08x}",
        "bytes-in": str(count),
        "bytes-out": "0",
        "remote-ts": ["10.96.1.1/32"],
    }


def ike(user: str, number: int = 1, state: str = "ESTABLISHED") -> dict[str, Any]:
    return {
        "uniqueid": str(number),
        "state": state,
        "remote-host": "203.0.113.9",
        "remote-id": "device",
        "remote-eap-id": user,
        "initiator-spi": f"{number:016x}",
        "responder-spi": "55ef624b01cc1187",
    }


def sa(user: str, *children: dict[str, Any], number: int = 1) -> dict[str, Any]:
    named = {f"net-{each['uniqueid']}": each for each in children}
    return {"rw": {**ike(user, number), "child-sas": named}}


def ended(user: str, last: dict[str, Any]) -> dict[str, Any]:
    return {"rw": {**ike(user, state="DELETING"), "child-sas": {f"net-{last['uniqueid']}": last}}}


def replaced(user: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {"rw": {**ike(user), "child-sas": {"net": {"old": old, "new": new}}}}


def heard(reader: StrongSwanReader, number: int) -> None:
    """Wait until the reader has heard of this many ends."""
    eventually(lambda: len(reader._ended._tally.readings) == number)


# -- lists -------------------------------------------------------------------------------------


def test_children_and_connections_are_read(charon: Charon, path: Path) -> None:
    charon.sas = [sa("alice", child(1, 7), child(2, 5, "DELETED")), sa("bob", number=2)]
    with contextlib.closing(connect(Settings(str(path)), lambda _a: Origin("DE", 1))) as reader:
        capture = reader.read(NOW)
    assert sorted((r.name, r.account, r.bytes) for r in capture.readings) == [
        ("alice", "alice", 5),
        ("alice", "alice", 7),
    ]
    assert [(c.account, c.origin, c.established) for c in capture.connections] == [
        ("alice", Origin("DE", 1), True),
        ("bob", Origin("DE", 1), True),
    ]
    assert "alice" not in repr(capture)


def test_no_sas_are_no_readings(charon: Charon, reader: StrongSwanReader) -> None:
    capture = reader.read(NOW)
    assert (capture.readings, capture.dropped, capture.connections) == ((), {}, ())


def test_a_list_has_the_keys_of_a_capture_in_text(charon: Charon, reader: StrongSwanReader) -> None:
    tree = json.loads(text_of("strongswan/12-reconnected.vici"))
    charon.sas = [tree]
    live, captured = reader.read(NOW), strongswan.parse(json.dumps(tree))
    assert set(live.readings) == set(captured.readings)
    assert live.connections == captured.connections
    assert live.keyed_by == captured.keyed_by


def test_a_socket_named_as_swanctl_names_it(charon: Charon, path: Path) -> None:
    with contextlib.closing(connect(Settings(f"unix://{path}"), nowhere)) as reader:
        assert reader.read(NOW).readings == ()


# -- ends between two lists --------------------------------------------------------------------


def test_what_a_child_moved_before_its_end_is_counted_once(
    charon: Charon, reader: StrongSwanReader
) -> None:
    agent = Agent(reader)
    charon.sas = [sa("alice", child(1, 100))]
    agent.read()
    charon.sas = []
    charon.emit("child-updown", ended("alice", child(1, 150)))
    heard(reader, 1)
    assert agent.read() == {"alice": 50}
    assert agent.read() == {"alice": 50}
    assert agent.read() == {"alice": 50}
    assert agent.capture is not None
    assert agent.capture.readings == ()


def test_a_child_that_lived_between_two_lists_is_counted(
    charon: Charon, reader: StrongSwanReader
) -> None:
    agent = Agent(reader)
    agent.read()
    charon.emit("child-updown", {"up": "yes"} | sa("alice", child(1, 0)))
    charon.emit("child-updown", ended("alice", child(1, 150)))
    heard(reader, 1)
    assert agent.read() == {"alice": 150}
    assert agent.read() == {"alice": 150}


def test_a_rekeyed_child_that_is_still_listed_counts_once_with_its_larger_number(
    charon: Charon, reader: StrongSwanReader
) -> None:
    agent = Agent(reader)
    charon.sas = [sa("alice", child(1, 100))]
    agent.read()
    charon.emit("child-rekey", replaced("alice", child(1, 150, "REKEYED"), child(2, 0)))
    heard(reader, 1)
    charon.sas = [sa("alice", child(1, 152, "DELETED"), child(2, 10))]
    assert agent.read() == {"alice": 52 + 10}
    charon.sas = [sa("alice", child(2, 20))]
    assert agent.read() == {"alice": 52 + 20}


def test_a_list_that_is_older_than_the_word_of_the_end(
    charon: Charon, reader: StrongSwanReader
) -> None:
    agent = Agent(reader)
    charon.sas = [sa("alice", child(1, 100))]
    agent.read()
    charon.sas = [sa("alice", child(1, 120))]
    charon.emit("child-updown", ended("alice", child(1, 150)))
    heard(reader, 1)
    assert agent.read() == {"alice": 50}
    charon.sas = []
    assert agent.read() == {"alice": 50}


def test_word_of_an_end_that_comes_after_the_list_without_the_child(
    charon: Charon, reader: StrongSwanReader
) -> None:
    """Forgotten too early, the child would be a new one, and be charged its history."""
    agent = Agent(reader)
    charon.sas = [sa("alice", child(1, 1_000_000))]
    agent.read()
    charon.sas = []
    assert agent.read() == {}
    charon.emit("child-updown", ended("alice", child(1, 1_000_050)))
    heard(reader, 1)
    assert agent.read() == {"alice": 50}
    assert agent.read() == {"alice": 50}


def test_ends_before_the_first_list_belong_to_the_baseline(
    charon: Charon, reader: StrongSwanReader
) -> None:
    agent = Agent(reader)
    charon.raw_answer = b"\x02"
    with pytest.raises(BadInputError):
        agent.read()
    charon.raw_answer = None
    charon.emit("child-updown", ended("alice", child(1, 150)))
    heard(reader, 1)
    assert agent.read() == {}
    assert agent.read() == {}


def test_the_events_of_a_real_daemon_alone_tell_all_that_passed_its_tunnel(
    charon: Charon, reader: StrongSwanReader
) -> None:
    """rekeys, MOBIKE, a reconnect and the stop: no list in between ever showed a child."""
    agent = Agent(reader)
    agent.read()
    for line in text_of("strongswan/vici-events.jsonl").splitlines():
        if line.startswith("["):
            charon.emit(*json.loads(line))
    heard(reader, 5)
    bob = 5_506_012 + 23_121_304 + 1_054_672 + 43_316
    assert agent.read() == {
        "alice": 62_895_036 + 47_658_016 - 304 - bob,
        "bob@example.org": bob,
    }


@example(["begin", "move", "read", "end", "read"])
@example(["begin", "move", "read", "move", "end", "hear", "read", "drop", "read"])
@given(st.lists(st.sampled_from(["begin", "move", "rekey", "end", "drop", "hear", "read"])))
def test_any_order_of_lists_and_words_counts_every_byte_once(steps: list[str]) -> None:
    """The word of an end may come before the list that lacks the child, or after it."""
    with pytest.MonkeyPatch.context() as patch:
        model = Model(patch)
        for step in steps:
            getattr(model, step)()
        model.hear()
        assert model.read() == model.moved


class Model:
    """Children that move, are rekeyed and end, and a reader that lists and hears of it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.alive: dict[int, int] = {}
        self.deleted: dict[int, int] = {}
        self.words: list[tuple[str, dict[str, Any]]] = []
        self.moved = 0
        self.number = 0
        patch.setattr(Listener, "start", lambda _self: None)
        patch.setattr(Listener, "wait", lambda _self: None)
        patch.setattr(strongswan, "opened", lambda *_args: contextlib.nullcontext())
        patch.setattr(strongswan, "listed", lambda _socket: [sa_of(self.listed())])
        self.reader = connect(Settings(), nowhere)
        self.agent = Agent(self.reader)
        self.agent.read()

    def listed(self) -> dict[str, Any]:
        states = (("INSTALLED", self.alive), ("DELETED", self.deleted))
        children = [child(n, count, state) for state, all_ in states for n, count in all_.items()]
        found: dict[str, Any] = sa("alice", *children)["rw"]
        return found

    def begin(self) -> None:
        self.number += 1
        self.alive[self.number] = 0

    def move(self) -> None:
        for number in self.alive:
            self.alive[number] += 1_000
            self.moved += 1_000

    def rekey(self) -> None:
        for number in list(self.alive)[:1]:
            count = self.alive.pop(number)
            self.deleted[number] = count
            self.begin()
            new = child(self.number, 0)
            self.words.append(("child-rekey", replaced("alice", child(number, count), new)))

    def end(self) -> None:
        for number in list(self.alive)[:1]:
            last = child(number, self.alive.pop(number))
            self.words.append(("child-updown", ended("alice", last)))

    def drop(self) -> None:
        self.deleted.clear()

    def hear(self) -> None:
        for event, content in self.words:
            self.reader._ended.hear(event, content)
        self.words.clear()

    def read(self) -> int:
        found = sum(self.agent.read().values())
        # Whatever is under way arrives before the list after the next.
        self.hear()
        return found


# -- restarts ----------------------------------------------------------------------------------


def test_a_restart_loses_no_end_and_events_go_on(path: Path, reader: StrongSwanReader) -> None:
    agent = Agent(reader)
    first = Charon(path)
    first.sas = [sa("alice", child(1, 100))]
    agent.read()
    first.emit("child-updown", ended("alice", child(1, 150)))
    first.stop()
    for _ in range(2):
        with pytest.raises(BadInputError, match="vici cannot be reached: No such file"):
            agent.read()
    second = Charon(path)
    try:
        other = child(1, 30) | {"spi-in": "deadbeef"}
        second.sas = [sa("bob", other)]
        assert agent.read() == {"alice": 50, "bob": 30}
        second.sas = []
        second.emit("child-updown", ended("bob", other | {"bytes-in": "35"}))
        heard(reader, 1)
        assert agent.read() == {"alice": 50, "bob": 35}
    finally:
        reader.close()
        second.stop()


def test_the_agent_may_start_before_charon(path: Path, reader: StrongSwanReader) -> None:
    with pytest.raises(BadInputError):
        reader.read(NOW)
    late = Charon(path)
    try:
        assert reader.read(NOW).readings == ()
        eventually(lambda: late.listeners() == 1)
    finally:
        reader.close()
        late.stop()


def test_closing_ends_the_thread_and_may_be_done_twice(
    charon: Charon, reader: StrongSwanReader
) -> None:
    reader.read(NOW)
    assert "vici-events" in {thread.name for thread in threading.enumerate()}
    reader.close()
    reader.close()
    assert "vici-events" not in {thread.name for thread in threading.enumerate()}


# -- connections -------------------------------------------------------------------------------


def keys(reader: StrongSwanReader) -> dict[object, Connection]:
    return {connection.key: connection for connection in reader.read(NOW).connections}


def test_cs_1_an_ike_rekey_is_no_new_attempt(charon: Charon, reader: StrongSwanReader) -> None:
    charon.sas = [sa("alice", child(1, 100), number=1)]
    before = keys(reader)
    for old, new in ((1, 5), (5, 6)):
        event = {"rw": {"old": ike("alice", old), "new": ike("alice", new)}}
        charon.emit("ike-rekey", event)
    eventually(lambda: len(reader._ended._fresh) == 2)
    # For a moment the old one is listed beside the new one.
    old_one = sa("alice", number=5)
    old_one["rw"]["state"] = "REKEYED"
    charon.sas = [old_one, sa("alice", child(1, 100), number=6)]
    assert keys(reader).keys() == before.keys()
    charon.sas = [sa("alice", child(1, 100), number=6)]
    assert keys(reader).keys() == before.keys()
    charon.emit("ike-rekey", {"rw": {"old": ike("alice", 6), "new": ike("alice", 7)}})
    eventually(lambda: len(reader._ended._fresh) == 1)
    charon.sas = [sa("alice", child(1, 100), number=7)]
    assert keys(reader).keys() == before.keys()
    charon.sas = [sa("alice", number=8)]
    assert not keys(reader).keys() & before.keys()
    assert reader._ended._first == {}


# -- could not read ----------------------------------------------------------------------------


def test_events_that_cannot_be_read_are_counted(charon: Charon, reader: StrongSwanReader) -> None:
    agent = Agent(reader)
    agent.read()
    charon.emit("child-updown", b"\x09secret")
    charon.emit("child-updown", b"\x01\x09secret")
    charon.emit("child-updown", ended("alice", child(1, 0) | {"bytes-in": "many"}))
    charon.emit("child-rekey", {"rw": {**ike("alice"), "child-sas": {"net": {"old": {}}}}})
    charon.emit("child-updown", ended("alice", child(2, 5)))
    heard(reader, 1)
    assert agent.read() == {"alice": 5}
    assert agent.capture is not None
    assert agent.capture.dropped[Drop.UNREADABLE] >= 3
    assert agent.read() == {"alice": 5}
    assert agent.capture.dropped == {}


def test_more_ends_than_are_kept_are_counted(
    charon: Charon, reader: StrongSwanReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strongswan, "_MAX_ENDED", 2)
    agent = Agent(reader)
    agent.read()
    for number in range(5):
        charon.emit("child-updown", ended("alice", child(number, 10)))
    eventually(lambda: reader._ended._tally.dropped[Drop.UNREADABLE] == 3)
    assert agent.read() == {"alice": 20}
    assert agent.capture is not None
    assert agent.capture.dropped == {Drop.UNREADABLE: 3}


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack("!B", Packet.CMD_UNKNOWN),
        struct.pack("!B", Packet.EVENT_CONFIRM),
        struct.pack("!B", Packet.CMD_RESPONSE) + b"\x02",
        struct.pack("!B", Packet.CMD_RESPONSE) + b"\x03\xff",
        struct.pack("!B", Packet.CMD_RESPONSE)
        + Message.serialize({"success": "no", "errmsg": "secret"}),
        struct.pack("!BB", Packet.EVENT, 7) + b"list-sa\x01\x06secret",
        b"",
    ],
    ids=["unknown", "confirm", "section-end", "cut", "refused", "event-cut", "nothing"],
)
def test_a_bad_answer_is_an_error_without_any_of_it(
    charon: Charon, reader: StrongSwanReader, answer: bytes
) -> None:
    charon.raw_answer = answer
    with pytest.raises(BadInputError) as caught:
        reader.read(NOW)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    charon.raw_answer = None
    assert reader.read(NOW).readings == ()


def test_a_charon_that_hangs_is_an_error(charon: Charon, path: Path) -> None:
    with contextlib.closing(connect(Settings(str(path), timeout_seconds=1), nowhere)) as reader:
        reader.read(NOW)
        charon.answers = False
        with pytest.raises(BadInputError, match="did not answer within 1 seconds"):
            reader.read(NOW)
        charon.answers = True
        assert reader.read(NOW).readings == ()


def test_a_charon_that_hangs_within_a_message_is_an_error(path: Path) -> None:
    """The package lifts the time limit once a message has begun."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with contextlib.closing(connect(Settings(str(path), timeout_seconds=1), nowhere)) as reader:
            held = []

            def begin() -> None:
                while True:
                    try:
                        connection, _address = listening.accept()
                    except OSError:
                        return
                    transport = Transport(connection)
                    held.append(connection)
                    with contextlib.suppress(OSError):
                        if b"list-sa" in transport.receive():
                            connection.sendall(b"\x00\x00")
                            continue
                        for _ in range(3):
                            transport.send(struct.pack("!B", Packet.EVENT_CONFIRM))

            thread = threading.Thread(target=begin, daemon=True)
            thread.start()
            with pytest.raises(BadInputError, match=r"within 1 seconds|confirmed no events"):
                reader.read(NOW)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_SECONDS)
        for connection in held:
            connection.close()


def test_a_charon_without_these_events_is_an_error(charon: Charon, path: Path) -> None:
    charon.known_events.discard("child-rekey")
    with (
        contextlib.closing(connect(Settings(str(path), timeout_seconds=1), nowhere)) as reader,
        pytest.raises(BadInputError, match="confirmed no events"),
    ):
        reader.read(NOW)


def test_without_the_package_the_configuration_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="vici"):
        connect(Settings(), nowhere)
