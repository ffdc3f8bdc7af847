"""A star of network namespaces, processes in them, and exact traffic between them.

    with star(2, tmp_path) as net:
        first, second = net.clients
        daemon = net.server.popen(["openvpn", "--config", config])
        daemon.wait_for_text("Initialization Sequence Completed")
        first.run(["ping", "-c1", first.gateway4])
        reach(first, net.server, "10.99.0.1")               # wait until the tunnel carries data
        udp(first, net.server, "10.99.0.1", count=1000, size=1000)

Client i (from 1) and the server share the veth `u0` (client) and `s<i>` (server):
10.77.i.2 and fd77:i::2 at the client, 10.77.i.1 and fd77:i::1 at the server. There is no default
route, so that nothing can leak around a tunnel. Names hold the process id: runs in parallel do not
clash. All is removed at the end, also after a failure; what a killed run left is removed by the
next one.

A test module names the programs it needs as `NEEDS = ("openvpn", …)`, and has
`pytestmark = pytest.mark.integration`; `conftest.py` does the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from .processes import PATIENCE_SECONDS, Process, run, search_path, wait_for

__all__ = [
    "PATIENCE_SECONDS",
    "Client",
    "Namespace",
    "Process",
    "Star",
    "Word",
    "missing",
    "reach",
    "remove_leftovers",
    "search_path",
    "star",
    "tcp",
    "udp",
    "wait_for",
]

P = ParamSpec("P")
T = TypeVar("T")
Word = str | Path | int

_NAME: Final = re.compile(r"ua([0-9]+)n[0-9]+(?:s|c[0-9]+)")
_CLONE_NEWNET: Final = 0x40000000
# Small enough for every queue on the way, the receiver's buffer first.
_BURST: Final = 32

_serial = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def missing(programs: Sequence[str]) -> str:
    """Return why tests that need `programs` cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    absent = [name for name in ("ip", *programs) if shutil.which(name, path=search_path()) is None]
    return f"needs the programs {', '.join(absent)}" if absent else ""


class Namespace:
    """One network namespace: a machine of its own, as far as the network goes."""

    def __init__(self, name: str, folder: Path) -> None:
        """Take the namespace `name`; outputs of its processes go to `folder`."""
        self.name = name
        self.folder = folder
        self._processes: list[Process] = []

    def command(self, words: Sequence[Word]) -> list[str]:
        """Return the command that runs `words` here."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, words: Sequence[Word], *, stdin: str = "", check: bool = True) -> str:
        """Run a program here and return its stdout; fail with its words unless it ends well."""
        return run(self.command(words), stdin=stdin, check=check)

    def ip(self, words: str) -> str:
        """Run `ip` here: `server.ip("link set wg0 up")`."""
        return run(["ip", "-n", self.name, *words.split()])

    def popen(
        self, words: Sequence[Word], *, log: str | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program here, which is killed at the end; `log` names its output file."""
        log = log or f"{self.name}-{next(_serial)}-{Path(str(words[0])).name}.log"
        everything = {**os.environ, "PATH": search_path(), **(env or {})}
        process = Process(self.command(words), self.folder / log, everything)
        self._processes.append(process)
        return process

    def python(self, code: str, *arguments: Word) -> str:
        """Run Python code in a process of its own here; return its stdout."""
        return self.run([sys.executable, "-c", code, *arguments])

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of this process as if it ran here; return what it returns.

        Sockets that it opens and programs that it starts belong to this namespace for good.
        """

        def inside() -> T:
            self._enter()
            return function(*args, **kwargs)

        # Only the worker's thread enters, and it is gone before this returns.
        with ThreadPoolExecutor(max_workers=1) as worker:
            return worker.submit(inside).result()

    def open_socket(self, address: str, kind: socket.SocketKind) -> socket.socket:
        """Return a socket of this namespace, of the family of `address`."""
        return self.call(socket.socket, _family(address), kind)

    def wrapper(self, program: str) -> Path:
        """Return a program that runs `program` here with all its arguments."""
        path = self.folder / f"{self.name}-{program}"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {program} "$@"\n')
        path.chmod(0o755)
        return path

    def close(self) -> None:
        """Kill what runs here, and remove the namespace with all its interfaces."""
        for process in self._processes:
            process.kill()
        _remove(self.name)

    def _enter(self) -> None:
        with Path("/run/netns", self.name).open("rb") as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {self.name}")


class Client(Namespace):
    """A client and its link to the server.

    Its addresses are `address4` and `address6`, the server's are `gateway4` and `gateway6`; the
    devices are `device` here and `far_device` there.
    """

    def __init__(self, name: str, folder: Path, number: int) -> None:
        """Take the namespace of client `number`, from 1."""
        super().__init__(name, folder)
        self.device, self.far_device = "u0", f"s{number}"
        self.address4, self.gateway4 = f"10.77.{number}.2", f"10.77.{number}.1"
        self.address6, self.gateway6 = f"fd77:{number}::2", f"fd77:{number}::1"

    def cut(self) -> None:
        """Cut the link to the server."""
        self.ip(f"link set {self.device} down")

    def mend(self) -> None:
        """Mend the link."""
        self.ip(f"link set {self.device} up")


@dataclasses.dataclass(frozen=True, slots=True)
class Star:
    """One server and its clients."""

    server: Namespace
    clients: tuple[Client, ...]


@contextlib.contextmanager
def star(clients: int, folder: Path) -> Iterator[Star]:
    """Make a server with so many clients around it; all of it is gone at the end."""
    remove_leftovers()
    prefix = f"ua{os.getpid()}n{next(_serial)}"
    with contextlib.ExitStack() as stack:
        server = Namespace(f"{prefix}s", folder)
        _make(server, stack)
        around = []
        for number in range(1, clients + 1):
            client = Client(f"{prefix}c{number}", folder, number)
            _make(client, stack)
            _join(server, client)
            around.append(client)
        yield Star(server, tuple(around))


def _make(namespace: Namespace, stack: contextlib.ExitStack) -> None:
    stack.callback(namespace.close)
    run(["ip", "netns", "add", namespace.name])
    namespace.ip("link set lo up")


def _join(server: Namespace, client: Client) -> None:
    ends = f"{client.far_device} netns {server.name} type veth peer name {client.device}"
    run(f"ip link add {ends} netns {client.name}".split())
    sides = (
        (server, client.far_device, client.gateway4, client.gateway6),
        (client, client.device, client.address4, client.address6),
    )
    for namespace, device, address4, address6 in sides:
        # Else a link that was cut comes back without its IPv6 address.
        namespace.run(["sysctl", "-qw", f"net.ipv6.conf.{device}.keep_addr_on_down=1"])
        namespace.ip(f"addr add {address4}/24 dev {device}")
        namespace.ip(f"addr add {address6}/64 dev {device} nodad")
        namespace.ip(f"link set {device} up")


def remove_leftovers() -> None:
    """Remove the namespaces, and what runs in them, of test runs that are dead."""
    for line in run(["ip", "netns", "list"]).splitlines():
        found = _NAME.match(line)
        if found is not None and not Path("/proc", found[1]).exists():
            _remove(found[0])


def _remove(name: str) -> None:
    for pid in run(["ip", "netns", "pids", name], check=False).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run(["ip", "netns", "delete", name], check=False)


def reach(source: Namespace, target: Namespace, address: str) -> None:
    """Send small datagrams from `source` to `target`'s `address`, until the latest one arrives.

    So none is on its way any more: a tunnel keeps what it is given before it is up, in order.
    """
    with _path(source, target, address) as (sender, receiver):
        receiver.settimeout(0.2)
        numbers = itertools.count(1)

        def arrived() -> bool:
            number = b"%d" % next(numbers)
            # There may be no route yet, or a port that was closed before.
            with contextlib.suppress(OSError):
                sender.send(number)
            with contextlib.suppress(TimeoutError):
                while receiver.recv(100) != number:
                    pass
                return True
            return False

        wait_for(arrived, f"a datagram from {source.name} to {address} of {target.name}")


def udp(source: Namespace, target: Namespace, address: str, *, count: int, size: int) -> None:
    """Send `count` datagrams of `size` bytes to `target`'s `address`; nothing comes back.

    All of them arrive, or the test fails: each is an IP packet of `size` + 28 bytes (IPv6: 48).
    `reach` must have been called before.
    """
    with _path(source, target, address) as (sender, receiver):
        receiver.settimeout(PATIENCE_SECONDS)
        for start in range(0, count, _BURST):
            burst = range(start, min(start + _BURST, count))
            for _ in burst:
                sender.send(bytes(size))
            for number in burst:
                try:
                    got = len(receiver.recv(size + 1))
                except TimeoutError:
                    raise AssertionError(f"datagram {number} of {count} did not arrive") from None
                assert got == size


def tcp(source: Namespace, target: Namespace, address: str, *, up: int, down: int) -> None:
    """Move exactly `up` bytes to `target`'s `address` and then `down` bytes back, on one stream."""
    with target.open_socket(address, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()
        with source.open_socket(address, socket.SOCK_STREAM) as near:
            near.settimeout(PATIENCE_SECONDS)
            near.connect(listener.getsockname()[:2])
            far, _ = listener.accept()
            with far:
                far.settimeout(PATIENCE_SECONDS)
                _move(near, far, up)
                _move(far, near, down)


def _move(source: socket.socket, target: socket.socket, count: int) -> None:
    chunk = bytes(1 << 15)
    left = count
    while left:
        source.sendall(chunk[:left])
        due = min(left, len(chunk))
        left -= due
        while due:
            got = len(target.recv(due))
            assert got, "the stream ended early"
            due -= got


@contextlib.contextmanager
def _path(
    source: Namespace, target: Namespace, address: str
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a sender at `source` and the receiver at `target` it sends to, on a fresh port."""
    with (
        target.open_socket(address, socket.SOCK_DGRAM) as receiver,
        source.open_socket(address, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((address, 0))

        def connected() -> bool:
            with contextlib.suppress(OSError):
                sender.connect(receiver.getsockname()[:2])
                return True
            return False

        wait_for(connected, f"a route from {source.name} to {address}")
        yield sender, receiver


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
