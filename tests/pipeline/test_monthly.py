"""The month's table: from named days only, each person once, late bytes under the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import ALL_CLOSED, ALL_IN, ALL_PURGED, TinyHome, crowd, flags, month

from aggregator.pipeline import raw


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


def monthly(home: TinyHome) -> dict[str, dict[str, Any]]:
    """Purge, and return the month's rows by location."""
    (receipt,) = home.purge(ALL_PURGED)
    assert receipt["problems"] == []
    return {row["location"]: row for row in home.rows("usage_monthly")}


def test_a_user_of_several_days_is_one(home: TinyHome) -> None:
    home.ingest([
        *crowd("2026-10-01", range(20)),
        *crowd("2026-10-02", range(10, 30)),
        *crowd("2026-10-31", range(25, 45)),
    ])  # fmt: skip
    home.rollup()
    row = monthly(home)["us-nyc"]
    daily = home.usage()
    assert row["users"] == 45
    assert row["bytes"] == sum(cell[1] for cell in daily.values())
    assert row["late_bytes"] == 0


def test_a_location_has_its_named_days_only(home: TinyHome) -> None:
    """CS-4: month minus days must not uncover a day on which the location was folded."""
    home.ingest([
        *crowd("2026-10-01", range(20)), *crowd("2026-10-01", range(20, 40), "de-fra"),
        *crowd("2026-10-02", range(20)), *crowd("2026-10-02", range(20, 25), "de-fra"),
        *crowd("2026-10-02", range(40, 60), "nl-ams"),
    ])  # fmt: skip
    home.rollup()
    rows = monthly(home)
    daily = home.usage()
    assert ("2026-10-02", "de-fra") not in daily
    for location, row in rows.items():
        named = [cell for (_, place), cell in daily.items() if place == location]
        assert row["bytes"] == sum(cell[1] for cell in named)
        assert max(cell[0] for cell in named) <= row["users"] <= sum(cell[0] for cell in named)
    assert rows["de-fra"]["users"] == 20


def test_month_minus_days_uncovers_nothing(home: TinyHome) -> None:
    """The sum of the named days of each location is its month: the difference is zero bytes."""
    home.ingest(month(5, days=range(1, 8), users=45))
    home.rollup()
    rows = monthly(home)
    difference = {location: row["bytes"] for location, row in rows.items()}
    for (_, location), cell in home.usage().items():
        difference[location] -= cell[1]
    assert set(difference.values()) == {0}


def test_a_month_folds_anew_what_dominates_it(home: TinyHome) -> None:
    """Each day passes, the month does not: one user is the larger part of it."""
    days = [f"2026-10-{day:02d}" for day in range(1, 11)]
    home.ingest([
        line
        for number, day in enumerate(days)
        for line in (
            *crowd(day, range(11 * number, 11 * number + 10)),
            *crowd(day, [999], size=9_000),
            *crowd(day, range(500, 560), "de-fra", size=10_000),
        )
    ])  # fmt: skip
    home.rollup()
    assert ("2026-10-01", "us-nyc") in home.usage()
    rows = monthly(home)
    assert sum(row["bytes"] for row in rows.values()) == sum(
        cell[1] for cell in home.usage().values()
    )


@pytest.mark.parametrize("parts", [1, 4])
def test_late_bytes_are_merged_minus_closed(
    home: TinyHome, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts > 1:
        monkeypatch.setattr(raw, "ROWS_IN_MEMORY", 40)
    home.ingest([*crowd("2026-10-05", range(40)), *crowd("2026-10-06", range(40))])
    home.rollup()
    late = [
        *crowd("2026-10-05", range(30), size=1500),
        *crowd("2026-10-05", range(30), size=1200),
        *crowd("2026-10-05", range(5), size=3),
        *crowd("2026-10-06", range(50, 70), size=800),
    ]
    home.ingest(late, ALL_CLOSED)
    row = monthly(home)["us-nyc"]
    assert row["late_bytes"] == 30 * 500 + sum(800 + n for n in range(50, 70))
    assert (row["users"], row["bytes"]) == (40, 2 * sum(1000 + n for n in range(40)))


def test_late_bytes_of_few_are_not_told(home: TinyHome) -> None:
    """CS-4: what nine users brought late is theirs alone."""
    home.ingest(crowd("2026-10-05", range(40)))
    home.rollup()
    home.ingest(crowd("2026-10-05", range(9), size=5000), ALL_CLOSED)
    assert monthly(home)["us-nyc"]["late_bytes"] is None


def test_late_bytes_of_one_large_user_are_not_told(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(40)))
    home.rollup()
    late = [*crowd("2026-10-05", range(20), size=1001), *crowd("2026-10-05", [39], size=10**6)]
    home.ingest(late, ALL_CLOSED)
    assert monthly(home)["us-nyc"]["late_bytes"] is None


def test_counters_late_for_a_day_closed_without_any_are_late_too(home: TinyHome) -> None:
    home.ingest([*crowd("2026-10-04", range(40)), flags("2026-10-05")])
    home.rollup()
    home.ingest(crowd("2026-10-05", range(20)), ALL_CLOSED)
    row = monthly(home)["us-nyc"]
    assert row["late_bytes"] == sum(1000 + n for n in range(20))
    assert row["users"] == 40


def test_a_repeated_delivery_after_closing_is_not_late(home: TinyHome) -> None:
    lines = month(days=(1, 2))
    home.ingest(lines)
    home.rollup()
    home.ingest(lines, ALL_CLOSED)
    assert {row["late_bytes"] for row in monthly(home).values()} == {0}


def test_a_large_month_is_added_up_bucket_by_bucket_to_the_same_bytes(
    home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = month(days=(1, 2, 3), users=120)
    other = TinyHome.make(tmp_path / "other")
    for one in (home, other):
        one.ingest(lines, ALL_IN)
        one.rollup()
        one.ingest(crowd("2026-10-02", range(500, 530), size=10**6), ALL_CLOSED)
        if one is other:
            monkeypatch.setattr(raw, "ROWS_IN_MEMORY", 80)
        one.purge()
    assert other.tables() == home.tables()


def test_a_month_of_withheld_days_has_an_empty_table(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(5)))
    assert monthly(home) == {}
    assert home.read(ALL_PURGED).tables.has("usage_monthly", "2026-10")
