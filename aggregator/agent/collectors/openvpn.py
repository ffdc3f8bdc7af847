"""OpenVPN: the status of a server, versions 1, 2 and 3, from its file or its management interface.

The number is payload of the outer UDP or TCP connection, both directions, the control channel
included (about 4 kB for a fresh session). It is cumulative for one session: a float or a TLS rekey
do not reset it; every reconnect is a new session (measured with OpenVPN 2.6.14, without DCO).
The account is the common name; a server that checks passwords instead of certificates needs
`username-as-common-name`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from aggregator.agent.readings import (
    Capture,
    Drop,
    Locate,
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

_NAME: Final = "Common Name"
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
class Settings:
    """The status file that one server writes."""

    status: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Session:
    """One session, to be recognised in the next capture: never printed, never sent.

    A Client ID is unique only until the server's next soft restart, hence the start. Version 1
    has no Client ID: two sessions that one user began in the same second share a key there.
    """

    name: str
    client_id: str | None
    since: str


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


def parse(text: str, _locate: Locate = nowhere, /) -> Capture:
    """Return the sessions of one server; a status without clients has no readings.

    BadInputError for text that is empty, no status, more than one, or without its END.
    """
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
    return _capture(layout, lines[at + 1 : lines.index("END", at)])


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


def _capture(layout: _Layout, lines: Sequence[str]) -> Capture:
    dropped: Counter[Drop] = Counter()
    readings: list[Reading] = []
    places: dict[_Session, int] = {}
    for row in _rows(layout, lines):
        found = Drop.UNREADABLE if row is None else _session(layout, row)
        if isinstance(found, Drop):
            dropped[found] += 1
            continue
        session, count = found
        place = places.setdefault(session, len(readings))
        if place < len(readings) and session.client_id is not None:
            # A file read while it is rewritten may show an old row beside the new one.
            dropped[Drop.REPEATED] += 1
            count = max(count, readings[place].bytes)
            readings[place] = dataclasses.replace(readings[place], bytes=count)
        else:
            readings.append(Reading(session.name, session.name, session, count))
    return Capture(tuple(readings), dropped, layout.keyed_by)


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


def _session(layout: _Layout, row: str) -> tuple[_Session, int] | Drop:
    """Return the session and the bytes of a row, or why it is dropped.

    Addresses, the cipher and the user name end here, and the start of the session lives on only
    inside the opaque key (promises CS-1, CS-6).
    """
    values = _columns(layout, row)
    if values is None:
        return Drop.UNREADABLE
    name = values[_NAME]
    if name == _UNDEFINED:
        return Drop.UNFINISHED
    count = byte_count(values[_RECEIVED], values[_SENT])
    if count is None:
        return Drop.UNREADABLE
    since = values.get(_SINCE_SECONDS) or values[_SINCE]
    refused = account_drop(name)
    return refused or (_Session(name, values.get(_CLIENT_ID), since), count)


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


class OpenVPNReader:
    """Reads the status file of one server."""

    def __init__(self, settings: Settings) -> None:
        """Read the file that `settings` names."""
        self._settings = settings

    def read(self, _now: dt.datetime) -> Capture:
        """Return the sessions of the server; BadInputError if the file cannot be read."""
        try:
            content = Path(self._settings.status).read_bytes()
        except OSError as error:
            raise BadInputError(f"cannot be read: {error.strerror}") from None
        return parse(content.decode("utf-8", errors="surrogateescape"))

    def close(self) -> None:
        """Nothing is held between two reads."""


def connect(settings: Settings, _locate: Locate) -> OpenVPNReader:
    """Return a reader of one server's status file."""
    return OpenVPNReader(settings)
