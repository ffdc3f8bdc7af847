"""What no aggregator may keep, as bugs and curiosity send it: a line each, and why it is refused.

The fleet mixes these among its records. Addresses are of documentation ranges.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from typing import Any, Final

from aggregator.model.reasons import Reason

WORDS: Final = {
    "address_like": "a network address in the account",
    "bad_location": "a location that is written like none",
    "day_purged": "a day of a month that is already destroyed",
    "duplicate_key": "a field twice in one record",
    "implausible": "more bytes than the link carries in a day",
    "missing_field": "a field is missing",
    "not_json": "a line cut short",
    "out_of_range": "a number below zero",
    "timestamp_like": "a time of day in the account",
    "too_early": "a day that has not begun",
    "unknown_field": "a field that no record has, such as source_ip",
    "unknown_record": "a kind of record that does not exist",
    "wrong_type": "a fraction where whole bytes are due",
}
"""What each of the lines below is, for people."""

# Reason, and what is changed in a good record; None takes the field away.
_CHANGES: Final[tuple[tuple[Reason, dict[str, Any]], ...]] = (
    (Reason.ADDRESS_LIKE, {"user": "198.51.100.23"}),
    (Reason.ADDRESS_LIKE, {"user": "acct-17@2001:db8::7"}),
    (Reason.ADDRESS_LIKE, {"user": "00:00:5e:00:53:af"}),
    (Reason.UNKNOWN_FIELD, {"source_ip": "203.0.113.9"}),
    (Reason.UNKNOWN_FIELD, {"connected_at": "21:14:05"}),
    (Reason.UNKNOWN_FIELD, {"destination": "www.example.org"}),
    (Reason.TIMESTAMP_LIKE, {"user": "acct-8 21:14"}),
    (Reason.OUT_OF_RANGE, {"bytes": -1}),
    (Reason.WRONG_TYPE, {"bytes": 12.5}),
    (Reason.IMPLAUSIBLE, {"bytes": 2**52}),
    (Reason.MISSING_FIELD, {"epoch": None}),
    (Reason.BAD_LOCATION, {"location": "New York"}),
    (Reason.UNKNOWN_RECORD, {"record": "browsing_history.1"}),
)
# From here on the month before is purged wherever the fleet is watched.
_PURGED_FROM: Final = 3
_COPIES: Final = 3


def lines(day: dt.date, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (reason, line) of what is sent among the records of `day`."""
    for reason, change in _CHANGES:
        for _ in range(chance.randrange(_COPIES)):
            yield reason.value, _changed(day, change)
    good = _changed(day, {})
    yield Reason.NOT_JSON.value, good[: len(good) // 2]
    yield Reason.DUPLICATE_KEY.value, good[:-1] + ',"bytes":1}'
    early = day + dt.timedelta(days=3)
    yield Reason.TOO_EARLY.value, _changed(early, {})
    if day.day > _PURGED_FROM:
        before = day.replace(day=1) - dt.timedelta(days=1)
        yield Reason.DAY_PURGED.value, _changed(before, {})


def _changed(day: dt.date, change: dict[str, Any]) -> str:
    record = {
        "record": "usage_counter.1",
        "day": day.isoformat(),
        "user": "acct-00017",
        "location": "us-nyc",
        "epoch": "0123456789abcdef",
        "bytes": 4096,
        **change,
    }
    kept = {name: value for name, value in record.items() if value is not None}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
