"""Independent months against the tables: every cell, every percentile, every fold.

More months with TRUTH_SEEDS, whole months of up to a thousand users with TRUTH_FULL=1.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from .cli import START, Home, Row, number
from .conftest import ALL_CLOSED, ALL_IN, ALL_PURGED, Deployment, deploy
from .flags import by_asn, by_pair, check_one_level, check_two_levels, merge_flags
from .months import Month, Shape, make_month
from .truth import K, Reading, histogram, merge, release, usage_daily, usage_monthly
from .variants import VARIANTS, Variant, canonical, join, record_of, records_of, write

USAGE = ("users", "bytes", "p50_bytes", "p90_bytes", "p99_bytes")


def month_of_seed(seed: int) -> Month:
    """Return a small month, or with TRUTH_FULL a whole one of up to a thousand users."""
    if not number("TRUTH_FULL", 0):
        return make_month(seed)
    rng = random.Random(f"full {seed}")
    return make_month(seed, Shape(rng.randint(150, 1000), rng.randint(3, 14), days=31))


@pytest.fixture(scope="module", params=range(number("TRUTH_SEEDS", 2)))
def purged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment that has gone through its whole month, each in another variant."""
    variant = VARIANTS[request.param % len(VARIANTS)]
    done = deploy(tmp_path_factory.mktemp("truth"), month_of_seed(request.param), variant)
    done.home.purge(ALL_PURGED).expect(0)
    return done


def by_cell(rows: list[Row], *names: str) -> dict[tuple[Any, ...], Row]:
    """Return rows by their dimensions, which are unique."""
    cells = {tuple(row[name] for name in names): row for row in rows}
    assert len(cells) == len(rows)
    return cells


def compare(found: dict[tuple[Any, ...], Row], wanted: dict[Any, dict[str, Any]]) -> list[str]:
    """Return one line for each cell that is not as it must be."""
    lines = []
    for key in sorted(found.keys() | wanted.keys()):
        row = {name: found[key][name] for name in USAGE} if key in found else None
        if row != wanted.get(key):
            lines.append(f"{key}: {row} instead of {wanted.get(key)}")
    return lines


def test_usage_daily_is_the_truth(purged: Deployment) -> None:
    """CS-2, CS-4: users, bytes and percentiles of every named and every folded cell."""
    found = by_cell(purged.home.table("usage_daily"), "day", "location")
    assert compare(found, usage_daily(purged.month.readings)) == []


def test_usage_monthly_is_the_truth(purged: Deployment) -> None:
    """CS-4, CL-2: exact distinct users; what a day folded stays in `other`."""
    rows = purged.home.table("usage_monthly")
    assert compare(by_cell(rows, "month", "location"), usage_monthly(purged.month.readings)) == []
    assert {row["late_bytes"] for row in rows} <= {0, None}


def test_histograms_hold_every_user(purged: Deployment) -> None:
    """CS-4: buckets on 1-2-5 decimal edges, none below k, together all users of the cell."""
    days = merge(purged.month.readings)
    rows = purged.home.table("usage_daily")
    for row in rows:
        cell = release(days[row["day"]]).cells()[row["location"]]
        found = {bucket["from_bytes"]: bucket["users"] for bucket in row["histogram"]}
        assert sum(found.values()) == row["users"], row
        assert min(found.values()) >= K
        assert found == histogram(cell.values())
    assert rows


def test_connections_are_the_truth(purged: Deployment) -> None:
    """CS-1, CS-4: named cells equal, residual cells whole, totals exact, no crowd below k."""
    finest = merge_flags(purged.month.flags)
    wrong: list[str] = []
    for table, names in (
        ("connections_daily", ("location", "country")),
        ("apps_daily", ("app", "version")),
    ):
        rows = by_day(purged.home.table(table))
        for day, cells in by_pair(finest, *names).items():
            wrong += [
                f"{table} {day} {line}"
                for line in check_two_levels(rows[day], (names[0], names[1]), cells)
            ]
    rows = by_day(purged.home.table("connections_isp_daily"))
    for day, isps in by_asn(finest).items():
        wrong += [f"isp {day} {line}" for line in check_one_level(rows[day], isps)]
    assert wrong == []


def by_day(rows: list[Row]) -> dict[str, list[Row]]:
    """Return rows by their day."""
    days: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        days[row["day"]].append(row)
    return days


def test_report_is_the_table(closed: Deployment) -> None:
    """CS-4: `report usage --format json` is the bare list of the table's rows."""
    told = (
        closed.home.run(
            "report",
            "usage",
            "--format",
            "json",
            "--from",
            "2026-10-02",
            "--to",
            "2026-10-03",
            now=ALL_CLOSED,
        )
        .expect(0)
        .json
    )
    wanted = [
        row
        for row in closed.home.table("usage_daily")
        if row["day"] in ("2026-10-02", "2026-10-03")
    ]
    pick = ("day", "location", *USAGE)
    assert sorted(([row[name] for name in pick] for row in told), key=str) == sorted(
        ([row[name] for name in pick] for row in wanted), key=str
    )


def hand_over(home: Home, folder: Path, records: list[dict[str, Any]], name: str, now: str) -> None:
    """Ingest `records` at `now`, all of which are good."""
    told = home.ingest(write(records, Variant(name), folder / name), now).json
    assert (told["accepted"], told["rejected"]) == (len(records), 0)


def test_late_readings_are_shown_apart(tmp_path: Path, home: Home) -> None:
    """CS-2: a closed day is never published again; late bytes stand beside the month's."""
    month = make_month(11, Shape(users=150, locations=3, days=3))
    hand_over(home, tmp_path, records_of(month), "first", "2026-10-04T12:00:00Z")
    home.rollup("2026-10-05T00:30:00Z")
    before = home.table_digests()
    days = merge(month.readings)
    place, cell = max(release(days["2026-10-02"]).named.items(), key=lambda item: len(item[1]))
    late = [
        {
            "record": "usage_counter.1",
            "day": "2026-10-02",
            "user": user,
            "location": place,
            "epoch": "00000000000000aa",
            "bytes": 1_000_000,
        }
        for user in cell
    ]
    hand_over(home, tmp_path, late, "late", "2026-10-06T12:00:00Z")
    home.rollup("2026-10-07T00:30:00Z")
    after = home.table_digests()
    assert {name: after[name] for name in before} == before
    home.purge(ALL_PURGED).expect(0)
    rows = by_cell(home.table("usage_monthly"), "month", "location")
    assert compare(rows, usage_monthly(month.readings)) == []
    assert rows["2026-10", place]["late_bytes"] == 1_000_000 * len(cell)


def test_a_few_late_users_are_not_shown(tmp_path: Path, home: Home) -> None:
    """CS-4: late bytes of fewer than k users are under the release rule as any cell."""
    month = make_month(12, Shape(users=150, locations=3, days=2))
    hand_over(home, tmp_path, records_of(month), "first", "2026-10-03T12:00:00Z")
    home.rollup("2026-10-04T00:30:00Z")
    place, cell = max(
        release(merge(month.readings)["2026-10-01"]).named.items(), key=lambda item: len(item[1])
    )
    late = [
        {
            "record": "usage_counter.1",
            "day": "2026-10-01",
            "user": user,
            "location": place,
            "epoch": "00000000000000ab",
            "bytes": 7_777_777,
        }
        for user in [*cell][:3]
    ]
    hand_over(home, tmp_path, late, "late", "2026-10-05T12:00:00Z")
    home.purge(ALL_PURGED).expect(0)
    rows = home.table("usage_monthly")
    assert {row["late_bytes"] for row in rows} <= {0, None}
    assert compare(by_cell(rows, "month", "location"), usage_monthly(month.readings)) == []


def test_an_app_called_other_is_no_fold(tmp_path: Path, home: Home) -> None:
    """CS-3: names that agents send cannot make two rows of one cell, nor lose a count."""

    def flag(app: str, version: str, users: int) -> dict[str, Any]:
        return {
            "record": "connection_flags.1",
            "day": "2026-10-05",
            "location": "us-nyc",
            "epoch": "00000000000000aa",
            "country": "DE",
            "asn": 1,
            "app": app,
            "version": version,
            "users": users,
            "attempts": users,
            "successes": users,
        }

    flags = [
        flag("other", "1.0", 50),
        flag("other", "1.1", 3),
        flag("android", "1", 4),
        flag("ios", "2", 5),
        flag("unknown", "3", 30),
    ]
    hand_over(home, tmp_path, flags, "flags", "2026-10-06T00:00:00Z")
    home.rollup("2026-10-07T00:30:00Z")
    rows = by_cell(home.table("apps_daily"), "app", "version").values()
    assert sum(row["attempts"] for row in rows) == 92
    assert all(row["users"] >= K for row in rows)


def test_a_day_is_closed_after_its_grace_and_not_before(tmp_path: Path, home: Home) -> None:
    """CL-2: 24 hours after the day's end; --through never closes earlier."""
    month = make_month(13, Shape(users=60, locations=3, days=1))
    rng = random.Random(1)
    path = tmp_path / "day.ndjson"
    path.write_bytes(join(canonical(record_of(item), rng) for item in month.readings))
    home.ingest([path], "2026-10-01T23:00:00Z")
    for now in ("2026-10-02T00:30:00Z", "2026-10-02T23:59:59Z"):
        home.rollup(now)
        home.run("rollup", "--through", "2026-10-01", "--confirm-clock", now=now)
        assert home.table("usage_daily") == []
    home.rollup("2026-10-03T00:00:00Z")
    found = by_cell(home.table("usage_daily"), "day", "location")
    assert compare(found, usage_daily(month.readings)) == []
    home.purge(ALL_IN).expect(0)
    assert home.receipts() == []


def test_the_profile_decides_k_and_regions(tmp_path: Path, home: Home) -> None:
    """CS-4: small locations fold into their region first, and k is the profile's."""
    profile = (home.path / "policy" / "profile.toml").read_text()
    regions = '[regions]\n"region-benelux" = ["nl-ams", "be-bru", "lu-lux"]'
    path = tmp_path / "profile.toml"
    path.write_text(profile.replace("k = 10", "k = 12").replace("[regions]", regions))
    own = Home(tmp_path / "own")
    own.run("init", "--policy", path, now=START).expect(0)
    sizes = {"us-nyc": 40, "nl-ams": 7, "be-bru": 6, "de-fra": 11, "fr-par": 4}
    records = [
        {
            "record": "usage_counter.1",
            "day": "2026-10-05",
            "user": f"{place} {index}",
            "location": place,
            "epoch": "00000000000000aa",
            "bytes": 1_000_000,
        }
        for place, count in sizes.items()
        for index in range(count)
    ]
    hand_over(own, tmp_path, records, "regions", "2026-10-05T20:00:00Z")
    own.rollup("2026-10-07T00:30:00Z")
    found = {row["location"]: row["users"] for row in own.table("usage_daily")}
    assert found == {"us-nyc": 40, "region-benelux": 13, "other": 15}


def test_the_limits_themselves(tmp_path: Path, home: Home) -> None:
    """CS-4: k users, 50 % and 85 % are good; one user or one byte further is not."""
    cells = {
        "k-users": [100] * 10,
        "k-less-one": [100] * 9,
        "half": [900] + [100] * 9,
        "over-half": [901] + [100] * 9,
        "two": [425, 425] + [10] * 15,
        "over-two": [426, 425] + [10] * 15,
        "nothing": [0] * 10,
        "crowd": [100] * 60,
    }
    readings = [
        Reading("2026-10-05", f"{place} user {index}", place, "00000000000000aa", value)
        for place, values in cells.items()
        for index, value in enumerate(values)
    ]
    hand_over(
        home,
        tmp_path,
        [record_of(reading) for reading in readings],
        "limits",
        "2026-10-05T20:00:00Z",
    )
    home.rollup("2026-10-07T00:30:00Z")
    found = by_cell(home.table("usage_daily"), "day", "location")
    named = {"k-users", "half", "two", "nothing", "crowd", "other"}
    assert {location for _, location in found} == named
    assert compare(found, usage_daily(readings)) == []
