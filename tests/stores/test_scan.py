"""Sums over many partitions are what adding up their rows gives, grouped and filtered."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.errors import IntegrityError
from aggregator.stores import scan
from aggregator.stores.scan import Filter
from aggregator.stores.tables import TableStore

_DAYS = [dt.date(2026, 9, 29) + dt.timedelta(days=number) for number in range(4)]
_CELLS = list(itertools.product(("de-fra", "us-nyc", "other"), ("DE", "US", "other")))
_NUMBERS = st.integers(0, 2**40)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return rows of connections_daily, at most one a cell."""
    cells = draw(st.lists(st.sampled_from(list(itertools.product(_DAYS, _CELLS))), unique=True))
    return [
        {
            "day": day, "location": location, "country": country,
            "users": draw(_NUMBERS) + 1, "attempts": draw(_NUMBERS), "successes": draw(_NUMBERS),
        }
        for day, (location, country) in cells
    ]  # fmt: skip


def written(folder: Path, table: str, rows: list[dict[str, Any]]) -> tuple[TableStore, list[str]]:
    store = TableStore(folder)
    for day in {row["day"] for row in rows}:
        store.write(table, day.isoformat(), [row for row in rows if row["day"] == day])
    return store, store.periods(table)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=tables(),
    by=st.sampled_from([("country",), ("day", "location"), ("month",), ("month", "country")]),
    values=st.sets(st.sampled_from(["DE", "US", "other", "FR"])),
    without=st.booleans(),
)
def test_sums_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    by: tuple[str, ...],
    values: set[str],
    without: bool,
) -> None:
    store, periods = written(tmp_path_factory.mktemp("tables"), "connections_daily", rows)
    where = [Filter("country", frozenset(values), without)]
    found = scan.sums(store, "connections_daily", periods, by, ("users", "attempts"), where)
    expected: dict[tuple[Any, ...], Counter[str]] = {}
    for row in rows:
        if (row["country"] in values) != without:
            named = {**row, "month": row["day"].isoformat()[:7]}
            key = tuple(named[name] for name in by)
            numbers = {"users": row["users"], "attempts": row["attempts"]}
            expected.setdefault(key, Counter()).update(numbers)
    assert {
        tuple(row[name] for name in by): (row["users"], row["attempts"])
        for row in found.to_pylist()
    } == {key: (numbers["users"], numbers["attempts"]) for key, numbers in expected.items()}


def _usage(users: int, size: int) -> dict[str, Any]:
    return {
        "day": _DAYS[0], "location": "de-fra", "users": users, "bytes": size,
        "p50_bytes": None, "p90_bytes": None, "p99_bytes": None, "histogram": [],
    }  # fmt: skip


def test_a_sum_beyond_64_bits_is_no_other_number(tmp_path: Path) -> None:
    rows = [_usage(20, 2**62) | {"day": day} for day in _DAYS[:2]]
    store, periods = written(tmp_path, "usage_daily", rows)
    with pytest.raises(OverflowError):
        scan.sums(store, "usage_daily", periods, ("location",), ("bytes",))
    exact = scan.sums(store, "usage_daily", periods, ("day",), ("bytes",))
    assert exact["bytes"].to_pylist() == [2**62] * 2


def test_a_damaged_partition_is_named(tmp_path: Path) -> None:
    store, periods = written(tmp_path, "usage_daily", [_usage(20, 5)])
    store.path("usage_daily", periods[0]).write_bytes(b"PAR1 no more")
    with pytest.raises(IntegrityError, match="2026-09-29 of usage_daily"):
        scan.sums(store, "usage_daily", periods, ("location",), ("bytes",))


def test_a_value_is_a_value_and_no_sql(tmp_path: Path) -> None:
    store, periods = written(tmp_path, "usage_daily", [_usage(20, 5)])
    where = [Filter("location", frozenset({"') OR 1=1 --"}))]
    assert scan.read_columns(store, "usage_daily", periods, ["users"], where).num_rows == 0
