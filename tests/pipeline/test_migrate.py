"""Homes of older releases: each works as it is, and is brought to this format and back (CL-2)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batches import dropped
from closed import Run
from homes import RELEASES, said, sealed, unpacked
from support import ALL_IN, TinyHome, usage

from aggregator.errors import ConfigError, RefusedError
from aggregator.pipeline import audit, drain, migrate
from aggregator.pipeline.migrate import Action
from aggregator.stores import home as stores_home
from aggregator.stores.home import Home

from .faults import DeadError, Faults

NOW = "2026-09-09T12:00:00Z"
ALL_CLOSED = "2026-10-02T12:00:00Z"
ALL_PURGED = "2026-10-03T06:00:00Z"
FORMAT_1 = "# ours\nformat = 1\nrehearsal = true  # a trial\n\n"
SETTINGS = "[limits]\nlink_rate_gbits = 10  # x\n\n[keys]\naccept_weak_destruction = false\n"
MARK = {"format": 2, "rehearsal": True}


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Return each release whose homes must open."""
    return str(request.param)


@pytest.fixture
def old(release: str, tmp_path: Path) -> Path:
    """Return a home as that release left it."""
    return unpacked(release, tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyHome:
    """Return a small home of format 1 that has a month's keys, counters and a waiting batch."""
    made = TinyHome.make(tmp_path / "tiny")
    (made.root / "home.json").unlink()
    (made.root / "runs").rmdir()
    (made.root / "config.toml").write_text(FORMAT_1 + SETTINGS)
    made.ingest([usage()])
    dropped(made.root, b"no batch, but nothing that a migration may look at")
    return made


def forward(home: TinyHome, now: str = ALL_IN, *, back: bool = False) -> None:
    """Migrate until there is nothing to do."""
    with home.open(now) as house:
        while plan := migrate.next_plan(house.home, back=back):
            migrate.carry_out(house, plan)
            if back:
                break


def backward(home: TinyHome) -> None:
    """Go back by one format."""
    forward(home, back=True)


def kept(home: TinyHome) -> dict[str, bytes]:
    """Return all that no migration may touch."""
    changed = ("home.json", "config.toml", ".lock", "audit/log.ndjson")
    return {name: content for name, content in home.files().items() if name not in changed}


def test_it_says_what_it_will_do_and_why(tiny: TinyHome) -> None:
    plan = migrate.next_plan(Home(tiny.root))
    assert plan is not None
    assert (plan.from_format, plan.to_format) == (1, 2)
    assert [(edit.action, edit.path) for edit in plan.edits] == [
        (Action.MAKE, "runs"),
        (Action.WRITE, "home.json"),
        (Action.WRITE, "config.toml"),
        (Action.WRITE, "home.json"),
    ]
    assert all(edit.reason for edit in plan.edits)
    assert "rehearsal" not in repr(plan.edits[1])


def test_there_and_back_to_the_byte(tiny: TinyHome) -> None:
    before = tiny.files()
    forward(tiny)
    assert (tiny.root / "config.toml").read_text() == "# ours\n\n" + SETTINGS
    assert json.loads((tiny.root / "home.json").read_text()).items() >= MARK.items()
    assert (tiny.root / "runs").is_dir()
    assert migrate.next_plan(Home(tiny.root)) is None
    assert tiny.read(NOW).config.rehearsal
    backward(tiny)
    assert migrate.next_plan(Home(tiny.root), back=True) is None
    after = tiny.files()
    log = "audit/log.ndjson"
    assert after.pop(log).startswith(before.pop(log))
    assert after == before
    entries = tiny.audit("migrate")
    assert entries == [{"from": 1, "to": 2}, {"from": 2, "to": 1}]


def test_settings_that_changed_meanwhile_stay(tiny: TinyHome) -> None:
    forward(tiny)
    config = tiny.root / "config.toml"
    config.write_text(SETTINGS + '[schedule]\ndaily = "off"\n')
    plan = migrate.next_plan(Home(tiny.root), back=True)
    assert plan is not None
    (note,) = plan.notes
    assert "[schedule]" in note
    (content,) = (edit.content for edit in plan.edits if edit.path == "config.toml")
    assert content == b"format = 1\nrehearsal = true\n" + config.read_bytes()


def test_a_home_made_in_this_format_goes_back_too(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    backward(home)
    assert Home(home.root).format == 1
    assert (home.root / "config.toml").read_text().startswith("format = 1\nrehearsal = true\n")
    assert home.read(NOW).config.rehearsal


def test_copies_of_tables_do_not_go_back(tiny: TinyHome) -> None:
    """An older release would not remove them when their retention is over."""
    forward(tiny)
    copy = tiny.root / "cache/usage_daily/2026-09.0123456789abcdef.copy"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"rows")
    backward(tiny)
    assert not (tiny.root / "cache").exists()
    assert migrate.next_plan(Home(tiny.root), back=True) is None


def test_modes_and_links_of_config_toml_stay(tiny: TinyHome, tmp_path: Path) -> None:
    """As where a configuration management tool keeps it elsewhere."""
    real, link = tmp_path / "elsewhere.toml", tiny.root / "config.toml"
    link.rename(real)
    real.chmod(0o640)
    link.symlink_to(real)
    forward(tiny)
    assert link.is_symlink()
    assert real.read_text() == "# ours\n\n" + SETTINGS
    assert real.stat().st_mode & 0o777 == 0o640
    backward(tiny)
    assert real.read_text() == FORMAT_1 + SETTINGS


def test_root_makes_no_file_that_the_homes_user_cannot_read(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(stores_home, "_owner", lambda _path: 990)
    before = kept(tiny)
    with pytest.raises(RefusedError, match="another user"):
        forward(tiny, ALL_IN)
    assert kept(tiny) == before
    assert Home(tiny.root).format == 1
    assert tiny.audit("migrate") == []
    monkeypatch.setattr(stores_home, "_owner", lambda _path: 0)
    forward(tiny, ALL_IN)


def test_lines_that_cannot_be_found_are_told_and_change_nothing(tiny: TinyHome) -> None:
    config = tiny.root / "config.toml"
    config.write_text('"form\\u0061t" = 1\nrehearsal = true\n' + SETTINGS)
    with pytest.raises(ConfigError, match="each on a line of its own"):
        forward(tiny)
    assert not (tiny.root / "home.json").exists()
    assert tiny.audit("migrate") == []


def test_killed_at_any_step_it_opens_and_is_simply_run_again(
    tiny: TinyHome, tmp_path: Path
) -> None:
    migrated = TinyHome(tmp_path / "migrated")
    shutil.copytree(tiny.root, migrated.root)
    forward(migrated)
    returned = TinyHome(tmp_path / "returned")
    shutil.copytree(migrated.root, returned.root)
    backward(returned)
    ways: tuple[tuple[TinyHome, Callable[[TinyHome], None], TinyHome], ...] = (
        (tiny, forward, migrated),
        (migrated, backward, returned),
    )
    for start, work, end in ways:
        for number in range(1, 200):
            home = TinyHome(tmp_path / f"{work.__name__}-{number}")
            shutil.copytree(start.root, home.root)
            with Faults(number) as faults:
                try:
                    work(home)
                except DeadError:
                    pass
                else:
                    break
            assert faults.dead
            # Nothing waits for the migration: it opens, reads and writes as it is.
            assert home.read(NOW).config.rehearsal
            assert home.ingest([usage(user="acct-2")]).accepted == 1
            other = TinyHome(tmp_path / f"{work.__name__}-{number}-other-way")
            shutil.copytree(home.root, other.root)
            work(home)
            assert home.files()["config.toml"] == end.files()["config.toml"]
            assert home.files().get("home.json") == end.files().get("home.json")
            assert home.audit("migrate") == end.audit("migrate")
            _turn_round(other, start, work)
        else:
            pytest.fail("it never came to its end")
        assert number > 8


def _turn_round(home: TinyHome, start: TinyHome, work: Callable[[TinyHome], None]) -> None:
    """Whoever was killed on one way may as well go the other."""
    (backward if work is forward else forward)(home)
    for name in ("config.toml", "home.json"):
        assert home.files().get(name) == start.files().get(name), name
    assert audit.verify(home.read(ALL_PURGED)).problems == ()


def test_the_command_shows_its_plan_first(tiny: TinyHome, run: Run) -> None:
    before = tiny.files()
    shown = run(tiny.root, "migrate", "--dry-run", now=NOW)
    assert (shown.code, "nothing was changed" in shown.err) == (0, True)
    assert "config.toml" in shown.out
    assert tiny.files() == before
    fields = run(tiny.root, "migrate", "--dry-run", "--json", now=NOW).json
    assert (fields["from"], fields["to"], fields["migrated"]) == (1, 2, False)
    assert {row["path"] for row in fields["rows"]} == {"runs", "home.json", "config.toml"}
    later = "2026-10-31T23:30:00Z"
    done = run(tiny.root, "migrate", now=later)
    assert (done.code, done.out.splitlines()[0]) == (0, "format 1 to 2:")
    again = run(tiny.root, "migrate", now=later)
    assert (again.code, again.out) == (0, "")
    assert "of format 2 already" in again.err
    fields = run(tiny.root, "migrate", "--json", now=later).json
    assert (fields["from"], fields["to"], fields["migrated"], fields["rows"]) == (2, 2, False, [])
    fields = run(tiny.root, "migrate", "--back", "--json", now=later).json
    assert (fields["from"], fields["to"], fields["migrated"]) == (2, 1, True)
    again = run(tiny.root, "migrate", "--back", now=later)
    assert (again.code, "of format 1 already" in again.err) == (0, True)


def test_the_command_refuses_what_it_must(tiny: TinyHome, run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere", "migrate", "--dry-run", now=NOW).code == 3
    assert run(tmp_path / "nowhere", "migrate", now=NOW).code == 3
    (tiny.root / "home.json").write_text('{"format": 3, "rehearsal": true, "made_by": "0.9.1"}')
    before = tiny.files()
    for words in (("migrate",), ("migrate", "--back"), ("migrate", "--dry-run"), ("purge",)):
        told = run(tiny.root, *words, now=NOW)
        assert (told.code, told.out) == (3, "")
        assert "0.9.1" in told.err
    assert tiny.files() == before


@pytest.mark.parametrize("migrated", [False, True], ids=["as it is", "migrated"])
def test_a_home_of_an_older_release_opens_and_goes_on(
    old: Path, release: str, run: Run, migrated: bool
) -> None:
    """What it told there is told here, and nothing of its month outlives the purge (CL-2, CV-5)."""
    if migrated:
        assert run(old, "migrate", now=NOW).code == 0
    told = said(release)["told"]
    _tells_the_same(old, told, run, entries=told["verify"]["entries"] + migrated)
    taken = run(old, "ingest", "--json", now="2026-09-09T13:00:00Z").json
    assert taken["accepted"] == len(said(release)["records"])
    assert (taken["rejected"], list((old / "inbox").glob("*.batch"))) == (0, [])
    assert run(old, "rollup", "--confirm-clock", now=ALL_CLOSED).code == 0
    rows = json.loads(run(old, "report", "usage", "--from", "2026-09-05", "--to", "2026-09-30",
                          "--format", "json", now=ALL_CLOSED).out)  # fmt: skip
    # The waiting batch was all that the last day had: a location alone, in what it is folded into.
    assert sum(row["bytes"] for row in rows if row["day"] == "2026-09-09") == sum(
        json.loads(line).get("bytes", 0) for line in said(release)["records"]
    )
    (receipt,) = run(old, "purge", "--confirm-clock", "--json", now=ALL_PURGED).json["rows"]
    assert (receipt["month"], receipt["verified"]) == ("2026-09", True)
    assert receipt["destroyed"]["notices"] == 1
    for folder in ("keys", "raw", "inbox", "outbox"):
        assert not [path for path in (old / folder).rglob("*") if path.is_file()], folder
    assert run(old, "audit", "verify", now=ALL_PURGED).code == 0
    findings = run(old, "doctor", "--json", now=ALL_PURGED).json["rows"]
    failed = {row["check"] for row in findings if row["state"] == "fail"}
    assert failed <= {"memory", "destruction", "disk"}  # of the machine that tests run on
    assert Home(old).format == (2 if migrated else 1)


def _tells_the_same(old: Path, told: dict[str, Any], run: Run, *, entries: int) -> None:
    asked = {
        "usage": ("report", "usage", "--from", "2026-08-30", "--to", "2026-09-30"),
        "monthly": ("report", "usage", "--from", "2026-08-01", "--to", "2026-09-30",
                    "--by", "month,location"),
        "connections": ("report", "connections", "--from", "2026-08-30", "--to", "2026-09-30"),
        "agents": ("agent", "list"),
        "notices": ("fairuse", "list"),
    }  # fmt: skip
    for name, words in asked.items():
        found = run(old, *words, "--json", now=NOW).json
        for row in found["rows"] if name == "agents" else ():
            assert row.pop("heard_at") is None  # which the older release did not tell
        assert found == told[name], name
    status = run(old, "status", "--json", now=NOW).json
    same = told["status"].keys() - {"last_entry_at"}
    assert {name: status[name] for name in same} == {name: told["status"][name] for name in same}
    verified = run(old, "audit", "verify", "--json", now=NOW).json
    assert verified["verified"]
    assert verified["entries"] == entries
    assert (verified["receipts"], verified["partitions"]) == (1, told["verify"]["partitions"])


def test_a_purge_never_waits_for_a_migration(old: Path, run: Run) -> None:
    """Killed in the middle of its migration, an old home still destroys its month in time."""
    home = TinyHome(old)
    with Faults(8) as faults, pytest.raises(DeadError):
        forward(home, NOW)
    assert faults.dead
    assert (old / "home.json").exists()
    assert Home(old).format == 1
    (receipt,) = run(old, "purge", "--confirm-clock", "--json", now=ALL_PURGED).json["rows"]
    assert receipt["verified"]
    assert list((old / "keys").iterdir()) == []


def test_the_batch_of_an_older_agent_is_taken_in(old: Path, release: str) -> None:
    home = TinyHome(old)
    for path in (old / "inbox").glob("*.batch"):
        path.unlink()
    dropped(old, sealed(release))
    with home.open("2026-09-09T13:00:00Z") as house:
        drained = drain.drain_inbox(house)
    assert (drained.batches, drained.rejected) == (1, 0)
    assert drained.accepted == len(said(release)["records"])
