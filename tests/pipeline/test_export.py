"""The public release: once a month, whole, the same wherever it is asked for (CT-4, CV-6, CV-9)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pyarrow.parquet as pq
import pytest
from closed import Run
from support import ALL_CLOSED, ALL_IN, TinyHome, crowd, flags

from aggregator.cli import main
from aggregator.errors import RefusedError
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.model.tables import TABLES
from aggregator.pipeline import export, export_text
from aggregator.pipeline.export import Published
from aggregator.stores import releases, schemas

from .faults import DeadError, Faults

MONTH = "2026-10"
NOW = "2026-11-04T09:00:00Z"
NAME = f"usage-release-{MONTH}"
PROFILE = DEFAULT_PROFILE + '"r-benelux" = ["nl-ams", "be-bru"]\n'
# location: users of a day. nl-ams and be-bru are a region; se-sto has no fifty users.
PLACES = {"us-nyc": 120, "de-fra": 70, "fr-par": 55, "nl-ams": 30, "be-bru": 60, "se-sto": 20}
NAMES = (
    "SHA256SUMS", "dictionary.json", "dictionary.md", "method.md", "policy.toml", "release.json",
    "transparency.md", "usage.csv", "usage.parquet",
)  # fmt: skip


def lines(places: dict[str, int] = PLACES) -> list[str]:
    found: list[str] = ["{", '{"record":"usage_counter.1"}']
    for number, (place, users) in enumerate(places.items()):
        for day in ("2026-10-05", "2026-10-06"):
            found += crowd(day, range(200 * number, 200 * number + users), place)
            for country in ("DE", "US"):
                found.append(flags(day, place, country=country, users=15 + number))
    return found


def purged(root: Path, profile: str = PROFILE, places: dict[str, int] = PLACES) -> TinyHome:
    home = TinyHome.make(root, profile=profile)
    home.ingest(lines(places), ALL_IN)
    home.rollup(ALL_CLOSED)
    home.purge()
    return home


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home whose October is purged, which nobody may change."""
    return purged(tmp_path_factory.mktemp("purged") / "home").root


@pytest.fixture
def home(made: Path, tmp_path: Path) -> TinyHome:
    """Return a copy of it, to change."""
    copy = tmp_path / "home"
    shutil.copytree(made, copy)
    return TinyHome(copy)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main._COMMANDS, "export", ("export", "Write the public release."))


def publish(home: TinyHome, out: Path, month: str = MONTH) -> Published:
    with home.open(NOW) as house:
        return export.publish(house, month, out)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "release.json").read_text())["usage"]
    return found


def exports(home: TinyHome) -> list[dict[str, Any]]:
    return home.audit("export")


def test_the_folder_is_whole_and_its_sums_are_right(home: TinyHome, tmp_path: Path) -> None:
    found = publish(home, tmp_path / "out")
    assert found.is_new
    assert found.path == tmp_path / "out" / NAME
    assert tuple(sorted(files(found.path))) == NAMES
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]
    words = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    said = subprocess.run(words, cwd=found.path, capture_output=True, text=True, check=True)
    assert said.stdout.count(": OK\n") == len(NAMES) - 1
    release = json.loads((found.path / "release.json").read_text())
    assert {one["name"]: one["sha256"] for one in release["files"]} == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in files(found.path).items()
        if name not in ("release.json", "SHA256SUMS")
    }
    assert {path.stat().st_mode & 0o777 for path in found.path.iterdir()} == {0o644}


def test_the_release_is_as_its_schema_says(home: TinyHome, tmp_path: Path) -> None:
    path = publish(home, tmp_path / "out").path
    schema = schemas.load("public_release.1")
    release = json.loads((path / "release.json").read_text())
    jsonschema_rs.Draft202012Validator(schema).validate(release)
    assert set(release) == set(schema["properties"])
    assert (release["month"], release["k"], release["withheld"]) == (MONTH, 50, None)
    receipt = home.root / f"audit/receipt-purge-{MONTH}.json"
    assert release["receipt_sha256"] == hashlib.sha256(receipt.read_bytes()).hexdigest()


def test_ct4_who_is_named_and_who_is_folded(home: TinyHome, tmp_path: Path) -> None:
    found = {row["location"]: row for row in rows(publish(home, tmp_path / "out").path)}
    users = {name: row["users"] for name, row in found.items()}
    assert users == {"us-nyc": 120, "de-fra": 70, "other": None, "r-benelux": None}
    tables = {row["location"]: row for row in home.rows("usage_monthly")}
    assert found["r-benelux"]["bytes"] == tables["nl-ams"]["bytes"] + tables["be-bru"]["bytes"]
    # se-sto has too few, and so it takes in the smallest of those that could be named.
    assert found["other"]["bytes"] == tables["se-sto"]["bytes"] + tables["fr-par"]["bytes"]
    assert found["us-nyc"]["p50_bytes"] == tables["us-nyc"]["p50_bytes"] is not None
    assert tables["us-nyc"]["p90_bytes"] is not None
    assert found["us-nyc"]["p90_bytes"] is None
    assert found["de-fra"]["p50_bytes"] is None


def test_totals_are_those_of_the_tables(home: TinyHome, tmp_path: Path) -> None:
    found = rows(publish(home, tmp_path / "out").path)
    for table, measures in (
        ("usage_monthly", ["bytes"]),
        ("connections_daily", ["attempts", "successes"]),
    ):
        for measure in measures:
            total = sum(row[measure] for row in home.rows(table))
            assert sum(row[measure] for row in found) == total > 0


def test_every_file_has_the_same_numbers(home: TinyHome, tmp_path: Path, run: Run) -> None:
    said = run(home.root, "export", "--json", "--out", tmp_path / "out", now=NOW)
    path = tmp_path / "out" / NAME
    expected = rows(path)
    assert pq.ParquetFile(path / "usage.parquet").read().to_pylist() == expected
    text = (path / "usage.csv").read_bytes().decode()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert read == [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in expected
    ]
    assert (said.code, said.json["rows"]) == (0, expected)
    assert said.json["folded"] == {
        "be-bru": "r-benelux", "fr-par": "other", "nl-ams": "r-benelux", "se-sto": "other"
    }  # fmt: skip
    columns = json.loads((path / "dictionary.json").read_text())["tables"][0]["columns"]
    assert [column["name"] for column in columns] == list(expected[0])


def test_it_is_made_once_and_the_same_wherever_it_is_asked_for(
    home: TinyHome, made: Path, tmp_path: Path
) -> None:
    first = publish(home, tmp_path / "one")
    again = publish(home, tmp_path / "one")
    with home.open("2027-02-01T00:00:00Z") as house:
        other = export.publish(house, MONTH, tmp_path / "two")
    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert files(first.path) == files(other.path)
    digest = hashlib.sha256((first.path / "release.json").read_bytes()).hexdigest()
    assert exports(home) == [{"month": MONTH, "release": digest, "k": 50}]
    shutil.copytree(made, tmp_path / "copy")
    assert files(publish(TinyHome(tmp_path / "copy"), tmp_path / "three").path) == files(first.path)


def test_the_order_in_which_records_came_changes_nothing(home: TinyHome, tmp_path: Path) -> None:
    other = TinyHome.make(tmp_path / "other", profile=PROFILE)
    other.ingest(lines()[::-1], ALL_IN, parts=3)
    other.rollup(ALL_CLOSED)
    other.purge()
    one, two = publish(home, tmp_path / "one").path, publish(other, tmp_path / "two").path
    for name in ("usage.csv", "usage.parquet", "method.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_release_that_would_differ_is_refused(home: TinyHome, tmp_path: Path, run: Run) -> None:
    publish(home, tmp_path / "one")
    (path,) = (home.root / "tables/rejections_daily").rglob("*.parquet")
    path.unlink()  # the one table that no receipt names
    for words in (["--out", tmp_path / "two"], ["--out", tmp_path / "one"], ["--dry-run"]):
        said = run(home.root, "export", "--month", MONTH, *words, now=NOW)
        assert said.code == 5
        assert f"a release of {MONTH} was made on {NOW[:10]} and is immutable" in said.err
        assert said.err.count("\n") == 1
    assert not (tmp_path / "two").exists()
    assert len(exports(home)) == 1


@pytest.mark.parametrize("there", ["changed", "more", "fewer", "empty", "a file", "a dead link"])
def test_a_folder_with_other_content_is_refused(home: TinyHome, tmp_path: Path, there: str) -> None:
    path = tmp_path / "out" / NAME
    if there in ("changed", "more", "fewer"):
        publish(TinyHome(shutil.copytree(home.root, tmp_path / "copy")), tmp_path / "out")
    path.parent.mkdir(exist_ok=True)
    if there == "changed":
        (path / "usage.csv").write_bytes((path / "usage.csv").read_bytes() + b"x")
    elif there == "more":
        (path / "extra").touch()
    elif there == "fewer":
        (path / "usage.csv").unlink()
    elif there == "empty":
        path.mkdir()
    elif there == "a file":
        path.touch()
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = {one.name: one.lstat().st_mtime_ns for one in path.parent.rglob("*")}
    with pytest.raises(RefusedError, match="is there with other content"):
        publish(home, tmp_path / "out")
    assert {one.name: one.lstat().st_mtime_ns for one in path.parent.rglob("*")} == before
    assert exports(home) == []


@pytest.fixture(scope="module")
def undisturbed(
    made: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, bytes]]:
    """Return how many durable steps an export has, and the files that it makes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    home = TinyHome(shutil.copytree(made, folder / "home"))
    with Faults() as faults:
        expected = files(publish(home, folder / "out").path)
    assert faults.seen > 2 * len(NAMES)
    return faults.seen, expected


def check_killed(made: Path, folder: Path, number: int, expected: dict[str, bytes]) -> None:
    """Kill an export before its step `number`, and run it again."""
    home = TinyHome(shutil.copytree(made, folder / "home"))
    with Faults(number) as dying, pytest.raises(DeadError):
        publish(home, folder / "out")
    assert dying.dead
    path = folder / "out" / NAME
    if path.exists():  # whole, and in the log
        assert files(path) == expected
        assert len(exports(home)) == 1
    publish(home, folder / "out")
    assert files(path) == expected
    assert [entry.name for entry in (folder / "out").iterdir()] == [NAME]
    assert len(exports(home)) == 1


@pytest.mark.parametrize("from_end", [1, 2, 3, 4, 9, 20])
def test_killed_at_a_late_step_it_is_simply_run_again(
    undisturbed: tuple[int, dict[str, bytes]], made: Path, tmp_path: Path, from_end: int
) -> None:
    """The last steps: the folder is being written, the log is told, the folder is renamed."""
    steps, expected = undisturbed
    check_killed(made, tmp_path, steps + 1 - from_end, expected)


@pytest.mark.slow
def test_killed_at_any_step_it_is_simply_run_again(
    undisturbed: tuple[int, dict[str, bytes]], made: Path, tmp_path: Path
) -> None:
    steps, expected = undisturbed
    for number in range(1, steps + 1):
        folder = tmp_path / str(number)
        try:
            check_killed(made, folder, number, expected)
        except BaseException as error:
            error.add_note(f"killed before step {number} of {steps}")
            raise
        shutil.rmtree(folder)


def test_after_an_entry_without_a_folder_another_content_is_refused(
    home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is told before the folder has its name: what may be out there is in the log."""

    def fails(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(releases, "place", fails)
        with pytest.raises(OSError, match="No space"):
            publish(home, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert len(exports(home)) == 1
    assert publish(home, tmp_path / "out").is_new
    assert len(exports(home)) == 1


def test_what_a_killed_run_left_is_not_in_the_next_one(home: TinyHome, tmp_path: Path) -> None:
    left = tmp_path / "out" / f".{NAME}.part"
    left.mkdir(parents=True)
    (left / "of-another-release.md").touch()
    path = publish(home, tmp_path / "out").path
    assert tuple(sorted(files(path))) == NAMES
    assert not left.exists()


def test_audit_verify_accepts_it_and_the_log_tells_of_it(
    home: TinyHome, tmp_path: Path, run: Run
) -> None:
    before = run(home.root, "audit", "verify", now=NOW)
    publish(home, tmp_path / "out")
    after = run(home.root, "audit", "verify", now=NOW)
    assert (before.code, after.code) == (0, 0)
    assert after.out.rpartition(", ")[2] == before.out.rpartition(", ")[2]
    (entry,) = run(home.root, "audit", "log", "--kind", "export", "--json", now=NOW).json["rows"]
    assert entry["detail"]["month"] == MONTH


def test_no_account_is_in_any_file_of_it(home: TinyHome, tmp_path: Path) -> None:
    for name, content in files(publish(home, tmp_path / "out").path).items():
        assert b"acct-" not in content, name
        assert str(tmp_path).encode() not in content, name


def test_before_the_purge_it_is_refused_and_says_when(tmp_path: Path, run: Run) -> None:
    home = TinyHome.make(tmp_path / "home")
    out = ("--out", tmp_path / "out")
    said = run(home.root, "export", *out, now=ALL_IN)
    assert (said.code, said.err) == (
        5, "error: no month is purged yet, so there is nothing to release\n"
    )  # fmt: skip
    home.ingest(lines(), ALL_IN)
    for words in ([], ["--month", MONTH]):
        said = run(home.root, "export", *words, *out, now=ALL_IN)
        assert said.code == 5
        assert "the purge of 2026-10 will be from 2026-11-03T00:00:00Z on" in said.err
    said = run(home.root, "export", "--month", MONTH, *out, now=NOW)
    assert said.code == 5
    assert "aggregator purge --month 2026-10" in said.err
    said = run(home.root, "export", "--month", "2026-08", *out, now=NOW)
    assert said.code == 5
    assert "there is no receipt of 2026-08" in said.err
    assert not (tmp_path / "out").exists()


def test_the_last_purged_month_is_the_default(
    home: TinyHome, closed_home: Path, tmp_path: Path, run: Run
) -> None:
    assert run(home.root, "export", "--dry-run", "--json", now=NOW).json["month"] == MONTH
    assert run(closed_home, "export", "--dry-run", "--json").json["month"] == "2026-09"


def test_a_dry_run_writes_nothing(home: TinyHome, run: Run) -> None:
    before = home.files()
    said = run(home.root, "export", "--dry-run", now=NOW)
    assert said.code == 0
    assert "in r-benelux: be-bru, nl-ams" in said.out
    assert "in other: fr-par, se-sto" in said.out
    assert "is not published; nothing was written" in said.err
    assert home.files() == before


@pytest.mark.parametrize("words", [["--month", "2026-13"], ["--month", "2026-10-05"], []])
def test_what_is_asked_for_wrongly(home: TinyHome, run: Run, words: list[str]) -> None:
    assert run(home.root, "export", *words, now=NOW).code == 2


@pytest.mark.parametrize("place", ["", "tables", "audit", "policy/old"])
def test_it_is_not_written_into_the_home(home: TinyHome, run: Run, place: str) -> None:
    before = home.files()
    said = run(home.root, "export", "--out", home.root / place, now=NOW)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert home.files() == before


def test_a_place_that_cannot_be_written_is_told_in_one_line(
    home: TinyHome, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "file").touch()
    said = run(home.root, "export", "--out", tmp_path / "file" / "below", now=NOW)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert exports(home) == []


def changed(home: TinyHome, old: str, new: str) -> None:
    path = home.root / "policy/profile.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_cv9_the_policy_of_the_month_goes_with_it(home: TinyHome, tmp_path: Path) -> None:
    """Whatever the profile is now: what counts is the one that the month was kept under."""
    first = publish(home, tmp_path / "one")
    assert (first.path / "policy.toml").read_text() == PROFILE
    changed(home, "version = 1", "version = 2")
    with pytest.raises(RefusedError, match=r"was made on .* is immutable.*kept under another"):
        publish(home, tmp_path / "two")
    (home.root / "policy/version-1.toml").write_text(PROFILE)
    assert files(publish(home, tmp_path / "two").path) == files(first.path)


def test_a_month_of_a_profile_that_is_gone_is_refused(
    home: TinyHome, tmp_path: Path, run: Run
) -> None:
    changed(home, "version = 1", "version = 2")
    said = run(home.root, "export", "--out", tmp_path / "out", now=NOW)
    assert said.code == 5
    assert "put its text into policy/" in said.err
    assert "immutable" not in said.err


def test_a_profile_that_lets_one_user_dominate_is_refused(tmp_path: Path) -> None:
    profile = PROFILE.replace("largest_percent = 50 ", "largest_percent = 60 ")
    with pytest.raises(RefusedError, match="largest_percent of at most 50"):
        publish(purged(tmp_path / "home", profile), tmp_path / "out")


def test_the_profile_may_ask_for_more_users(tmp_path: Path) -> None:
    home = purged(tmp_path / "home", PROFILE + "[export]\nk = 100\n")
    path = publish(home, tmp_path / "out").path
    assert {row["location"]: row["users"] for row in rows(path)} == {"other": None}
    assert "k is 100" in (path / "method.md").read_text()
    assert exports(home)[0]["k"] == 100


def test_a_month_of_few_users_is_withheld_and_says_so(tmp_path: Path, run: Run) -> None:
    home = purged(tmp_path / "home", places={"us-nyc": 40, "de-fra": 49})
    path = publish(home, tmp_path / "out").path
    release = json.loads((path / "release.json").read_text())
    jsonschema_rs.Draft202012Validator(schemas.load("public_release.1")).validate(release)
    assert (release["withheld"], release["usage"]) == ("few_users", [])
    assert len((path / "usage.csv").read_text().splitlines()) == 1
    assert "**This month is withheld.** No location had enough" in (path / "method.md").read_text()
    text = (path / "transparency.md").read_text()
    assert "Withheld. No location had enough users" in text
    assert "bytes (" not in text
    said = run(home.root, "export", "--dry-run", now=NOW)
    assert said.out == "2026-10: withheld, few users; k = 50\n"


def test_a_month_that_did_not_verify_is_withheld(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=PROFILE)
    home.ingest(lines(), ALL_IN)
    home.rollup(ALL_CLOSED)
    tables = home.read(ALL_CLOSED).tables
    day = [row for row in home.rows("usage_daily", "2026-10-05") if row["location"] != "us-nyc"]
    tables.write("usage_daily", "2026-10-05", day)
    (receipt,) = home.purge()
    assert not receipt["verified"]
    path = publish(home, tmp_path / "out").path
    assert json.loads((path / "release.json").read_text())["withheld"] == "not_verified"
    text = (path / "transparency.md").read_text()
    assert f"did not agree: {len(receipt['problems'])} problems." in text


@pytest.mark.parametrize("table", ["usage_monthly", "connections_daily"])
@pytest.mark.parametrize("how", ["changed", "gone", "more"])
def test_tables_that_are_not_the_receipts_are_an_integrity_error(
    home: TinyHome, tmp_path: Path, run: Run, table: str, how: str
) -> None:
    tables = home.read(NOW).tables
    period = tables.periods(table)[0]
    if how == "gone":
        tables.remove(table, period)
    elif how == "changed":
        tables.write(table, period, tables.rows(table, [period])[1:])
    else:
        shutil.copy(tables.path(table, period), tables.path(table, "2026-10-31"))
    said = run(home.root, "export", "--out", tmp_path / "out", now=NOW)
    assert said.code == 6
    assert f"{table} of 2026-10" in said.err
    assert not (tmp_path / "out").exists()


def test_a_receipt_that_is_not_the_logs_is_an_integrity_error(
    home: TinyHome, tmp_path: Path, run: Run
) -> None:
    path = home.root / f"audit/receipt-purge-{MONTH}.json"
    path.write_text(path.read_text().replace('"late": false', '"late": true'))
    assert run(home.root, "export", "--out", tmp_path / "out", now=NOW).code == 6


def test_a_month_past_its_retention_is_refused(tmp_path: Path) -> None:
    profile = PROFILE.replace("rejections_daily = 0", "rejections_daily = 1")
    home = purged(tmp_path / "home", profile)
    for month, now in (("2026-11", "2026-12-03T00:30:00Z"), ("2026-12", "2027-01-03T00:30:00Z")):
        home.ingest(crowd(f"{month}-05", range(60)), f"{month}-06T00:00:00Z")
        home.purge(now)
    with home.open("2027-01-04T00:00:00Z") as house:
        with pytest.raises(RefusedError, match="rejections_daily of 2026-10 is older than"):
            export.publish(house, MONTH, tmp_path / "out")
        assert export.publish(house, "2026-11", tmp_path / "out").is_new


def notices(*by_step: int) -> str:
    return export_text._notices(sum(by_step), max(by_step, default=0))


def test_cs9_few_notices_are_not_counted_out() -> None:
    """Ten notices may be of one user: of several steps, to several addressees."""
    assert notices() == notices(1) == notices(9) == notices(9, 9, 9, 9)
    assert "no step of any rule had 10 or more" in notices(9)
    assert "exceeded: 10." in notices(10)
    assert "exceeded: 13." in notices(1, 10, 2)


def test_the_transparency_report_says_what_was_destroyed(home: TinyHome, tmp_path: Path) -> None:
    """CV-6, CO-1: what could be handed over is nothing, and the receipt shows it."""
    path = publish(home, tmp_path / "out").path
    text = (path / "transparency.md").read_text()
    receipt = home.read(NOW).receipts.read(MONTH)
    digest = home.read(NOW).receipts.digest(MONTH)
    total = sum(row["bytes"] for row in home.rows("usage_monthly"))
    segments = receipt["destroyed"]["segments"]
    for words in (
        "This is a rehearsal",
        f"Traffic: {total:,} bytes",
        "named in `usage.csv`: 2.",
        "were refused: 2.",
        "| missing_field | 1 |",
        f"destroyed at {receipt['purged_at']}, on time.",
        "compared with the counters, and agreed.",
        f"Destroyed: 1 key set, and {segments} sealed files",
        "From this system: nothing.",
        f"`{digest}`",
        receipt["caveats"][0],
    ):
        assert words in text
    assert ("A weakness of this method" in text) == (receipt["weakness"] is not None)


def test_the_method_note_says_what_is_not_in_it(home: TinyHome, tmp_path: Path) -> None:
    text = (publish(home, tmp_path / "out").path / "method.md").read_text()
    for words in ("k is 50", "at most 50 %", "at most 85 %", "2 to 5 %", "Countries", "immutable"):
        assert words in text


def test_only_tables_receipts_and_the_profile_are_read(home: TinyHome, tmp_path: Path) -> None:
    expected = files(publish(home, tmp_path / "one").path)
    for name in ("raw", "keys", "inbox", "outbox", "runs", "agents"):
        shutil.rmtree(home.root / name)
        (home.root / name).mkdir()
    for name in TABLES.keys() - {*export._USED}:
        shutil.rmtree(home.root / "tables" / name, ignore_errors=True)
    assert files(publish(home, tmp_path / "two").path) == expected
