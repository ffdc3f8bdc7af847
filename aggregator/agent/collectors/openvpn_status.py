"""The text of an OpenVPN server's status, versions 1, 2 and 3: its sessions and connections.

Columns are found by the header, which differs from 2.4 to 2.6. Addresses are turned into origins
in the one function that reads a row, and end there (promises CS-1, CS-6).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from aggregator.agent.readings import (
    Capture,
    Connection,
    Drop,
    Locate,
    Origin,
    Reading,
    account_drop,
    byte_count,
    nowhere,
)
from aggregator.errors import BadInputError

# What else stands in a management session: notifications, and echoed commands.
_NOISE: Final = re.compile(r">[A-Z][A-Z0-9_-]*:|<<< ")
_DECIMAL: Final = re.compile(r"[0-9]{1,20}")

_TAGS: Final = ("TITLE", "TIME", "HEADER", "ROUTING_TABLE", "GLOBAL_STATS")
_UNDEFINED: Final = "UNDEF"

_TIME: Final = re.compile(r"TIME([,\t])[^,\t]*\1([0-9]{1,11})")

_NAME: Final = "Common Name"
_ADDRESS: Final = "Real Address"
_USERNAME: Final = "Username"
_RECEIVED: Final = "Bytes Received"
_SENT: Final = "Bytes Sent"
_SINCE: Final = "Connected Since"
_SINCE_SECONDS: Final = "Connected Since (time_t)"
_CLIENT_ID: Final = "Client ID"
_NUMBERS: Final = frozenset({_RECEIVED, _SENT, _SINCE_SECONDS, _CLIENT_ID})

# More commas than this in one row are no name, and are not worth trying.
_MAX_COMMAS: Final = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What a status says.

    `written` is when the server wrote it, as time_t; version 1 does not tell. `has_client_ids`: a
    Client ID tells its sessions apart, as it does in versions 2 and 3 since OpenVPN 2.4.
    """

    capture: Capture
    written: int | None = dataclasses.field(repr=False)
    has_client_ids: bool = True


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Session:
    """One session, to be recognised in the next capture: never printed, never sent.

    A Client ID is unique only until the server's next soft restart, hence the start. Version 1
    has no Client ID: two sessions that one user began in the same second share a key there.
    """

    name: str
    client_id: str | None
    since: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Attempt:
    """One client instance of the server, with a name or not yet: the key of a connection.

    Without a Client ID the ones that began in the same second are numbered.
    """

    client_id: str | None
    since: str
    number: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """What is kept of a row. `refused` says why it is no reading, `count` is 0 then."""

    session: Session
    count: int
    refused: Drop | None
    origin: Origin


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of the client list, as the status itself names them (2.4 to 2.6 differ)."""

    tag: str
    separator: str
    columns: tuple[str, ...]

    @property
    def keyed_by(self) -> str:
        """What tells sessions apart under this header."""
        since = _SINCE_SECONDS if _SINCE_SECONDS in self.columns else _SINCE
        return ", ".join(name for name in (_NAME, _CLIENT_ID, since) if name in self.columns)


def parse(text: str, locate: Locate = nowhere, /) -> Capture:
    """Return the sessions and connections of one server; a status may have none.

    Every client is a connection, also one without a name yet: a handshake in progress, or one
    that fails. It is established once the server knows its name.
    BadInputError for text that is empty, no status, more than one, or without its END.
    """
    return parse_status(text, locate).capture


def parse_status(text: str, locate: Locate) -> Status:
    """Return what `parse` does, and when the status was written."""
    if not text.strip():
        raise BadInputError("is empty: no status was written")
    # Only LF ends a line: other separators may stand in a name.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [line for line in lines if line and _NOISE.match(line) is None]
    layouts = [(at, layout) for at, line in enumerate(lines) if (layout := _layout(line))]
    if not layouts:
        raise BadInputError("is not an OpenVPN status: no header of a client list")
    if len(layouts) > 1:
        raise BadInputError("holds more than one OpenVPN status; give each its own file")
    at, layout = layouts[0]
    if "END" not in lines[at:]:
        raise BadInputError("is cut off: its END is missing")
    # What follows END is the rest of a longer status that is being overwritten.
    capture = _capture(layout, lines[at + 1 : lines.index("END", at)], locate)
    times = [int(found[2]) for line in lines[:at] if (found := _TIME.fullmatch(line))]
    return Status(capture, times[0] if times else None, _CLIENT_ID in layout.columns)


def _layout(line: str) -> _Layout | None:
    """Return the layout if `line` is the header of a client list."""
    for separator in (",", "\t"):
        tag = f"CLIENT_LIST{separator}"
        header = f"HEADER{separator}{tag}"
        if line.startswith(header):
            columns = tuple(line.removeprefix(header).split(separator))
            break
    else:
        tag, separator, columns = "", ",", tuple(line.split(","))
        if columns[0] != _NAME or _RECEIVED not in columns:
            return None
    if columns[0] != _NAME or not {_RECEIVED, _SENT, _SINCE} <= set(columns):
        raise BadInputError("is an OpenVPN status whose header lacks a column that is needed")
    return _Layout(tag, separator, columns)


def _capture(layout: _Layout, lines: Sequence[str], locate: Locate) -> Capture:
    dropped: Counter[Drop] = Counter()
    readings: list[Reading] = []
    places: dict[Session, int] = {}
    rows: list[_Row] = []
    for line in _rows(layout, lines):
        row = None if line is None else _row(layout, line, locate)
        if row is None:
            dropped[Drop.UNREADABLE] += 1
            continue
        rows.append(row)
        if row.refused is not None:
            dropped[row.refused] += 1
            continue
        session, count = row.session, row.count
        place = places.setdefault(session, len(readings))
        if place < len(readings) and session.client_id is not None:
            # A file read while it is rewritten may show an old row beside the new one.
            dropped[Drop.REPEATED] += 1
            count = max(count, readings[place].bytes)
            readings[place] = dataclasses.replace(readings[place], bytes=count)
        else:
            readings.append(Reading(session.name, session.name, session, count))
    return Capture(tuple(readings), dropped, layout.keyed_by, _connections(rows))


def _connections(rows: Sequence[_Row]) -> tuple[Connection, ...]:
    """Return one connection a client instance.

    Established ones come first: a row that is there twice is taken as the later of the two, and
    the numbers of nameless ones never make a second success of one.
    """
    found: dict[_Attempt, Connection] = {}
    numbers: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: row.refused is Drop.UNFINISHED):
        session = row.session
        key = _Attempt(session.client_id, session.since)
        if session.client_id is None:
            key = dataclasses.replace(key, number=numbers[session.since])
            numbers[session.since] += 1
        name = session.name if row.refused is None else None
        established = row.refused is not Drop.UNFINISHED
        found.setdefault(key, Connection(key, name, name, row.origin, established))
    return tuple(found.values())


def _rows(layout: _Layout, lines: Sequence[str]) -> Iterator[str | None]:
    """Yield the rows of the client list without their tag, None for a line of no known kind."""
    others = tuple(f"{tag}{layout.separator}" for tag in _TAGS)
    for line in lines:
        if not layout.tag and line == "ROUTING TABLE":
            return
        if line.startswith(layout.tag):
            yield line.removeprefix(layout.tag)
        elif not line.startswith(others):
            yield None


def _row(layout: _Layout, line: str, locate: Locate) -> _Row | None:
    """Return what is kept of a row, or None if it cannot be read.

    Addresses, the cipher and the user name end here, and the start of the session lives on only
    inside opaque keys (promises CS-1, CS-6).
    """
    values = _columns(layout, line)
    if values is None:
        return None
    name, count = values[_NAME], byte_count(values[_RECEIVED], values[_SENT])
    unfinished = name == _UNDEFINED
    if count is None and not unfinished:
        return None
    since = values.get(_SINCE_SECONDS) or values[_SINCE]
    session = Session(name, values.get(_CLIENT_ID), since)
    refused = Drop.UNFINISHED if unfinished else account_drop(name)
    return _Row(session, count or 0, refused, locate(values.get(_ADDRESS, "")))


def _columns(layout: _Layout, row: str) -> dict[str, str] | None:
    """Return the values of a row by column, or None if it does not fit the header in one way.

    Fields are not quoted, so a comma in the common name (or in the user name) makes more of them
    than the header has. Which ones belong together is told by the columns that are numbers.
    """
    fields = row.split(layout.separator)
    more = len(fields) - len(layout.columns)
    if not 0 <= more <= _MAX_COMMAS:
        return None
    fits = [
        values
        for in_name in range(more + 1)
        if (values := _joined(layout, fields, {_NAME: in_name, _USERNAME: more - in_name}))
    ]
    return fits[0] if len(fits) == 1 else None


def _joined(layout: _Layout, fields: Sequence[str], extra: dict[str, int]) -> dict[str, str] | None:
    """Return the values by column, with `extra` separators inside the columns it names."""
    values = {}
    at = 0
    for column in layout.columns:
        width = 1 + extra.get(column, 0)
        values[column] = layout.separator.join(fields[at : at + width])
        at += width
    if at != len(fields):
        return None
    if not all(_DECIMAL.fullmatch(values[column]) for column in _NUMBERS & values.keys()):
        return None
    return values
