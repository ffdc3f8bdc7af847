"""Good lines, the gate they are checked at, and what a checked chunk holds."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from typing import Any, Final

from aggregator.model.records import ConnectionFlags, Record, Rejection, UsageCounter
from aggregator.rules.calendar import Calendar, DayGate
from aggregator.rules.shapes import Checked, Shape, check_chunk
from aggregator.rules.validate import Gate, check_line

NOW: Final = dt.datetime(2026, 10, 20, 22, 30, tzinfo=dt.UTC)
CALENDAR: Final = Calendar(dt.timedelta(hours=24), dt.timedelta(hours=48))
MAX_BYTES: Final = 10 * 10**9 // 8 * 86_400
Row = dict[str, Any]

USAGE: Final[Row] = {
    "record": "usage_counter.1",
    "day": "2026-10-05",
    "user": "acct-81723",
    "location": "us-nyc",
    "epoch": "9f3c2b7a11d04e55",
    "bytes": 863109120,
}
FLAGS: Final[Row] = {
    "record": "connection_flags.1",
    "day": "2026-10-05",
    "location": "us-nyc",
    "epoch": "9f3c2b7a11d04e55",
    "country": "DE",
    "asn": 3320,
    "app": "android",
    "version": "11.4.0",
    "users": 14,
    "attempts": 31,
    "successes": 29,
}


def gate() -> Gate:
    """Return the gate of 2026-10-20, 22:30: October is open and so is tomorrow."""
    return Gate(DayGate(CALENDAR, NOW), MAX_BYTES)


def dump(row: Row) -> bytes:
    """Write a record as an agent does."""
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()


def usage(**changes: Any) -> bytes:
    """Return a good usage counter with `changes`."""
    return dump({**USAGE, **changes})


def flags(**changes: Any) -> bytes:
    """Return good connection flags with `changes`."""
    return dump({**FLAGS, **changes})


def records(checked: Checked) -> Counter[Record]:
    """Return the records that a chunk's tables hold, decoded."""
    found: Counter[Record] = Counter()
    for tables, kind in ((checked.usage, UsageCounter), (checked.flags, ConnectionFlags)):
        for table in tables:
            for row in table.to_pylist():
                if "user" in row:
                    row["user"] = row["user"].decode()
                found[kind(**row)] += 1
    return found


def one_by_one(chunk: bytes) -> tuple[Counter[Record], Counter[Rejection]]:
    """Return what the strict check says of each line of `chunk`."""
    accepted: Counter[Record] = Counter()
    rejected: Counter[Rejection] = Counter()
    at = gate()
    for line in chunk.replace(b"\r\n", b"\n").split(b"\n"):
        outcome = check_line(line, at) if line else None
        if isinstance(outcome, Rejection):
            rejected[outcome] += 1
        elif outcome is not None:
            accepted[outcome] += 1
    return accepted, rejected


def assert_equal(chunk: bytes, shapes: list[Shape] | None = None) -> Checked:
    """Assert that the fast way and the strict check agree on `chunk`, values and reasons."""
    checked = check_chunk(chunk, gate(), [] if shapes is None else shapes)
    accepted, rejected = one_by_one(chunk)
    assert records(checked) == accepted
    assert checked.rejections == rejected
    assert checked.accepted == accepted.total()
    return checked
