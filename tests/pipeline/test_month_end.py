"""The purge: when, what, in which order, and what stands in its way (CL-2, CV-5)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ALL_CLOSED, ALL_IN, ALL_PURGED, START, TinyHome, crowd, month

from aggregator.errors import AggregatorError, RefusedError
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import month_end, monthly
from aggregator.stores import atomic, custody

DUE = "2026-11-03T00:00:00Z"


@pytest.fixture(scope="module")
def closed_month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a home with two closed October days, which nobody may change."""
    home = TinyHome.make(tmp_path_factory.mktemp("month") / "home")
    home.ingest(month(days=(1, 2)))
    home.rollup()
    return home.root


@pytest.fixture
def home(closed_month: Path, tmp_path: Path) -> TinyHome:
    shutil.copytree(closed_month, tmp_path / "home")
    return TinyHome(tmp_path / "home")


def gone(home: TinyHome) -> bool:
    """Say whether nothing of the month's counters and keys is left."""
    return home.files("keys") == home.files("raw") == {} and not any((home.root / "raw").iterdir())


def test_the_purge_is_due_from_the_instant_and_not_before(home: TinyHome) -> None:
    before = home.files("raw")
    assert home.purge("2026-11-02T23:59:59Z") == []
    with pytest.raises(RefusedError, match="not due before 2026-11-03T00:00:00Z") as refused:
        home.purge("2026-11-02T23:59:59Z", "2026-10")
    assert refused.value.exit_code == 5
    assert home.files("raw") == before
    (receipt,) = home.purge(DUE)
    assert (receipt["verified"], receipt["late"], receipt["due_at"]) == (True, False, DUE)
    assert gone(home)
    assert home.purge(DUE) == home.purge(DUE, "2026-10") == []


def test_published_tables_are_as_they_were(home: TinyHome) -> None:
    before = home.tables()
    (receipt,) = home.purge(DUE)
    after = home.tables()
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"tables/usage_monthly/month=2026-10/2026-10.parquet"}
    house = home.read(DUE)
    assert len(receipt["tables"]) == len(after)
    for line in receipt["tables"]:
        assert house.tables.digest(line["table"], line["period"]) == line["sha256"]


def test_the_plan_names_every_file_that_goes_and_changes_nothing(home: TinyHome) -> None:
    before = home.files()
    plan = month_end.plan_purge(home.read(DUE), "2026-10")
    assert home.files() == before
    assert plan.steps[0].action == "destroy"
    assert {step.item.path for step in plan.steps} == {*home.files("raw"), *home.files("keys")}
    home.purge(DUE)
    assert [name for name in home.files() if name.startswith(("raw/", "keys/"))] == []


def test_days_still_open_are_closed_first(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    home.ingest(crowd("2026-10-31", range(20)))
    assert home.purge(DUE)[0]["verified"]
    assert home.usage()["2026-10-31", "us-nyc"][0] == 20
    assert [entry["day"] for entry in home.audit("close_day")] == ["2026-10-31"]


def test_keys_go_before_anything_else(home: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """CV-5: killed after its first step, the purge has left nothing that can be read."""
    order: list[str] = []
    destroy, remove = custody.destroy, atomic.remove
    monkeypatch.setattr(custody, "destroy", lambda p: (order.append("destroy"), destroy(p))[1])

    def removed(path: Path) -> None:
        if path.suffix != atomic.TEMPORARY_SUFFIX:  # the probe of the file system
            order.append(path.suffix)
        remove(path)

    monkeypatch.setattr(atomic, "remove", removed)
    home.purge(DUE)
    assert order[:2] == ["destroy", ".key"]
    assert ".seg" in order


def test_several_months_go_oldest_first_each_with_its_receipt(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", "2026-09-01T00:00:00Z")
    home.ingest([*crowd("2026-09-30", range(20)), *crowd("2026-10-01", range(20))],
                "2026-10-01T12:00:00Z")  # fmt: skip
    home.ingest(crowd("2026-11-01", range(20)), "2026-11-01T12:00:00Z")
    receipts = home.purge("2026-11-20T00:00:00Z")
    assert [receipt["month"] for receipt in receipts] == ["2026-09", "2026-10"]
    assert [receipt["late"] for receipt in receipts] == [True, True]
    assert home.read(DUE).keys.months() == ["2026-11"]
    assert [entry["month"] for entry in home.audit("purge")] == ["2026-09", "2026-10"]


def test_a_named_month_takes_older_ones_and_no_later(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", "2026-09-01T00:00:00Z")
    home.ingest([*crowd("2026-09-30", range(20)), *crowd("2026-10-01", range(20))],
                "2026-10-01T12:00:00Z")  # fmt: skip
    assert [r["month"] for r in home.purge("2026-11-20T00:00:00Z", "2026-09")] == ["2026-09"]
    assert home.read(DUE).keys.months() == ["2026-10"]


@pytest.mark.parametrize(("hour", "late"), [("2026-11-04T00:00:00Z", False),
                                            ("2026-11-04T00:00:01Z", True)])  # fmt: skip
def test_a_receipt_says_late_after_a_day(home: TinyHome, hour: str, late: bool) -> None:
    assert home.purge(hour)[0]["late"] is late


def test_what_a_restore_brings_back_is_destroyed_again_without_a_second_receipt(
    home: TinyHome, tmp_path: Path
) -> None:
    """bigquery-etl#9683: erased data must not come back."""
    shutil.copytree(home.root / "raw", tmp_path / "raw")
    shutil.copytree(home.root / "keys", tmp_path / "keys")
    home.purge(DUE)
    receipt, tables = home.files("audit")["audit/receipt-purge-2026-10.json"], home.tables()
    for name in ("raw", "keys"):
        shutil.rmtree(home.root / name)
        shutil.copytree(tmp_path / name, home.root / name)
    assert month_end.remnants(home.read(DUE)) == ["2026-10"]
    assert home.rollup(ALL_PURGED).days == ()
    assert home.purge(ALL_PURGED) == []
    assert gone(home)
    assert home.tables() == tables
    assert home.files("audit")["audit/receipt-purge-2026-10.json"] == receipt
    assert home.audit("purge_remnants") == [{"month": "2026-10"}]
    assert len(home.audit("purge")) == 1
    home.purge(ALL_PURGED)
    assert len(home.audit("purge_remnants")) == 1


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _tamper_table(root: Path) -> None:
    _flip(root / "tables/usage_daily/month=2026-10/2026-10-01.parquet")


def _swap_table(root: Path) -> None:
    folder = root / "tables/usage_daily/month=2026-10"
    shutil.copy(folder / "2026-10-02.parquet", folder / "2026-10-01.parquet")


def _swap_connections(root: Path) -> None:
    folder = root / "tables/connections_daily/month=2026-10"
    shutil.copy(folder / "2026-10-02.parquet", folder / "2026-10-01.parquet")


def _remove_table(root: Path) -> None:
    (root / "tables/usage_daily/month=2026-10/2026-10-01.parquet").unlink()


def _tamper_segment(root: Path) -> None:
    _flip(root / "raw/2026-10/2026-10-01/usage-closed.all.seg")


def _tamper_folds(root: Path) -> None:
    _flip(root / "raw/2026-10/2026-10-01/folds.all.seg")


def _remove_folds(root: Path) -> None:
    (root / "raw/2026-10/2026-10-01/folds.all.seg").unlink()


def _remove_frozen(root: Path) -> None:
    (root / "raw/2026-10/2026-10-01/usage-closed.all.seg").unlink()


def _remove_day(root: Path) -> None:
    shutil.rmtree(root / "raw/2026-10/2026-10-01")


def _remove_all_days(root: Path) -> None:
    shutil.rmtree(root / "raw/2026-10")


def _lose_keys(root: Path) -> None:
    (root / "keys/2026-10.key").unlink()


def _damage_keys(root: Path) -> None:
    _flip(root / "keys/2026-10.key")


@pytest.mark.parametrize(
    "harm",
    [
        _tamper_table, _swap_table, _swap_connections, _remove_table, _tamper_segment,
        _tamper_folds, _remove_folds, _remove_frozen, _remove_day, _remove_all_days, _lose_keys,
        _damage_keys,
    ],
)  # fmt: skip
def test_a_month_that_does_not_verify_is_destroyed_all_the_same(
    home: TinyHome, harm: Callable[[Path], None]
) -> None:
    """CL-2: nothing an attacker or a disk does keeps the counters; the receipt tells it."""
    harm(home.root)
    (receipt,) = home.purge(DUE)
    assert not receipt["verified"]
    assert receipt["problems"]
    assert gone(home)
    assert len(list((home.root / "audit").glob("receipt-*"))) == 1
    assert home.audit("purge")[0]["verified"] is False
    assert home.purge(DUE) == []


def test_a_broken_audit_log_does_not_keep_the_counters(home: TinyHome) -> None:
    path = home.root / "audit" / "log.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"accepted"', b'"acceptet"', 1))
    (receipt,) = home.purge(DUE)
    assert gone(home)
    assert not receipt["verified"]
    assert any("audit log is broken" in problem for problem in receipt["problems"])


def test_a_damaged_last_entry_waits_for_someone_to_look(home: TinyHome) -> None:
    """Junk at the log's end puts the clock in doubt; confirmed, the purge destroys and says so."""
    path = home.root / "audit" / "log.ndjson"
    path.write_bytes(path.read_bytes() + b"junk\n")
    with pytest.raises(RefusedError, match="--confirm-clock"):
        home.purge(DUE, confirm=False)
    (receipt,) = home.purge(DUE)
    assert gone(home)
    assert not receipt["verified"]
    assert path.read_bytes().count(b"junk\n") == 1


def test_a_full_disk_keeps_the_receipt_waiting_not_the_counters(
    home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CV-5: a day past the deadline the keys go first, since destroying needs no space."""
    with monkeypatch.context() as patch:
        patch.setattr(
            type(home.read(DUE).receipts),
            "write_intent",
            lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        with pytest.raises(OSError, match="No space"):
            home.purge("2026-11-03T12:00:00Z")
        assert home.read(DUE).keys.months() == ["2026-10"]
        with pytest.raises(OSError, match="No space"):
            home.purge("2026-11-04T06:00:00Z")
        assert gone(home)
    (receipt,) = home.purge("2026-11-04T07:00:00Z")
    assert not receipt["verified"]


def test_what_may_pass_is_tried_again_for_a_day_and_no_longer(
    home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not cost the month's table at once, nor keep its counters for ever."""

    def full(*_words: object) -> list[str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(monthly, "write_monthly", full)
        with pytest.raises(OSError, match="No space"):
            home.purge("2026-11-04T00:00:00Z")
        assert home.read(DUE).keys.months() == ["2026-10"]
    patched = TinyHome(home.root.parent / "other")
    shutil.copytree(home.root, patched.root)
    assert home.purge("2026-11-04T00:00:00Z")[0]["verified"]
    monkeypatch.setattr(monthly, "write_monthly", full)
    (receipt,) = patched.purge("2026-11-04T00:00:01Z")
    assert receipt["problems"] == ["the tables of 2026-10 could not be made: OSError"]
    assert gone(patched)


def test_files_that_are_no_segments_go_too(home: TinyHome) -> None:
    for name in ("stray", "2026-10-01/usage.x.seg.part", "2026-10-01/deep/er"):
        path = home.root / "raw/2026-10" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    home.purge(DUE)
    assert gone(home)


def test_a_month_with_keys_alone_is_purged(tmp_path: Path) -> None:
    """eduVPN: what was never closed is purged too."""
    home = TinyHome.make(tmp_path / "home")
    with home.open(ALL_IN) as house:
        house.month_keys_for_writing("2026-10")
    assert home.purge(DUE)[0]["verified"]
    assert gone(home)


def test_a_clock_in_doubt_waits_and_confirmation_goes_on(home: TinyHome) -> None:
    """The clock can destroy data."""
    with pytest.raises(RefusedError, match="--confirm-clock") as refused:
        home.purge("2027-03-01T00:00:00Z", confirm=False)
    assert refused.value.exit_code == 5
    assert not gone(home)
    (receipt,) = home.purge("2027-03-01T00:10:00Z")
    assert receipt["late"]
    assert gone(home)
    kinds = [entry.kind for entry in home.read(DUE).audit.entries()]
    assert "clock_jump" in kinds
    assert "clock_confirmed" in kinds


def test_a_clock_in_doubt_ends_by_six_hours_of_other_runs(home: TinyHome) -> None:
    jumped = "2026-12-01T00:00:00Z"
    with pytest.raises(RefusedError):
        home.purge(jumped, confirm=False)
    with home.open("2026-12-01T05:59:59Z", confirm=False) as house:
        assert house.clock.in_doubt
        house.record("ingest", {})
    with pytest.raises(RefusedError):
        home.purge("2026-12-01T05:59:59Z", confirm=False)
    assert len(home.purge("2026-12-01T06:00:00Z", confirm=False)) == 1


def stuck(month: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the raw files of a month be such that nobody can unlink them."""
    real = atomic.remove

    def refuse(path: Path) -> None:
        if month in str(path) and "raw" in path.parts:
            raise PermissionError(1, "Operation not permitted")
        real(path)

    monkeypatch.setattr(atomic, "remove", refuse)


def test_a_month_that_cannot_be_removed_keeps_no_other_from_its_purge(
    home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CL-2: October's files stay; its keys go all the same, and so does all of November."""
    home.ingest(crowd("2026-11-05", range(20)), "2026-11-05T12:00:00Z")
    stuck("2026-10", monkeypatch)
    for now in ("2026-12-03T00:00:00Z", "2026-12-03T01:00:00Z"):
        with pytest.raises(PermissionError):
            home.purge(now)
        assert home.files("keys") == {}
        assert [path.name for path in (home.root / "raw").iterdir()] == ["2026-10"]
    assert home.read(DUE).receipts.months() == ["2026-11"]
    monkeypatch.undo()
    (receipt,) = home.purge("2026-12-03T02:00:00Z")
    assert (receipt["month"], gone(home)) == ("2026-10", True)


def test_remnants_that_cannot_be_removed_keep_no_month_from_its_purge(
    home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CL-2: as what root restored into the home."""
    shutil.copytree(home.root / "raw", tmp_path / "raw")
    home.purge(DUE)
    shutil.copytree(tmp_path / "raw", home.root / "raw", dirs_exist_ok=True)
    home.ingest(crowd("2026-11-05", range(20)), "2026-11-05T12:00:00Z")
    stuck("2026-10", monkeypatch)
    with pytest.raises(PermissionError):
        home.purge("2026-12-03T00:00:00Z")
    assert home.read(DUE).receipts.months() == ["2026-10", "2026-11"]
    assert home.files("keys") == {}


def test_remnants_wait_for_the_clock_too(home: TinyHome, tmp_path: Path) -> None:
    shutil.copytree(home.root / "raw", tmp_path / "raw")
    home.purge(DUE)
    shutil.rmtree(home.root / "raw")
    shutil.copytree(tmp_path / "raw", home.root / "raw")
    with pytest.raises(RefusedError):
        home.purge("2027-03-01T00:00:00Z", confirm=False)
    assert home.files("raw")


def copies(home: TinyHome) -> list[str]:
    """Return the months of which there is a copy of usage_daily."""
    return sorted(path.name[:7] for path in (home.root / "cache/usage_daily").iterdir())


def test_tables_past_their_retention_expire_with_a_purge(tmp_path: Path) -> None:
    profile = DEFAULT_PROFILE.replace("usage_daily = 0", "usage_daily = 1")
    home = TinyHome.make(tmp_path / "home", "2026-08-01T00:00:00Z", profile)
    for number in (8, 9, 10):
        day = f"2026-{number:02d}-01"
        home.ingest(crowd(day, range(20)), f"{day}T12:00:00Z")
        home.rollup(f"2026-{number:02d}-03T00:00:00Z")
        if number == 10:
            assert copies(home) == ["2026-08", "2026-09"]
        home.purge(f"2026-{number + 1:02d}-03T00:00:00Z")
    house = home.read(DUE)
    assert house.tables.periods("usage_daily") == ["2026-09-01", "2026-10-01"]
    assert copies(home) == ["2026-09"]
    assert house.tables.periods("usage_monthly") == ["2026-08", "2026-09", "2026-10"]
    assert house.receipts.read("2026-10")["expired_partitions"] == 1


def test_the_receipt_says_how_and_what_cannot_be_known(home: TinyHome) -> None:
    (receipt,) = home.purge(DUE)
    assert "overwritten in place" in receipt["method"]
    assert "snapshots" in receipt["caveats"][0]
    assert receipt["destroyed"]["key_sets"] == 1
    assert receipt["destroyed"]["segments"] == 6
    assert receipt["rehearsal"] is True
    assert receipt["policy"]["sha256"] == home.read(DUE).profile.digest


def test_a_day_grace_ends_with_a_purge_grace_of_none(tmp_path: Path) -> None:
    profile = DEFAULT_PROFILE.replace("purge_hours = 48", "purge_hours = 0")
    home = TinyHome.make(tmp_path / "home", START, profile)
    home.ingest(crowd("2026-10-31", range(20)))
    (receipt,) = home.purge("2026-11-01T00:00:00Z")
    assert receipt["verified"]
    assert home.usage("usage_monthly")["2026-10", "us-nyc"][0] == 20
    assert gone(home)


def test_expected_errors_are_one_line(home: TinyHome) -> None:
    with pytest.raises(AggregatorError) as told:
        home.purge(ALL_CLOSED, "2026-10")
    assert "\n" not in str(told.value)
