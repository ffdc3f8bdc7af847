"""Month end: close what is due, write and verify the monthly table, destroy, give a receipt.

The purge goes on from wherever it was killed. Until the intent is written everything is only
read again; from then on nothing of the month is read any more, and what is left of it goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator.errors import AggregatorError, IntegrityError, RefusedError
from aggregator.model.days import instant
from aggregator.model.tables import TABLES
from aggregator.pipeline import close, dictionary, monthly, notices
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import deletion
from aggregator.rules.deletion import PUBLISHED, Item, Kind, Step
from aggregator.stores import atomic, custody
from aggregator.stores.gathered import Gathered

RECEIPT: Final = "purge_receipt.1"
LATE_AFTER: Final = dt.timedelta(hours=24)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the purge of a month will do: when it is due, and every file that goes."""

    month: str
    due_at: dt.datetime
    steps: tuple[Step, ...]


def due_months(house: Deployment) -> list[str]:
    """Return the months whose purge is due and has no receipt, oldest first."""
    return [month for month in kept_months(house) if house.calendar.is_purgeable(month, house.now)]


def kept_months(house: Deployment) -> list[str]:
    """Return the months that still owe a receipt, oldest first.

    Those of which raw data, keys or an unfinished purge are here, and those that only their
    closed days tell of: what was removed by other hands is told in their receipt.
    """
    kept = {*house.keys.months(), *house.segments.months(), *house.receipts.intents()}
    kept |= set(house.outbox.months())
    kept |= {day[:7] for day in house.tables.periods("closings_daily")}
    return sorted(kept - set(house.receipts.months()))


def remnants(house: Deployment) -> list[str]:
    """Return purged months of which something is here again, as after a restore."""
    found = {*house.keys.months(), *house.segments.months(), *house.outbox.months()}
    return sorted(found & set(house.receipts.months()))


def plan_purge(house: Deployment, month: str) -> Plan:
    """Return what the purge of `month` will remove, in order and with reasons."""
    items = _inventory(house)
    steps = deletion.plan(month, (item for item in items if item.kind not in PUBLISHED))
    steps += deletion.expired(items, month, house.profile.retention_months)
    return Plan(month, house.calendar.purges_at(month), tuple(steps))


def months_to_purge(house: Deployment, month: str | None) -> list[str]:
    """Return the months that a purge would work on; RefusedError if `month` is not due."""
    due = due_months(house)
    if month is None:
        return due
    if month in house.receipts.months():
        return []
    if not house.calendar.is_purgeable(month, house.now):
        due_at = instant(house.calendar.purges_at(month))
        raise RefusedError(f"the purge of {month} is not due before {due_at}")
    return [one for one in due if one <= month]


def purge(house: Deployment, month: str | None = None) -> list[dict[str, Any]]:
    """Purge every month that is due (up to `month`); return the receipts not yet told of.

    Those are the new ones, and any whose purge was killed before it could say so.
    RefusedError while the clock is in doubt. A month whose tables do not verify is destroyed all
    the same, and its receipt says so. One that cannot be destroyed raises what it failed by, after
    all others.
    """
    months = months_to_purge(house, month)
    if (months or remnants(house)) and house.clock.in_doubt:
        raise RefusedError(
            "the clock jumped ahead by more than 48 h, so the purge waits: check the time, then"
            " run again with --confirm-clock, or let 6 h of other runs pass"
        )
    failed: list[Exception] = []
    for one in months:
        with _going_on(failed):
            _purge_month(house, one)
    _remove_remnants(house, failed)
    receipts = [house.receipts.read(one) for one in _record_receipts(house, months)]
    with contextlib.suppress(OSError):  # a full disk; the next closing writes it
        dictionary.keep_dictionary(house)
    if failed:
        raise failed[0]
    return receipts


@contextlib.contextmanager
def _going_on(failed: list[Exception]) -> Iterator[None]:
    """Keep a failure for later: a month that cannot be destroyed keeps no other one from it."""
    try:
        yield
    except (AggregatorError, OSError, MemoryError) as error:
        failed.append(error)


def _purge_month(house: Deployment, month: str) -> None:
    intent = house.receipts.read_intent(month)
    if intent is None:
        problems = _settle(house, month)
        intent = _intent(house, month, problems)
        try:
            house.receipts.write_intent(month, intent)
        except OSError:
            if not _is_late(house, month):
                raise
            # A full disk may keep a receipt waiting, not the counters: destroying needs no
            # space, and makes some.
            _destroy(house, month)
            house.receipts.write_intent(month, intent)
    _destroy(house, month)
    receipt = {**intent, "purged_at": instant(house.now), "late": _is_late(house, month)}
    house.receipts.write(month, receipt)


def _is_late(house: Deployment, month: str) -> bool:
    return house.now - house.calendar.purges_at(month) > LATE_AFTER


def _settle(house: Deployment, month: str) -> list[str]:
    """Do all that needs the month's counters, for the last time; return what does not verify.

    A full disk or too little memory may pass, so for a day the purge fails and is tried again.
    Anything else does not pass by itself: the month goes without its table, and says so.
    """
    problems: list[str] = []
    for settle in (_settle_usage, _settle_notices):
        try:
            problems.extend(settle(house, month))
        except IntegrityError as error:
            problems.append(str(error))
        except Exception as error:  # told by its kind, never by its words, which may hold a value
            if isinstance(error, (OSError, MemoryError)) and not _is_late(house, month):
                raise
            problems.append(f"the tables of {month} could not be made: {type(error).__name__}")
    return problems


def _settle_usage(house: Deployment, month: str) -> Iterator[str]:
    """Close what is due and write the month's table; yield what does not verify."""
    if house.segments.files(month):
        house.month_keys(month)
    due = [day for day in close.due_days(house) if day.startswith(month)]
    yield from close.close_days(house, due).failed.values()
    close.record_closed(house)
    yield from monthly.write_monthly(house, month)
    yield from _changed_tables(house, month)


def _settle_notices(house: Deployment, month: str) -> Iterator[str]:
    """Count the month's notices for the last time: what still waits has expired (CS-10)."""
    notices.write_figures(house, month, expired=True)
    yield from ()


def _changed_tables(house: Deployment, month: str) -> list[str]:
    """Compare the daily partitions with the digests that the audit log has of their closing."""
    return [
        f"{table} of {day} is not as it was closed"
        for day, table, digest in close.recorded_digests(house, month)
        if not house.tables.has(table, day) or house.tables.digest(table, day) != digest
    ]


def _intent(house: Deployment, month: str, problems: Sequence[str]) -> dict[str, Any]:
    plan = plan_purge(house, month)
    counts = {kind.value: sum(1 for step in plan.steps if step.item.kind is kind) for kind in Kind}
    head = house.audit.head()
    file_system = custody.file_system(house.keys.folder)
    try:
        weakness = custody.weakness(house.keys.folder)
    except OSError:  # no room for its probe; what the mount table says is known all the same
        weakness = file_system.weakness
    return {
        "receipt": RECEIPT,
        "month": month,
        "due_at": instant(plan.due_at),
        "started_at": instant(house.now),
        "verified": not problems,
        "problems": list(problems),
        "rehearsal": house.config.rehearsal,
        "policy": {
            "name": house.profile.name,
            "version": house.profile.version,
            "sha256": house.profile.digest,
        },
        "destroyed": {
            "key_sets": counts[Kind.KEYS.value],
            "segments": counts[Kind.SEGMENT.value],
            "batches": counts[Kind.BATCH.value],
            "notices": counts[Kind.NOTICE.value],
            "bytes": sum(s.item.size for s in plan.steps if s.item.kind not in PUBLISHED),
        },
        "expired_partitions": counts[Kind.TABLE.value],
        "method": f"keys overwritten in place twice, synced and removed on {file_system.kind}",
        "weakness": weakness,
        "caveats": list(custody.CAVEATS),
        "tables": _published(house, month),
        "audit_head": head.digest if head.number else None,
    }


def _published(house: Deployment, month: str) -> list[Mapping[str, Any]]:
    return [
        {"table": table, "period": period, "sha256": house.tables.digest(table, period)}
        for table in TABLES
        for period in house.tables.periods(table, month)
        if table != "rejections_daily"
    ]


def _destroy(house: Deployment, month: str) -> None:
    """Carry out the plan: keys first, since without them the rest is unreadable.

    Whatever keeps a file of the rest from being listed or removed, the keys are gone.
    """
    house.keys.destroy(month)
    plan = plan_purge(house, month)
    for number, step in enumerate(plan.steps):
        house.progress("removing", number, len(plan.steps))
        atomic.remove(house.home.root / step.item.path)
    shutil.rmtree(house.segments.folder / month, ignore_errors=True)
    if (house.segments.folder / month).exists():
        raise IntegrityError(f"raw/{month} could not be removed; its keys are destroyed")
    atomic.sync_folder(house.segments.folder)


def _remove_remnants(house: Deployment, failed: list[Exception]) -> None:
    for month in remnants(house):
        with _going_on(failed):
            _destroy(house, month)
            house.record("purge_remnants", {"month": month})
    for month in set(house.receipts.intents()) & set(house.receipts.months()):
        atomic.remove(house.receipts.intent_path(month))  # killed between the two


def _record_receipts(house: Deployment, purged: Sequence[str]) -> list[str]:
    """Add the audit entry of every receipt that has none yet; return their months.

    Where the log is broken, only the months just `purged` are known to have none.
    """
    try:
        entries = [entry for entry in house.audit.entries() if entry.kind == "purge"]
        recorded = {entry.detail["month"] for entry in entries}
    except IntegrityError:
        recorded = set(house.receipts.months()) - set(purged)
    months = [month for month in house.receipts.months() if month not in recorded]
    for month in months:
        receipt = house.receipts.read(month)
        house.record(
            "purge",
            {
                "month": month,
                "verified": receipt["verified"],
                "late": receipt["late"],
                "receipt": house.receipts.digest(month),
            },
        )
    return months


def _inventory(house: Deployment) -> list[Item]:
    """Return every file of the home that a purge could remove."""
    root = house.home.root
    items = []
    for month in house.keys.months():
        items += [_item(root, path, Kind.KEYS, month) for path in house.keys.files(month)]
    for month in house.segments.months():
        items += [_item(root, path, Kind.SEGMENT, month) for path in house.segments.files(month)]
    for header, path in house.inbox.headers():
        items.append(_item(root, path, Kind.BATCH, header.month))
    for month in house.outbox.months():
        items += [_item(root, path, Kind.NOTICE, month) for path in house.outbox.files(month)]
    for table in TABLES:
        for period in house.tables.periods(table):
            path = house.tables.path(table, period)
            items.append(_item(root, path, Kind.TABLE, period[:7]))
    items += [_item(root, path, Kind.COPY, month) for month, path in Gathered(house.tables).files()]
    return items


def _item(root: Path, path: Path, kind: Kind, month: str) -> Item:
    return Item(path.relative_to(root).as_posix(), kind, month, path.stat().st_size)
