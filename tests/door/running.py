"""A real door in this process: a home, an agent, TLS, and a client that knows the OpenAPI text."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import trustme
from batches import FakeAgent
from support import START, TinyHome

from aggregator.door.journal import Journal
from aggregator.door.limits import Limits
from aggregator.door.serve import prepared
from aggregator.door.server import DoorServer
from aggregator.model.days import parse_instant
from aggregator.pipeline import publish
from aggregator.stores.home import Home
from aggregator.stores.keys import MonthKeys

NOW: Final = "2026-10-05T12:00:00Z"
OCTETS: Final = "application/octet-stream"
PATIENCE: Final = 45.0
"""Seconds after which a test gives up; nothing waits so long when all is well."""

DESCRIPTION: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "schemas" / "door.openapi.json").read_text()
)


@dataclasses.dataclass(frozen=True, slots=True)
class Certificates:
    """A CA, a certificate of the door and one of an agent, as files; and what trusts the CA."""

    folder: Path
    authority: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them in `folder`."""
        made = cls(folder, trustme.CA())
        made.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        made.issue("door")
        made.issue("agent")
        return made

    def issue(self, name: str, **options: Any) -> None:
        """Issue a certificate for this machine as `name`.pem and `name`.key."""
        made = self.authority.issue_cert("localhost", "127.0.0.1", "::1", **options)
        made.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        (self.folder / f"{name}.pem").write_bytes(chain)

    def trust(self, client: str | None = None) -> ssl.SSLContext:
        """Return a client's context, which shows the certificate called `client` if one is."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if client is not None:
            context.load_cert_chain(self.folder / f"{client}.pem", self.folder / f"{client}.key")
        return context


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answer: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def word(self) -> str:
        """The code word: of what was refused, or of what was done."""
        return str(self.json.get("error") or self.json["state"])


class Client:
    """One connection to a door, kept as long as the door keeps it."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        """Connect when first asked."""
        if context is None:
            self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        else:
            self.http = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=PATIENCE, context=context
            )

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        """Ask, and hold the answer to the description of the interface."""
        self.http.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
        found = self.http.getresponse()
        fields = {name.lower(): value for name, value in found.getheaders()}
        answer = Answer(found.status, fields, found.read())
        check_described(method, path, answer)
        return answer


def check_described(method: str, path: str, answer: Answer) -> None:
    """Fail if the OpenAPI text does not describe this answer."""
    assert "server" not in answer.headers
    assert "date" not in answer.headers
    item = DESCRIPTION["paths"].get(path.partition("?")[0])
    if item is None:
        assert answer.status == 404
        described = DESCRIPTION["components"]["responses"]["NotFound"]
    elif method.lower() not in item:
        assert answer.status == 405
        described = DESCRIPTION["components"]["responses"]["WrongMethod"]
    else:
        described = item[method.lower()]["responses"][str(answer.status)]
    if "$ref" in described:
        described = DESCRIPTION["components"]["responses"][described["$ref"].rpartition("/")[2]]
    for name, header in described.get("headers", {}).items():
        value: Any = answer.headers[name.lower()]
        value = int(value) if header["schema"].get("type") == "integer" else value
        jsonschema_rs.validate(header["schema"], value)
    ((kind, content),) = described["content"].items()
    assert answer.headers["content-type"].partition(";")[0] == kind
    if kind == "application/json":
        schema = {**content["schema"], "components": DESCRIPTION["components"]}
        jsonschema_rs.validate(schema, answer.json)


@dataclasses.dataclass(slots=True)
class Running:
    """A door that runs, and all that a test may turn at it."""

    home: TinyHome
    certificates: Certificates
    agent: FakeAgent
    keys: MonthKeys
    server: DoorServer
    said: list[str]
    set_clock: Callable[[str], None]
    context: ssl.SSLContext | None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    def client(self, context: ssl.SSLContext | None = None) -> Client:
        """Return a new connection."""
        return Client(self.port, context or self.context)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask over a connection of its own."""
        client = self.client()
        with contextlib.closing(client.http):
            return client.ask(method, path, body, headers)

    def authorised(self, agent: FakeAgent | None = None, **more: str) -> dict[str, str]:
        """Return the headers of an agent's batch; others by name, _ for a hyphen."""
        headers = {
            "Authorization": f"Bearer {(agent or self.agent).token}",
            "Content-Type": OCTETS,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return {name: value for name, value in headers.items() if value}

    def send(self, content: bytes, agent: FakeAgent | None = None) -> Answer:
        """Send one batch."""
        return self.ask("POST", "/v1/batches", content, self.authorised(agent))

    def raw(self) -> socket.socket:
        """Return a socket after its TLS handshake, to speak anything over."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        if self.context is None:
            return plain
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def wait_for_nobody(self) -> None:
        """Wait until nobody is connected."""
        wait_until(lambda: not self.server.server_state.connections)

    def waiting(self) -> dict[str, bytes]:
        """Return what lies in the inbox, but for what is hidden: the door's lock, its contacts."""
        found = self.home.files("inbox")
        return {name: content for name, content in found.items() if "/." not in name}


def make_home(root: Path, settings: str) -> tuple[TinyHome, FakeAgent, MonthKeys]:
    """Make a rehearsal home with announced keys and one agent; `settings` are those of the door."""
    home = TinyHome.make(root, START)
    with (root / "config.toml").open("a") as file:
        file.write(f"\n[door]\n{settings}\n")
    agent = FakeAgent.make()
    with home.open(NOW) as house:
        publish.publish(house)
        agent.enrol(house, "us-nyc")
        keys = house.month_keys("2026-10")
    return home, agent, keys


def settings(certificates: Certificates, *, client_ca: bool = False, port: int = 0) -> str:
    """Return the door's settings with these certificates."""
    folder = certificates.folder
    lines = [
        f'listen = "127.0.0.1:{port}"',
        f'certificate = "{folder}/door.pem"',
        f'private_key = "{folder}/door.key"',
        "min_free_mib = 1",
    ]
    return "\n".join([*lines, f'client_ca = "{folder}/ca.pem"'] if client_ca else lines)


@contextlib.contextmanager
def opened(
    root: Path,
    certificates: Certificates,
    limits: Limits | None = None,
    *,
    plain: bool = False,
    client_ca: bool = False,
) -> Iterator[Running]:
    """Run a door in a thread of this process."""
    home, agent, keys = make_home(root, settings(certificates, client_ca=client_ca))
    said: list[str] = []
    now = [parse_instant(NOW)]

    def set_clock(text: str) -> None:
        now[0] = parse_instant(text)

    def clock() -> dt.datetime:
        return now[0]

    journal = Journal(say=said.append)
    with prepared(Home(root), None, clock, limits or Limits(), journal, plain=plain) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: server.started)
            context = None if plain else certificates.trust()
            yield Running(home, certificates, agent, keys, server, said, set_clock, context)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
