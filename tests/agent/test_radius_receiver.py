"""The receiver on a real socket: the captures of real daemons, sent again, are the truth (CS-2)."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from captures import golden, goldens, said, text_of
from test_radius_detail import PRIVATE, truth
from test_radius_packets import NUMBERS, SECRET, interim, is_response, packet

from aggregator.agent.collectors.radius_receiver import (
    Client,
    RadiusReader,
    Refusal,
    Settings,
    connect,
    parse,
)
from aggregator.agent.readings import SilentSourceError, nowhere
from aggregator.errors import BadInputError, ConfigError

NOW = dt.datetime(2026, 11, 22, 7, 0, tzinfo=dt.UTC)
PATIENCE_SECONDS = 30


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


class Nas:
    """Sends packets from loopback, and waits for the answers."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.connect((host, port))

    def ask(self, content: bytes) -> bytes:
        """Return the answer to a packet that must have one."""
        self._socket.send(content)
        answer = self._socket.recv(4096)
        assert is_response(answer, content)
        return answer

    def tell(self, content: bytes) -> None:
        """Send a packet."""
        self._socket.send(content)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return the file with the secret."""
    path = tmp_path / "nas.secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def listen(secret: Path) -> Iterator[Callable[..., tuple[RadiusReader, Nas, Clock]]]:
    """Return a function that starts a receiver an hour ago, and a NAS that may send to it."""
    opened: list[RadiusReader | Nas] = []

    def make(
        host: str = "127.0.0.1", client: str = "127.0.0.0/8", **settings: Any
    ) -> tuple[RadiusReader, Nas, Clock]:
        clock = Clock()
        shown = f"[{host}]" if ":" in host else host
        reader = RadiusReader(
            Settings((f"{client}={secret}",), f"{shown}:0", **settings), nowhere, clock
        )
        nas = Nas(reader.port, host)
        opened.extend([reader, nas])
        clock.seconds += 3600
        return reader, nas, clock

    yield make
    for thing in opened:
        thing.close()


def requests_of_the_captures() -> list[bytes]:
    """Return the packets that radclient sent, made again from what FreeRADIUS wrote of them."""
    requests = []
    for block in text_of("radius/detail-nas4.txt").split("\n\n")[:16]:
        words: list[tuple[str, str | int]] = []
        for name, value in re.findall(r'\t(\S+) = "?(.*?)"?$', block, flags=re.M):
            if name in NUMBERS:
                is_number = name not in {"Acct-Session-Id"} and value.isdecimal()
                words.append((name, int(value) if is_number else value))
        requests.append(packet(words, len(requests)))
    return requests


@pytest.mark.parametrize("name", goldens("radius"))
def test_captures_of_a_real_daemon(name: str) -> None:
    if name.endswith(".hex"):
        assert said(parse(text_of(name))) == golden(name)


def test_the_captured_requests_are_the_truth_to_the_byte_over_udp(listen: Any) -> None:
    reader, nas, _clock = listen()
    assert not reader.read(NOW).readings
    requests = requests_of_the_captures()
    assert len(requests) == 16
    for content in requests:
        nas.ask(content)
        nas.ask(content)
    capture = reader.read(NOW)
    found = sorted((reading.name, reading.bytes) for reading in capture.readings)
    assert found == sorted((user, count) for (user, _session), count in truth().items())
    assert not capture.dropped
    assert not reader.refused
    assert not PRIVATE.search(repr(capture) + repr([r.counter for r in capture.readings]))


def test_strongswan_over_udp_is_what_it_said_last_of_every_session(listen: Any) -> None:
    reader, nas, _clock = listen()
    for line in text_of("radius/strongswan-accounting.hex").split()[1:]:
        nas.ask(bytes.fromhex(line))
    last: dict[tuple[str, str], int] = {}
    for line in text_of("radius/strongswan-accounting.jsonl").splitlines()[1:]:
        told = dict(json.loads(line)["attrs"])
        octets = told.get("Acct-Input-Octets", 0) + told.get("Acct-Output-Octets", 0)
        last[told["User-Name"], told["Acct-Session-Id"]] = octets
    found = sorted((r.name, r.bytes) for r in reader.read(NOW).readings)
    assert found == sorted((user, octets) for (user, _session), octets in last.items())
    assert len(found) == 4


def test_a_session_from_before_the_agent_counts_from_then_on(listen: Any) -> None:
    reader, nas, clock = listen()
    nas.ask(interim(5000, session="young"))
    clock.seconds = 1059.0
    nas.ask(interim(5000, session="old"))
    clock.seconds = 1119.0
    nas.ask(interim(5100, session="old"))
    assert sorted(reading.bytes for reading in reader.read(NOW).readings) == [100, 5001]


def test_ipv6_is_listened_on(listen: Any) -> None:
    reader, nas, _clock = listen("::1", "::1/128")
    nas.ask(interim())
    assert [reading.bytes for reading in reader.read(NOW).readings] == [1001]


def test_one_socket_serves_both_families(listen: Any) -> None:
    reader, nas6, _clock = listen("::", "127.0.0.1/32")
    nas = Nas(reader.port)
    nas.ask(interim())
    nas6.tell(interim(session="0002"))
    nas.ask(interim(session="0003"))
    assert len(reader.read(NOW).readings) == 2
    nas.close()


def test_what_is_refused_is_counted_and_not_answered(listen: Any) -> None:
    reader, nas, _clock = listen()
    for content in (b"", b"x", packet([], secret=b"other"), b"\x0c" + interim()[1:], b"z" * 5000):
        nas.tell(content)
    # The next answer is that to the next question.
    nas.ask(interim())
    assert reader.refused == {
        Refusal.MALFORMED: 3,
        Refusal.BAD_AUTHENTICATOR: 1,
        Refusal.NOT_ACCOUNTING: 1,
    }
    assert [reading.bytes for reading in reader.read(NOW).readings] == [1001]


def test_several_nases_at_once(listen: Any) -> None:
    reader, nas, _clock = listen()
    others = [Nas(reader.port) for _number in range(4)]

    def send(number: int) -> None:
        for count in range(50):
            others[number].ask(interim(1 + count, session=str(number)))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _time in range(20):
        assert all(reading.bytes <= 51 for reading in reader.read(NOW).readings)
    for thread in threads:
        thread.join()
    assert [reading.bytes for reading in reader.read(NOW).readings] == [51] * 4
    for other in [*others, nas]:
        other.close()


def test_marzban_1199_silence_is_not_zero(listen: Any) -> None:
    reader, nas, clock = listen()
    assert not reader.read(NOW).readings
    nas.ask(interim())
    clock.seconds += 3600
    assert len(reader.read(NOW).readings) == 1
    clock.seconds += 1
    with pytest.raises(SilentSourceError):
        reader.read(NOW)
    nas.ask(
        packet(
            [
                ("NAS-Identifier", "nas-a"),
                ("Acct-Status-Type", "Stop"),
                ("User-Name", "alice"),
                ("Acct-Session-Id", "0001"),
                ("Acct-Input-Octets", 2000),
                ("Acct-Session-Time", 4000),
            ]
        )
    )
    clock.seconds += 9999
    assert [reading.bytes for reading in reader.read(NOW).readings] == [2001]


def test_a_wrong_secret_is_told_even_if_no_session_is_known(listen: Any) -> None:
    reader, nas, clock = listen()
    tunnel = packet([("Acct-Status-Type", 9)])
    nas.ask(tunnel)
    nas.tell(packet([], secret=b"other"))
    # The answer says that the one before was taken, too, and that the secret is right after all.
    nas.ask(tunnel)
    clock.seconds += 3601
    assert not reader.read(NOW).readings
    nas.tell(packet([], secret=b"other"))
    nas.tell(b"x")
    # Not answered; it is taken when the counts have changed.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while reader.refused.get(Refusal.MALFORMED) != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(SilentSourceError, match="1 with a wrong authenticator"):
        reader.read(NOW)


def test_silence_may_be_allowed(listen: Any) -> None:
    reader, nas, clock = listen(silent_after_seconds=0)
    nas.ask(interim())
    clock.seconds += 10_000_000
    reader.read(NOW)


def test_a_receiver_that_broke_says_so_without_what_broke_it(listen: Any, secret: Path) -> None:
    def locate(_address: str) -> Any:
        raise RuntimeError("198.51.100.7 of alice")

    reader = RadiusReader(Settings((f"127.0.0.1={secret}",), "127.0.0.1:0"), locate)
    nas = Nas(reader.port)
    nas.tell(
        packet(
            [
                ("Acct-Status-Type", "Start"),
                ("User-Name", "alice"),
                ("Acct-Session-Id", "0001"),
                ("Calling-Station-Id", "198.51.100.7"),
            ]
        )
    )
    reader._thread.join(PATIENCE_SECONDS)
    with pytest.raises(BadInputError) as caught:
        reader.read(NOW)
    assert str(caught.value) == "the receiver has stopped: RuntimeError; restart the agent"
    assert caught.value.__context__ is None
    nas.close()
    reader.close()


def test_close_may_be_called_twice_and_frees_the_port(listen: Any, secret: Path) -> None:
    reader, _nas, _clock = listen()
    port = reader.port
    reader.close()
    reader.close()
    with pytest.raises(BadInputError, match="closed"):
        reader.read(NOW)
    again = connect(Settings((f"127.0.0.1={secret}",), f"127.0.0.1:{port}"), nowhere)
    with pytest.raises(BadInputError, match="cannot listen"):
        connect(Settings((f"127.0.0.1={secret}",), f"127.0.0.1:{port}"), nowhere)
    again.close()


@pytest.mark.parametrize(
    "clients",
    [
        (),
        ("10.77.0.1",),
        ("10.77.0.1/99=FILE",),
        ("10.77.0.1/8=FILE",),
        ("nas.example.net=FILE",),
        ("10.77.0.1=/nowhere/nas.secret",),
        ("10.77.0.1=EMPTY",),
        ("10.77.0.1=OPEN",),
    ],
)
def test_wrong_clients_are_told_without_an_address_or_a_secret(
    clients: tuple[str, ...], secret: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "empty").chmod(0o600)
    (tmp_path / "open").write_bytes(SECRET)
    (tmp_path / "open").chmod(0o644)
    files = {"FILE": secret, "EMPTY": tmp_path / "empty", "OPEN": tmp_path / "open"}
    for word, path in files.items():
        clients = tuple(client.replace(word, str(path)) for client in clients)
    with pytest.raises(ConfigError) as caught:
        connect(Settings(clients, "127.0.0.1:0"), nowhere)
    assert "10.77" not in str(caught.value)
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "listen_on", ["", "1813", "127.0.0.1", "host:1813", "::1:x", "[::1]:70000"]
)
def test_a_wrong_place_to_listen_is_told(listen_on: str, secret: Path) -> None:
    with pytest.raises(ConfigError, match="such as"):
        connect(Settings((f"127.0.0.1={secret}",), listen_on), nowhere)


def test_a_client_and_its_settings_show_no_secret() -> None:
    import ipaddress

    assert repr(Client(ipaddress.ip_network("10.77.0.0/16"), SECRET)) == "Client()"
