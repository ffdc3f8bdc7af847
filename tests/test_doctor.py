"""Doctor: every check finds what it is for, and nothing on a sound home; it changes nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from closed import Run, Said

from aggregator.pipeline import doctor
from aggregator.pipeline.doctor import Place
from aggregator.pipeline.findings import Finding, State
from aggregator.stores import custody, formats
from aggregator.stores.formats import Mark
from aggregator.stores.home import Home

LATER = "2026-11-05T07:00:00Z"
CHECKS = [*(name for name, _ in (*doctor.HOME_CHECKS, *doctor.HOUSE_CHECKS)), "jobs"]
# Found by the machine that the tests run on, whatever the home is like.
OF_THE_MACHINE = {"memory", "destruction", "disk"}


def states(said: Said) -> dict[str, str]:
    """Return each check's worst state: `fail` before `warn` before `ok`."""
    order = ["ok", "warn", "fail"]
    found: dict[str, str] = {}
    for row in said.json["rows"]:
        found[row["check"]] = max(found.get(row["check"], "ok"), row["state"], key=order.index)
    return found


def test_a_sound_home_is_sound(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "doctor", "--json")
    assert (said.code, said.json["sound"]) == (0, True)
    found = states(said)
    assert list(found) == CHECKS
    assert {name for name, state in found.items() if state != "ok"} <= OF_THE_MACHINE
    table = run(closed_home, "doctor")
    assert table.code == 0
    assert "keys are open to their owner only" in table.out


def digests(home: Path) -> dict[str, tuple[str, int]]:
    """Return digest and time of change of every file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in home.rglob("*")
        if path.is_file()
    }


def test_doctor_changes_nothing(home: Path, run: Run) -> None:
    (home / "tables" / "left.part").write_bytes(b"")
    before = digests(home)
    run(home, "doctor", now=LATER)
    assert digests(home) == before


def open_keys(home: Path) -> None:
    (home / "keys" / "2026-10.key").chmod(0o640)


def open_keys_folder(home: Path) -> None:
    (home / "keys").chmod(0o755)


def lose_key(home: Path) -> None:
    (home / "keys" / "2026-10.key").unlink()


def damage_key(home: Path) -> None:
    key = home / "keys" / "2026-10.key"
    key.write_bytes(key.read_bytes()[:-1] + b"\0")


def restore_purged_key(home: Path) -> None:
    key = home / "keys" / "2026-09.key"
    key.write_bytes(b"\0" * custody.BLOCK_BYTES)
    key.chmod(0o600)


def leave_purge_unfinished(home: Path) -> None:
    (home / "audit" / "intent-purge-2026-10.json").write_text("{}")


def cut_log(home: Path) -> None:
    log = home / "audit" / "log.ndjson"
    log.write_bytes(log.read_bytes().replace(b'"accepted"', b'"accepteD"', 1))


def change_receipt(home: Path) -> None:
    receipt = home / "audit" / "receipt-purge-2026-09.json"
    receipt.write_text(receipt.read_text().replace('"late": false', '"late": true'))


def change_partition(home: Path) -> None:
    folder = home / "tables" / "usage_daily" / "month=2026-10"
    (folder / "2026-10-01.parquet").write_bytes((folder / "2026-10-02.parquet").read_bytes())


def spoil_config(home: Path) -> None:
    (home / "config.toml").write_text("format = 1\n")


def spoil_profile(home: Path) -> None:
    (home / "policy" / "profile.toml").write_text("name = 1\n")


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (open_keys, "permissions"),
        (open_keys_folder, "permissions"),
        (lose_key, "keys"),
        (damage_key, "keys"),
        (restore_purged_key, "remnants"),
        (leave_purge_unfinished, "remnants"),
        (cut_log, "audit chain"),
        (change_receipt, "receipts"),
        (change_partition, "partitions"),
        (spoil_config, "configuration"),
        (spoil_profile, "profile"),
    ],
)
def test_a_check_fails_on_what_it_is_for(
    home: Path, run: Run, damage: Callable[[Path], None], check: str
) -> None:
    damage(home)
    said = run(home, "doctor", "--json")
    assert said.code == 6
    assert states(said)[check] == "fail"
    assert check in said.err
    failed = [row for row in said.json["rows"] if row["state"] == "fail"]
    assert all(row["remedy"] for row in failed)
    assert "FAIL" in run(home, "doctor").out


@pytest.mark.parametrize(
    ("prepare", "check"),
    [
        (lambda home: home.chmod(0o755), "permissions"),
        (lambda home: (home / "raw" / "x.part").write_bytes(b""), "leftovers"),
    ],
)
def test_a_check_warns_and_the_home_stays_sound(
    home: Path, run: Run, prepare: Callable[[Path], object], check: str
) -> None:
    prepare(home)
    said = run(home, "doctor", "--json")
    assert (said.code, states(said)[check]) == (0, "warn")


def test_late_days_purge_and_clock_are_found(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "doctor", "--json", now=LATER)
    found = states(said)
    assert said.code == 6
    assert (found["clock"], found["due days"], found["purge"]) == ("warn", "fail", "fail")
    soon = states(run(closed_home, "doctor", "--json", now="2026-11-03T01:00:00Z"))
    assert soon["purge"] == "warn"
    due = states(run(closed_home, "doctor", "--json", now="2026-10-08T00:00:00Z"))
    assert due["due days"] == "ok"
    overdue = states(run(closed_home, "doctor", "--json", now="2026-10-08T00:00:01Z"))
    assert overdue["due days"] == "fail"


def test_what_is_no_home_is_a_configuration_error(tmp_path: Path, run: Run) -> None:
    said = run(tmp_path, "doctor")
    assert (said.code, said.out) == (3, "")


def of(check: str, home: Path, place: Place | None = None) -> list[Finding]:
    """Return the findings of one check of the home itself."""
    run_check = dict(doctor.HOME_CHECKS)[check]
    return [
        Finding(check, state, what, remedy)
        for state, what, remedy in run_check(Home(home), place or Place())
    ]


@pytest.mark.parametrize(
    ("swaps", "pattern", "state"),
    [
        ("Filename Type Size Used Priority\n", "core", State.OK),
        ("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n", "core", State.WARN),
        ("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 -2\n", "core", State.OK),
        ("Filename Type Size Used Priority\n", "|/usr/bin/collector %p", State.WARN),
        ("Filename Type Size Used Priority\n", "|/lib/systemd/systemd-coredump %P", State.OK),
    ],
)
def test_memory_that_could_reach_a_disk_is_warned_of(
    closed_home: Path, tmp_path: Path, swaps: str, pattern: str, state: State
) -> None:
    place = Place(tmp_path / "swaps", tmp_path / "pattern", tmp_path / "locks")
    place.swaps.write_text(swaps)
    place.core_pattern.write_text(pattern)
    assert [finding.state for finding in of("memory", closed_home, place)] == [state]


def test_a_held_lock_is_seen_without_taking_it(home: Path) -> None:
    assert [finding.state for finding in of("lock", home)] == [State.OK]
    descriptor = os.open(home / ".lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert [finding.state for finding in of("lock", home)] == [State.WARN]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("rehearsal", "accepted", "state"),
    [(True, False, State.WARN), (False, False, State.FAIL), (False, True, State.WARN)],
)
def test_a_weak_file_system_fails_unless_accepted(
    home: Path, monkeypatch: pytest.MonkeyPatch, rehearsal: bool, accepted: bool, state: State
) -> None:
    formats.write(home / "home.json", Mark(formats.FORMAT, rehearsal))
    weak = f"[keys]\naccept_weak_destruction = {str(accepted).lower()}\n"
    (home / "config.toml").write_text(f"[limits]\nlink_rate_gbits = 10\n{weak}")
    monkeypatch.setattr(custody, "weakness", lambda _folder: "writes go elsewhere")
    (found,) = of("destruction", home)
    assert (found.state, found.what) == (state, "writes go elsewhere")


def test_no_probe_is_made_where_nothing_can_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(_folder: Path) -> None:
        raise AssertionError("probed")

    monkeypatch.setattr(custody, "weakness", probe)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert of("destruction", home)


@pytest.mark.parametrize(
    ("free", "state"), [(10**10, State.OK), (5 * 10**8, State.WARN), (10**6, State.FAIL)]
)
def test_a_full_disk_is_found(
    closed_home: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State
) -> None:
    class Usage:
        def __init__(self) -> None:
            self.free = free

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage())
    assert [finding.state for finding in of("disk", closed_home)] == [state]


def test_help_has_an_example(closed_home: Path, run: Run) -> None:
    assert "  aggregator doctor --json" in run(closed_home, "doctor", "--help", now=None).out
