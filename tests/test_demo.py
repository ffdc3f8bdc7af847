"""The demonstration is a self-test: one full run told as text, one as JSON in a home that stays."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from aggregator.cli import demo
from aggregator.cli.main import main
from aggregator.demo.daemons import read_daemons
from aggregator.demo.fleet import FIRST_DAY, PLANTED, Fleet
from aggregator.demo.story import MONTH
from aggregator.pipeline.search import Needles, search_folder
from aggregator.stores.home import Home
from aggregator.stores.receipts import ReceiptStore
from aggregator.stores.tables import TableStore


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Make temporary folders below a folder of the test's own, to see that none stays."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def truth() -> dict[tuple[str, str], Counter[str]]:
    """Add up what the fleet and the daemons deliver, from the generator's own numbers."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for delivery in Fleet().deliveries():
        for place, users in delivery.truth.items():
            counts[delivery.day.isoformat(), place] = Counter(users)
    for record in read_daemons(FIRST_DAY).records:
        counts[record.day, record.location][record.user] += record.bytes
    return counts


@pytest.mark.slow
def test_tells_the_whole_way_and_leaves_nothing(scratch, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("AGGREGATOR_HOME", str(scratch / "a-deployment"))
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert "✗" not in out
    checks = re.search(r"^(\d+) of (\d+) checks hold\.$", out, re.MULTILINE)
    assert checks is not None
    assert checks[1] == checks[2] == str(out.count("✓"))
    assert "in the home, as names      0 of 5" in out
    assert "in the home, with the key  5 of 5" in out
    assert "pseudonyms     0 of 5" in out
    assert "refused: day_purged" in out
    assert max(map(len, out.splitlines())) <= 80
    assert not any(line.endswith(" ") for line in out.splitlines())
    assert not any(name in out + err for name in PLANTED)
    assert err == "" or err.startswith("warning: keys here could outlive")
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_tables_equal_the_generators_truth(scratch, tmp_path, capsys):
    root = tmp_path / "home"
    assert main(["demo", "--json", "--home", str(root)]) == 0
    said = json.loads(capsys.readouterr().out)
    counts = truth()

    tables = TableStore(root / "tables")
    days = tables.periods("usage_daily")
    rows = tables.rows("usage_daily", days)
    named = [row for row in rows if row["location"] != "other"]
    for row in named:
        users = counts[row["day"].isoformat(), row["location"]]
        assert (row["users"], row["bytes"]) == (len(users), users.total())
    for day in days:
        total = sum(users.total() for (one, _), users in counts.items() if one == day)
        assert sum(row["bytes"] for row in rows if row["day"].isoformat() == day) == total
    (monthly,) = {sum(row["bytes"] for row in tables.rows("usage_monthly", [MONTH]))}
    assert monthly == sum(users.total() for (day, _), users in counts.items() if MONTH in day)

    assert (said["days_closed"], said["named_cells"]) == (len(days), len(named))
    assert (root / "tables" / "usage_monthly" / "month=2026-09" / "2026-09.parquet").exists()
    assert ReceiptStore(root / "audit").months() == ["2026-09", MONTH]
    assert said["receipt"] == ReceiptStore(root / "audit").read(MONTH)
    assert said["found_before"] == {
        "names_in_deliveries": 5, "names": 0, "pseudonyms": 5, "keys": 1,
    }  # fmt: skip
    assert said["found_after"] == {
        "names": 0, "pseudonyms": 0, "keys": 0, "late_record": {"day_purged": 1},
    }  # fmt: skip
    assert sum(said["reasons"].values()) == said["rejected"]
    assert len(said["reasons"]) == 13
    assert all(check["holds"] for check in said["checks"])
    assert search_folder(root, Needles(names=PLANTED)).is_clean
    assert list(scratch.iterdir()) == []
    assert Home(root).load_config().rehearsal


def test_the_fleet_is_the_same_every_time():
    first, again = (next(iter(Fleet().deliveries())) for _ in range(2))
    assert first == again


def test_only_accounts_and_bytes_of_a_capture_become_records():
    told = read_daemons(FIRST_DAY)
    assert {one.fate.partition(":")[0] for one in told.client} == {
        "kept", "local", "dropped",
    }  # fmt: skip
    assert {record.user for record in told.records} == {
        "acct-05001", "acct-05002", "user1", "user2",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["--now", "2026-10-01T00:00:00Z"], ["--config", "x.toml"]])
def test_brings_its_own_clock_and_settings(words, capsys):
    assert main(["demo", *words]) == 2
    assert "its own clock and settings" in capsys.readouterr().err


def test_does_not_touch_a_home_that_is_there(tmp_path, scratch):
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--home", str(tmp_path)]) == 5
    assert (tmp_path / "file").read_text() == "mine"
    assert list(scratch.iterdir()) == []


def test_a_claim_that_does_not_hold_ends_with_6(scratch, monkeypatch, capsys):
    def told(story: object, _kept: Path | None) -> None:
        story._check("pigs fly", False)  # type: ignore[attr-defined]

    monkeypatch.setattr(demo, "_as_text", told)
    assert main(["demo"]) == 6
    assert "pigs fly" in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


def test_an_interruption_leaves_nothing(scratch, monkeypatch):
    def told(_story: object, _kept: Path | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_as_text", told)
    assert main(["demo"]) == 130
    assert list(scratch.iterdir()) == []
