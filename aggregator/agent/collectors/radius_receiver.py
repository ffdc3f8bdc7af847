"""RADIUS: the agent's own receiver of accounting, so that nothing about sessions reaches a disk.

A NAS, or a RADIUS server that copies accounting to a second home server, sends Accounting-Requests
(RFC 2866) over UDP. Each is answered once its number is in memory; what the sender must not send
again (a user that no record may carry, a tunnel) is answered too, and counted. What comes from
elsewhere, or whose authenticator was not made with the secret, is not answered. `radius` says what
the number means. UDP is not encrypted: let it arrive over a tunnel or a network of your own.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.agent.collectors.radius import Sessions
from aggregator.agent.collectors.radius_packet import (
    MAX_PACKET_BYTES,
    Refusal,
    authentic,
    read_request,
    read_said,
    response,
)
from aggregator.agent.collectors.radius_records import Meaning
from aggregator.agent.readings import Capture, Drop, Locate, SilentSourceError, nowhere
from aggregator.agent.settings import check_secret, read_file
from aggregator.errors import BadInputError, ConfigError

_BUFFER_BYTES: Final = 1 << 20
# Order of arrival in a capture without times; far below the whole seconds of Acct-Delay-Time.
_STEP_SECONDS: Final = 1e-6

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, and who may send: `ADDRESS=FILE` or `PREFIX=FILE`, FILE with the secret.

    NASes that send no Gigawords are named in `wraps_at_32_bits`, by NAS-Identifier or address; `*`
    means all. After `silent_after_seconds` without a valid packet while sessions are open the
    source is silent; 0 is never. `[::]:1813` listens on IPv4, too.
    """

    clients: tuple[str, ...]
    listen: str = "127.0.0.1:1813"
    wraps_at_32_bits: tuple[str, ...] = ()
    silent_after_seconds: int = 3600


class Client(NamedTuple):
    """Those who share one secret."""

    network: _Network
    secret: bytes

    def __repr__(self) -> str:
        return "Client()"


def parse(text: str, locate: Locate = nowhere, /) -> Capture:
    """Return the sessions of Accounting-Requests, one a line in hexadecimal.

    Their authenticators are not checked, as no secret is known. They are taken as having come right
    after each other. BadInputError if there is none.
    """
    sessions = Sessions(limit=None)
    meaning = Meaning(locate)
    readable = False
    for number, line in enumerate(line for line in text.split("\n") if line.strip()):
        try:
            request = read_request(bytes.fromhex(line))
        except ValueError:
            request = Refusal.MALFORMED
        said = None if isinstance(request, Refusal) else read_said(request)
        if said is None:
            sessions.drop(Drop.UNREADABLE)
            continue
        readable = True
        sessions.take(meaning.event(said, number * _STEP_SECONDS), 0.0)
    if not readable:
        raise BadInputError("holds no Accounting-Request in hexadecimal")
    return sessions.capture()


class Receiver:
    """What is done with a packet; knows no socket, and no thread.

    `heard` is when the last valid packet came; `forged` counts wrong authenticators since then.
    """

    def __init__(self, clients: Iterable[Client], meaning: Meaning, since: float) -> None:
        """Take packets of `clients`, the most specific one first, from the instant `since` on."""
        self.sessions = Sessions(since)
        self.refused: Counter[Refusal] = Counter()
        self.heard = since
        self.forged = 0
        self._clients = sorted(clients, key=lambda client: -client.network.prefixlen)
        self._meaning = meaning

    def answer(self, packet: bytes, sender: str, now: float) -> bytes | None:
        """Take a packet that came at the instant `now`; return what to answer, if anything."""
        address = ipaddress.ip_address(sender.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        secret = self._secret(address)
        if secret is None:
            self.refused[Refusal.UNKNOWN_SENDER] += 1
            return None
        request = authentic(packet, secret)
        if isinstance(request, Refusal):
            self.refused[request] += 1
            self.forged += request is Refusal.BAD_AUTHENTICATOR
            return None
        self.heard, self.forged = now, 0
        said = read_said(request)
        if said is None:
            self.sessions.drop(Drop.UNREADABLE)
        else:
            self.sessions.take(self._meaning.event(said, now, str(address)), now)
        return response(request, secret)

    def _secret(self, address: _Address) -> bytes | None:
        for client in self._clients:
            if address in client.network:
                return client.secret
        return None


class RadiusReader:
    """Receives in a thread of its own; a reading is a snapshot of what came so far."""

    def __init__(
        self,
        settings: Settings,
        locate: Locate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen as `settings` says; `clock` gives seconds, and is asked when a packet comes.

        ConfigError if the settings are wrong, BadInputError if the port cannot be had.
        """
        self._limit = settings.silent_after_seconds
        self._clock = clock
        meaning = Meaning(locate, frozenset(settings.wraps_at_32_bits))
        self._receiver = Receiver(_clients(settings.clients), meaning, clock())
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._socket = _listening(settings.listen)
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="radius", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    @property
    def refused(self) -> Mapping[Refusal, int]:
        """How many packets were not answered, and why."""
        with self._lock:
            return dict(self._receiver.refused)

    def read(self, _now: dt.datetime) -> Capture:
        """Return all sessions so far.

        BadInputError if the receiver has stopped; SilentSourceError if no valid packet came for
        long while sessions are open, or only such as were made with another secret.
        """
        with self._lock:
            if self._failure is not None:
                raise BadInputError(f"{self._failure}; restart the agent")
            now = self._clock()
            self._receiver.sessions.forget(now)
            if self._limit and now - self._receiver.heard > self._limit:
                self._complain()
            return self._receiver.sessions.capture()

    def close(self) -> None:
        """Stop receiving and let go of the port."""
        with self._lock:
            self._failure = self._failure or "the receiver is closed"
        self._waker.close()
        self._thread.join()
        self._wake.close()
        self._socket.close()

    def _complain(self) -> None:
        silence = f"no valid packet came for {self._limit} seconds"
        forged = self._receiver.forged
        if forged:
            raise SilentSourceError(
                f"{silence}, but {forged} with a wrong authenticator; check the secret"
            )
        if self._receiver.sessions.any_open():
            raise SilentSourceError(
                f"{silence} while sessions are open; check the NAS, and that it may send here"
            )

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                selector.register(self._wake, selectors.EVENT_READ)
                while self._wake not in {key.fileobj for key, _events in selector.select()}:
                    self._receive()
        except Exception as error:  # noqa: BLE001 - told by the next reading
            with self._lock:
                # Its message may hold values.
                self._failure = f"the receiver has stopped: {type(error).__name__}"

    def _receive(self) -> None:
        try:
            packet, sender = self._socket.recvfrom(MAX_PACKET_BYTES + 1)
        except BlockingIOError:
            # Its checksum was wrong, or it was not for us.
            return
        with self._lock:
            answer = self._receiver.answer(packet, sender[0], self._clock())
        if answer is None:
            return
        try:
            self._socket.sendto(answer, sender)
        except OSError:
            # Its sender will ask again.
            with self._lock:
                self._receiver.refused[Refusal.NOT_SENT] += 1


def _clients(settings: Iterable[str]) -> list[Client]:
    clients = []
    for number, setting in enumerate(settings, start=1):
        prefix, found, file = setting.partition("=")
        try:
            network = ipaddress.ip_network(prefix.strip())
        except ValueError:
            network = None
        if network is None or not found:
            raise ConfigError(
                f"entry {number} of clients is not PREFIX=FILE, such as "
                "10.0.0.0/8=/etc/aggregator-agent/nas.secret"
            )
        path = Path(file.strip())
        check_secret(path)
        secret = read_file(path).strip(b"\r\n")
        if not secret:
            raise ConfigError(f"entry {number} of clients names an empty file; write the secret")
        clients.append(Client(network, secret))
    if not clients:
        raise ConfigError("clients is empty; name who may send, as PREFIX=FILE")
    return clients


def _listening(listen: str) -> socket.socket:
    host, _colon, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
        if not 0 <= number <= 0xFFFF:
            raise ValueError
    except ValueError:
        raise ConfigError(
            "listen is not ADDRESS:PORT, such as 127.0.0.1:1813 or [::1]:1813"
        ) from None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        listening = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise BadInputError(f"cannot listen: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        listening.setblocking(False)
        listening.bind((str(address), number))
    except OSError as error:
        listening.close()
        raise BadInputError(f"cannot listen: {error.strerror}; is the port in use?") from None
    return listening


def connect(settings: Settings, locate: Locate) -> RadiusReader:
    """Return a receiver that listens as `settings` says."""
    return RadiusReader(settings, locate)
