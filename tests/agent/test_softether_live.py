"""SoftEther live: a scripted server behind real TLS; nothing secret goes to a stranger."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from captures import golden, said, text_of

from aggregator.agent.collectors.softether import Settings, SoftEtherReader, connect
from aggregator.agent.readings import Capture, Locate, Origin, nowhere
from aggregator.errors import BadInputError, ConfigError

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
PASSWORD = "pa:ss word"
STAGE = "05-alice-back"


class Server:
    """Answers like a SoftEther server; `script` may change what it says."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.answers: dict[str, bytes] = {
            method: text_of(f"softether/{STAGE}.api-{method}").encode()
            for method in ("EnumUser", "EnumSession")
        }
        self.status = 200
        self.hangs = False
        self.hangs_up = False
        self.asked: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.let_go = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, body["method"], dict(self.headers), body))
                if server.hangs:
                    server.let_go.wait()
                if server.hangs or server.hangs_up:
                    return
                allowed = (
                    self.headers["X-VPNADMIN-PASSWORD"] == PASSWORD
                    and self.headers["X-VPNADMIN-HUBNAME"] in ("vt", None)
                    and self.path == "/api/"
                )
                answer = server.answers[body["method"]] if allowed else b"<html>secret</html>"
                self.send_response(server.status if allowed else 401)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Say nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Quiet(http.server.ThreadingHTTPServer):
    """A server that says nothing of clients that turn away."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("vpn.example.org")


@pytest.fixture
def server(certificate: trustme.LeafCert) -> Iterator[Server]:
    found = Server(certificate)
    yield found
    found.stop()


@pytest.fixture
def settings(server: Server, certificate: trustme.LeafCert, tmp_path: Path) -> dict[str, Any]:
    """Settings that work."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "pinned.pem")
    return {
        "hub": "vt",
        "password_file": str(tmp_path / "password"),
        "url": f"https://127.0.0.1:{server.port}/api/",
        "certificate_file": str(tmp_path / "pinned.pem"),
        "timeout_seconds": 30,
    }


def read(settings: dict[str, Any], locate: Locate = nowhere) -> Capture:
    """Open a reader, read once, close it twice."""
    reader = connect(Settings(**settings), locate)
    assert isinstance(reader, SoftEtherReader)
    with contextlib.closing(reader):
        found = reader.read(NOW)
    reader.close()
    return found


def refused(settings: dict[str, Any]) -> str:
    """Return the error of a read, which must hold nothing private."""
    with pytest.raises(BadInputError) as caught:
        read(settings)
    message = str(caught.value)
    assert "\n" not in message
    for private in ("127.0.0.1", "alice", "secret", PASSWORD, "/tmp", str(settings["url"])):
        assert private not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


# -- what is asked, and read -------------------------------------------------------------------


def test_users_are_readings_and_sessions_connections(settings: dict[str, Any]) -> None:
    capture = read(settings, lambda _address: Origin("DE", 1))
    assert said(capture) == golden(f"softether/{STAGE}.api-EnumUser")
    assert sorted(str(c.account) for c in capture.connections) == ["alice", "alice", "bob"]
    assert {c.origin for c in capture.connections} == {Origin("DE", 1)}
    assert capture.keyed_by == "hub and user"


def test_what_is_asked(server: Server, settings: dict[str, Any]) -> None:
    read(settings)
    assert [(path, method) for path, method, _headers, _body in server.asked] == [
        ("/api/", "EnumUser"),
        ("/api/", "EnumSession"),
    ]
    for _path, _method, headers, body in server.asked:
        assert headers["X-VPNADMIN-HUBNAME"] == "vt"
        assert headers["X-VPNADMIN-PASSWORD"] == PASSWORD
        assert body["params"] == {"HubName_str": "vt"}


def test_without_connections_no_address_is_ever_asked_for(
    server: Server, settings: dict[str, Any]
) -> None:
    capture = read(settings | {"connections": False})
    assert said(capture) == golden(f"softether/{STAGE}.api-EnumUser")
    assert capture.connections == ()
    assert [method for _path, method, _headers, _body in server.asked] == ["EnumUser"]


def test_the_password_of_the_server_goes_without_the_name_of_a_hub(
    server: Server, settings: dict[str, Any]
) -> None:
    """An empty one makes the server hang up."""
    read(settings | {"hub_login": False})
    assert all("X-VPNADMIN-HUBNAME" not in headers for _p, _m, headers, _b in server.asked)


def test_a_session_belongs_to_the_user_as_he_is_listed(
    server: Server, settings: dict[str, Any]
) -> None:
    answer = server.answers["EnumSession"].replace(b'"alice"', b'"ALICE"')
    server.answers["EnumSession"] = answer.replace(b'"bob"', b'"carol"')
    accounts = sorted(str(c.account) for c in read(settings).connections)
    assert accounts == ["alice", "alice", "carol"]


def test_a_hub_without_users_has_no_readings(server: Server, settings: dict[str, Any]) -> None:
    for method, key in (("EnumUser", "UserList"), ("EnumSession", "SessionList")):
        answer = {"jsonrpc": "2.0", "id": "1", "result": {"HubName_str": "vt", key: []}}
        server.answers[method] = json.dumps(answer).encode()
    capture = read(settings)
    assert (capture.readings, capture.connections, capture.dropped) == ((), (), {})


# -- whom the password is given ----------------------------------------------------------------


def test_a_server_on_this_host_may_go_without_a_pin(settings: dict[str, Any]) -> None:
    assert read(settings | {"certificate_file": ""}).readings


def test_another_certificate_gets_no_password(
    server: Server, settings: dict[str, Any], authority: trustme.CA, tmp_path: Path
) -> None:
    """The same authority, the same name, another key."""
    other = authority.issue_cert("vpn.example.org")
    other.cert_chain_pems[0].write_to_path(tmp_path / "pinned.pem")
    assert "another certificate" in refused(settings)
    assert server.asked == []


def test_the_certificate_of_the_authority_is_no_pin(
    server: Server, settings: dict[str, Any], authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "pinned.pem")
    assert "another certificate" in refused(settings)
    assert server.asked == []


def test_a_pin_that_is_no_certificate_gets_no_password(
    server: Server, settings: dict[str, Any], tmp_path: Path
) -> None:
    for content in ("", "secret", "-----BEGIN CERTIFICATE-----\n§\n-----END CERTIFICATE-----\n"):
        (tmp_path / "pinned.pem").write_text(content)
        assert "certificate" in refused(settings)
    (tmp_path / "pinned.pem").unlink()
    assert "No such file" in refused(settings)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "https://vpn.example.org:5555/api/",
        "https://203.0.113.9/api/",
        "https://[2001:db8::1]:5555/api/",
        "https://localhost.example.org/api/",
    ],
)
def test_another_host_needs_a_pin(settings: dict[str, Any], url: str) -> None:
    with pytest.raises(ConfigError, match="certificate_file") as caught:
        connect(Settings(**settings | {"url": url, "certificate_file": ""}), nowhere)
    assert "203.0" not in str(caught.value)
    connect(Settings(**settings | {"url": url}), nowhere)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://127.0.0.1:5555/api/"},
        {"url": "127.0.0.1:5555"},
        {"url": "https://me:secret@127.0.0.1/api/"},
        {"url": "https://127.0.0.1:99999/"},
        {"url": "https://[127.0.0.1/"},
        {"url": ""},
        {"hub": ""},
        {"hub": "v\r\nX-Other: 1"},
        {"hub": "ü"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_at_once(
    settings: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(Settings(**settings | wrong), nowhere)
    assert "secret" not in str(caught.value)


def test_loopback_has_several_names(settings: dict[str, Any]) -> None:
    for host in ("127.0.0.1", "127.1.2.3", "[::1]", "localhost"):
        wanted = settings | {"url": f"https://{host}:5555/api/", "certificate_file": ""}
        connect(Settings(**wanted), nowhere)


# -- could not read ----------------------------------------------------------------------------


def test_a_wrong_password(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    assert "refuses the password" in refused(settings)
    (tmp_path / "password").write_text(f"{PASSWORD}\r\n")
    assert read(settings).readings


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "pässword\n", "tab\there\n"])
def test_a_password_file_that_cannot_be_sent(
    server: Server, settings: dict[str, Any], tmp_path: Path, content: str
) -> None:
    (tmp_path / "password").write_text(content)
    assert "password_file" in refused(settings)
    assert server.asked == []


def test_a_server_that_is_away(server: Server, settings: dict[str, Any]) -> None:
    server.stop()
    assert "Connection refused" in refused(settings)


def test_a_server_that_hangs(server: Server, settings: dict[str, Any]) -> None:
    server.hangs = True
    assert "within 1 seconds" in refused(settings | {"timeout_seconds": 1})
    server.let_go.set()


def test_a_server_that_hangs_up(server: Server, settings: dict[str, Any]) -> None:
    server.hangs_up = True
    assert "hung up" in refused(settings)


def test_another_status(server: Server, settings: dict[str, Any]) -> None:
    server.status = 500
    assert "HTTP status 500" in refused(settings)


def test_a_server_without_tls(settings: dict[str, Any]) -> None:
    class Plain(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Say nothing."""

    with Quiet(("127.0.0.1", 0), Plain) as plain:
        thread = threading.Thread(target=plain.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{plain.server_address[1]}/api/"
        assert "TLS" in refused(settings | {"url": url})
        plain.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>secret</html>",
        b"\xff\xfe",
        b'{"result": {"UserList": [{"Name_str": "secret"',
        b'{"result": {}}',
        b'{"jsonrpc": "2.0", "error": {"code": 8, "message": "hub secret"}, "id": "1"}',
        b'{"Name_str": "secret", "PacketSize_u64": 1, "Username_str": "secret"}',
        b"User Name,secret\n",
    ],
)
def test_an_answer_that_is_none(server: Server, settings: dict[str, Any], answer: bytes) -> None:
    server.answers["EnumUser"] = answer
    refused(settings)


def test_an_answer_that_is_too_large(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.agent.collectors.softether_api._MAX_ANSWER_BYTES", 100)
    assert "too large" in refused(settings)


def test_sessions_that_cannot_be_read_are_told(server: Server, settings: dict[str, Any]) -> None:
    server.answers["EnumSession"] = b"secret"
    refused(settings)
    assert read(settings | {"connections": False}).readings
