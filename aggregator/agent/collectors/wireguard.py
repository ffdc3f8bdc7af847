"""WireGuard: the output of `wg show`, best of `wg show IF transfer`, which holds no secret.

The number is UDP payload of WireGuard messages, 3 to 5 % above IP bytes for full packets; received
is what the client sent. It is cumulative for a peer and the life of its interface: a reconnect,
roaming, a rekey or `wg syncconf` do not reset it, while a restart, `wg setconf` or removing and
adding the peer do (measured with wireguard-go 0.0.20220316; kernel WireGuard was not measured).

WireGuard knows no connections, only peers that speak or are silent. Here a connection is a time in
which a peer sends something again and again, handshakes and keepalives included: it begins when
its received counter grows, and ends when that stood still over `quiet_readings` readings. So a
client that sleeps for long and wakes up has connected anew, while one that reconnects quickly goes
on. An attempt that fails never moves the counter: attempts are always successes. What a peer did
before the first reading is not known, so a client that was silent at the agent's start counts when
it speaks, unless that is within the same few readings.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import subprocess
from collections.abc import Mapping
from typing import Final, NamedTuple

from aggregator.agent.readings import (
    UNKNOWN_ORIGIN,
    Capture,
    Connection,
    Drop,
    Locate,
    Origin,
    Reading,
    byte_count,
    nowhere,
)
from aggregator.errors import BadInputError, ConfigError

_KEY: Final = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_KEY_OR_NONE: Final = re.compile(rf"{_KEY.pattern}|\(none\)")
_INTERFACE: Final = re.compile(r"[^\s/]{1,15}")

_BY_PEER: Final = "peer"
_BY_INTERFACE: Final = "interface and peer"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One interface; `command` is the `wg` to run.

    `quiet_readings` is how many readings a peer is silent before its connection is over.
    """

    interface: str
    command: str = "wg"
    timeout_seconds: int = 10
    quiet_readings: int = 3


class _Row(NamedTuple):
    """What is kept of a line; `reading` is None for the line of an interface itself.

    `received` is what the peer sent, in bytes.
    """

    keyed_by: str
    reading: Reading | None
    received: int = 0


class _Peers(NamedTuple):
    """The readable lines of an output, and how many were not."""

    rows: list[_Row]
    unreadable: int


def parse(text: str, _locate: Locate = nowhere, /) -> Capture:
    """Return the peers of `wg show (IF|all) (transfer|dump)`, keys as names, no accounts yet.

    No peers at all is a dump with its interface line alone. Empty text is BadInputError, since a
    `wg` that failed prints the same as an interface without peers, and so is text without a
    readable line, or whose last line is cut off. One capture alone tells no connections.
    """
    return _capture(_peers(text))


def _capture(peers: _Peers, connections: tuple[Connection, ...] = ()) -> Capture:
    readings = tuple(row.reading for row in peers.rows if row.reading is not None)
    dropped = {Drop.UNREADABLE: peers.unreadable} if peers.unreadable else {}
    keyed_by = peers.rows[0].keyed_by if peers.rows else _BY_PEER
    return Capture(readings, dropped, keyed_by, connections)


def _peers(text: str) -> _Peers:
    if not text.strip():
        raise BadInputError("is empty: no peers, or `wg` failed; check its exit code")
    if not text.endswith("\n"):
        raise BadInputError("is cut off: its last line does not end")
    rows = [_row(line.split("\t")) for line in text.replace("\r\n", "\n").split("\n") if line]
    readable = [row for row in rows if row is not None]
    if not readable:
        raise BadInputError("is not the output of `wg show IF transfer`")
    alike = [row for row in readable if row.keyed_by == readable[0].keyed_by]
    return _Peers(alike, len(rows) - len(alike))


def _row(fields: list[str]) -> _Row | None:
    """Return the key and the two counts of a line, or None if it is none of the known ones.

    Private and preshared keys, endpoints, allowed addresses, handshake times and the keepalive
    interval end here (promises CS-6, CS-7).
    """
    match fields:
        case [key, received, sent]:
            return _peer(None, key, received, sent)
        case [private, public, _port, _mark] if _are_keys(private, public):
            return _Row(_BY_PEER, None)
        case [interface, key, received, sent]:
            return _peer(interface, key, received, sent)
        case [interface, private, public, _port, _mark] if _are_keys(private, public):
            return _Row(_BY_INTERFACE, None) if _INTERFACE.fullmatch(interface) else None
        case [key, _preshared, _endpoint, _allowed, _handshake, received, sent, _keepalive]:
            return _peer(None, key, received, sent)
        case [interface, key, _preshared, _endpoint, _allowed, _handshake, received, sent, _alive]:
            return _peer(interface, key, received, sent)
        case _:
            return None


def _are_keys(private: str, public: str) -> bool:
    return bool(_KEY_OR_NONE.fullmatch(private) and _KEY_OR_NONE.fullmatch(public))


def _peer(interface: str | None, key: str, received: str, sent: str) -> _Row | None:
    count = byte_count(received, sent)
    if count is None or _KEY.fullmatch(key) is None:
        return None
    if interface is None:
        return _Row(_BY_PEER, Reading(key, None, (interface, key), count), int(received))
    if _INTERFACE.fullmatch(interface) is None:
        return None
    return _Row(_BY_INTERFACE, Reading(key, None, (interface, key), count), int(received))


def _origins(text: str, locate: Locate) -> dict[str, Origin]:
    """Return the origins of the peers in `wg show IF endpoints`; addresses end here (CS-1)."""
    origins = {}
    for line in text.splitlines():
        key, _, endpoint = line.partition("\t")
        if _KEY.fullmatch(key) and endpoint != "(none)":
            origins[key] = locate(endpoint)
    return origins


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Peer:
    """What is remembered of a peer: its counter, since how many readings it is silent, its run."""

    received: int
    quiet: int
    run: int


class _Connections:
    """Tells the connections of an interface by what its peers sent between two readings."""

    def __init__(self, quiet_readings: int) -> None:
        self._quiet_readings = quiet_readings
        self._peers: dict[str, _Peer] | None = None

    def shown(
        self, received: Mapping[str, int], origins: Mapping[str, Origin]
    ) -> tuple[Connection, ...]:
        """Return the connections at a reading, by what every peer has sent up to now.

        A connection names its user only where the peer sent something since the last reading: a
        client that is silent, or was so before the first one, is no user of the day (CS-4).
        """
        before = self._peers
        self._peers = {}
        found = []
        for key, count in received.items():
            known = None if before is None else before.get(key)
            if before is None:
                # It may have sent that long ago; it is taken to be there, so that it does not
                # count as new.
                peer = _Peer(count, 0 if count else self._quiet_readings, 0)
                moved = False
            else:
                peer, moved = self._next(known or _Peer(0, self._quiet_readings, 0), count)
            self._peers[key] = peer
            if peer.quiet < self._quiet_readings:
                origin = origins.get(key, UNKNOWN_ORIGIN)
                name = key if moved else None
                found.append(Connection((key, peer.run), name, None, origin, established=True))
        return tuple(found)

    def _next(self, peer: _Peer, received: int) -> tuple[_Peer, bool]:
        """Return the peer after a reading, and whether it sent something since the last one.

        A counter that fell was reset, and what it holds was sent since.
        """
        if received in (peer.received, 0):
            return _Peer(received, min(peer.quiet + 1, self._quiet_readings), peer.run), False
        begins = peer.quiet >= self._quiet_readings
        return _Peer(received, 0, peer.run + begins), True


class WireGuardReader:
    """Runs `wg show IF transfer`, which tells no secret, no endpoint and no handshake time.

    Where origins can be told, `wg show IF endpoints` is run beside it.
    """

    def __init__(self, settings: Settings, locate: Locate) -> None:
        """Read the interface that `settings` names."""
        self._settings = settings
        self._locate = locate
        self._connections = _Connections(settings.quiet_readings)

    def read(self, _now: dt.datetime) -> Capture:
        """Return the peers of the interface and their connections.

        BadInputError if `wg` cannot tell them. An interface without peers is nothing to read.
        """
        text = self._shown("transfer")
        peers = _peers(text) if text else _Peers([], 0)
        origins = {}
        if self._locate is not nowhere:
            origins = _origins(self._shown("endpoints"), self._locate)
        received = {row.reading.name: row.received for row in peers.rows if row.reading is not None}
        return _capture(peers, self._connections.shown(received, origins))

    def close(self) -> None:
        """Nothing is held between two reads."""

    def _shown(self, what: str) -> str:
        command = [self._settings.command, "show", self._settings.interface, what]
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
                command, capture_output=True, timeout=self._settings.timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise BadInputError("`wg` does not answer in time") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise BadInputError(f"`wg` could not be run: {why}; is it installed?") from None
        if done.returncode:
            raise BadInputError(
                f"`wg` failed with exit code {done.returncode}: is the interface there, and may "
                "the agent see it (CAP_NET_ADMIN)?"
            )
        return done.stdout.decode("utf-8", errors="surrogateescape")


def connect(settings: Settings, locate: Locate) -> WireGuardReader:
    """Return a reader of one interface; ConfigError if it is not named in a usable way."""
    if _INTERFACE.fullmatch(settings.interface) is None or settings.interface == "all":
        raise ConfigError("a WireGuard source needs the name of one interface, such as wg0")
    if settings.quiet_readings < 1:
        raise ConfigError("quiet_readings must be at least 1")
    return WireGuardReader(settings, locate)
