"""WireGuard: the output of `wg show`, best of `wg show IF transfer`, which holds no secret.

The number is UDP payload of WireGuard messages, 3 to 5 % above IP bytes for full packets; received
is what the client sent. It is cumulative for a peer and the life of its interface: a reconnect,
roaming, a rekey or `wg syncconf` do not reset it, while a restart, `wg setconf` or removing and
adding the peer do (measured with wireguard-go 0.0.20220316; kernel WireGuard was not measured).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import subprocess
from collections import Counter
from typing import Final, NamedTuple

from aggregator.agent.readings import Capture, Drop, Locate, Reading, byte_count, nowhere
from aggregator.errors import BadInputError

_KEY: Final = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_KEY_OR_NONE: Final = re.compile(rf"{_KEY.pattern}|\(none\)")
_INTERFACE: Final = re.compile(r"[^\s/]{1,15}")

_BY_PEER: Final = "peer"
_BY_INTERFACE: Final = "interface and peer"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One interface; `command` is the `wg` to run."""

    interface: str
    command: str = "wg"
    timeout_seconds: int = 10


class _Row(NamedTuple):
    """What is kept of a line; `reading` is None for the line of an interface itself."""

    keyed_by: str
    reading: Reading | None


def parse(text: str, _locate: Locate = nowhere, /) -> Capture:
    """Return the peers of `wg show (IF|all) (transfer|dump)`, keys as names, no accounts yet.

    No peers at all is a dump with its interface line alone. Empty text is BadInputError, since a
    `wg` that failed prints the same as an interface without peers, and so is text without a
    readable line, or whose last line is cut off.
    """
    if not text.strip():
        raise BadInputError("is empty: no peers, or `wg` failed; check its exit code")
    if not text.endswith("\n"):
        raise BadInputError("is cut off: its last line does not end")
    rows = [_row(line.split("\t")) for line in text.replace("\r\n", "\n").split("\n") if line]
    readable = [row for row in rows if row is not None]
    if not readable:
        raise BadInputError("is not the output of `wg show IF transfer`")
    keyed_by = readable[0].keyed_by
    dropped: Counter[Drop] = Counter()
    readings = []
    for row in rows:
        if row is None or row.keyed_by != keyed_by:
            dropped[Drop.UNREADABLE] += 1
        elif row.reading is not None:
            readings.append(row.reading)
    return Capture(tuple(readings), dropped, keyed_by)


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
        return _Row(_BY_PEER, Reading(key, None, (interface, key), count))
    if _INTERFACE.fullmatch(interface) is None:
        return None
    return _Row(_BY_INTERFACE, Reading(key, None, (interface, key), count))


class WireGuardReader:
    """Runs `wg show IF transfer`, so that no key, endpoint or handshake time is ever held."""

    def __init__(self, settings: Settings) -> None:
        """Read the interface that `settings` names."""
        self._settings = settings

    def read(self, _now: dt.datetime) -> Capture:
        """Return the peers of the interface; BadInputError if `wg` cannot tell them."""
        command = [self._settings.command, "show", self._settings.interface, "transfer"]
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
                command, capture_output=True, timeout=self._settings.timeout_seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadInputError(f"`wg` could not be run: {type(error).__name__}") from None
        if done.returncode:
            raise BadInputError(f"`wg` failed with exit code {done.returncode}")
        return parse(done.stdout.decode("utf-8", errors="surrogateescape"))

    def close(self) -> None:
        """Nothing is held between two reads."""


def connect(settings: Settings, _locate: Locate) -> WireGuardReader:
    """Return a reader of one interface."""
    return WireGuardReader(settings)
