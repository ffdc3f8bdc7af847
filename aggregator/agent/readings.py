"""What a collector hands over: readings without addresses or times, and counts of what it dropped.

Readings and connections are local to the VPN server. Only what `aggregator.agent.totals` and
`aggregator.agent.connections` make of them is sent.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Final, Protocol

from aggregator.errors import BadInputError
from aggregator.model import text
from aggregator.model.records import MAX_INTEGER, MAX_USER_CHARACTERS

_DECIMAL: Final = re.compile(r"[0-9]{1,16}")


class Drop(enum.StrEnum):
    """Why a row was dropped at the agent; the count is all that is kept of it."""

    UNREADABLE = "unreadable"
    REPEATED = "repeated"
    UNFINISHED = "unfinished"
    UNMAPPED = "unmapped"
    ADDRESS_LIKE = "address_like"
    TIMESTAMP_LIKE = "timestamp_like"
    BAD_FORMAT = "bad_format"


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One counter as the daemon shows it.

    `name` is the daemon's own word for the user and stays on this server; `account` is what a
    record may carry, or None when the counter can be charged to nobody (yet). `counter` tells the
    daemon's counters apart, is opaque and local; within a capture it has one account. `bytes` is
    both directions added, in the daemon's unit. Nothing but `bytes` is ever printed.
    """

    name: str = dataclasses.field(repr=False)
    account: str | None = dataclasses.field(repr=False)
    counter: Hashable = dataclasses.field(repr=False)
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from: all that is left of its address (promise CS-1)."""

    country: str = "ZZ"
    asn: int = 0


UNKNOWN_ORIGIN: Final = Origin()

Locate = Callable[[str], Origin]
"""From the text of an address, with or without its port, to its origin; keeps nothing of it."""


def nowhere(_address: str) -> Origin:
    """Return the unknown origin: what is known of addresses without a database."""
    return UNKNOWN_ORIGIN


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """One attempt to connect, or a connection, as the daemon shows it at the moment of a capture.

    `key` is opaque and local, and the same in every capture that shows this connection. `name` and
    `account` are those of a reading; both may be None while the user is not known. `established`
    says whether the attempt succeeded; what is not (yet) established was an attempt. One that
    `began_before` this agent did is none: its earlier start has counted it.
    """

    key: Hashable = dataclasses.field(repr=False)
    name: str | None = dataclasses.field(repr=False)
    account: str | None = dataclasses.field(repr=False)
    origin: Origin
    established: bool
    app: str | None = None
    version: str | None = None
    began_before: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Capture:
    """All counters of one source at one moment, in no particular order.

    `connections` are those shown at that moment, for the connection flags; a source that cannot
    tell them has none. `keyed_by` says what `Reading.counter` is made of. Captures that differ in
    it cannot be compared: the same counter would look like a new one, and its history would be
    charged again.
    """

    readings: tuple[Reading, ...]
    dropped: Mapping[Drop, int]
    keyed_by: str
    connections: tuple[Connection, ...] = ()


class SilentSourceError(BadInputError):
    """The source is there but says nothing new: a file left behind, a device that fell silent.

    It is told apart from one that could not be read, and never taken for zero.
    """


class Reader(Protocol):
    """Reads one source of a running daemon, again and again."""

    def read(self, now: dt.datetime) -> Capture:
        """Return what the source shows at the instant `now`.

        BadInputError if it could not be read, SilentSourceError if what it shows is old; their
        text holds no user, no address and nothing of what was read.
        """

    def close(self) -> None:
        """Let go of sockets, threads and processes; may be called twice."""


def account_drop(account: str) -> Drop | None:
    """Return why no record may carry `account`, or None (promise CS-6; same rules as the door)."""
    if text.address_like(account):
        return Drop.ADDRESS_LIKE
    if text.timestamp_like(account):
        return Drop.TIMESTAMP_LIKE
    if not 1 <= len(account) <= MAX_USER_CHARACTERS or text.has_forbidden_character(account):
        return Drop.BAD_FORMAT
    return None


def byte_count(received: str, sent: str) -> int | None:
    """Return the sum of two decimal byte counts, or None if it is no plausible one."""
    if _DECIMAL.fullmatch(received) is None or _DECIMAL.fullmatch(sent) is None:
        return None
    both = int(received) + int(sent)
    return both if both <= MAX_INTEGER else None
