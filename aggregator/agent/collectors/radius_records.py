"""RADIUS accounting records: which attributes are looked at, and what a record says.

A NAS is known by its NAS-Identifier, else by its NAS-IP-Address and NAS-IPv6-Address; NASes that
share an identifier and reuse each other's session ids would be taken for one. Numbers have 32 bits
and a count of Gigawords. Acct-Input is what the user sent.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from aggregator.agent.readings import (
    UNKNOWN_ORIGIN,
    Drop,
    Locate,
    Origin,
    account_drop,
)
from aggregator.model.records import MAX_INTEGER

EVERY_NAS: Final = "*"

WORD: Final = 1 << 32
# Acct-Delay-Time is whole seconds, rounded down, and says nothing of the way through the network.
SLACK_SECONDS: Final = 2

# strongSwan writes 192.0.2.1[4500]; others write 192.0.2.1:4500 or [2001:db8::1]:4500.
_STATION: Final = re.compile(
    r"(?P<bare>[^\[\]]+)(?:\[[0-9]+\])?|\[(?P<inner>[^\[\]]+)\](?::[0-9]+)?"
)

# Drawn anew by every process: whoever holds a key of a session learns nothing from it.
_SEAL: Final = secrets.token_bytes(32)


class Kind(enum.Enum):
    """How the value of an attribute is written in a packet."""

    TEXT = enum.auto()
    INTEGER = enum.auto()
    IPV4 = enum.auto()
    IPV6 = enum.auto()


class Attribute(NamedTuple):
    """An attribute that is looked at; all others are passed over."""

    number: int
    name: str
    kind: Kind


USER: Final = "User-Name"
SESSION: Final = "Acct-Session-Id"
STATUS: Final = "Acct-Status-Type"
DELAY: Final = "Acct-Delay-Time"
ELAPSED: Final = "Acct-Session-Time"
STATION: Final = "Calling-Station-Id"
RECEIVED: Final = ("Acct-Input-Octets", "Acct-Input-Gigawords")
SENT: Final = ("Acct-Output-Octets", "Acct-Output-Gigawords")
NAS: Final = ("NAS-Identifier", "NAS-IP-Address", "NAS-IPv6-Address")

ATTRIBUTES: Final = (
    Attribute(1, USER, Kind.TEXT),
    Attribute(4, NAS[1], Kind.IPV4),
    Attribute(31, STATION, Kind.TEXT),
    Attribute(32, NAS[0], Kind.TEXT),
    Attribute(40, STATUS, Kind.INTEGER),
    Attribute(41, DELAY, Kind.INTEGER),
    Attribute(42, RECEIVED[0], Kind.INTEGER),
    Attribute(43, SENT[0], Kind.INTEGER),
    Attribute(44, SESSION, Kind.TEXT),
    Attribute(46, ELAPSED, Kind.INTEGER),
    Attribute(52, RECEIVED[1], Kind.INTEGER),
    Attribute(53, SENT[1], Kind.INTEGER),
    Attribute(95, NAS[2], Kind.IPV6),
)


class Status(enum.IntEnum):
    """What an event says of a session, or of all sessions of a NAS."""

    START = 1
    STOP = 2
    INTERIM_UPDATE = 3
    ACCOUNTING_ON = 7
    ACCOUNTING_OFF = 8


RESTARTS: Final = (Status.ACCOUNTING_ON, Status.ACCOUNTING_OFF)
# Tunnels and links of tunnels, and Failed: they carry no bytes of a user's session.
OTHER_STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "Tunnel-Start": 9,
        "Tunnel-Stop": 10,
        "Tunnel-Reject": 11,
        "Tunnel-Link-Start": 12,
        "Tunnel-Link-Stop": 13,
        "Tunnel-Link-Reject": 14,
        "Failed": 15,
    }
)


@dataclasses.dataclass(slots=True, repr=False)
class Said:
    """The attributes of one record that are looked at; never printed, and dropped when read."""

    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)

    def text(self, name: str, value: str) -> bool:
        """Take a text; False if the record says something else already.

        Of several Calling-Station-Ids the first counts: they tell no users apart.
        """
        return self.texts.setdefault(name, value) == value or name == STATION

    def number(self, name: str, value: int) -> bool:
        """Take a number of 32 bits; False if it is none, or the record says another already."""
        return 0 <= value < WORD and self.numbers.setdefault(name, value) == value


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One thing that a NAS said; `at` is when it happened, in seconds of the source's clock.

    `nas` and `key` are sealed, so that neither an address nor a session id is remembered.
    """

    status: Status
    nas: bytes | None
    key: bytes
    user: str
    origin: Origin
    received: int | None
    sent: int | None
    wide: bool
    wraps: bool
    at: float
    delayed: bool
    elapsed: int | None

    @property
    def earliest(self) -> float:
        """When it happened at the earliest."""
        return self.at - SLACK_SECONDS if self.delayed else self.at

    @property
    def began(self) -> float | None:
        """When its session began, if it says so."""
        if self.status is Status.START:
            return self.at
        return None if self.elapsed is None else self.at - self.elapsed


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What is needed to read records of one source.

    `wrapping` names the NASes whose numbers wrap at 32 bits; `place` stands for the NAS of a record
    that names none, empty if it may be any.
    """

    locate: Locate
    wrapping: frozenset[str] = frozenset()

    def event(self, said: Said, arrived: float, place: str = "") -> Event | Drop | None:
        """Return what a record says, why it is dropped, or None if it is of no session.

        Addresses end here: that of the user becomes an origin, those of the NAS a sealed key
        (promises CS-1, CS-6).
        """
        number = said.numbers.get(STATUS)
        if number in OTHER_STATUSES.values():
            return None
        if number not in set(Status):
            return Drop.UNREADABLE
        status = Status(number)
        nas = self._nas(said, place)
        session = said.texts.get(SESSION, "")
        user = said.texts.get(USER, "")
        if status not in RESTARTS:
            refused = account_drop(user) if session else Drop.UNREADABLE
            if refused is not None:
                return refused
        received, sent = _octets(said, RECEIVED), _octets(said, SENT)
        if (received or 0) + (sent or 0) > MAX_INTEGER:
            return Drop.UNREADABLE
        delay = said.numbers.get(DELAY, 0)
        starts = status is Status.START
        return Event(
            status=status,
            nas=sealed(*nas) if any(nas) else None,
            key=sealed(*nas, session, user),
            user=user,
            origin=_origin(said.texts.get(STATION, ""), self.locate),
            received=None if starts else received,
            sent=None if starts else sent,
            wide=RECEIVED[1] in said.numbers or SENT[1] in said.numbers,
            wraps=bool({EVERY_NAS, *map(said.texts.get, NAS)} & self.wrapping),
            at=arrived - delay,
            delayed=delay > 0,
            elapsed=said.numbers.get(ELAPSED),
        )

    def _nas(self, said: Said, place: str) -> tuple[str, ...]:
        identifier, *addresses = (said.texts.get(name, "") for name in NAS)
        if identifier:
            return (identifier, "", "")
        return ("", *addresses) if any(addresses) else ("", "", place)


def _octets(said: Said, names: tuple[str, str]) -> int | None:
    low = said.numbers.get(names[0])
    return None if low is None else said.numbers.get(names[1], 0) * WORD + low


def sealed(*parts: str) -> bytes:
    """Return a key that is the same for the same parts, in this process only."""
    seal = hashlib.blake2b(key=_SEAL, digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        seal.update(len(content).to_bytes(8) + content)
    return seal.digest()


def _origin(station: str, locate: Locate) -> Origin:
    found = _STATION.fullmatch(station)
    if found is None:
        return UNKNOWN_ORIGIN
    text = found["inner"] or found["bare"]
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # A telephone number, a MAC, a name: no address that a database knows.
        return UNKNOWN_ORIGIN
    return locate(str(address))
