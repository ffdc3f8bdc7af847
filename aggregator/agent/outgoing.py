"""What may leave the server: the check of every record before it is sealed, and its line.

The rules are those of the door (promises CS-1, CS-6): closed fields, no address, no time of day,
numbers within range. What fails here is dropped and counted; nothing of it is told.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Set
from typing import Final

from aggregator.agent.readings import account_drop
from aggregator.model import text
from aggregator.model.days import parse_day
from aggregator.model.reasons import Reason
from aggregator.model.records import (
    CONNECTION_FLAGS,
    RESERVED_LOCATIONS,
    SCHEMAS,
    USAGE_COUNTER,
    Field,
    Record,
    UsageCounter,
)

Key = tuple[Hashable, ...]
Numbers = tuple[int, ...]

_LOCATION: Final = SCHEMAS[USAGE_COUNTER].field("location")


@functools.lru_cache(maxsize=256)
def is_location(word: str) -> bool:
    """Say whether `word` is written like a location that a record may carry."""
    if _LOCATION.pattern is None or _LOCATION.pattern.fullmatch(word) is None:
        return False
    return word not in RESERVED_LOCATIONS and not _tells(word)


def fault(record: Record, locations: Set[str]) -> Reason | None:
    """Return why `record` may not be sent by an agent of `locations`, or None."""
    if record.location not in locations or not is_location(record.location):
        return Reason.BAD_LOCATION
    for field in SCHEMAS[_kind(record)].fields:
        found = _misfit(field, getattr(record, field.name))
        if found is not None:
            return found
    if isinstance(record, UsageCounter):
        # The agent's own reasons have the names of the door's.
        refused = account_drop(record.user)
        return None if refused is None else Reason(refused)
    return Reason.IMPLAUSIBLE if record.successes > record.attempts else None


def identity(record: Record) -> tuple[Key, Numbers]:
    """Return what tells a record from others, and the totals that grow under it."""
    if isinstance(record, UsageCounter):
        key: Key = (record.day, record.location, record.epoch, record.user)
        return key, (record.bytes,)
    key = (record.day, record.location, record.epoch, record.country, record.asn)
    numbers = (record.users, record.attempts, record.successes)
    return (*key, record.app, record.version), numbers


def line(record: Record) -> str:
    """Return `record` as one line of JSON, without its end; ASCII, whatever the locale."""
    kind = _kind(record)
    row: dict[str, str | int] = {"record": kind}
    for field in SCHEMAS[kind].fields:
        value = getattr(record, field.name)
        if value is not None:
            row[field.name] = value
    return json.dumps(row, separators=(",", ":"))


def _kind(record: Record) -> str:
    return USAGE_COUNTER if isinstance(record, UsageCounter) else CONNECTION_FLAGS


def _misfit(field: Field, value: object) -> Reason | None:
    """Return why `value` does not fit `field`; the user has a check of its own."""
    if value is None:
        return Reason.MISSING_FIELD if field.required else None
    if field.is_integer:
        fits = type(value) is int and 0 <= value <= field.maximum
        return None if fits else Reason.OUT_OF_RANGE
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    if field.pattern is None:
        return None
    if field.pattern.fullmatch(value) is None:
        return field.misfit
    if field.choices is not None and value not in field.choices:
        return field.misfit
    if field.name == "day":
        return field.misfit if parse_day(value) is None else None
    return field.misfit if field.name == "app" and _tells(value) else None


def _tells(word: str) -> bool:
    return text.address_like(word) or text.timestamp_like(word)
