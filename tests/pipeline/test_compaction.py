"""A month of five-minute batches stays a handful of segments, and the merge is the maximum."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from support import ALL_IN, TinyHome

from aggregator.pipeline import raw
from aggregator.stores.segments import RAW_FLAGS, RAW_USAGE

DAY = "2026-10-05"
_BATCHES = 288
_MOST = 16


def batch(rng: random.Random, users: int) -> pa.Table:
    rows = [
        {
            "location": rng.choice(["us-nyc", "de-fra"]),
            "pseudonym": (rng.randrange(users) * 0x9E3779B97F4A7C15) % 2**64,
            "epoch": rng.randrange(2),
            "bytes": rng.randrange(10**9),
        }
        for _ in range(users)
    ]
    return pa.Table.from_pylist(rows, schema=RAW_USAGE)


@pytest.mark.parametrize("bucketed", [False, True])
def test_five_minute_batches(
    tmp_path: Path, bucketed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bucketed:
        monkeypatch.setattr(raw, "BUCKETED_ROWS", 300)
        monkeypatch.setattr(raw, "ROWS_IN_MEMORY", 400)
    rng = random.Random(2)
    home = TinyHome.make(tmp_path / "home")
    truth: dict[tuple[str, int, int], int] = {}
    most = 0
    with home.open(ALL_IN) as house:
        keys = house.month_keys_for_writing("2026-10")
        for _ in range(_BATCHES // 3 if bucketed else _BATCHES):
            table = batch(rng, 60)
            for row in table.to_pylist():
                key = (row["location"], row["pseudonym"], row["epoch"])
                truth[key] = max(truth.get(key, 0), row["bytes"])
            raw.add(house, keys, DAY, raw.USAGE, table)
            most = max(most, len(house.segments.files("2026-10")))
        assert most <= _MOST
        frozen = raw.freeze(house, keys, DAY, raw.USAGE)
        assert frozen is not None
        assert frozen.buckets == (64 if bucketed else 1)
        assert house.segments.files("2026-10") == [frozen.path]
        read = raw.read_bucket(house, keys, [frozen])
        assert raw.freeze(house, keys, DAY, raw.USAGE) == frozen
    found = {(r["location"], r["pseudonym"], r["epoch"]): r["bytes"] for r in read.to_pylist()}
    assert read.num_rows == len(found)
    assert found == truth


def test_segments_of_any_bucket_count_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large and small segments of one day, in whatever order they came."""
    rng = random.Random(3)
    home = TinyHome.make(tmp_path / "home")
    with home.open(ALL_IN) as house:
        keys = house.month_keys_for_writing("2026-10")
        tables = [batch(rng, size) for size in (3000, 40, 900, 10)]
        monkeypatch.setattr(raw, "BUCKETED_ROWS", 500)
        monkeypatch.setattr(raw, "ROWS_IN_MEMORY", 300)
        for table in tables:
            raw.add(house, keys, DAY, raw.USAGE, table)
        frozen = raw.freeze(house, keys, DAY, raw.USAGE)
        assert frozen is not None
        read = raw.read_bucket(house, keys, [frozen])
        expected = raw._MERGE[raw.USAGE](pa.concat_tables(tables))
    order = [("location", "ascending"), ("pseudonym", "ascending"), ("epoch", "ascending")]
    assert read.sort_by(order).to_pylist() == expected.sort_by(order).to_pylist()


def test_flags_batches(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    with home.open(ALL_IN) as house:
        keys = house.month_keys_for_writing("2026-10")
        for number in range(40):
            line = ["us-nyc", 1, "DE", 3320, "android", "1", number, 90 - number, number]
            table = pa.table([[value] for value in line], schema=RAW_FLAGS)
            raw.add(house, keys, DAY, raw.FLAGS, table)
        assert len(house.segments.list(DAY, raw.FLAGS)) <= _MOST
        frozen = raw.freeze(house, keys, DAY, raw.FLAGS)
        assert frozen is not None
        (row,) = raw.read_bucket(house, keys, [frozen]).to_pylist()
    assert (row["users"], row["attempts"], row["successes"]) == (39, 90, 39)
