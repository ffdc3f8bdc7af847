"""What must hold each day, after each purge, and in the end."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from blackbox import truth
from blackbox.flags import check_one_level, check_two_levels
from blackbox.forensics import Finder, key_windows, unpacked

from aggregator import app
from aggregator.pipeline import audit
from aggregator.stores.keys import KeyStore

from . import ledger
from .fleet import ADDRESS, all_accounts
from .host import APPS_KEPT
from .ledger import Day
from .plan import DAY, GRACE, HOUR, purge_at
from .world import World

_USAGE: Final = ("users", "bytes", "p50_bytes", "p90_bytes", "p99_bytes")
_CONNECTIONS: Final = (
    ("connections_daily", ("location", "country")),
    ("apps_daily", ("app", "version")),
)
_LONGEST: Final = 31 * DAY + GRACE


class Searcher:
    """Looks for accounts, pseudonyms and keys in every file that changed since the last look."""

    def __init__(self, world: World, inodes: Path) -> None:
        """Search the world; `inodes`, outside of it, is for second names of its key files."""
        self._world, self._inodes = world, inodes
        inodes.mkdir()
        self._names = Finder({*all_accounts(), ADDRESS, "planted-key"})
        self._windows: dict[str, set[bytes]] = {}
        self._hashes: dict[str, set[bytes]] = {}
        self._searched: dict[Path, tuple[int, int, int]] = {}

    def remember_keys(self) -> None:
        """Note the keys that there are, for as long as they are there."""
        store = KeyStore(self._world.root / "keys")
        for path in store.folder.glob("*.key"):
            month = path.stem
            if month in self._windows:
                continue
            keys = store.load(month)
            assert keys is not None
            (self._inodes / path.name).hardlink_to(path)
            # The key itself; the rest of its block is random bytes that open nothing.
            self._windows[month] = key_windows(keys.batch + keys.segment + keys.pseudonym)
            assert len(self._windows[month]) > 40
            self._hashes[month] = {
                digest
                for user in sorted(all_accounts())[:8]
                for digest in _both(
                    hashlib.blake2b(user.encode(), key=keys.pseudonym, digest_size=8)
                )
            }

    def search(self, *, everything: bool = False) -> None:
        """CL-2, CT-3, CV-5: no account anywhere, no key and no pseudonym but where they belong."""
        secret = {w: month for month, found in self._windows.items() for w in found}
        secret |= {w: month for month, found in self._hashes.items() for w in found}
        finder = Finder(secret)
        for path, data in self._files(everything=everything):
            names = self._names.find(data)
            assert not names, f"{path} holds {sorted(names)[0]!r}"
            months = {secret[found] for found in finder.find(data)}
            own = path.stem if path.parent.name == "keys" else None
            assert months <= {own} - set(self._world.gone), f"{path} holds keys of {months}"

    def check_overwritten(self, month: str) -> None:
        """CV-5: what the month's key file was on the disk is overwritten, not only unlinked."""
        data = (self._inodes / f"{month}.key").read_bytes()
        assert data == bytes(len(data)), f"the keys of {month} are still on the disk"

    def _files(self, *, everything: bool) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self._world.folder.rglob("*")):
            if not path.is_file():
                continue
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if everything or self._searched.get(path) != stamp:
                self._searched[path] = stamp
                for _kind, data in unpacked(path.read_bytes()):
                    yield path, data


def _both(digest: Any) -> tuple[bytes, bytes]:
    found: bytes = digest.digest()
    return found, found[::-1]


def check_day(world: World) -> None:
    """CL-2, CV-5: nothing of a month is here that should be gone, whatever went wrong."""
    world.seen["days with notices"] += any((world.root / "outbox").glob("????-??*"))
    for month in world.kept():
        late = world.now - purge_at(month)
        if late > HOUR and world.plan.is_calm(world.now, 8 * HOUR):
            raise AssertionError(f"{month} is still here {late} after its purge was due")
    for report in world.ledger.waiting.values():
        age = world.now - dt.datetime.fromisoformat(f"{report.day}T00:00Z")
        assert age <= _LONGEST + 8 * HOUR or not world.plan.is_calm(world.now, 8 * HOUR), (
            f"{report.day}: {age}"
        )


def check_month(world: World, month: str) -> list[str]:
    """Return how the tables of a purged month differ from the truth."""
    days = world.ledger.of_month(month)
    wrong = []
    for name, day in days.items():
        if not day.is_closed:
            wrong.append(f"{name} was never closed")
    wrong += _usage(world, month, days)
    wrong += _connections(world, month, days)
    return wrong


def _usage(world: World, month: str, days: dict[str, Day]) -> Iterator[str]:
    released = {
        name: truth.release(ledger.cells(name, day.closed_usage)) for name, day in days.items()
    }
    wanted: dict[tuple[str, str], dict[str, Any]] = {
        (name, place): truth.usage_row(cell)
        for name, release in released.items()
        for place, cell in release.cells().items()
    }
    found = {(str(row["day"]), row["location"]): row for row in rows(world, "usage_daily", month)}
    yield from _compared("usage_daily", found, wanted, _USAGE)
    whole = truth.release_month(released)
    late = ledger.late(days, whole)
    wanted = {
        (month, place): {**truth.usage_row(cell), "late_bytes": late[place]}
        for place, cell in whole.cells().items()
    }
    found = {(row["month"], row["location"]): row for row in rows(world, "usage_monthly", month)}
    yield from _compared("usage_monthly", found, wanted, (*_USAGE, "late_bytes"))
    world.seen["late bytes"] += sum(value or 0 for value in late.values())
    world.seen["day cells"] += sum(len(release.cells()) for release in released.values())


def _compared(
    table: str, found: dict[Any, Any], wanted: dict[Any, Any], names: tuple[str, ...]
) -> Iterator[str]:
    for key in sorted(found.keys() | wanted.keys()):
        row = {name: found[key][name] for name in names} if key in found else None
        if row != wanted.get(key):
            yield f"{table} {key}: {row} instead of {wanted.get(key)}"


def _connections(world: World, month: str, days: dict[str, Day]) -> Iterator[str]:
    for table, names in _CONNECTIONS:
        there = _by_day(rows(world, table, month))
        for name, day in days.items():
            cells = ledger.pairs(name, day.closed_flags, *names)
            if cells or there.get(name):
                wrong = check_two_levels(there.pop(name, []), names, cells)
                yield from (f"{table} {name} {line}" for line in wrong)
        yield from (f"{table} has rows of {name}" for name in there)
    there = _by_day(rows(world, "connections_isp_daily", month))
    for name, day in days.items():
        wrong = check_one_level(there.pop(name, []), ledger.isps(name, day.closed_flags))
        yield from (f"connections_isp_daily {name} {line}" for line in wrong)


def _by_day(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    days: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        days.setdefault(str(row["day"]), []).append(row)
    return days


def rows(world: World, table: str, month: str) -> list[dict[str, Any]]:
    """Return the rows of a table of one month, read as any other tool would."""
    folder = world.root / "tables" / table / f"month={month}"
    paths = sorted(folder.glob("*.parquet"))
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def check_receipt(world: World, month: str) -> None:
    """CV-5: the receipt of a month tells how its purge went."""
    path = world.root / "audit" / f"receipt-purge-{month}.json"
    told = json.loads(path.read_bytes())
    assert told["verified"], told["problems"]
    assert told["month"] == month
    assert told["destroyed"]["key_sets"] == 1, told["destroyed"]
    late = world.gone[month] - purge_at(month) > DAY
    assert told["late"] is late, f"{month} was purged at {world.gone[month]}"


def check_end(world: World) -> None:
    """CL-2, CV-5: a receipt a month, each month's keys destroyed once, and the log agrees."""
    months = world.plan.months
    names = sorted(path.name for path in (world.root / "audit").glob("receipt-*"))
    assert names == [f"receipt-purge-{month}.json" for month in months], names
    assert sorted(world.gone) == months
    house = app.open_to_read(world.home, None, world.now)
    verified = audit.verify(house)
    assert verified.problems == ()
    assert verified.receipts == len(months)
    assert verified.checkpoints >= world.plan.days // 7
    purges = [entry.detail for entry in house.audit.entries() if entry.kind == "purge"]
    assert [detail["month"] for detail in purges] == months
    late = {month for month, gone in world.gone.items() if gone - purge_at(month) > 3 * HOUR}
    assert {("purge_late", month) for month in late - world.by_hand} <= world.told
    assert not world.ledger.waiting
    assert {name[:7] for name in world.ledger.days} == set(months)
    kept = dict.fromkeys(("usage_daily", "connections_daily", "connections_isp_daily"), months)
    for table, wanted in {**kept, "apps_daily": months[-1 - APPS_KEPT :]}.items():
        there = {path.stem for path in (world.root / "tables" / table).rglob("*.parquet")}
        assert there == {day for day in world.ledger.days if day[:7] in wanted}, table
    if world.plan.days > 80:  # what was to be shown did happen
        runs = ("ingest", "daily", "month-end", "door")
        names = [*(f"killed: {name}" for name in runs), "failed: month-end"]
        for name in (*names, "late bytes", "days with notices"):
            assert world.seen[name], name
