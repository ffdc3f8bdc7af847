"""What a collector hands over: readings without addresses or times, and counts of what it dropped.

A reading is local to the VPN server. Only running totals (`aggregator.agent.totals`) are sent.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Hashable, Mapping
from typing import Final

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
class Capture:
    """All counters of one source at one moment, in no particular order.

    `keyed_by` says what `Reading.counter` is made of. Captures that differ in it cannot be
    compared: the same counter would look like a new one, and its history would be charged again.
    """

    readings: tuple[Reading, ...]
    dropped: Mapping[Drop, int]
    keyed_by: str


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
