"""Final numbers for OpenVPN sessions that ended: told by the hook, merged into the captures.

The hook knows the name and the start of a session, but not its Client ID. Sessions that one user
began in the same second are therefore one counter with several values here. Which of them has
ended is not always known; what is not known is decided so that the sum is the smallest possible
one, and corrected as soon as it is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from aggregator.agent.collectors.openvpn_socket import End
from aggregator.agent.collectors.openvpn_status import Session, Status
from aggregator.agent.readings import UNKNOWN_ORIGIN, Capture, Connection, Drop, Reading

KEYED_BY: Final = "Common Name, Connected Since (time_t), with ends"
# The status after the one that was read before an end arrived may have been written before that
# end; the one after that was not.
_SURE: Final = 2


@dataclasses.dataclass(slots=True, repr=False)
class _Row:
    """A session that the status showed: its bytes, and the number of the last status that did."""

    bytes: int
    status: int


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Final:
    """A final number, and the number of the last status that was read before it arrived."""

    bytes: int
    status: int

    def may_end(self, row: _Row) -> bool:
        """Say whether this may be the end of the session of `row`."""
        return row.bytes <= self.bytes and row.status < self.status + _SURE


@dataclasses.dataclass(slots=True, repr=False)
class _Group:
    """The sessions of one name and start, by Client ID, and the final numbers told of them.

    A session that vanished stays while others of its group are there: without it the totals would
    take one of those for its continuation, or count one anew.
    """

    rows: dict[str | None, _Row] = dataclasses.field(default_factory=dict)
    finals: list[_Final] = dataclasses.field(default_factory=list)

    def values(self) -> list[int]:
        """Return one value a session: the final ones, and the rows that they are not the end of.

        As many of the largest rows as possible are taken to have ended. The larger a row is and the
        later it was listed, the fewer finals can be its end, so the largest row chooses first, and
        takes the oldest.
        """
        free = list(self.finals)
        left = []
        for row in sorted(self.rows.values(), key=lambda row: row.bytes, reverse=True):
            end = next((final for final in free if final.may_end(row)), None)
            if end is None:
                left.append(row.bytes)
            else:
                free.remove(end)
        return [final.bytes for final in self.finals] + left

    def is_over(self, status: int, unreadable: bool) -> bool:
        """Say whether nothing more is to come: no session listed, every end surely counted.

        With rows that could not be read every session must have its end.
        """
        if any(row.status == status for row in self.rows.values()):
            return False
        if unreadable and len(self.finals) < len(self.rows):
            return False
        return all(final.status + _SURE <= status for final in self.finals)


class SessionEnds:
    """The sessions that the status shows, with the final numbers that are still needed.

    A final number is part of every capture until a status was read that was surely written after
    it, and as long as its group is listed: what vanishes from the captures is forgotten by the
    totals, and would count anew if it came back.
    """

    def __init__(self) -> None:
        """Know of no session."""
        self._status = 0
        self._written: int | None = None
        self._groups: dict[Session, _Group] = {}
        self._serial = itertools.count()

    def merged(self, status: Status, ends: Iterable[End], dropped: Mapping[Drop, int]) -> Capture:
        """Return the capture of `status` with the final numbers in it.

        `ends` must have been received after `status` was read: then a session that it does not
        list any more has its end among them, unless the hook was lost. A session that was never
        listed was shorter than the interval, and counts whole.
        """
        self._list(status)
        unseen = []
        for end in ends:
            key = Session(end.name, None, end.since)
            group = self._groups.setdefault(key, _Group())
            group.finals.append(_Final(end.bytes, self._status))
            if not group.rows:
                unseen.append(key)
        self._forget(unreadable=bool(status.capture.dropped.get(Drop.UNREADABLE)))
        readings = [
            Reading(key.name, key.name, key, value)
            for key, group in self._groups.items()
            for value in group.values()
        ]
        return Capture(
            tuple(readings),
            Counter(status.capture.dropped) + Counter(dropped),
            KEYED_BY,
            (*status.capture.connections, *map(self._connection, unseen)),
        )

    def _list(self, status: Status) -> None:
        """Take in the rows of `status`."""
        if status.written != self._written:
            self._status += 1
            self._written = status.written
        for reading in status.capture.readings:
            session = reading.counter
            assert isinstance(session, Session)
            key = dataclasses.replace(session, client_id=None)
            rows = self._groups.setdefault(key, _Group()).rows
            row = rows.setdefault(session.client_id, _Row(0, 0))
            row.bytes, row.status = max(row.bytes, reading.bytes), self._status

    def _forget(self, unreadable: bool) -> None:
        self._groups = {
            key: group
            for key, group in self._groups.items()
            if not group.is_over(self._status, unreadable)
        }

    def _connection(self, session: Session) -> Connection:
        """Return the connection of a session that began and ended between two readings.

        Its origin is unknown: the hook passes no address on.
        """
        key = (session, "ended", next(self._serial))
        return Connection(key, session.name, session.name, UNKNOWN_ORIGIN, established=True)
