"""Closing: when a day is due, what it is frozen to, and that it is never published again."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import ALL_CLOSED, ALL_IN, TinyHome, crowd, flags, month, usage

from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import close, raw


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


def test_a_day_is_closed_once_its_grace_is_over_and_not_before(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(20)), "2026-10-05T20:00:00Z")
    assert home.rollup("2026-10-06T23:59:59Z").days == ()
    assert home.tables() == {}
    assert home.rollup("2026-10-07T00:00:00Z").days == ("2026-10-05",)
    assert home.rollup("2026-10-07T00:00:00Z").days == ()
    assert [entry["day"] for entry in home.audit("close_day")] == ["2026-10-05"]


def test_every_missed_day_is_caught_up_in_order(home: TinyHome) -> None:
    days = [f"2026-10-{number:02d}" for number in (9, 2, 4)]
    home.ingest([line for day in days for line in crowd(day, range(12))])
    assert home.rollup(through="2026-10-08").days == ("2026-10-02", "2026-10-04")
    assert home.rollup(through="2026-10-04").days == ()
    assert home.rollup().days == ("2026-10-09",)
    assert [entry["day"] for entry in home.audit("close_day")] == sorted(days)


def test_closing_day_by_day_or_all_at_once_gives_the_same_bytes(
    home: TinyHome, tmp_path: Path
) -> None:
    lines = month(days=(1, 2))
    home.ingest(lines)
    home.rollup()
    other = TinyHome.make(tmp_path / "other")
    for part, hour in ((0, "2026-10-02T12:00:00Z"), (1, "2026-10-03T00:00:00Z")):
        other.ingest(lines[part::2], hour)
        other.rollup(hour)
    other.rollup("2026-10-03T12:00:00Z")
    other.rollup("2026-10-04T00:00:00Z")
    assert other.tables() == home.tables()


def test_a_closed_day_is_what_was_merged_by_then(home: TinyHome) -> None:
    """Maximum per epoch, then the sum; each location by itself."""
    one, two = "a" * 16, "b" * 16
    lines = [
        *crowd("2026-10-05", range(40, 60), "us-nyc", one),
        *crowd("2026-10-05", range(40, 60), "us-nyc", one, size=10),
        *crowd("2026-10-05", range(40, 60), "us-nyc", two, size=500),
        *crowd("2026-10-05", range(45, 65), "de-fra", one, size=70),
    ]
    home.ingest(lines)
    home.rollup()
    assert home.usage() == {
        ("2026-10-05", "us-nyc"): (20, sum(1000 + n + 500 + n for n in range(40, 60))),
        ("2026-10-05", "de-fra"): (20, sum(70 + n for n in range(45, 65))),
    }


def test_a_small_or_dominated_cell_is_folded_and_totals_stay(home: TinyHome) -> None:
    """CS-4: k = 10, and no user with more than half."""
    lines = [
        *crowd("2026-10-05", range(30)),
        *crowd("2026-10-05", range(9), "is-rkv"),
        *crowd("2026-10-05", range(20), "de-fra"),
        usage("2026-10-05", "whale", "de-fra", bytes=10**9),
    ]
    home.ingest(lines)
    home.rollup()
    total = sum(1000 + n for count in (30, 9, 20) for n in range(count)) + 10**9
    # The whale dominates whatever it is folded into, so nothing of the day may be told.
    assert home.usage() == {}
    (closing,) = home.rows("closings_daily")
    assert (closing["withheld"], closing["cells"], closing["users"]) == (True, 0, 0)
    home.ingest([line.replace("10-05", "10-06") for line in lines if "whale" not in line])
    home.rollup()
    found = home.usage()
    assert set(found) == {("2026-10-06", "us-nyc"), ("2026-10-06", "other")} or set(found) == {
        ("2026-10-06", "de-fra"), ("2026-10-06", "other")
    }  # fmt: skip
    assert sum(cell[1] for cell in found.values()) == total - 10**9
    assert all(cell[0] >= 10 for cell in found.values())


def test_a_withheld_day_is_closed_and_stays_withheld(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(9)))
    assert home.rollup().days == ("2026-10-05",)
    home.ingest(crowd("2026-10-05", range(9, 40)), ALL_CLOSED)
    assert home.rollup().days == ()
    assert home.rows("usage_daily") == []
    assert home.rows("closings_daily")[0]["withheld"]


def test_late_data_is_merged_but_never_published(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(20)))
    home.rollup()
    before = home.tables()
    home.ingest(crowd("2026-10-05", range(50), size=9000), ALL_CLOSED)
    home.rollup()
    house = home.read(ALL_CLOSED)
    assert home.tables() == before
    assert len(house.segments.list("2026-10-05", raw.USAGE)) == 1
    assert len(house.segments.list("2026-10-05", raw.USAGE + raw.FROZEN)) == 1


def test_a_killed_closing_goes_on_from_what_it_froze(home: TinyHome) -> None:
    """Late data between the kill and the next run is late; the tables of the day agree."""
    home.ingest(crowd("2026-10-05", range(20)))
    with home.open(ALL_CLOSED) as house:
        keys = house.month_keys("2026-10")
        raw.freeze(house, keys, "2026-10-05", raw.USAGE)
    home.ingest([*crowd("2026-10-05", range(90)), flags()], ALL_CLOSED)
    home.rollup()
    assert home.usage()["2026-10-05", "us-nyc"][0] == 20


def test_a_day_that_does_not_open_is_named_and_the_others_are_closed(home: TinyHome) -> None:
    days = ("2026-10-01", "2026-10-02", "2026-10-03")
    home.ingest([line for day in days for line in crowd(day, range(12))])
    (path,) = (home.root / "raw/2026-10/2026-10-02").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    closed = home.rollup()
    assert closed.days == ("2026-10-01", "2026-10-03")
    assert list(closed.failed) == ["2026-10-02"]
    assert not home.read(ALL_IN).tables.has("closings_daily", "2026-10-02")


def test_totals_beyond_64_bits_stop_their_day_only(home: TinyHome) -> None:
    """Hostile or broken counters at the cap; the sums must not wrap, nor stop other days."""
    cap = home.read(ALL_IN).config.max_bytes
    huge = [
        usage("2026-10-01", "acct-1", epoch=f"{n:016x}", bytes=cap) for n in range(2**63 // cap + 2)
    ]
    home.ingest([*huge, *crowd("2026-10-02", range(12))])
    closed = home.rollup()
    assert closed.days == ("2026-10-02",)
    assert list(closed.failed) == ["2026-10-01"]
    receipt = home.purge()[0]
    assert not receipt["verified"]
    assert home.files("keys") == home.files("raw") == {}


def test_regions_take_small_locations_before_other_does(tmp_path: Path) -> None:
    profile = DEFAULT_PROFILE + '"region-north" = ["is-rkv", "se-sto"]\n'
    home = TinyHome.make(tmp_path / "home", profile=profile)
    home.ingest([
        *crowd("2026-10-05", range(40)),
        *crowd("2026-10-05", range(9), "is-rkv"),
        *crowd("2026-10-05", range(20, 28), "se-sto"),
    ])  # fmt: skip
    home.rollup()
    assert {key[1]: cell[0] for key, cell in home.usage().items()} == {
        "us-nyc": 40, "region-north": 17,
    }  # fmt: skip


def test_a_large_day_is_closed_bucket_by_bucket_to_the_same_bytes(
    home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = month(days=(1,), users=200)
    home.ingest(lines)
    home.rollup()
    other = TinyHome.make(tmp_path / "other")
    monkeypatch.setattr(raw, "BUCKETED_ROWS", 50)
    monkeypatch.setattr(raw, "ROWS_IN_MEMORY", 60)
    other.ingest(lines, parts=3)
    other.rollup()
    house = other.read(ALL_CLOSED)
    assert house.segments.list("2026-10-01", raw.USAGE + raw.FROZEN)[0].buckets == 64
    assert other.tables() == home.tables()


def test_the_closing_entry_names_each_table_by_its_digest(home: TinyHome) -> None:
    home.ingest(month(days=(1,)))
    home.rollup()
    house = home.read(ALL_CLOSED)
    recorded = {table: digest for _, table, digest in close.recorded_digests(house, "2026-10")}
    assert len(recorded) == 5
    assert recorded == {table: house.tables.digest(table, "2026-10-01") for table in recorded}


def test_no_table_has_a_column_for_a_person(home: TinyHome) -> None:
    """CT-3."""
    home.ingest(month(days=(1,)))
    home.rollup()
    for path in (home.root / "tables").rglob("*.parquet"):
        names = set(pq.read_schema(path).names)
        assert not names & {"user", "pseudonym", "member", "epoch", "account"}
