"""For tests: an aggregator that opens and merges batches, and a real HTTPS door in front of it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregator.agent.enrolment import Enrolment
from aggregator.model.days import end_of_month
from aggregator.wire import batch
from aggregator.wire.keys import PublishedKey, announce

AGENT = "us-nyc-01"
LOCATION = "us-nyc"
TOKEN = f"ua1.{AGENT}.{'t' * 43}"
MONTHS = ("2026-08", "2026-09", "2026-10", "2026-11")
NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)


class Aggregator:
    """Takes batches as the real one does: maximum per epoch, day and user, then the sum."""

    def __init__(self, *months: str) -> None:
        """Hold a key pair for each month, for all of `MONTHS` by default."""
        self.signing_key = Ed25519PrivateKey.generate()
        self.agent_key = Ed25519PrivateKey.generate()
        self.month_keys = {month: X25519PrivateKey.generate() for month in months or MONTHS}
        self.received: list[dict[str, Any]] = []
        self.batches: list[bytes] = []
        self._largest: dict[tuple[str, str, str, str], int] = {}

    @property
    def enrolment(self) -> Enrolment:
        """The enrolment of the only agent."""
        return Enrolment(
            AGENT,
            frozenset({LOCATION}),
            "https://localhost",
            self.signing_key.public_key().public_bytes_raw(),
            TOKEN,
            self.agent_key.private_bytes_raw(),
        )

    def key_id(self, month: str) -> str:
        """Return the id of a month's key."""
        return self.month_keys[month].public_key().public_bytes_raw().hex()[:16]

    def announcement(self, *months: str, now: dt.datetime = NOW) -> bytes:
        """Return the keys of `months`, all by default, signed."""
        keys = [
            PublishedKey(
                month,
                self.key_id(month),
                key.public_key().public_bytes_raw(),
                end_of_month(month) + dt.timedelta(hours=48),
            )
            for month, key in self.month_keys.items()
            if not months or month in months
        ]
        return announce(keys, now, self.signing_key.private_bytes_raw())

    def take(self, content: bytes) -> str:
        """Open a batch and merge its records; return its month. Any fault is an error."""
        found = batch.parse(content)
        assert found.is_signed_by(self.agent_key.public_key().public_bytes_raw())
        assert found.header.agent == AGENT
        month = found.header.month
        assert found.header.key_id == self.key_id(month)
        self.batches.append(content)
        for line in found.open(self.month_keys[month].private_bytes_raw()).splitlines():
            record = json.loads(line)
            assert record["day"].startswith(month)
            self.received.append(record)
            if record["record"] == "usage_counter.1":
                key = (record["epoch"], record["day"], record["user"], record["location"])
                self._largest[key] = max(self._largest.get(key, 0), record["bytes"])
        return month

    def held(self) -> Counter[tuple[str, str]]:
        """Return the bytes by day and user."""
        found: Counter[tuple[str, str]] = Counter()
        for (_epoch, day, user, _location), count in self._largest.items():
            found[day, user] += count
        return found

    def by_user(self) -> Counter[str]:
        """Return the bytes by user."""
        found: Counter[str] = Counter()
        for (_day, user), count in self.held().items():
            found[user] += count
        return found

    def epochs(self) -> set[str]:
        """Return every epoch that was ever reported."""
        return {record["epoch"] for record in self.received}


@dataclasses.dataclass
class Reply:
    """What the stub does with one request: a status, or something no door should do."""

    status: int = 202
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b"{}"
    cut: bool = False
    drip: bool = False
    silent: bool = False


class Door(ThreadingHTTPServer):
    """A door on a free port of this machine; `replies` come first, then it takes batches."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, aggregator: Aggregator, tls: ssl.SSLContext | None = None) -> None:
        """Listen; in TLS if there is a context."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.aggregator = aggregator
        self.tls = tls
        self.replies: list[Reply] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self.over: set[str] = set()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """Where the door is."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the handshake in the thread of the connection, and go on without a word."""
        self.connections += 1
        request.settimeout(60)
        with contextlib.suppress(OSError):
            if self.tls is None:
                super().finish_request(request, client_address)
                return
            with self.tls.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: agents that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def do_GET(self) -> None:
        self._answer(Reply(200, body=self.server.aggregator.announcement()), b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(Reply(), content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, reply: Reply, content: bytes) -> None:
        door = self.server
        door.seen.append((self.command, self.path, dict(self.headers)))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            reply = Reply(401)
        elif door.replies:
            reply = door.replies.pop(0)
        elif content:
            month = batch.parse(content).header.month
            if month in door.over:
                reply = Reply(410)
            else:
                door.aggregator.take(content)
        self._write(reply)

    def _write(self, reply: Reply) -> None:
        if reply.silent:
            self.server.ended.wait(30)
            self.close_connection = True
            return
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        head = f"HTTP/1.1 {reply.status} Word\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        whole = head.encode() + reply.body
        if reply.cut:
            self.wfile.write(whole[:-1])
            self.close_connection = True
        elif reply.drip:
            for at in range(len(whole)):
                self.wfile.write(whole[at : at + 1])
                if self.server.ended.wait(0.2):
                    return
        else:
            self.wfile.write(whole)


@contextlib.contextmanager
def serving(door: Door) -> Iterator[Door]:
    """Serve in a thread of its own."""
    thread = threading.Thread(target=door.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield door
    finally:
        door.ended.set()
        door.shutdown()
        thread.join()
        door.server_close()


class Certificates:
    """A CA, and what it issued to the door and to the agent, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make the CA and both certificates."""
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        client = self.ca.issue_cert("agent@example.org")
        self.client_certificate = folder / "client.pem"
        self.client_key = folder / "client.key"
        self.client_certificate.write_bytes(client.cert_chain_pems[0].bytes())
        self.client_key.touch(mode=0o600)
        self.client_key.write_bytes(client.private_key_pem.bytes())

    def server(
        self, name: str = "127.0.0.1", expired: bool = False, wants_client: bool = False
    ) -> ssl.SSLContext:
        """Return what the door speaks TLS with."""
        until = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if expired else None
        since = dt.datetime(2019, 1, 1, tzinfo=dt.UTC) if expired else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self.ca.issue_cert(name, not_after=until, not_before=since)
        issued.configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context


def enrolment_text(aggregator: Aggregator, door: str, **other: str) -> str:
    """Return an enrolment file."""
    fields = {
        "agent": f'"{AGENT}"',
        "locations": f'["{LOCATION}"]',
        "door": f'"{door}"',
        "door_key": f'"{base64.b64encode(aggregator.enrolment.door_key).decode()}"',
        "token": f'"{TOKEN}"',
        "signing_key": f'"{base64.b64encode(aggregator.enrolment.signing_key).decode()}"',
    } | other
    return "".join(f"{name} = {value}\n" for name, value in fields.items() if value)


def free_port() -> int:
    """Return a port of this machine where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(true: Any, seconds: float = 60) -> None:
    """Wait until `true()` is; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
