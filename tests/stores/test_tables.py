"""Published partitions: the same rows give the same bytes, and damage is told."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aggregator.errors import IntegrityError
from aggregator.stores.tables import TableStore

DAY = "2026-10-05"


def make_rows(count: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [
        {
            "day": dt.date(2026, 10, 5),
            "location": f"l-{number:03d}",
            "users": rng.randrange(10, 999),
            "bytes": rng.randrange(1 << 60),
            "p50_bytes": 123,
            "p90_bytes": None if number % 2 else 4560,
            "p99_bytes": None,
            "histogram": [{"from_bytes": 0, "users": 11}, {"from_bytes": 1000, "users": 12}],
        }
        for number in range(count)
    ]


def test_any_order_of_rows_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = make_rows()
    written = set()
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        path = TableStore(tmp_path / str(seed)).write("usage_daily", DAY, iter(rows))
        written.add(path.read_bytes())
    assert len(written) == 1


def test_what_is_written_is_read_and_a_partition_is_replaced_whole(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    store.write("usage_daily", DAY, make_rows(40))
    path = store.write("usage_daily", DAY, make_rows(3))
    assert store.rows("usage_daily", [DAY, "2026-10-06"]) == make_rows(3)
    assert store.periods("usage_daily") == store.periods("usage_daily", "2026-10") == [DAY]
    assert store.periods("usage_daily", "2026-11") == []
    assert path.relative_to(tmp_path).as_posix() == f"usage_daily/month=2026-10/{DAY}.parquet"
    assert path.stat().st_mode & 0o777 == 0o644
    assert {str(field.type) for field in pq.read_schema(path)} >= {"int64", "date32[day]"}
    store.remove("usage_daily", DAY)
    store.remove("usage_daily", DAY)
    assert store.rows("usage_daily", [DAY]) == []


def test_an_empty_partition_is_one(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    store.write("usage_daily", DAY, [])
    assert store.has("usage_daily", DAY)
    assert store.rows("usage_daily", [DAY]) == []


@pytest.mark.parametrize("step", [1, 7])
def test_damage_is_an_integrity_error_or_changes_the_digest(tmp_path: Path, step: int) -> None:
    """Whatever pyarrow makes of a damaged file (some of it an OSError), the purge goes on."""
    store = TableStore(tmp_path)
    path = store.write("usage_daily", DAY, make_rows())
    whole, digest = path.read_bytes(), store.digest("usage_daily", DAY)
    told = 0
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] = (damaged[place] + step) % 256
        path.write_bytes(damaged)
        try:
            store.read("usage_daily", [DAY])
        except IntegrityError:
            told += 1
        assert store.digest("usage_daily", DAY) != digest
    assert told > 20


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_cut_file_is_an_integrity_error(tmp_path: Path, size: int) -> None:
    store = TableStore(tmp_path)
    path = store.write("usage_daily", DAY, make_rows())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IntegrityError, match=f"the partition {DAY} of usage_daily"):
        store.read("usage_daily", [DAY])


def test_another_tables_file_is_an_integrity_error(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    other = store.write("closings_daily", DAY, [])
    path = store.write("usage_daily", DAY, make_rows())
    path.write_bytes(other.read_bytes())
    with pytest.raises(IntegrityError):
        store.read("usage_daily", [DAY])
