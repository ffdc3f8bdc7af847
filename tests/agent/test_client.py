"""The door seen by the agent: a real HTTPS server, with everything that goes wrong at one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_stub import TOKEN, Aggregator, Certificates, Door, Reply, free_port, serving

import aggregator as package
from aggregator.agent.client import Answer, DoorClient, Outcome
from aggregator.agent.config import DoorSettings
from aggregator.wire import batch

_MONTH = "2026-10"
_RECORD = (
    b'{"record":"usage_counter.1","day":"2026-10-05","user":"a","location":"us-nyc",'
    b'"epoch":"0123456789abcdef","bytes":1}\n'
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def door(certificates: Certificates) -> Iterator[Door]:
    with serving(Door(Aggregator(), certificates.server())) as running:
        yield running


def settings(certificates: Certificates, seconds: int = 30, client: bool = False) -> DoorSettings:
    """Return how the door is reached."""
    pair = (certificates.client_certificate, certificates.client_key) if client else (None, None)
    return DoorSettings(None, certificates.ca_file, *pair, seconds)


def sealed(aggregator: Aggregator, records: bytes = _RECORD) -> bytes:
    """Return a batch that the door takes."""
    mine = aggregator.enrolment
    key = aggregator.month_keys[_MONTH].public_key().public_bytes_raw()
    return batch.seal(records, _MONTH, mine.agent, aggregator.key_id(_MONTH), key, mine.signing_key)


@contextlib.contextmanager
def talking(url: str, told: DoorSettings, token: str = TOKEN) -> Iterator[DoorClient]:
    """Yield a client that is closed afterwards."""
    client = DoorClient(url, token, told)
    try:
        yield client
    finally:
        client.close()


def test_keys_and_batches_over_one_connection(door: Door, certificates: Certificates) -> None:
    with talking(door.url, settings(certificates)) as client:
        keys = client.keys()
        assert (keys.outcome, keys.body[:10]) == (Outcome.DONE, b'{"signed":')
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
    assert door.connections == 1
    assert door.aggregator.by_user() == {"a": 1}
    method, path, headers = door.seen[1]
    assert (method, path) == ("POST", "/v1/batches")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["User-Agent"] == f"aggregator-agent/{package.__version__}"
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.NO_ANSWER),
        (204, Outcome.NO_ANSWER),
        (301, Outcome.NO_ANSWER),
        (400, Outcome.MALFORMED),
        (401, Outcome.UNAUTHORISED),
        (403, Outcome.FORBIDDEN),
        (404, Outcome.NO_ANSWER),
        (408, Outcome.NO_ANSWER),
        (409, Outcome.KEY_UNKNOWN),
        (410, Outcome.MONTH_OVER),
        (413, Outcome.TOO_LARGE),
        (415, Outcome.MALFORMED),
        (429, Outcome.BUSY),
        (500, Outcome.NO_ANSWER),
        (503, Outcome.BUSY),
    ],
)
def test_answers(door: Door, certificates: Certificates, status: int, outcome: Outcome) -> None:
    """Only 202 is an acknowledgement: a portal that answers 200 to everything is no door."""
    location = {"Location": "https://203.0.113.9/"} if status == 301 else {}
    body = b"" if status == 204 else b'{"message":"alice"}'
    door.replies = [Reply(status, location, body)]
    with talking(door.url, settings(certificates)) as client:
        answer = client.send(sealed(door.aggregator))
        assert answer.outcome is outcome
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
    assert_private(answer)


def assert_private(answer: Answer) -> None:
    """The words are one line, and tell nothing but the door's own host."""
    assert answer.words.startswith("the door 127.0.0.1:")
    assert "\n" not in answer.words
    for word in (TOKEN, "alice", "203.0.113.9"):
        assert word not in answer.words
        assert word not in repr(answer)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("99999999999999999999", 999999999.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("\u0661", None),
    ],
)
def test_retry_after(
    door: Door, certificates: Certificates, header: str, seconds: float | None
) -> None:
    door.replies = [Reply(429, {"Retry-After": header})]
    with talking(door.url, settings(certificates)) as client:
        answer = client.send(sealed(door.aggregator))
    assert (answer.outcome, answer.retry_after) == (Outcome.BUSY, seconds)


@pytest.mark.parametrize("status", [202, 503])
def test_an_answer_cut_off_is_none(door: Door, certificates: Certificates, status: int) -> None:
    door.replies = [Reply(status, body=b'{"state":"accepted"}', cut=True)]
    with talking(door.url, settings(certificates)) as client:
        answer = client.send(sealed(door.aggregator))
        assert answer.outcome is Outcome.NO_ANSWER
        assert "broke the connection off" in answer.words
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE


@pytest.mark.parametrize("tls", [True, False])
def test_a_connection_that_broke_in_between_costs_no_attempt(
    certificates: Certificates, tls: bool
) -> None:
    """A door that was restarted, or a gate on the way that forgets idle connections."""
    context = certificates.server() if tls else None
    with (
        serving(Door(Aggregator(), context)) as door,
        talking(door.url, settings(certificates)) as client,
    ):
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
        connection = client._connection
        assert connection is not None
        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
        assert door.connections == 2


def test_a_door_that_closes_idle_connections_costs_no_attempt(tmp_path: Path) -> None:
    """The second request finds the kept connection closed, and is repeated on a new one."""
    with serving(Door(Aggregator())) as door, talking(door.url, _plain()) as client:
        door.replies = [Reply(202)]
        answer = client.send(sealed(door.aggregator))
        assert answer.outcome is Outcome.DONE
        connection = client._connection
        assert connection is not None
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.sock.recv(1) == b"", "the door has closed it"
        assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE


def _plain(seconds: int = 30) -> DoorSettings:
    return DoorSettings(None, None, None, None, seconds)


@pytest.mark.parametrize("slow", [Reply(silent=True), Reply(drip=True)])
def test_a_slow_door_ends_with_the_time_for_the_whole_request(
    door: Door, certificates: Certificates, slow: Reply
) -> None:
    """Also one that sends a byte now and then, which no time-out of a socket notices."""
    door.replies = [slow]
    with talking(door.url, settings(certificates, seconds=1)) as client:
        answer = client.send(sealed(door.aggregator))
    assert answer.outcome is Outcome.NO_ANSWER
    assert "gave no answer in time" in answer.words


def test_hurry_shortens_the_time(door: Door, certificates: Certificates) -> None:
    with talking(door.url, settings(certificates, seconds=300)) as client:
        client.hurry(0.5)
        door.replies = [Reply(silent=True)]
        assert "gave no answer in time" in client.send(sealed(door.aggregator)).words


def test_an_interrupted_request_leaves_a_client_that_works(
    door: Door, certificates: Certificates
) -> None:
    """SIGTERM in the middle of a request."""

    class StoppedError(BaseException):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        door.replies = [Reply(silent=True)]
        with talking(door.url, settings(certificates)) as client:
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(StoppedError):
                client.send(sealed(door.aggregator))
            timer.join()
            assert client.send(sealed(door.aggregator)).outcome is Outcome.DONE
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_nobody_listens() -> None:
    with talking(f"http://127.0.0.1:{free_port()}", _plain()) as client:
        answer = client.keys()
    assert answer.outcome is Outcome.NO_ANSWER
    assert "refuses connections" in answer.words


def test_a_name_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with talking("https://usage.example.net", _plain()) as client:
        answer = client.keys()
    expected = "is not found by its name; check the URL and the name server"
    assert answer.words == f"the door usage.example.net:443 {expected}"


def test_something_that_is_no_door() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            connection, _peer = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example.net ESMTP\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with talking(f"http://127.0.0.1:{listening.getsockname()[1]}", _plain()) as client:
            answer = client.keys()
        thread.join()
    assert answer.outcome is Outcome.NO_ANSWER
    assert "does not answer in HTTP" in answer.words


def test_an_answer_without_end_is_not_read() -> None:
    with serving(Door(Aggregator())) as door, talking(door.url, _plain()) as client:
        door.replies = [Reply(200, body=b"x" * ((1 << 20) + 1))]
        answer = client.keys()
    assert answer.outcome is Outcome.NO_ANSWER
    assert answer.body == b""


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ({"expired": True}, "has a certificate that has expired"),
        ({"name": "usage.example.net"}, "has a certificate for another"),
    ],
)
def test_certificates_that_are_wrong(
    certificates: Certificates, certificate: dict[str, object], words: str
) -> None:
    context = certificates.server(**certificate)  # type: ignore[arg-type]  # by parameters
    with (
        serving(Door(Aggregator(), context)) as door,
        talking(door.url, settings(certificates)) as client,
    ):
        answer = client.send(sealed(door.aggregator))
    assert answer.outcome is Outcome.NO_ANSWER
    assert words in answer.words
    assert door.seen == []


def test_a_door_of_another_ca_sees_no_token(door: Door, tmp_path: Path) -> None:
    with talking(door.url, settings(Certificates(tmp_path))) as client:
        answer = client.send(sealed(door.aggregator))
    assert "has a certificate of an unknown CA" in answer.words
    with talking(door.url, _plain()) as client:
        answer = client.send(sealed(door.aggregator))
    assert "has a certificate of an unknown CA" in answer.words
    assert door.seen == []


def test_tls_is_1_2_at_least(certificates: Certificates) -> None:
    import ssl

    old = certificates.server()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with (
        serving(Door(Aggregator(), old)) as door,
        talking(door.url, settings(certificates)) as client,
    ):
        answer = client.keys()
    assert answer.outcome is Outcome.NO_ANSWER
    assert "agree on no TLS" in answer.words


def test_a_client_certificate_where_one_is_asked_for(certificates: Certificates) -> None:
    context = certificates.server(wants_client=True)
    with serving(Door(Aggregator(), context)) as door:
        with talking(door.url, settings(certificates, client=True)) as client:
            assert client.keys().outcome is Outcome.DONE
        with talking(door.url, settings(certificates)) as client:
            answer = client.keys()
    assert answer.outcome is Outcome.NO_ANSWER
    assert "asks for a certificate" in answer.words or "broke the connection off" in answer.words


def test_certificate_files_are_read_anew_when_they_change(
    door: Door, tmp_path: Path, certificates: Certificates
) -> None:
    mine = Certificates(tmp_path)
    with talking(door.url, settings(mine)) as client:
        assert client.keys().outcome is Outcome.NO_ANSWER
        mine.ca_file.write_bytes(certificates.ca_file.read_bytes() + b"\n")
        assert client.keys().outcome is Outcome.DONE
        mine.ca_file.write_bytes(b"none")
        answer = client.keys()
        assert answer.outcome is Outcome.NO_ANSWER
        assert "ca_file, client_certificate or client_key cannot be used" in answer.words
        mine.ca_file.write_bytes(certificates.ca_file.read_bytes())
        assert client.keys().outcome is Outcome.DONE


def test_a_key_with_a_passphrase_is_refused_and_nothing_asked(door: Door, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    mine = Certificates(tmp_path)
    key = load_pem_private_key(mine.client_key.read_bytes(), None)
    mine.client_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with talking(door.url, settings(mine, client=True)) as client:
        assert "have no passphrase" in client.keys().words


def test_a_wrong_token_is_401(door: Door, certificates: Certificates) -> None:
    with talking(door.url, settings(certificates), TOKEN[:-1] + "x") as client:
        assert client.keys().outcome is Outcome.UNAUTHORISED
