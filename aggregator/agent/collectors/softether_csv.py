"""What `vpncmd /CSV` prints: UserList, UserGet, SessionList and SessionGet, in any language.

Headings and units are localised, so everything is found by where it stands. Numbers have commas
between thousands, and in UserGet and SessionGet a unit.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from aggregator.agent.readings import byte_count
from aggregator.errors import BadInputError


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class User:
    """A user of a hub; `bytes` is None if they cannot be read, `hub` if it is not named."""

    name: str
    hub: str | None
    bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Session:
    """A client's session; `began` is None where it is not shown."""

    user: str
    hub: str | None
    bytes: int | None
    name: str
    began: str | None
    host: str


Row = User | Session

_NUMBER: Final = re.compile(r"[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+")
_AMOUNT: Final = re.compile(r"([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+) (\S+)")
_CONNECTIONS: Final = re.compile(r"[0-9]+ / [0-9]+")
_SESSION_KEY: Final = re.compile(r"[0-9A-F]{40}")
_VERSION: Final = re.compile(r"[0-9]+\.[0-9]{2}")

BY_USER: Final = "user"
BY_SESSION: Final = "session"

_RULE: Final = ["---", "---"]
_ITEMS_OF_USER: Final = 5  # and more before the rule: name, full name, note, expiry, kind of log-in
_USER_COLUMNS: Final = 9  # and more; a list of sessions has 7 or 8
_SESSION_COLUMNS: Final = 7
_AMOUNTS: Final = 8  # packets and bytes, of unicast and broadcast, sent and received
_LAYER_3_SWITCH: Final = "L3SW_"


def total(*counts: str) -> int | None:
    """Return the sum of decimal byte counts, or None if it is no plausible one."""
    found: int | None = 0
    for count in counts:
        if found is not None:
            found = byte_count(count, str(found))
    return found


def rows(text: str) -> tuple[str, Iterator[Row | None]]:
    """Return what tells the rows apart, and users or sessions, None for what cannot be read.

    BadInputError if the text is empty, cut off or no output of these commands.
    """
    if not text.endswith("\n"):
        raise BadInputError("is cut off: its last line does not end")
    try:
        table = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        # The library's message may quote the line.
        raise BadInputError("is cut off, or no CSV") from None
    width = max(map(len, table), default=0)
    if table and len(table[0]) == 2 and _RULE in table:
        return BY_USER, _pages(table, _user_page)
    if width == 2 and any(_SESSION_KEY.fullmatch(row[-1]) for row in table):
        return BY_SESSION, _pages(table, _session_page)
    if width < _SESSION_COLUMNS:
        raise BadInputError("is not what `vpncmd /CSV` prints of users or sessions")
    return BY_USER if width >= _USER_COLUMNS else BY_SESSION, _list(table, width)


def _list(table: Sequence[Sequence[str]], width: int) -> Iterator[Row | None]:
    """Read UserList or SessionList, whose last two columns are bytes and packets."""
    heading, *others = (row for row in table if len(row) == width)
    if _NUMBER.fullmatch(heading[-1]):
        raise BadInputError("is cut off: its heading is missing")
    for row in table:
        if len(row) != width:
            yield None
    for row in others:
        if width >= _USER_COLUMNS:
            yield User(row[0], None, _bytes(row[-2]))
        elif _CONNECTIONS.fullmatch(row[-3]) and not row[-5].startswith(_LAYER_3_SWITCH):
            # Bridges, cascades and SecureNAT have a word in place of the TCP connections.
            yield Session(row[-5], None, _bytes(row[-2]), row[0], None, row[-4])


def _bytes(word: str) -> int | None:
    return total(word.replace(",", "")) if _NUMBER.fullmatch(word) else None


def _pages(
    table: Sequence[Sequence[str]], page: Callable[[list[str]], Row | None]
) -> Iterator[Row | None]:
    """Read pages of item and value, each under the same heading.

    What follows a page in other columns, such as the policy of a user, does not belong to it.
    """
    heading = table[0]
    starts = [at for at, row in enumerate(table) if row == heading]
    for start, end in itertools.pairwise([*starts, len(table)]):
        rows_of_page = itertools.takewhile(lambda row: len(row) == 2, table[start + 1 : end])
        yield page([value for _item, value in rows_of_page])


def _user_page(values: list[str]) -> Row | None:
    """Read UserGet: the name comes first, and the traffic after the rule."""
    if _RULE[1] not in values[_ITEMS_OF_USER:]:
        return None
    amounts = _amounts(values[values.index(_RULE[1], _ITEMS_OF_USER) :])
    return User(values[0], None, _of_amounts(amounts))


def _session_page(values: list[str]) -> Row | None:
    """Read SessionGet: whose session it is tells its name, SID-USER-number."""
    key = next((at for at, value in enumerate(values) if _SESSION_KEY.fullmatch(value)), None)
    version = next((at for at, value in enumerate(values) if _VERSION.fullmatch(value)), None)
    if key is None or version is None:
        return None
    name = next((value for value in values[version:key] if value.startswith("SID-")), "")
    # Before the version stand the product and the VLAN, and before them who it is.
    who = values[: max(0, version - 2)]
    host = who[0] if who and _is_address(who[0]) else ""
    user = next((word for word in who if _is_session_of(name, word)), None)
    if user is None:
        return None
    # The first two are what the connection carried, in its own framing.
    amounts = _amounts(values[key:])[2:]
    return Session(user, None, _of_amounts(amounts), name, None, host)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def _is_session_of(name: str, user: str) -> bool:
    number = rf"SID-{re.escape(user.upper())}-(?:\[[^\]]*\]-)?[0-9]+"
    return bool(user) and re.fullmatch(number, name) is not None


def _amounts(values: Sequence[str]) -> list[tuple[str, str]]:
    """Return the first run of numbers with a unit."""
    found: list[tuple[str, str]] = []
    for value in values:
        amount = _AMOUNT.fullmatch(value)
        if amount is not None:
            found.append((amount[1], amount[2]))
        elif found:
            break
    return found


def _of_amounts(amounts: Sequence[tuple[str, str]]) -> int | None:
    """Return the bytes of packets and bytes in turn; their units must alternate too."""
    units = [unit for _number, unit in amounts]
    if len(amounts) != _AMOUNTS or len({*units[::2]}) != 1 or len({*units[1::2]}) != 1:
        return None
    return total(*(number.replace(",", "") for number, _unit in amounts[1::2]))
