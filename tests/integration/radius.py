"""FreeRADIUS, which writes accounting down and hands it on, and NASes that tell it things.

It listens on 127.0.0.1:1813, writes a `detail` file for every NAS without the addresses of users,
and forwards each packet to the agent's receiver on 127.0.0.1:1814, before it answers the NAS.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from pathlib import Path
from typing import Final

from .net import Namespace, Process, wait_for

PORT: Final = 1813
RECEIVER_PORT: Final = 1814

_SECRET: Final = "a secret of tests"
_READY: Final = "Ready to process requests"
_WORD: Final = 1 << 32

_CONFIG: Final = """\
prefix = /usr
libdir = /usr/lib/freeradius
localstatedir = {folder}
logdir = {folder}
run_dir = {folder}
raddbdir = {folder}
radacctdir = {folder}/radacct
proxy_requests = yes
log {{
  destination = stdout
}}
security {{
  allow_vulnerable_openssl = yes
}}
thread pool {{
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 1
}}
client here {{
  ipaddr = 127.0.0.1
  secret = "{secret}"
}}
home_server agent {{
  type = acct
  ipaddr = 127.0.0.1
  port = {receiver}
  secret = "{secret}"
  response_window = 20
  status_check = none
}}
home_server_pool agents {{
  type = fail-over
  home_server = agent
}}
realm agent {{
  acct_pool = agents
  nostrip
}}
modules {{
  detail {{
    filename = "${{radacctdir}}/%{{NAS-Identifier}}/detail"
    header = "%t"
    permissions = 0600
    suppress {{
      NAS-Port
      Framed-IP-Address
      Calling-Station-Id
      Called-Station-Id
    }}
  }}
}}
server default {{
  listen {{
    type = acct
    ipaddr = 127.0.0.1
    port = {port}
  }}
  preacct {{
    update control {{
      &Proxy-To-Realm := "agent"
    }}
  }}
  accounting {{
    detail
  }}
}}
"""


class FreeRadius:
    """The daemon. `secret_file` and `detail` are for the agent's configuration."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        """Write its configuration to `folder`."""
        self.namespace = namespace
        self.secret_file = folder / "secret"
        self.detail = folder / "radacct" / "*" / "detail"
        self._folder = folder
        self._daemon: Process | None = None
        self.secret_file.touch(mode=0o600)
        self.secret_file.write_text(f"{_SECRET}\n")
        words = {"folder": folder, "secret": _SECRET, "port": PORT, "receiver": RECEIVER_PORT}
        (folder / "radiusd.conf").write_text(_CONFIG.format(**words))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._daemon = self.namespace.popen(["freeradius", "-f", "-d", self._folder])
        self._daemon.wait_for_text(_READY)

    def stop(self) -> None:
        """Stop it."""
        assert self._daemon is not None
        self._daemon.stop()

    def rotate(self, nas: str, name: str) -> None:
        """Put the file of a NAS aside, as logrotate does: the next packet begins a new one."""
        path = self._file(nas)
        path.rename(path.with_name(name))

    def written(self, nas: str) -> str:
        """Return the file of a NAS."""
        return self._file(nas).read_text()

    def _file(self, nas: str) -> Path:
        return Path(str(self.detail).replace("*", nas))


@dataclasses.dataclass(slots=True)
class Session:
    """One session at a NAS: what it would tell of itself now, in bytes."""

    name: str
    id: str
    since: float = dataclasses.field(default_factory=time.time)
    received: int = 0
    sent: int = 0

    def wait(self, seconds: int) -> None:
        """Wait until it is so old."""
        wait_for(lambda: time.time() - self.since > seconds, "the age of a session")


class Nas:
    """A NAS that tells its sessions by `radclient`, and waits for the answers."""

    def __init__(self, server: FreeRadius, name: str, port: int = PORT) -> None:
        """Tell them to `server`, or whoever has that `port`, as the NAS `name`."""
        self.name = name
        self._port = port
        self._server = server
        self._serial = 0
        self._told: list[Session] = []

    def start(self, name: str, session_id: str) -> Session:
        """Begin a session of the user `name`."""
        session = Session(name, session_id)
        self._told.append(session)
        self.tell("Start", session)
        return session

    def update(self, session: Session, received: int, sent: int) -> None:
        """Add bytes to a session, and tell its numbers."""
        session.received += received
        session.sent += sent
        self.tell("Interim-Update", session)

    def stop(self, session: Session, received: int = 0, sent: int = 0) -> None:
        """Add bytes to a session, and end it."""
        session.received += received
        session.sent += sent
        self.tell("Stop", session)

    def restart(self) -> None:
        """Tell that the NAS was restarted, and all its sessions are gone."""
        self._send([("Acct-Status-Type", "Accounting-On"), ("Acct-Session-Id", "00000000")])

    def tell(self, status: str, session: Session, *, delay: int = 0) -> None:
        """Tell the numbers of a session, with a `delay` in seconds as a copy of an older packet."""
        self._send(_attributes(status, session, delay))

    def ask(self, status: str, session: Session, *, seconds: int) -> Process:
        """Tell it each second until there is an answer, or for so long; return what does so."""
        options = ["-r", str(seconds), "-t", "1"]
        command = self._command(options, _attributes(status, session, 0))
        return self._server.namespace.popen(command)

    def totals(self) -> Counter[str]:
        """Return what the sessions told last adds up to, in bytes, by user."""
        total: Counter[str] = Counter()
        for session in self._told:
            total[session.name] += session.received + session.sent
        return total

    def _send(self, attributes: list[tuple[str, str | int]]) -> None:
        self._server.namespace.run(self._command(["-r", "3", "-t", "20"], attributes))

    def _command(self, options: list[str], attributes: list[tuple[str, str | int]]) -> list[str]:
        self._serial += 1
        file = self._server.namespace.folder / f"{self.name}-{self._serial}.packet"
        everything = [("NAS-Identifier", f'"{self.name}"'), *attributes]
        file.write_text("".join(f"{name} = {value}\n" for name, value in everything))
        files = ["-S", str(self._server.secret_file), "-f", str(file)]
        return ["radclient", *options, *files, f"127.0.0.1:{self._port}", "acct"]


def _attributes(status: str, session: Session, delay: int) -> list[tuple[str, str | int]]:
    """Return what a packet says; addresses are there to be passed over."""
    found: list[tuple[str, str | int]] = [
        ("Acct-Status-Type", status),
        ("Acct-Session-Id", f'"{session.id}"'),
        ("User-Name", f'"{session.name}"'),
        ("NAS-Port", 7),
        ("Framed-IP-Address", "10.66.0.11"),
        ("Calling-Station-Id", '"198.51.100.7"'),
        ("Acct-Delay-Time", delay),
    ]
    if status == "Start":
        return found
    for way, number in (("Input", session.received), ("Output", session.sent)):
        found.append((f"Acct-{way}-Octets", number % _WORD))
        if number >= _WORD:
            found.append((f"Acct-{way}-Gigawords", number // _WORD))
    return [*found, ("Acct-Session-Time", max(0, int(time.time() - session.since) - delay))]
