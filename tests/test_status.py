"""Status: one screen of facts, loud where something is late, the same facts as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from closed import NOW, Run

LATER = "2026-11-05T07:00:00Z"


def test_the_facts_of_a_sound_home(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "status", "--json")
    assert said.code == 0
    facts = said.json
    expected = {
        "schema_version": 1, "home": str(closed_home), "rehearsal": True, "now": NOW,
        "profile": "default", "profile_version": 1, "k": 10, "clock_in_doubt": False,
        "days_open": 1, "days_in_grace": 1, "days_due": 0, "lag_hours": 0.0,
        "last_closed_day": "2026-10-03", "last_ingest_at": "2026-10-05T06:00:00Z",
        "last_rollup_at": "2026-10-05T06:10:00Z", "last_rollup_days": 3,
        "last_purge_at": "2026-10-03T06:00:00Z", "last_purge_month": "2026-09",
        "last_purge_verified": True, "last_purge_late": False, "kept_months": ["2026-10"],
        "next_purge_month": "2026-10", "next_purge_at": "2026-11-03T00:00:00Z",
        "next_purge_due": False, "released_month": "2026-10", "rejection_day": "2026-10-05",
    }  # fmt: skip
    assert {name: facts[name] for name in expected} == expected
    assert facts["disk_free_bytes"] > 0


def test_released_shares_and_rejections_are_those_of_the_tables(
    closed_home: Path, run: Run
) -> None:
    facts = run(closed_home, "status", "--json").json
    usage = next(row for row in facts["released"] if row["table"] == "usage_daily")
    # The smallest location and the next one are `other`: 85 of 103 users are named, each day.
    assert usage == {
        "table": "usage_daily", "days": 3, "withheld_days": 0,
        "named_users_percent": round(100 * 85 / 103, 1),
    }  # fmt: skip
    by_reason = {row["reason"]: row["records"] for row in facts["rejections"]}
    rows = run(closed_home, "report", "rejections", "--from", "2026-10-05", "--json").json
    assert by_reason == {row["reason"]: row["records"] for row in rows}


def test_the_screen_has_the_facts_and_fits(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "status")
    assert said.code == 0
    assert len(said.out.splitlines()) <= 24
    for words in (
        "a rehearsal home", "default, version 1, k = 10", "1 open, 1 in grace, 0 due",
        "2026-10, due 2026-11-03T00:00:00Z, in 28 days", "2026-09, verified", "82.5 %",
    ):  # fmt: skip
        assert words in said.out
    for loud in ("LATE", "LAG", "DOUBT", "WARNING"):
        assert loud not in said.out


def test_what_is_late_is_loud_and_still_exit_0(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "status", now=LATER)
    assert said.code == 0
    assert "PURGE LATE    2026-10, due 2026-11-03T00:00:00Z, 2 days ago" in said.out
    assert "2 days since 2026-10-04 to be closed" in said.out
    assert "IN DOUBT" in said.out
    facts = run(closed_home, "status", "--json", now=LATER).json
    assert (facts["days_due"], facts["oldest_due_day"]) == (2, "2026-10-04")
    assert facts["next_purge_due"]
    assert facts["next_purge_waits_for_clock"]
    assert facts["lag_hours"] == 30 * 24 + 7


def test_a_recorded_doubt_is_told_until_it_is_settled(home: Path, run: Run) -> None:
    assert run(home, "rollup", now="2026-10-20T00:00:00Z").code == 0
    assert run(home, "status", "--json", now="2026-10-20T01:00:00Z").json["clock_in_doubt"]
    said = run(home, "status", now="2026-10-20T01:00:00Z")
    assert "from 2026-10-05T06:10:00Z to 2026-10-20T00:00:00Z" in said.out
    assert run(home, "rollup", "--confirm-clock", now="2026-10-20T02:00:00Z").code == 0
    assert not run(home, "status", "--json", now="2026-10-20T02:00:00Z").json["clock_in_doubt"]


def test_a_withheld_day_is_told(home: Path, run: Run) -> None:
    record = {
        "record": "usage_counter.1", "day": "2026-10-06", "user": "acct-1", "location": "us-nyc",
        "epoch": "9f3c2b7a11d04e55", "bytes": 1,
    }  # fmt: skip
    file = home.parent / "one.ndjson"
    file.write_text(json.dumps(record))
    run(home, "ingest", file, now="2026-10-06T12:00:00Z")
    run(home, "rollup", now="2026-10-08T00:00:00Z")
    said = run(home, "status", now="2026-10-08T00:00:00Z")
    assert "1 day WITHHELD" in said.out


def test_a_new_home_has_nothing_yet(tmp_path: Path, run: Run) -> None:
    run(tmp_path / "new", "init")
    said = run(tmp_path / "new", "status")
    assert said.code == 0
    for words in ("no day yet", "none yet", "no raw counters are kept", "no record yet"):
        assert words in said.out
    facts = run(tmp_path / "new", "status", "--json").json
    assert (facts["next_purge_month"], facts["last_ingest_at"], facts["released"]) == (
        None, None, [],
    )  # fmt: skip


def test_a_broken_home_is_no_exit_0(home: Path, run: Run) -> None:
    log = home / "audit" / "log.ndjson"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0], *lines[2:]]))
    said = run(home, "status")
    assert said.code == 6
    assert "broken at entry 2" in said.err
    assert run(home.parent / "none", "status").code == 3


def test_a_k_below_2_is_named(home: Path, run: Run) -> None:
    profile = home / "policy" / "profile.toml"
    text = profile.read_text().replace("k = 10 ", "k = 1\nallow_k_below_2 = true\n#")
    profile.write_text(text)
    assert "WARNING" in run(home, "status").out


def test_help_has_an_example(closed_home: Path, run: Run) -> None:
    assert "  aggregator status --json" in run(closed_home, "status", "--help", now=None).out
