"""The judgement of a home's sealed months, against a truth kept in plain Python (CS-9)."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import ALL_IN, TinyHome, usage

from aggregator.cli.main import main
from aggregator.errors import IntegrityError
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import cells, fairuse, raw
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.stores.engine import DuckDBEngine

NOW = "2026-10-09T12:00:00Z"
PLACES = ("us-nyc", "de-fra", "nl-ams")
RULES = """
[[fair_use.rules]]
name = "month"
kind = "month_bytes"
threshold = 6_000_000
[[fair_use.rules]]
name = "day"
kind = "day_bytes"
threshold = 9_000_000
warn_percent = [50, 100]
[[fair_use.rules]]
name = "share"
kind = "location_share"
threshold = 30
[[fair_use.rules]]
name = "median"
kind = "times_median"
threshold = 8
"""
PROFILE = DEFAULT_PROFILE.replace("outweighs_mean = 1000", "outweighs_mean = 4") + RULES

Truth = dict[tuple[str, str, str, str], int]
"""(day, location, account, epoch) → the largest total."""


def fleet(seed: int, days: range, users: int = 60) -> tuple[list[str], Truth]:
    """Return shuffled counters with heavy tails, restarts, repeats, and the truth."""
    rng = random.Random(seed)
    lines, truth = [], {}
    for day in (f"2026-10-{number:02d}" for number in days):
        for user in range(users):
            account, total = f"acct-{user}", int(rng.paretovariate(0.9) * 20_000) % 10**10
            for place in rng.sample(PLACES, rng.choice((1, 1, 2))):
                for epoch in ["00000000000000aa"] + ["00000000000000bb"] * (rng.random() < 0.2):
                    truth[day, place, account, epoch] = total
                    lines += [
                        usage(day, account, place, epoch, size) for size in (total // 2, total)
                    ]
    rng.shuffle(lines)
    return lines, truth


def sums(truth: Truth, *by: int) -> dict[Any, int]:
    found: dict[Any, int] = defaultdict(int)
    for key, total in truth.items():
        found[tuple(key[part] for part in by)] += total
    return found


def expected(truth: Truth) -> dict[str, set[str]]:
    """Return rule → accounts, by the words of the rules, in plain Python."""
    month = {user: total for (user,), total in sums(truth, 2).items()}
    everything = sum(month.values())
    others = len(month) - 1
    median = sorted(month.values())[(len(month) + 1) // 2 - 1]
    places, crowds = sums(truth, 0, 1), defaultdict(set)
    for day, place, user, _epoch in truth:
        crowds[day, place].add(user)
    return {
        "outweighs_mean": {
            user for user, total in month.items() if total * others > 4 * (everything - total)
        },
        "month": {user for user, total in month.items() if total > 6_000_000},
        "day": {user for (_day, user), total in sums(truth, 0, 2).items() if 2 * total > 9_000_000},
        "share": {
            user
            for (day, place, user), total in sums(truth, 0, 1, 2).items()
            if 100 * total > 30 * places[day, place] and len(crowds[day, place]) >= 10
        },
        "median": {user for user, total in month.items() if total > 8 * median},
    }


def judged(home: TinyHome, now: str = NOW) -> dict[str, set[str]]:
    house = home.read(now)
    keys = house.month_keys("2026-10")
    names = {pseudonym(f"acct-{n}".encode(), keys): f"acct-{n}" for n in range(200)}
    found: dict[str, set[str]] = {rule.name: set() for rule in house.profile.fair_use}
    for one in fairuse.judge(house, "2026-10"):
        found[one.rule].add(names[one.pseudonym])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_open_closed_and_late_days_are_all_counted(tmp_path: Path, seed: int) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    lines, truth = fleet(seed, range(1, 9))
    late = [line for number, line in enumerate(lines) if number % 5 == 0]
    home.ingest([line for number, line in enumerate(lines) if number % 5], "2026-10-08T23:00:00Z")
    home.rollup("2026-10-09T06:00:00Z")
    home.ingest(late, NOW)
    wanted = expected(truth)
    assert judged(home) == wanted
    assert all(wanted.values())
    home.rollup("2026-10-12T06:00:00Z")
    assert judged(home, "2026-10-12T07:00:00Z") == wanted


def test_each_number_of_an_excess_is_the_truth(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    lines, truth = fleet(7, range(1, 6))
    home.ingest(lines, NOW)
    house = home.read(NOW)
    month = sums(truth, 2)
    for (account,), total in list(month.items())[:10]:
        found = {one.rule: one for one in fairuse.explain(house, "2026-10", account.encode())}
        assert set(found) == {"outweighs_mean", "month", "day", "share", "median"}
        assert found["month"].bytes == found["month"].month_bytes == total
        assert found["month"].others_bytes == sum(month.values()) - total
        assert found["month"].users == len(month)
        days = {d: size for (d, user), size in sums(truth, 0, 2).items() if user == account}
        assert found["day"].bytes == max(days.values())
        share = found["share"]
        assert share.location_bytes == sums(truth, 0, 1)[share.day, share.location]
        assert share.bytes == sums(truth, 0, 1, 2)[share.day, share.location, account]


def test_a_share_is_not_judged_where_it_would_tell_of_few_others(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    home.ingest([usage("2026-10-01", f"acct-{n}", bytes=10**6 * (n == 0)) for n in range(9)], NOW)
    assert judged(home)["share"] == set()
    home.ingest([usage("2026-10-01", "acct-9", bytes=1)], NOW)
    assert judged(home)["share"] == {"acct-0"}


def test_a_day_of_one_segment_is_read_as_the_roll_up_text_has_it(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    lines, _truth = fleet(3, range(1, 2))
    home.ingest(lines, NOW)
    house = home.read(NOW)
    keys = house.month_keys("2026-10")
    (segment,) = house.segments.list("2026-10-01", raw.USAGE)
    with DuckDBEngine() as engine:
        quick = fairuse._user_day(house, keys, "2026-10-01", engine)
        by_text = cells.user_day(house, keys, [segment], engine)
    assert _by_key(quick) == _by_key(by_text)


def _by_key(table: pa.Table) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = defaultdict(int)
    for row in table.to_pylist():
        found[row["location"], row["pseudonym"]] += row["user_bytes"]
    return found


def test_in_the_grace_of_a_month_both_are_judged_and_then_one(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    home.ingest([usage("2026-10-31", "acct-1", bytes=10**9)], ALL_IN)
    home.ingest([usage("2026-11-01", "acct-1", bytes=10**9)], "2026-11-01T12:00:00Z")
    assert fairuse.months(home.read("2026-11-02T12:00:00Z")) == ["2026-10", "2026-11"]
    assert fairuse.months(home.read("2026-11-03T01:00:00Z")) == ["2026-11"]


def test_a_lost_key_is_told(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    home.ingest([usage("2026-10-01")], NOW)
    (home.root / "keys" / "2026-10.key").unlink()
    with pytest.raises(IntegrityError, match="key set"):
        fairuse.judge(home.read(NOW), "2026-10")


@pytest.fixture
def heavy(tmp_path: Path) -> TinyHome:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    lines = [usage("2026-10-01", f"acct-{n}", bytes=10**6) for n in range(30)]
    home.ingest([*lines, usage("2026-10-02", "acct-heavy", bytes=10**8)], NOW)
    return home


def said(home: TinyHome, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["--home", str(home.root), "--now", NOW, "fairuse", "check", *words]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_check_prints_rows_for_machines(
    heavy: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(heavy, capsys, "--rule", "outweighs_mean", "--json")
    told = json.loads(out)
    (row,) = told["rows"]
    assert told["schema_version"] == 1
    assert (row["rule"], row["threshold"], row["bytes"]) == ("outweighs_mean", 4, 10**8)
    assert (row["outweighs_mean"], row["outweighs_lightest"]) == (100.0, 30)
    assert len(row["pseudonym"]) == 16
    assert int(row["pseudonym"], 16)
    assert err == ""


def test_check_prints_a_table_for_people(
    heavy: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(heavy, capsys)
    assert "100.0 MB" in out
    assert "acct" not in out + err
    assert "2026-10-01 to 2026-10-02: 1 user of 31" in err


@pytest.mark.parametrize("account", ["acct-heavy", "acct-3"])
def test_explain_reads_the_account_and_never_repeats_it(
    heavy: TinyHome,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    account: str,
) -> None:
    import io
    import sys

    class Input:
        buffer = io.BytesIO(account.encode() + b"\n")

    monkeypatch.setattr(sys, "stdin", Input)
    out, err = said(heavy, capsys, "--explain", "-", "--rule", "outweighs_mean")
    assert account not in out + err
    assert ("exceeds" in out) == (account == "acct-heavy")
    assert "1,000,000 bytes" in out


def test_explain_of_an_unknown_account_says_nothing_of_it(
    heavy: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(heavy, capsys, "--explain", "acct-unknown-77")
    assert out == ""
    assert "no counter" in err
    assert "77" not in err


def test_check_writes_nothing(heavy: TinyHome, capsys: pytest.CaptureFixture[str]) -> None:
    before = heavy.files()
    said(heavy, capsys)
    said(heavy, capsys, "--explain", "acct-heavy")
    assert heavy.files() == before
