"""Who does not mean it well: floods, slow senders, nonsense. The door stays small and answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import select
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import usage

from aggregator.door.limits import Limits
from aggregator.wire.batch import MAX_BATCH_BYTES

from .running import OCTETS, PATIENCE, Certificates, Running, opened, wait_until

QUICK = Limits(
    handshake_seconds=0.3,
    head_seconds=0.3,
    body_seconds=0.3,
    request_seconds=0.9,
    idle_seconds=0.3,
    linger_seconds=0.2,
)


@pytest.fixture
def quick(tmp_path: Path, certificates: Certificates) -> Iterator[Running]:
    """Return a door that has little patience."""
    with opened(tmp_path / "home", certificates, QUICK) as running:
        yield running


def head(door: Running, *more: str, token: bool = True) -> bytes:
    """Return the head of a batch's request, which ends where the body would begin."""
    lines = ["POST /v1/batches HTTP/1.1", "Host: localhost", f"Content-Type: {OCTETS}", *more]
    if token:
        lines.append(f"Authorization: Bearer {door.agent.token}")
    return "\r\n".join([*lines, "", ""]).encode()


def to_the_end(connection: socket.socket) -> bytes:
    """Return everything until the door ends the connection, in whichever way."""
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while part := connection.recv(65_536):
            found += part
    return found


def one_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of the next answer."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        return answer.status, answer.read()


def send_for_ever(connection: socket.socket, piece: bytes, pause: float = 0) -> None:
    """Send until the connection is cut off."""
    while True:
        connection.sendall(piece)
        time.sleep(pause)


def resident(pid: str = "self") -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("framing", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("token", [True, False])
def test_a_body_of_a_gigabyte_is_refused_and_never_held(
    shared: Running, framing: str, token: bool
) -> None:
    part = b"x" * (1 << 20)
    if "chunked" in framing:
        part = b"%x\r\n%b\r\n" % (len(part), part)
    before = resident()
    sent = 0
    with shared.raw() as connection:
        connection.sendall(head(shared, framing, token=token))
        # Written like a client that looks for an answer while it sends.
        while sent < 1 << 30 and not select.select([connection], [], [], 0)[0]:
            connection.sendall(part)
            sent += len(part)
        status, _body = one_answer(connection)
    assert status == (413 if token or "Content" in framing else 401)
    assert sent < 64 << 20  # what sockets on both sides buffer, and no more
    assert resident() - before < 64 << 20
    assert shared.waiting() == {}


def test_who_never_stops_sending_is_cut_off(quick: Running) -> None:
    """The answer was given; what comes after it is read for a short while only."""
    with quick.raw() as connection:
        connection.sendall(head(quick, "Transfer-Encoding: chunked", token=False))
        piece = b"%x\r\n%b\r\n" % (4096, b"x" * 4096)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            send_for_ever(connection, piece)
    quick.wait_for_nobody()


def test_a_body_that_no_route_wants_is_not_read_for_ever(quick: Running) -> None:
    with quick.raw() as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with pytest.raises((ConnectionError, ssl.SSLError)):
            send_for_ever(connection, b"1\r\nx\r\n", 0.01)
    assert quick.server._door.metrics.dropped["slow_request"] == 1


@pytest.mark.parametrize(
    "start", [b"", b"P", b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nX-A: "]
)
def test_a_head_that_comes_too_slowly(quick: Running, start: bytes) -> None:
    """Slow loris: a byte now and then does not buy more time."""
    began = time.monotonic()
    with quick.raw() as connection:
        connection.sendall(start)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while not select.select([connection], [], [], 0.05)[0]:
                if start:
                    connection.sendall(b"a")
        assert to_the_end(connection) == b""
    assert time.monotonic() - began >= QUICK.head_seconds
    assert quick.server._door.metrics.dropped["slow_head"] == 1


def test_a_second_head_has_its_time_too(quick: Running) -> None:
    with quick.raw() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one_answer(connection)[0] == 200
        with pytest.raises((ConnectionError, ssl.SSLError)):
            send_for_ever(connection, b"G", 0.02)
    assert quick.server._door.metrics.dropped["slow_head"] == 1


def test_a_body_that_comes_too_slowly(quick: Running) -> None:
    with quick.raw() as connection:
        connection.sendall(head(quick, "Content-Length: 1000"))
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"x")
        status, body = one_answer(connection)
        assert status == 408
        assert b'"too_slow"' in body
        assert to_the_end(connection) == b""
    assert quick.waiting() == {}


def test_an_idle_connection_is_let_go_and_an_agents_is_kept(quick: Running) -> None:
    with quick.raw() as anybodys, quick.raw() as agents:
        anybodys.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        agents.sendall(
            b"GET /v1/keys HTTP/1.1\r\nHost: x\r\n"
            + f"Authorization: Bearer {quick.agent.token}\r\n\r\n".encode()
        )
        assert one_answer(agents)[0] == 200
        assert to_the_end(anybodys).startswith(b"HTTP/1.1 200")
        # Now the other one has been idle for as long, too.
        time.sleep(QUICK.idle_seconds)
        agents.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one_answer(agents)[0] == 200


def test_a_handshake_that_never_ends(quick: Running) -> None:
    with socket.create_connection(("127.0.0.1", quick.port), timeout=PATIENCE) as connection:
        connection.sendall(b"\x16\x03\x01")
        assert to_the_end(connection) == b""
    with socket.create_connection(("127.0.0.1", quick.port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")  # plain HTTP, where TLS is spoken
        to_the_end(connection)
    wait_until(lambda: quick.server._door.metrics.dropped["handshake"] == 2)
    assert quick.said == [f"the door is open on port {quick.port}: HTTPS"]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 64, b"hello\r\n\r\n", b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_http_is_answered_once(shared: Running, nonsense: bytes) -> None:
    with shared.raw() as connection:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.sendall(nonsense)
        found = to_the_end(connection)
    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'"error": "not_http"' in found
    assert b"connection: close" in found


def test_chunks_that_are_none_end_the_connection(shared: Running) -> None:
    for token in (True, False):
        with shared.raw() as connection:
            # In one piece, so that the door knows of both before it thinks of an answer.
            connection.sendall(head(shared, "Transfer-Encoding: chunked", token=token) + b"zzz\r\n")
            found = to_the_end(connection)
        assert found.startswith(b"HTTP/1.1 400 ")
        assert found.count(b"connection: close") == 1
    assert shared.said == [f"the door is open on port {shared.port}: HTTPS"]


def test_chunks_that_are_none_after_a_good_start_end_the_connection(shared: Running) -> None:
    with shared.raw() as connection:
        connection.sendall(
            head(shared, "Transfer-Encoding: chunked", "Expect: 100-continue") + b"1\r\nx\r\n"
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"zzz\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 400 ")
    with shared.raw() as connection:
        connection.sendall(head(shared, "Transfer-Encoding: chunked", token=False))
        assert one_answer(connection)[0] == 401
        connection.sendall(b"zzz\r\n")  # while the door lingers
        assert to_the_end(connection) == b""
    assert shared.said == [f"the door is open on port {shared.port}: HTTPS"]


def test_an_upgrade_is_not_taken(shared: Running) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert shared.ask("GET", "/healthz", headers=headers).status == 200


def test_requests_sent_ahead_are_answered_in_order(shared: Running) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with shared.raw() as connection:
        connection.sendall(one * 20 + b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" + last)
        found = to_the_end(connection)
    # A path that is not there closes the connection: nobody who means it well asks for one.
    assert found.count(b"HTTP/1.1 200 ") == 20
    assert found.count(b"HTTP/1.1 404 ") == 1


def test_who_goes_away_in_the_middle_leaves_nothing(shared: Running) -> None:
    content = shared.agent.batch([usage()], shared.keys)
    before = shared.server._door.metrics.dropped["disconnected"]
    for cut in (1, len(content) // 2, len(content) - 1):
        connection = shared.raw()
        connection.sendall(head(shared, f"Content-Length: {len(content)}") + content[:cut])
        connection.close()
        raw = shared.raw()
        raw.sendall(head(shared, f"Content-Length: {len(content)}") + content[:cut])
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()  # with a reset
    # A reset may overtake what was sent before it, and then nobody was there.
    wait_until(lambda: shared.server._door.metrics.dropped["disconnected"] >= before + 3)
    shared.wait_for_nobody()
    assert shared.waiting() == {}


def test_who_waits_to_be_asked_for_the_body_is_refused_before_it(shared: Running) -> None:
    """Expect: 100-continue, as curl sends it: nothing travels in vain."""
    with shared.raw() as connection:
        connection.sendall(
            head(shared, "Expect: 100-continue", f"Content-Length: {MAX_BATCH_BYTES + 1}")
        )
        assert to_the_end(connection).startswith(b"HTTP/1.1 413 ")
    content = shared.agent.batch([usage()], shared.keys)
    with shared.raw() as connection:
        connection.sendall(
            head(shared, "Expect: 100-continue", f"Content-Length: {len(content[:-1])}")
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(content[:-1])
        assert one_answer(connection)[0] == 403


def test_no_more_connections_than_there_is_room_for(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Who comes too many waits, and is served when another has gone."""
    limits = Limits(connections=3, head_seconds=PATIENCE)
    with opened(tmp_path / "home", certificates, limits) as door:
        held = [door.raw() for _ in range(3)]
        wait_until(lambda: len(door.server.server_state.connections) == 3)
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(door.ask("GET", "/healthz").status))
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()
        assert len(door.server.server_state.connections) == 3
        held.pop().close()
        asking.join(PATIENCE)
        assert answers == [200]
        for connection in held:
            connection.close()


def test_handshakes_that_fail_take_no_room_for_good(
    tmp_path: Path, certificates: Certificates
) -> None:
    limits = Limits(connections=1, handshake_seconds=0.2)
    with opened(tmp_path / "home", certificates, limits) as door:
        for start in (b"\x00" * 99, b"\x16\x03\x01", b""):
            with socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE) as connection:
                connection.sendall(start)
                to_the_end(connection)
        assert door.ask("GET", "/healthz").status == 200


def test_where_many_are_open_agents_are_not_kept_long_either(
    tmp_path: Path, certificates: Certificates
) -> None:
    limits = Limits(connections=3, idle_seconds=0.2)
    with opened(tmp_path / "home", certificates, limits) as door, door.raw(), door.raw() as agents:
        wait_until(lambda: len(door.server.server_state.connections) == 2)
        agents.sendall(
            b"GET /v1/keys HTTP/1.1\r\nHost: x\r\n"
            + f"Authorization: Bearer {door.agent.token}\r\n\r\n".encode()
        )
        assert to_the_end(agents).startswith(b"HTTP/1.1 200")


def test_no_more_bytes_at_once_than_there_is_room_for(
    tmp_path: Path, certificates: Certificates
) -> None:
    content_limits = Limits(body_bytes_at_once=MAX_BATCH_BYTES)
    with opened(tmp_path / "home", certificates, content_limits) as door:
        content = door.agent.batch([usage()], door.keys)
        with door.raw() as slow:
            slow.sendall(head(door, f"Content-Length: {MAX_BATCH_BYTES}"))
            slow.sendall(b"x")
            wait_until(lambda: door.server._door._budget._free == 0)
            answer = door.send(content)
            assert (answer.status, answer.word) == (503, "busy")
            assert int(answer.headers["retry-after"]) > 0
        wait_until(lambda: door.server._door._budget._free == MAX_BATCH_BYTES)
        assert door.send(content).status == 202


def test_one_agent_cannot_take_the_room_of_all(tmp_path: Path, certificates: Certificates) -> None:
    limits = Limits(bodies_of_an_agent=1)
    with opened(tmp_path / "home", certificates, limits) as door:
        content = door.agent.batch([usage()], door.keys)
        with door.raw() as slow:
            slow.sendall(head(door, f"Content-Length: {MAX_BATCH_BYTES}"))
            slow.sendall(b"x")
            wait_until(lambda: door.server._door._bodies[door.agent.id] == 1)
            answer = door.send(content)
            assert (answer.status, answer.word) == (429, "too_many_requests")
        wait_until(lambda: door.server._door._bodies[door.agent.id] == 0)
        assert door.send(content).status == 202


def test_old_tls_is_not_spoken(shared: Running, certificates: Certificates) -> None:
    for newest in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = certificates.trust()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = newest
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shared.client(context).ask("GET", "/healthz")
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        context = certificates.trust()
        context.minimum_version = context.maximum_version = version
        client = shared.client(context)
        assert client.ask("GET", "/healthz").status == 200
        assert client.http.sock.version() == name
        assert "GCM" in client.http.sock.cipher()[0] or "CHACHA20" in client.http.sock.cipher()[0]
        client.http.close()


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Running]:
    """Return a door that asks for certificates."""
    root = tmp_path_factory.mktemp("guarded") / "home"
    with opened(root, certificates, client_ca=True) as running:
        yield running


def test_an_agent_with_a_certificate_still_needs_its_token(
    guarded: Running, certificates: Certificates
) -> None:
    for headers, status in ((guarded.authorised(), 200), ({}, 401)):
        client = guarded.client(certificates.trust("agent"))
        assert client.ask("GET", "/v1/keys", headers=headers).status == status
        client.http.close()


def test_without_a_good_certificate_nobody_gets_as_far_as_http(
    guarded: Running, certificates: Certificates, tmp_path: Path
) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    certificates.issue("expired", not_after=past, not_before=past - dt.timedelta(days=1))
    strange = Certificates.make(tmp_path)
    other = certificates.trust()
    other.load_cert_chain(strange.folder / "agent.pem", strange.folder / "agent.key")
    before = guarded.server._door.metrics.requests.total()
    for context in (certificates.trust(), certificates.trust("expired"), other):
        client = guarded.client(context)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            client.ask("GET", "/v1/keys", headers=guarded.authorised())
        client.http.close()
    wait_until(lambda: guarded.server._door.metrics.dropped["handshake"] >= 3)
    assert guarded.server._door.metrics.requests.total() == before
    assert guarded.said == [f"the door is open on port {guarded.port}: HTTPS"]
