"""Verify a home against its audit log: the chain, the receipts, the closed partitions.

And note where the log ends: a checkpoint shows later that its end was cut off, or all of it written
anew, which the chain alone cannot.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator.errors import BadInputError, ConfigError, IntegrityError
from aggregator.model.days import instant
from aggregator.model.tables import TABLES
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import deletion
from aggregator.rules.deletion import Item
from aggregator.stores.audit import Entry
from aggregator.stores.checkpoints import Checkpoint, CheckpointFile
from aggregator.stores.gathered import Gathered

_KEPT: Final = "checkpoints.ndjson"
# Not written by the closing of a day: one counts by arrival, two are in the month's receipt.
_UNRECORDED: Final = frozenset({"rejections_daily", "usage_monthly", "notices_monthly"})


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not verify: of what, and how it differs."""

    check: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Noted:
    """The checkpoint of where the log ends, and whether it is new: the log may not have moved."""

    checkpoint: Checkpoint
    is_new: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What was compared, and every problem found; none means that all agrees."""

    entries: int
    receipts: int
    partitions: int
    checkpoints: int
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


def verify(house: Deployment, elsewhere: Path | None = None) -> Verified:
    """Compare the home with its audit log; read everything, change nothing.

    `elsewhere` is a file of checkpoints that was kept off the host; BadInputError if it is none.
    """
    entries, broken = read(house)
    kept, damage = _kept_checkpoints(house)
    others = [] if elsewhere is None else _copied_checkpoints(elsewhere)
    problems = [*chain_problems(entries, broken)]
    problems += receipt_problems(house, entries)
    problems += partition_problems(house, entries)
    problems += damage
    problems += checkpoint_problems(house, entries, broken, [*kept, *others])
    recorded = _recorded(entries) | _receipted(house)
    checked = len(kept) + len(others)
    return Verified(
        len(entries), len(house.receipts.months()), len(recorded), checked, tuple(problems)
    )


def checkpoint(house: Deployment) -> Noted:
    """Note where the audit log ends, durably, if it moved since the last time.

    IntegrityError if the log does not agree with its chain or with an earlier checkpoint: what was
    done to it must not be covered up.
    """
    entries, broken = read(house)
    kept, damage = _kept_checkpoints(house)
    problems = [*chain_problems(entries, broken), *damage]
    problems += checkpoint_problems(house, entries, broken, kept)
    if problems:
        raise IntegrityError(f"no checkpoint is made: {problems[0].what}")
    last = entries[-1]
    if kept and (kept[-1].number, kept[-1].digest) == (last.number, last.digest):
        return Noted(kept[-1], is_new=False)
    count, digest = _Receipts(house, entries).up_to(last.number)
    made = Checkpoint(instant(house.now), last.number, last.digest, count, digest)
    return Noted(made, _own_checkpoints(house).append(made))


def copy_checkpoint(house: Deployment, made: Checkpoint, path: Path) -> None:
    """Add a checkpoint to the file `path`, off the host, durably; it may be there already.

    ConfigError if there is no such folder, BadInputError if the file is something else,
    IntegrityError if it has checkpoints that this home's log does not have.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; is it mounted?")
    entries, broken = read(house)
    if any(checkpoint_problems(house, entries, broken, _copied_checkpoints(path, missing_ok=True))):
        raise IntegrityError(
            f"{path} is of another home, or this one's log was changed;"
            f" see: aggregator audit verify --checkpoint {path}"
        )
    CheckpointFile(path).append(made)


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
    for table, month, path in Gathered(house.tables).false():
        what = f"the copy of {table} of {month} is not what its days say; remove it"
        yield Problem("partitions", f"{what}: {path.relative_to(house.home.root)}")


def checkpoint_problems(
    house: Deployment, entries: Sequence[Entry], broken: str | None, kept: Iterable[Checkpoint]
) -> Iterator[Problem]:
    """Yield how the log differs from what checkpoints `kept` of it."""
    receipts = _Receipts(house, entries)
    for one in kept:
        name = f"the checkpoint of {one.at}"
        if one.number > len(entries):
            # Where the chain is broken, what comes after proves nothing either way.
            if broken is None:
                what = f"{name} names entry {one.number:,}, but the log ends at {len(entries):,}"
                yield Problem("checkpoints", f"{what}: its end was cut off")
        elif entries[one.number - 1].digest != one.digest:
            what = f"{name} has another entry {one.number:,}: the log was written anew"
            yield Problem("checkpoints", what)
        elif receipts.up_to(one.number) != (one.receipts, one.receipts_digest):
            yield Problem("checkpoints", f"receipts are not as {name} saw them")


class _Receipts:
    """The receipts that a log records, as they are now; each file is read once."""

    def __init__(self, house: Deployment, entries: Sequence[Entry]) -> None:
        # The first of two is what an earlier checkpoint saw.
        months = {e.detail["month"]: e.number for e in reversed(entries) if e.kind == "purge"}
        there = sorted(months.keys() & set(house.receipts.months()))
        self._lines = [
            (months[month], f"{month} {house.receipts.digest(month)}\n") for month in there
        ]

    def up_to(self, number: int) -> tuple[int, str]:
        """Return how many the entries up to `number` record, and a SHA-256 over them."""
        lines = [line for entry, line in self._lines if entry <= number]
        return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


def _own_checkpoints(house: Deployment) -> CheckpointFile:
    return CheckpointFile(house.home.folder("audit") / _KEPT)


def _kept_checkpoints(house: Deployment) -> tuple[list[Checkpoint], list[Problem]]:
    """Return the checkpoints of the home, and what is wrong with their file."""
    try:
        return _own_checkpoints(house).read(), []
    except IntegrityError as error:
        what = f"audit/{_KEPT}: {error}; restore it, or move it away"
        return [], [Problem("checkpoints", what)]


def _copied_checkpoints(path: Path, *, missing_ok: bool = False) -> list[Checkpoint]:
    if not missing_ok and not path.exists():
        raise BadInputError(f"there is no file {path}")
    try:
        return CheckpointFile(path).read()
    except IntegrityError as error:
        raise BadInputError(f"{path}: {error}; name a file of checkpoints") from None


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
