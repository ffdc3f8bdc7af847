"""A WireGuard server and its users, by wireguard-go: no kernel module is needed.

The server is 10.99.0.1 inside the tunnel, the user of client i is 10.99.0.<10 + i>.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .net import Client, Namespace, Process, Star, wait_for

INSIDE: Final = "10.99.0.1"
PORT: Final = 51820

# wireguard-go's sockets are in one folder for all network namespaces: names must be unique.
_SOCKETS: Final = Path("/var/run/wireguard")
_SOCKET: Final = re.compile(r"w([0-9]+)n[0-9]+")
_serial = itertools.count(1)


class Peer(NamedTuple):
    """What the server shows of a user: from the user, to the user, time of the last handshake."""

    received: int
    sent: int
    handshake: int

    @property
    def bytes(self) -> int:
        """Both directions added."""
        return self.received + self.sent


class Interface:
    """One WireGuard interface and the process behind it."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        """Make the keys of an interface that is `address` inside the tunnel."""
        self.namespace = namespace
        self.device = f"w{os.getpid()}n{next(_serial)}"
        self.private = namespace.run(["wg", "genkey"]).strip()
        self.public = namespace.run(["wg", "pubkey"], stdin=self.private).strip()
        self._address = address
        self._daemon: Process | None = None

    def start(self, peers: str, *, port: int = 0) -> None:
        """Start it with the text of its peers."""
        daemon = self.namespace.popen(["wireguard-go", "-f", self.device])
        self._daemon = daemon
        wait_for(self._socket.exists, f"the socket of {daemon}")
        config = self.namespace.folder / f"{self.device}.conf"
        listen = f"ListenPort = {port}\n" if port else ""
        config.write_text(f"[Interface]\nPrivateKey = {self.private}\n{listen}{peers}")
        self.namespace.run(["wg", "setconf", self.device, config])
        self.namespace.ip(f"addr add {self._address}/24 dev {self.device}")
        self.namespace.ip(f"link set {self.device} mtu 1420 up")

    def stop(self) -> None:
        """End it, and wait until nothing of it is left."""
        if self._daemon is not None:
            self._daemon.stop()
            wait_for(lambda: not self._socket.exists(), "the end of an interface")

    def close(self) -> None:
        """Remove what stays if it is killed."""
        self._socket.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        return _SOCKETS / f"{self.device}.sock"


class User(Interface):
    """One user: a client with a key pair."""

    def __init__(self, client: Client, name: str, number: int) -> None:
        """Make the keys of the user `name`."""
        super().__init__(client, f"10.99.0.{10 + number}")
        self.client = client
        self.name = name
        self.allowed = f"10.99.0.{10 + number}/32"


class Server(Interface):
    """The server, and its users by their names; they are `connect`ed one by one."""

    def __init__(self, net: Star, names: tuple[str, ...]) -> None:
        """Make the keys of a server, and of a user for each of the first clients."""
        super().__init__(net.server, INSIDE)
        self.users = {
            name: User(client, name, number)
            for number, (name, client) in enumerate(zip(names, net.clients, strict=False), start=1)
        }

    @property
    def accounts(self) -> str:
        """The operator's map, as CSV."""
        return "".join(f"{user.public},{name}\n" for name, user in self.users.items())

    def run(self) -> None:
        """Start it."""
        self.start("".join(map(_peer, self.users.values())), port=PORT)

    def connect(self, name: str, *, v6: bool = False) -> None:
        """Start the client of a user; the tunnel is made with the first packet."""
        user = self.users[name]
        gateway = f"[{user.client.gateway6}]" if v6 else user.client.gateway4
        user.start(
            f"[Peer]\nPublicKey = {self.public}\nEndpoint = {gateway}:{PORT}\n"
            "AllowedIPs = 10.99.0.0/24\n"
        )

    def remove(self, name: str) -> None:
        """Remove the user from the running server."""
        self._set(self.users[name], "remove")

    def add(self, name: str) -> None:
        """Add the user to the running server anew."""
        user = self.users[name]
        self._set(user, "allowed-ips", user.allowed)

    def peers(self) -> dict[str, Peer]:
        """Return what the server itself shows at this moment, by the user's name."""
        names = {user.public: name for name, user in self.users.items()}
        found = {}
        dump = self.namespace.run(["wg", "show", self.device, "dump"])
        for row in dump.splitlines()[1:]:
            key, _secret, _endpoint, _allowed, handshake, received, sent, _alive = row.split("\t")
            found[names[key]] = Peer(int(received), int(sent), int(handshake))
        return found

    def _set(self, user: User, *words: str) -> None:
        self.namespace.run(["wg", "set", self.device, "peer", user.public, *words])


@contextlib.contextmanager
def wireguard(net: Star, *names: str) -> Iterator[Server]:
    """Run a server with a user for each of the first clients of the star."""
    for path in _SOCKETS.glob("w*.sock"):
        found = _SOCKET.fullmatch(path.stem)
        if found is not None and not Path("/proc", found[1]).exists():
            path.unlink(missing_ok=True)
    server = Server(net, names)
    try:
        server.run()
        yield server
    finally:
        for interface in (server, *server.users.values()):
            interface.close()


def _peer(user: User) -> str:
    return f"[Peer]\nPublicKey = {user.public}\nAllowedIPs = {user.allowed}\n"
