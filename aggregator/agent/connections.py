"""Connection flags: successive captures of one source become attempts, successes and users.

They are counted by UTC day, origin (country and provider) and app, and sent as
`connection_flags.1`, without a user and without a time of day (promise CS-1). Nothing here is
stored: state lives in memory and begins anew, with a new epoch, at every agent start (CL-4).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import secrets
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Final, NamedTuple

from aggregator.agent.readings import Capture, Connection, Drop
from aggregator.errors import BadInputError
from aggregator.model.records import ConnectionFlags

_HASH_BYTES: Final = 16


class _Cell(NamedTuple):
    country: str
    asn: int
    app: str | None
    version: str | None


class _Place(NamedTuple):
    """The cell of one day."""

    day: dt.date
    cell: _Cell


class _Numbers(NamedTuple):
    users: int = 0
    attempts: int = 0
    successes: int = 0


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Users:
    """The users of one day and cell, as hashes with a salt that is forgotten with the day."""

    day: dt.date | None = None
    salt: bytes = b""
    cells: Mapping[_Cell, frozenset[bytes]] = dataclasses.field(default_factory=dict)

    def after(self, connections: Iterable[Connection], day: dt.date) -> _Users:
        """Return the users after `connections` were shown on `day`."""
        same_day = self.day == day
        salt = self.salt if same_day else secrets.token_bytes(_HASH_BYTES)
        cells: defaultdict[_Cell, set[bytes]] = defaultdict(set)
        for connection in connections:
            if connection.established and connection.account is not None:
                account = connection.account.encode("utf-8", errors="surrogatepass")
                hashed = hashlib.blake2b(account, key=salt, digest_size=_HASH_BYTES).digest()
                cells[_cell(connection)].add(hashed)
        before = self.cells if same_day else {}
        now = {cell: before.get(cell, frozenset()) | users for cell, users in cells.items()}
        return _Users(day, salt, {**before, **now})


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionTotals:
    """The state between two captures of one source; `after` returns the next one.

    `_shown` has the connections of the last capture: with the place of an attempt that has not
    succeeded yet, with None where there is nothing left to count.
    """

    _shown: Mapping[Hashable, _Place | None] | None = dataclasses.field(default=None, repr=False)
    _numbers: Mapping[_Place, _Numbers] = dataclasses.field(default_factory=dict, repr=False)
    _users: _Users = dataclasses.field(default_factory=_Users, repr=False)
    _keyed_by: str | None = None

    def after(self, capture: Capture, day: dt.date) -> ConnectionTotals:
        """Return the totals after `capture`, taken on the UTC day `day`.

        A connection that was not shown before is an attempt of that day and of the cell it is
        shown in, and its success belongs to the same place, also if it comes after midnight: so
        there are never more successes than attempts. The connections of the first capture were
        attempted before it, and count only their users. A user counts on every day, and in every
        cell, in which an established connection of the account is shown.
        BadInputError if connections have other keys than before.
        """
        if self._keyed_by not in (None, capture.keyed_by):
            raise BadInputError("was captured in another form than the ones before it")
        numbers = dict(self._numbers)
        shown: dict[Hashable, _Place | None] = {}
        for connection in _once_each(capture.connections):
            place = self._attempt(connection, day, numbers)
            if place is not None and connection.established:
                so_far = numbers[place]
                numbers[place] = so_far._replace(successes=so_far.successes + 1)
                place = None
            shown[connection.key] = place
        if self._shown is not None and capture.dropped.get(Drop.UNREADABLE):
            # What is missing may be one of the rows that could not be read, and would be new again.
            shown = {**self._shown, **shown}
        users = self._users.after(capture.connections, day)
        for cell, hashes in users.cells.items():
            so_far = numbers.get(_Place(day, cell), _Numbers())
            # A day that comes back, after the clock was set, begins a new set.
            most = max(so_far.users, len(hashes))
            numbers[_Place(day, cell)] = so_far._replace(users=most)
        return ConnectionTotals(shown, numbers, users, capture.keyed_by)

    def records(self, location: str, epoch: str) -> list[ConnectionFlags]:
        """Return the records to send, by day and cell; `epoch` is 16 lower-case hex digits."""
        return [
            ConnectionFlags(day.isoformat(), location, epoch, *cell, *numbers)
            for (day, cell), numbers in sorted(self._numbers.items(), key=_in_order)
        ]

    def without_days_before(self, day: dt.date) -> ConnectionTotals:
        """Return the same totals without the days before `day`, which are over and were sent.

        An attempt of such a day that is still open counts nothing any more.
        """
        shown = self._shown
        if shown is not None:
            shown = {
                key: None if place is None or place.day < day else place
                for key, place in shown.items()
            }
        return dataclasses.replace(
            self,
            _shown=shown,
            _numbers={place: found for place, found in self._numbers.items() if place.day >= day},
            _users=_Users() if self._users.day is None or self._users.day < day else self._users,
        )

    def _attempt(
        self, connection: Connection, day: dt.date, numbers: dict[_Place, _Numbers]
    ) -> _Place | None:
        """Return the place of an attempt that is still open; count it if it is new."""
        if self._shown is None:
            return None
        if connection.key in self._shown:
            return self._shown[connection.key]
        if connection.began_before:
            return None
        place = _Place(day, _cell(connection))
        so_far = numbers.get(place, _Numbers())
        numbers[place] = so_far._replace(attempts=so_far.attempts + 1)
        return place


def _once_each(connections: Iterable[Connection]) -> Iterable[Connection]:
    """Return one connection a key: one that is established, if it is there both ways."""
    found: dict[Hashable, Connection] = {}
    for connection in connections:
        if connection.established or connection.key not in found:
            found[connection.key] = connection
    return found.values()


def _cell(connection: Connection) -> _Cell:
    origin = connection.origin
    return _Cell(origin.country, origin.asn, connection.app, connection.version)


def _in_order(row: tuple[_Place, _Numbers]) -> tuple[dt.date, str, int, str, str]:
    (day, cell), _numbers = row
    return day, cell.country, cell.asn, cell.app or "", cell.version or ""
