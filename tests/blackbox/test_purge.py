"""Month end: what is destroyed, what stays, when it waits, and what proves it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from .cli import Home
from .conftest import ALL_CLOSED, ALL_PURGED, Deployment, deploy
from .forensics import Finder, Hit, key_windows, search
from .months import Shape, make_month
from .variants import Variant, records_of, write

SMALL = Shape(users=60, locations=3, days=3)
_NOVEMBER = "2026-11-02T23:30:00Z"


@dataclasses.dataclass(frozen=True, slots=True)
class Purged:
    """A purged deployment beside what it held just before."""

    done: Deployment
    keys: dict[str, bytes]
    raw: dict[str, bytes]
    tables: dict[str, str]
    keys_found_before: list[Hit]


@pytest.fixture(scope="module")
def purged(tmp_path_factory: pytest.TempPathFactory) -> Purged:
    """Purge October of a deployment that also holds readings of November."""
    folder = tmp_path_factory.mktemp("purge")
    done = deploy(folder, make_month(50))
    early = make_month(51, dataclasses.replace(SMALL, first=dt.date(2026, 11, 1)))
    done.home.ingest(write(records_of(early), Variant("november"), folder / "nov"), _NOVEMBER)
    files = done.home.files()
    keys = {name: data for name, data in files.items() if name.startswith("keys/2026-10")}
    raw = {name: data for name, data in files.items() if name.startswith("raw/2026-10/")}
    tables = done.home.digests("tables/")
    seen = search(done.home.path, windows(keys))
    done.home.purge(ALL_PURGED).expect(0)
    return Purged(done, keys, raw, tables, seen)


def windows(keys: dict[str, bytes]) -> Finder:
    """Return a finder of whatever is secret in key files."""
    found = {window for data in keys.values() for window in key_windows(data)}
    assert len(found) >= 16, "the key files hold no key"
    return Finder(found)


def test_the_search_finds_the_keys_before(purged: Purged) -> None:
    """CL-2, CV-5: the positive control: the same windows, the same home, an hour earlier."""
    places = {hit.place.partition(" ")[0] for hit in purged.keys_found_before}
    assert places == set(purged.keys)


def test_no_key_byte_is_left(purged: Purged) -> None:
    """CL-2, CV-5: no window of the month's key set in any file, and no file of its name."""
    assert search(purged.done.home.path, windows(purged.keys)) == []
    assert not [name for name in purged.done.home.files() if name.startswith("keys/2026-10")]


def test_no_account_and_no_pseudonym_is_left(purged: Purged) -> None:
    """CL-2, CT-3: names, and their keyed hashes under any key that the key file may hold."""
    names = {user for user in purged.done.month.users if len(user.encode()) >= 8}
    hashes = set()
    for data in purged.keys.values():
        keys = {data[at : at + 32] for at in range(len(data) - 31)}
        for key in (key for key in keys if len(set(key)) >= 24):
            for user in sorted(names)[:3]:
                hashes.add(hashlib.blake2b(user.encode(), key=key, digest_size=8).digest())
    assert hashes
    assert search(purged.done.home.path, names | hashes) == []


def test_the_raw_month_is_gone_and_its_neighbour_is_not(purged: Purged) -> None:
    """CL-2: no raw file of October, nor a piece of one; November is untouched."""
    files = purged.done.home.files()
    assert purged.raw
    assert not [name for name in files if name.startswith("raw/2026-10")]
    assert [name for name in files if name.startswith("raw/2026-11/")]
    sealed = {window for data in purged.raw.values() for window in key_windows(data[256:512])}
    assert sealed
    assert search(purged.done.home.path, sealed) == []


def test_the_tables_are_unchanged(purged: Purged) -> None:
    """CS-4, CL-2: what was published stays, byte for byte; the month's table is added."""
    after = purged.done.home.digests("tables/")
    assert {name: after.get(name) for name in purged.tables} == purged.tables
    added = {name.split("/")[1] for name in after.keys() - purged.tables.keys()}
    assert "usage_monthly" in added


def test_exactly_one_receipt_says_what_was_done(purged: Purged) -> None:
    """CV-5: one receipt, verified; the log's chain holds."""
    (receipt,) = purged.done.home.receipts()
    assert receipt.name == "receipt-purge-2026-10.json"
    told = json.loads(receipt.read_bytes())
    assert told["verified"] is True
    purged.done.home.run("audit", "verify", now=ALL_PURGED).expect(0)


def test_a_second_purge_has_nothing_to_do(purged: Purged) -> None:
    """CL-2: exit 0, no second receipt, the first one as it was."""
    before = purged.done.home.receipts()[0].read_bytes()
    told = purged.done.home.purge("2026-11-03T02:00:00Z").expect(0)
    assert told.json["rows"] == []
    (receipt,) = purged.done.home.receipts()
    assert receipt.read_bytes() == before


def test_later_records_are_refused(purged: Purged) -> None:
    """CV-5: data that arrives after is refused, all of it, and makes no key again."""
    told = purged.done.home.ingest(purged.done.files, "2026-11-03T03:00:00Z").json
    assert told["accepted"] == 0
    assert told["reasons"] == {"day_purged": len(records_of(purged.done.month))}
    purged.done.home.rollup("2026-11-03T03:30:00Z")
    files = purged.done.home.files()
    assert not [name for name in files if name.startswith(("keys/2026-10", "raw/2026-10"))]
    after = purged.done.home.digests("tables/")
    assert {name: after[name] for name in purged.tables} == purged.tables


def test_november_is_closed_as_if_nothing_had_happened(purged: Purged) -> None:
    """CL-2: the purge of a month leaves the next one's days to be closed."""
    purged.done.home.rollup("2026-11-05T00:30:00Z")
    closed = {row["day"] for row in purged.done.home.table("closings_daily")}
    assert {"2026-11-01", "2026-11-02"} <= closed


def test_the_clock_alone_refuses_a_month(tmp_path: Path, home: Home) -> None:
    """CL-2: from the purge instant on, even if the purge itself is late."""
    files = write(records_of(make_month(52, SMALL)), Variant("late"), tmp_path / "files")
    count = len(records_of(make_month(52, SMALL)))
    last = home.ingest(files, "2026-11-02T23:59:59Z").json
    assert last["accepted"] == count
    told = home.ingest(files, "2026-11-03T00:00:00Z").json
    assert (told["accepted"], told["reasons"]) == (0, {"day_purged": count})


def test_a_month_not_due_is_refused(closed: Deployment) -> None:
    """CL-2: exit 5, and nothing destroyed."""
    for now in (ALL_CLOSED, "2026-11-02T23:59:59Z"):
        before = closed.home.digests("raw/") | closed.home.digests("keys/")
        closed.home.purge(now, "--month", "2026-10").expect(5)
        assert closed.home.digests("raw/") | closed.home.digests("keys/") == before
        assert closed.home.receipts() == []


def test_nothing_due_is_done(closed: Deployment) -> None:
    """CL-2: a purge without a month that is due ends well and destroys nothing."""
    before = closed.home.digests("raw/")
    closed.home.purge(ALL_CLOSED).expect(0)
    assert closed.home.digests("raw/") == before


def test_a_dry_run_changes_nothing(closed: Deployment, tmp_path: Path) -> None:
    """CL-2: the plan is words; every file stays as it is."""
    home = Home(tmp_path / "copy")
    shutil.copytree(closed.home.path, home.path)
    before = {name: data for name, data in home.digests().items() if "lock" not in name}
    told = home.purge(ALL_PURGED, "--dry-run").expect(0)
    after = {name: data for name, data in home.digests().items() if "lock" not in name}
    assert after == before
    assert b"2026-10" in told.out + told.err


def test_damaged_raw_data_is_destroyed_all_the_same(tmp_path: Path) -> None:
    """CL-2, CV-5: at the deadline exit 6, a receipt that says so, and nothing left."""
    done = deploy(tmp_path, make_month(53, SMALL))
    keys = {name: data for name, data in done.home.files().items() if name.startswith("keys/")}
    for path in (done.home.path / "raw" / "2026-10").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
    done.home.purge(ALL_PURGED).expect(6)
    (receipt,) = done.home.receipts()
    assert json.loads(receipt.read_bytes())["verified"] is False
    assert search(done.home.path, windows(keys)) == []
    done.home.purge(ALL_PURGED).expect(0)
    assert done.home.receipts() == [receipt]


def test_now_is_for_rehearsals(tmp_path: Path) -> None:
    """CL-2: elsewhere `--now` is refused by everything that writes."""
    home = Home(tmp_path / "home")
    made = home.run("init")
    if made.code == 5:
        pytest.skip("this file system does not destroy what is overwritten")
    made.expect(0)
    before = home.digests()
    path = tmp_path / "empty.ndjson"
    path.write_bytes(b"")
    for words in (("ingest", str(path)), ("rollup",), ("purge",), ("run", "daily")):
        home.run(*words, now=ALL_PURGED).expect(5)
    assert {name: home.digests()[name] for name in before} == before


def late_home(tmp_path: Path, seed: int) -> Home:
    """Return a home whose last entry is of the middle of October."""
    home = Home(tmp_path / "home").init()
    files = write(records_of(make_month(seed, SMALL)), Variant("jump"), tmp_path / "files")
    home.ingest(files, "2026-10-04T12:00:00Z")
    return home


def test_a_clock_that_jumps_keeps_the_purge_waiting(tmp_path: Path) -> None:
    """CL-2: only the purge waits; a confirmed clock lets it go, and the receipt says late."""
    home = late_home(tmp_path, 54)
    home.run("purge", now=ALL_PURGED).expect(5)
    assert home.receipts() == []
    assert home.digests("keys/2026-10")
    home.run("rollup", now="2026-11-03T00:40:00Z").expect(0)
    assert home.table("usage_daily")
    home.run("purge", now="2026-11-03T00:50:00Z").expect(5)
    home.purge("2026-11-03T00:55:00Z").expect(0)
    assert len(home.receipts()) == 1
    assert not home.digests("keys/2026-10")


def test_six_hours_of_entries_prove_the_clock(tmp_path: Path) -> None:
    """CL-2: after a jump, entries over six hours are as good as a confirmation."""
    home = late_home(tmp_path, 55)
    home.run("rollup", now="2026-11-03T01:00:00Z").expect(0)
    home.run("rollup", now="2026-11-03T04:00:00Z").expect(0)
    home.run("purge", now="2026-11-03T06:59:00Z").expect(5)
    home.run("rollup", now="2026-11-03T07:01:00Z").expect(0)
    home.run("purge", now="2026-11-03T07:02:00Z").expect(0)
    assert len(home.receipts()) == 1


def test_two_days_are_no_jump(tmp_path: Path) -> None:
    """CL-2: 48 hours between two entries are an outage, not a doubt."""
    home = late_home(tmp_path, 56)
    home.rollup("2026-11-01T00:40:00Z")
    home.run("purge", now="2026-11-03T00:30:00Z").expect(0)
    assert len(home.receipts()) == 1
