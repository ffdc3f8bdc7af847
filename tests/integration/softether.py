"""A SoftEther server with a tap device at its hub, and its users.

The server is 10.95.0.1 inside the hub, the user of client i is 10.95.0.<10 + i>.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .net import Client, Namespace, Process, Star, wait_for

INSIDE: Final = "10.95.0.1"
HUB: Final = "hub"

_PORT: Final = 5555
_NO_CONNECTION: Final = "Connection to the server failed."
_CLIENT_PORT: Final = 9931
_HUB_PASSWORD: Final = "hub-password"
_SERVER_PASSWORD: Final = "server-password"
_USER_PASSWORD: Final = "user-password"
_NAME: Final = re.compile(r"^User Name,(.*)$", re.MULTILINE)
_SIZE: Final = re.compile(
    r'^(?:Outgoing|Incoming) (?:Unicast|Broadcast) Total Size,"?([0-9,]+) bytes', re.MULTILINE
)
_SIZES_OF_USER: Final = 4

# Its folders are fixed: each daemon gets its own, and nothing of the machine is touched.
_START: Final = """\
mount -t tmpfs none /var/lib && mount -t tmpfs none /var/log && mount -t tmpfs none /run &&
mkdir /var/log/softether /run/softether && ln -s {folder} /var/lib/softether &&
exec {program} execsvc
"""


class Daemon:
    """A server or a client: a watchdog, and the process that it starts."""

    def __init__(self, namespace: Namespace, kind: str, port: int, folder: Path) -> None:
        """Keep the state of a `vpnserver` or `vpnclient` in `folder`, which is made."""
        self.namespace = namespace
        self._program = Path("/usr/libexec/softether", kind, kind)
        self._port = port
        self._folder = folder
        self._process: Process | None = None
        folder.mkdir()
        # What is sent by the kernel itself is nobody's traffic.
        namespace.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])

    def start(self) -> None:
        """Start it, and wait until it listens."""
        script = _START.format(folder=self._folder, program=self._program)
        self._process = self.namespace.popen(["unshare", "--mount", "sh", "-c", script])
        wait_for(self._listens, f"{self._program.name} listens")

    def stop(self) -> None:
        """Stop it in good order: it saves its counters, once its watchdog lets it go."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        wait_for(lambda: not self._processes(), f"the end of {self._program.name}")

    def kill(self) -> None:
        """End it without a word, and its watchdog."""
        assert self._process is not None
        self._process.kill()
        wait_for(lambda: not self._processes(), f"the end of {self._program.name}")

    def command(self, target: Sequence[str], *lines: str) -> str:
        """Let `vpncmd` do what the lines say, and return its words; fail unless it does."""
        script = self._folder.with_suffix(".commands")
        script.write_text("".join(f"{line}\n" for line in lines))
        # Where it wants a password it asks for ever.
        words = ["env", "LC_ALL=C", "timeout", "50", "vpncmd", *target, f"/IN:{script}"]

        def said() -> str | None:
            try:
                return self.namespace.run(words)
            except AssertionError as error:
                # A server that begins to listen may still turn its first visitors away; then not
                # one of the lines was run.
                if _NO_CONNECTION not in str(error):
                    raise
                return None

        return wait_for(said, "a server that lets vpncmd in")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.alive, self._process.text()
        with contextlib.suppress(OSError), self._connection():
            return True
        return False

    def _connection(self) -> socket.socket:
        return self.namespace.call(socket.create_connection, ("127.0.0.1", self._port), 5)

    def _processes(self) -> list[int]:
        """Return those of its processes that live."""
        assert self._process is not None
        found = []
        for word in self.namespace.run(["ip", "netns", "pids", self.namespace.name]).split():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(word)) == self._process.pid:
                    found.append(int(word))
        return found


class User(Daemon):
    """One user at a client of the star; comes back by itself when the server ends its session."""

    def __init__(self, client: Client, folder: Path, name: str, number: int) -> None:
        """Prepare user `number`; the outer network of the second one is IPv6."""
        super().__init__(client, "vpnclient", _CLIENT_PORT, folder / f"user-{number}")
        self.name = name
        self.address = f"10.95.0.{10 + number}"
        gateway = f"[{client.gateway6}]" if number == 2 else client.gateway4
        self._gateway = f"{gateway}:{_PORT}"

    def set_up(self) -> None:
        """Start it and connect it."""
        self.start()
        self._vpncmd(
            "NicCreate vpn",
            f"AccountCreate home /SERVER:{self._gateway} /HUB:{HUB} /USERNAME:{self.name} "
            "/NICNAME:vpn",
            f"AccountPasswordSet home /PASSWORD:{_USER_PASSWORD} /TYPE:standard",
            "AccountRetrySet home /NUM:1000 /INTERVAL:5",
        )
        self.connect()
        self.namespace.ip(f"addr add {self.address}/24 dev vpn_vpn")
        self.namespace.ip("link set vpn_vpn up")

    def connect(self) -> None:
        """Begin a session, and wait until it is there."""
        self._vpncmd("AccountConnect home")
        wait_for(
            lambda: "Connection Completed" in self._vpncmd("AccountStatusGet home"),
            "the session of a user",
        )

    def disconnect(self) -> None:
        """End the session; not while the server is away: the next session would hang for 20 s."""
        self._vpncmd("AccountDisconnect home")

    def _vpncmd(self, *lines: str) -> str:
        return self.command(["127.0.0.1", "/CLIENT"], *lines)


class Server(Daemon):
    """The server, and its users; `settings` are for the agent."""

    def __init__(self, net: Star, folder: Path, names: Sequence[str]) -> None:
        """Prepare a server, and a user for each of the first clients."""
        super().__init__(net.server, "vpnserver", _PORT, folder / "server")
        password, certificate = folder / "password", folder / "certificate.pem"
        password.touch(mode=0o600)
        password.write_text(f"{_HUB_PASSWORD}\n")
        self._certificate = certificate
        self._target = [f"127.0.0.1:{_PORT}", "/SERVER"]
        self.settings = {
            "hub": HUB,
            "password_file": str(password),
            "certificate_file": str(certificate),
        }
        self.users = [
            User(client, folder, name, number)
            for number, (client, name) in enumerate(zip(net.clients, names, strict=False), start=1)
        ]

    def set_up(self) -> None:
        """Start it for the first time, with its hub and all users, who connect."""
        super().start()
        self.command(
            self._target,
            f"ServerPasswordSet {_SERVER_PASSWORD}",
            f"HubCreate {HUB} /PASSWORD:{_HUB_PASSWORD}",
            f"BridgeCreate {HUB} /DEVICE:soft /TAP:yes",
            f"Hub {HUB}",
            *(
                line
                for user in self.users
                for line in (
                    f"UserCreate {user.name} /GROUP:none /REALNAME:none /NOTE:none",
                    f"UserPasswordSet {user.name} /PASSWORD:{_USER_PASSWORD}",
                )
            ),
        )
        pem = self.namespace.call(ssl.get_server_certificate, ("127.0.0.1", _PORT))
        self._certificate.write_text(pem)
        self._address()
        for user in self.users:
            user.set_up()

    def start(self) -> None:
        """Start it anew."""
        super().start()
        self._address()

    def told(self) -> dict[str, int]:
        """Return what `vpncmd` shows of the users, both directions added."""
        words = self.command(
            [*self._target, f"/PASSWORD:{_SERVER_PASSWORD}", f"/ADMINHUB:{HUB}", "/CSV"],
            *(f"UserGet {user.name}" for user in self.users),
        )
        names = _NAME.findall(words)
        sizes = [int(size.replace(",", "")) for size in _SIZE.findall(words)]
        assert names == [user.name for user in self.users]
        assert len(sizes) == _SIZES_OF_USER * len(names)
        starts = range(0, len(sizes), _SIZES_OF_USER)
        return {
            name: sum(sizes[start : start + _SIZES_OF_USER])
            for name, start in zip(names, starts, strict=True)
        }

    def _address(self) -> None:
        """Give the tap device its address: it is a new one after every start."""
        device = "/sys/class/net/tap_soft"
        wait_for(
            lambda: self.namespace.run(["sh", "-c", f"test -e {device} && echo yes"], check=False),
            "the tap device",
        )
        self.namespace.ip(f"addr add {INSIDE}/24 dev tap_soft")
        self.namespace.ip("link set tap_soft up")
