"""strongSwan: CHILD SAs as `swanctl --list-sas` or vici shows them, and live over the vici socket.

The number is inner IP payload of a CHILD SA, both directions (measured with kernel-libipsec of
5.9.8; ESP of a kernel was not measured). A rekey of the CHILD SA or MOBIKE begins a new one from 0,
while the old one is shown for some seconds with its final number: all children count. A rekey of
the IKE SA moves its children with their numbers. After a restart unique ids begin at 1 again, so a
child is known by its id and its inbound SPI. Polling loses what a child moved between the last
poll and its end; the live reader hears of ends by events and loses nothing but at a crash.

The account is the EAP or XAuth identity, else the IKE identity. Before 5.5.2 all CHILD SAs of one
configuration have one name, of which the live reader sees one; text forms show all.

A connection is an IKE SA. In captures given as text its rekey looks like a new attempt, since
unique id and SPIs both change; the live reader is told which one follows which. A
reauthentication is a new attempt everywhere.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.util
import threading
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping
from typing import Any, Final

from aggregator.agent.collectors.strongswan_text import Fields, Sa, sas
from aggregator.agent.collectors.strongswan_vici import Listener, ended, listed, opened, rekeyed
from aggregator.agent.readings import (
    Capture,
    Connection,
    Drop,
    Locate,
    Reading,
    account_drop,
    byte_count,
    nowhere,
)
from aggregator.errors import BadInputError, ConfigError

_BY_SPI: Final = "child and inbound SPI"
_BY_USER: Final = "user and child"

_ESTABLISHED: Final = frozenset({"ESTABLISHED", "REKEYING", "REKEYED"})
# A child in these states had no counters yet; in any other it has them, or is just being moved.
_NOT_YET: Final = frozenset({"CREATED", "ROUTED", "INSTALLING", "RETRYING"})
# More ends than this between two reads are counted, but not kept.
_MAX_ENDED: Final = 65_536
_NOBODY: Final = frozenset({"", "%any", "(null)"})


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The unix socket of vici; the agent needs leave to open it."""

    socket: str = "/var/run/charon.vici"
    timeout_seconds: int = 30


def parse(text: str, locate: Locate = nowhere, /) -> Capture:
    """Return the CHILD SAs of one list of SAs as readings, its IKE SAs as connections.

    The forms are those of `strongswan_text`. An empty list has no readings where the form can say
    so; empty text is BadInputError, since a `swanctl` that failed prints the same, and so is text
    that is cut off or in which nothing can be read.
    """
    tally = _Tally(locate)
    tally.add(sas(text))
    if tally.dropped[Drop.UNREADABLE] and not (tally.readings or tally.seen):
        raise BadInputError("holds no SA that can be read")
    return tally.capture()


class _Tally:
    """Collects the SAs of one capture."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self.seen = False
        self.readings: dict[Hashable, Reading] = {}
        self.dropped: Counter[Drop] = Counter()
        self.connections: dict[Hashable, Connection] = {}
        self.keyed_by: str | None = None

    def add(self, found: Iterable[Sa | None]) -> None:
        """Add IKE SAs and their children."""
        for sa in found:
            if sa is None:
                self.dropped[Drop.UNREADABLE] += 1
            else:
                self._add(sa)

    def _add(self, sa: Sa) -> None:
        """Add one IKE SA.

        The host ends here, as do selectors, virtual addresses and times; SPIs live on only
        inside the opaque keys (promises CS-1, CS-6).
        """
        name = _user(sa.fields)
        refused = Drop.UNREADABLE if name is None else account_drop(name)
        for child in sa.children:
            found = _child(child, name)
            if refused is not None and not isinstance(found, Drop):
                found = refused
            self._count(found)
        key = _ike(sa.fields)
        state = sa.fields.get("state")
        if key is None or state is None:
            return
        self.seen = True
        if state == "PASSIVE":  # another node of the cluster holds it
            return
        origin = self._locate(sa.fields.get("remote-host", ""))
        established = state in _ESTABLISHED or (state == "DELETING" and bool(sa.children))
        account = None if refused is not None else name
        self._connect(Connection(key, name, account, origin, established))

    def _count(self, found: Reading | Drop) -> None:
        if isinstance(found, Drop):
            self.dropped[found] += 1
            return
        keyed_by = _BY_USER if isinstance(found.counter, _UserChild) else _BY_SPI
        self.keyed_by = self.keyed_by or keyed_by
        if keyed_by != self.keyed_by:
            self.dropped[Drop.UNREADABLE] += 1
        else:
            self.dropped[Drop.REPEATED] += found.counter in self.readings
            self.keep(found)

    def keep(self, reading: Reading) -> None:
        """Keep the larger number of a child: its counter only grows."""
        known = self.readings.get(reading.counter)
        if known is None or known.bytes < reading.bytes:
            self.readings[reading.counter] = reading

    def rename(self, first: Mapping[Hashable, Hashable]) -> None:
        """Give the connections that are rekeyed ones the keys by which they began."""
        found = list(self.connections.values())
        self.connections.clear()
        for connection in found:
            key = first.get(connection.key, connection.key)
            self._connect(dataclasses.replace(connection, key=key))

    def _connect(self, connection: Connection) -> None:
        known = self.connections.get(connection.key)
        if known is None or not known.established:
            self.connections[connection.key] = connection

    def capture(self) -> Capture:
        """Return what was collected."""
        return Capture(
            tuple(self.readings.values()),
            +self.dropped,
            self.keyed_by or _BY_SPI,
            tuple(self.connections.values()),
        )


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Child:
    """One CHILD SA, to be recognised in the next capture: never printed, never sent."""

    uniqueid: str
    spi: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _UserChild:
    """The same where the inbound SPI is not shown; unique ids are used again after a restart."""

    user: str
    uniqueid: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Ike:
    """One IKE SA. Of its two SPIs only the initiator's stays the same from the first packet on."""

    uniqueid: str
    spi: str


def _user(fields: Fields) -> str | None:
    """Return who an SA belongs to, or None while it is not known.

    With EAP or XAuth the IKE identity is the peer's own choice, and never stands in for it.
    """
    for key in ("remote-eap-id", "remote-xauth-id", "remote-id"):
        if key in fields:
            return None if fields[key] in _NOBODY else fields[key]
    return None


def _ike(fields: Fields) -> Hashable | None:
    """Return what tells IKE SAs apart, or None if it is not shown."""
    if "uniqueid" not in fields or "initiator-spi" not in fields:
        return None
    return _Ike(fields["uniqueid"], fields["initiator-spi"])


def _child(child: Fields | None, user: str | None) -> Reading | Drop:
    """Return the counter of a CHILD SA, or why there is none."""
    if child is None:
        return Drop.UNREADABLE
    if child.get("state") in _NOT_YET and not {"bytes-in", "bytes-out"} & child.keys():
        return Drop.UNFINISHED
    count = byte_count(child.get("bytes-in", ""), child.get("bytes-out", ""))
    uniqueid = child.get("uniqueid", "")
    if count is None or not (uniqueid.isascii() and uniqueid.isdecimal()):
        return Drop.UNREADABLE
    name = user or ""
    spi = child.get("spi-in")
    key = _UserChild(name, uniqueid) if spi is None else _Child(uniqueid, spi)
    return Reading(name, name, key, count)


class StrongSwanReader:
    """Lists the SAs of charon, and adds what children that ended since showed at last."""

    def __init__(self, settings: Settings, locate: Locate) -> None:
        """Read the socket that `settings` names; events are heard from the first read on."""
        self._settings = settings
        self._locate = locate
        self._ended = _Ended()
        self._listener = Listener(settings.socket, settings.timeout_seconds, self._ended.hear)
        self._shown: dict[Hashable, Reading] = {}

    def read(self, _now: dt.datetime) -> Capture:
        """Return all children: those listed, and once each, those that ended since the last read.

        A charon without SAs has no readings. BadInputError if the socket is away or answers
        badly; what was heard meanwhile is kept for the next read.
        """
        self._listener.start()
        tally = _Tally(self._locate)
        with opened(self._settings.socket, self._settings.timeout_seconds) as vici_socket:
            # Only from here on no end can be missed between this list and the next.
            self._listener.wait()
            found = listed(vici_socket)
        tally.add(found)
        shown = tuple(tally.readings)
        # Taken after the list, so that an end is in it, or heard, or both: the larger one counts.
        readings, unreadable = self._ended.take()
        tally.dropped[Drop.UNREADABLE] += unreadable
        for reading in readings:
            tally.keep(reading)
        for reading in self._shown.values():
            # The word of its end may still be under way; forgotten, it would count as a new one.
            tally.keep(reading)
        # With the largest numbers told: a smaller one would look like a counter begun anew.
        self._shown = {counter: tally.readings[counter] for counter in shown}
        tally.rename(self._ended.first(tally.connections))
        return tally.capture()

    def close(self) -> None:
        """End the thread that hears events."""
        self._listener.close()


class _Ended:
    """What events said: the last numbers of children, and which IKE SA follows which."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tally = _Tally(nowhere)
        self._first: dict[Hashable, Hashable] = {}
        # Those heard of since the last list, which may not show them yet.
        self._fresh: set[Hashable] = set()

    def hear(self, event: str, content: Mapping[str, Any] | None) -> None:
        """Take in one event."""
        with self._lock:
            if content is None or len(self._tally.readings) >= _MAX_ENDED:
                self._tally.dropped[Drop.UNREADABLE] += 1
                return
            self._tally.add(ended(event, content))
            for old, new in rekeyed(event, content):
                before, after = _ike(old.fields), _ike(new.fields)
                if before is not None and after is not None and len(self._first) < _MAX_ENDED:
                    self._first[after] = self._first.get(before, before)
                    self._fresh.add(after)

    def take(self) -> tuple[list[Reading], int]:
        """Return each child that ended since, and how many ends could not be read."""
        with self._lock:
            taken, self._tally = self._tally, _Tally(nowhere)
        return list(taken.readings.values()), taken.dropped[Drop.UNREADABLE]

    def first(self, shown: Container[Hashable]) -> dict[Hashable, Hashable]:
        """Return from IKE SAs that a rekey made to the first ones; forget those that are gone."""
        with self._lock:
            self._first = {
                key: first
                for key, first in self._first.items()
                if key in shown or key in self._fresh
            }
            self._fresh.clear()
            return dict(self._first)


def connect(settings: Settings, locate: Locate) -> StrongSwanReader:
    """Return a reader of one charon; ConfigError if the package `vici` is missing."""
    if importlib.util.find_spec("vici") is None:
        raise ConfigError("strongSwan is read with the Python package `vici`; install it")
    return StrongSwanReader(settings, locate)
