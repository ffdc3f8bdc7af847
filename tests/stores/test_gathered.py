"""Copies of whole months: the same rows as their days, or they are not read."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aggregator.stores import scan
from aggregator.stores.gathered import Gathered, keep_months
from aggregator.stores.tables import TableStore

TABLE = "apps_daily"
SEPTEMBER = [f"2026-09-{day:02d}" for day in range(1, 31)]
OCTOBER = ["2026-10-01", "2026-10-02"]


def write(store: TableStore, day: str, users: int = 10) -> None:
    date = dt.date.fromisoformat(day)
    row = {"day": date, "app": "ios", "version": "1", "users": users, "attempts": 7, "successes": 5}
    store.write(TABLE, day, [row, {**row, "app": "android"}])


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    made = TableStore(tmp_path / "tables")
    for number, day in enumerate([*SEPTEMBER, *OCTOBER]):
        write(made, day, 10 + number)
    return made


def users(store: TableStore, days: list[str]) -> int:
    return sum(scan.sums(store, TABLE, days, ("app",), ("users",))["users"].to_pylist())


def truth(store: TableStore, days: list[str]) -> int:
    return sum(row["users"] for row in store.rows(TABLE, days))


def copy_of(store: TableStore, days: list[str] = SEPTEMBER) -> Path | None:
    return Gathered(store).find(TABLE, "2026-09", days)


def test_a_month_is_gathered_once_and_has_its_rows(store: TableStore) -> None:
    assert copy_of(store) is None
    assert keep_months(store, "2026-10") == 1
    assert keep_months(store, "2026-10") == 0
    path = copy_of(store)
    assert path is not None
    assert pq.ParquetFile(path).read().equals(store.read(TABLE, SEPTEMBER))
    assert Gathered(store).find(TABLE, "2026-10", OCTOBER) is None  # it is not over
    assert [month for month, _ in Gathered(store).files()] == ["2026-09"]


def test_what_is_read_of_it_is_the_same(store: TableStore) -> None:
    spans = [[*SEPTEMBER, *OCTOBER], SEPTEMBER, SEPTEMBER[3:], OCTOBER, [*SEPTEMBER[9:], *OCTOBER]]
    before = [scan.read_columns(store, TABLE, days, ("day", "app", "users")) for days in spans]
    keep_months(store, "2026-10")
    for days, rows in zip(spans, before, strict=True):
        assert scan.read_columns(store, TABLE, days, ("day", "app", "users")).equals(rows)
        assert users(store, days) == truth(store, days)


def test_the_copy_is_what_is_opened(store: TableStore) -> None:
    """Else all the rest would prove nothing: a copy of other rows shows in a sum."""
    keep_months(store, "2026-10")
    path = copy_of(store)
    assert path is not None
    pq.write_table(store.read(TABLE, OCTOBER), path)
    assert users(store, SEPTEMBER) == truth(store, OCTOBER)
    assert users(store, SEPTEMBER[1:]) == truth(store, SEPTEMBER[1:])
    assert list(Gathered(store).false()) == [(TABLE, "2026-09", path)]


@pytest.mark.parametrize("change", ["rewritten", "removed", "added"])
def test_a_copy_of_what_was_changed_since_is_not_read(store: TableStore, change: str) -> None:
    write(store, "2026-09-30", 1)
    store.remove(TABLE, "2026-09-29")
    keep_months(store, "2026-10")
    old = copy_of(store, [*SEPTEMBER[:28], "2026-09-30"])
    assert old is not None
    if change == "rewritten":
        write(store, "2026-09-30", 2)
    elif change == "removed":
        store.remove(TABLE, "2026-09-30")
    else:
        write(store, "2026-09-29")
    days = store.periods(TABLE, "2026-09")
    assert copy_of(store, days) is None
    assert users(store, days) == truth(store, days)
    assert list(Gathered(store).false()) == []
    assert keep_months(store, "2026-10") == 1
    assert not old.exists()
    assert users(store, days) == truth(store, days)


def test_a_day_of_the_same_size_written_later_is_seen(store: TableStore) -> None:
    keep_months(store, "2026-10")
    path = store.path(TABLE, "2026-09-07")
    size = path.stat().st_size
    write(store, "2026-09-07", 17)
    assert path.stat().st_size == size
    assert copy_of(store) is None


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 5000])
def test_a_damaged_copy_changes_no_number(store: TableStore, damage: bytes) -> None:
    keep_months(store, "2026-10")
    path = copy_of(store)
    assert path is not None
    path.write_bytes(damage)
    assert users(store, SEPTEMBER) == truth(store, SEPTEMBER)
    assert [month for _, month, _ in Gathered(store).false()] == ["2026-09"]


def test_a_month_with_a_day_that_does_not_read_is_left(store: TableStore) -> None:
    store.path(TABLE, "2026-09-07").write_bytes(b"nothing")
    assert keep_months(store, "2026-10") == 0
    assert list(Gathered(store).files()) == []


def test_a_month_whose_days_are_gone_loses_its_copy(store: TableStore) -> None:
    keep_months(store, "2026-10")
    for day in SEPTEMBER:
        store.remove(TABLE, day)
    keep_months(store, "2026-10")
    assert list(Gathered(store).files()) == []


def test_a_folder_that_may_not_be_read_has_no_copies(store: TableStore) -> None:
    keep_months(store, "2026-10")
    os.rename(store.folder / TABLE, store.folder / "elsewhere")
    assert Gathered(store).find(TABLE, "2026-09", SEPTEMBER) is None


def test_a_copy_that_may_not_be_opened_is_left_out(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was let to read the tables need not be let to read their copies."""
    keep_months(store, "2026-10")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert copy_of(store) is None
    assert users(store, SEPTEMBER) == truth(store, SEPTEMBER)
