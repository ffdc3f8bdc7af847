"""Verify a home against its audit log: the chain, the receipts, the closed partitions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator.errors import IntegrityError
from aggregator.model.tables import TABLES
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import deletion
from aggregator.rules.deletion import Item
from aggregator.stores.audit import Entry

# Not written by the closing of a day: one counts by arrival, two are in the month's receipt.
_UNRECORDED: Final = frozenset({"rejections_daily", "usage_monthly", "notices_monthly"})


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not verify: of what, and how it differs."""

    check: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What was compared, and every problem found; none means that all agrees."""

    entries: int
    receipts: int
    partitions: int
    problems: tuple[Problem, ...]


def read(house: Deployment) -> tuple[list[Entry], str | None]:
    """Return the entries up to where the chain breaks, and how it breaks, None if it does not."""
    entries: list[Entry] = []
    try:
        entries.extend(house.audit.entries())
    except IntegrityError as error:
        # `extend` keeps what it was given before the generator raised.
        return entries, str(error)
    return entries, None


def verify(house: Deployment) -> Verified:
    """Compare the home with its audit log; read everything, change nothing."""
    entries, broken = read(house)
    problems = [*chain_problems(entries, broken)]
    problems += receipt_problems(house, entries)
    problems += partition_problems(house, entries)
    recorded = _recorded(entries) | _receipted(house)
    return Verified(len(entries), len(house.receipts.months()), len(recorded), tuple(problems))


def chain_problems(entries: Sequence[Entry], broken: str | None) -> Iterator[Problem]:
    """Yield how the log itself is wrong."""
    if broken is not None:
        yield Problem("chain", f"{broken}; entries after it prove nothing")
    elif not entries:
        yield Problem("chain", "the audit log is missing or empty; every home starts with an entry")
    elif entries[0].kind != "init":
        yield Problem("chain", "the audit log does not begin with its home's first entry")


def receipt_problems(house: Deployment, entries: Sequence[Entry]) -> Iterator[Problem]:
    """Yield how receipts and the entries of their purges differ: one of each a purged month."""
    logged = [entry for entry in entries if entry.kind == "purge"]
    counts = Counter(entry.detail["month"] for entry in logged)
    digests = {entry.digest for entry in entries}
    there = set(house.receipts.months())
    for month in sorted(counts.keys() | there):
        if counts[month] > 1:
            yield Problem("receipts", f"the purge of {month} is in the audit log twice")
        if counts[month] and month not in there:
            yield Problem("receipts", f"the receipt of {month} is missing")
        if month in there and not counts[month]:
            yield Problem("receipts", f"the receipt of {month} has no entry in the audit log")
    for entry in logged:
        month = entry.detail["month"]
        if month in there and house.receipts.digest(month) != entry.detail["receipt"]:
            yield Problem("receipts", f"the receipt of {month} is not as it was recorded")
    for month in sorted(there):
        yield from _inside_receipt(house, month, digests)


def partition_problems(house: Deployment, entries: Sequence[Entry]) -> Iterator[Problem]:
    """Yield each closed partition that is missing, changed, or that nothing recorded."""
    recorded = _recorded(entries) | _receipted(house)
    last = max(house.receipts.months(), default=None)
    for (table, period), digest in sorted(recorded.items()):
        if not house.tables.has(table, period):
            if last is None or not _expired(house, table, period, last):
                yield Problem("partitions", f"{table} of {period} is missing")
        elif house.tables.digest(table, period) != digest:
            yield Problem("partitions", f"{table} of {period} is not as it was closed")
    open_months = {
        *house.segments.months(), *house.keys.months(), *house.receipts.intents()
    }  # fmt: skip
    for table in TABLES:
        for period in house.tables.periods(table):
            known = (table, period) in recorded or table == "rejections_daily"
            # A partition of a month that is still here may be of a close that was interrupted.
            if not known and period[:7] not in open_months:
                yield Problem("partitions", f"{table} of {period} is in no closing or receipt")


def _recorded(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """Return the digest of each partition that a closing recorded; the last one counts."""
    return {
        (table, entry.detail["day"]): digest
        for entry in entries
        if entry.kind == "close_day"
        for table, digest in entry.detail["tables"].items()
    }


def _receipted(house: Deployment) -> dict[tuple[str, str], str]:
    """Return the digests of the monthly partitions, which only receipts record."""
    return {
        (row["table"], row["period"]): row["sha256"]
        for month in house.receipts.months()
        for row in _read_receipt(house, month).get("tables", ())
        if row["table"] in _UNRECORDED
    }


def _inside_receipt(house: Deployment, month: str, digests: set[str]) -> Iterator[Problem]:
    receipt = _read_receipt(house, month)
    if receipt.get("month") != month:
        yield Problem("receipts", f"the receipt of {month} does not read, or is of another month")
    head = receipt.get("audit_head")
    if head is not None and head not in digests:
        yield Problem("receipts", f"the receipt of {month} names an audit entry that is not there")


def _read_receipt(house: Deployment, month: str) -> dict[str, Any]:
    """Return a receipt, or nothing of one whose shape was changed: that is a problem by itself."""
    try:
        receipt = house.receipts.read(month)
        for row in receipt["tables"]:
            _ = (row["table"], row["period"], row["sha256"])
    except (IntegrityError, KeyError, TypeError):
        return {}
    return receipt


def _expired(house: Deployment, table: str, period: str, last: str) -> bool:
    """Say whether the profile's retention let the purge of the month `last` remove it."""
    path = house.tables.path(table, period).relative_to(house.home.root)
    item = Item(Path(path).as_posix(), deletion.Kind.TABLE, period[:7], 0)
    return bool(deletion.expired([item], last, house.profile.retention_months))
