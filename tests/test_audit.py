"""The audit log as people read it, and what verification finds in a home that was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pyarrow.parquet as pq
import pytest
from closed import Run
from pipeline.faults import DeadError, Faults
from support import TinyHome

from aggregator.model.clock import Clock
from aggregator.model.days import parse_instant
from aggregator.pipeline import audit
from aggregator.stores.audit import AuditLog
from aggregator.stores.checkpoints import CheckpointFile

SCHEMA: Final = jsonschema_rs.Draft202012Validator(
    json.loads(
        (Path(__file__).parents[1] / "schemas" / "audit_checkpoint.1.schema.json").read_text()
    )
)

KINDS = ["init", "clock_confirmed", "ingest", "close_day", "close_day", "purge", "ingest",
         "close_day", "close_day", "close_day"]  # fmt: skip


def test_the_log_has_every_entry_in_order(closed_home: Path, run: Run) -> None:
    rows = run(closed_home, "audit", "log", "--json").json["rows"]
    assert [row["kind"] for row in rows if row["kind"] != "clock_confirmed"] == [
        kind for kind in KINDS if kind != "clock_confirmed"
    ]
    assert [row["n"] for row in rows] == list(range(1, len(rows) + 1))
    on_disk = (closed_home / "audit" / "log.ndjson").read_text().splitlines()
    assert [row["detail"] for row in rows] == [json.loads(line)["detail"] for line in on_disk]


def test_the_log_can_be_narrowed(closed_home: Path, run: Run) -> None:
    (purge,) = run(closed_home, "audit", "log", "--kind", "purge", "--json").json["rows"]
    assert purge["detail"]["month"] == "2026-09"
    last = run(closed_home, "audit", "log", "--kind", "close_day", "--last", "2", "--json").json
    assert [row["detail"]["day"] for row in last["rows"]] == ["2026-10-02", "2026-10-03"]
    said = run(closed_home, "audit", "log", "--kind", "nothing")
    assert (said.code, said.out) == (0, "")
    assert "no entry" in said.err
    assert run(closed_home, "audit", "log", "--last", "0").code == 2


def test_the_table_is_short_and_shows_no_whole_digest(closed_home: Path, run: Run) -> None:
    out = run(closed_home, "audit", "log").out
    assert "month 2026-09, verified yes, late no" in out
    digest = run(closed_home, "audit", "log", "--kind", "purge", "--json").json["rows"][0]
    assert digest["detail"]["receipt"] not in out
    assert digest["detail"]["receipt"][:12] in out


def test_an_untouched_home_verifies(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "audit", "verify")
    entries = len((closed_home / "audit" / "log.ndjson").read_text().splitlines())
    # Five daily tables of five days, and one monthly table.
    assert said.out == f"verified: entries {entries}, receipts 1, partitions 26\n"
    assert (said.code, said.err) == (0, "")
    fields = run(closed_home, "audit", "verify", "--json").json
    assert (fields["verified"], fields["rows"]) == (True, [])


def log_of(home: Path) -> Path:
    return home / "audit" / "log.ndjson"


def drop_entry(home: Path) -> None:
    lines = log_of(home).read_text().splitlines(keepends=True)
    log_of(home).write_text("".join(lines[:3] + lines[4:]))


def change_entry(home: Path) -> None:
    text = log_of(home).read_text()
    log_of(home).write_text(text.replace('"files":1', '"files":2', 1))


def empty_log(home: Path) -> None:
    log_of(home).write_bytes(b"")


def drop_last_closing(home: Path) -> None:
    lines = log_of(home).read_text().splitlines(keepends=True)
    log_of(home).write_text("".join(lines[:-1]))
    for path in (home / "raw").rglob("*"):
        if path.is_file():
            path.unlink()
    (home / "keys" / "2026-10.key").unlink()
    for folder in sorted((home / "raw").rglob("*"), reverse=True):
        folder.rmdir()


def receipt_of(home: Path) -> Path:
    return home / "audit" / "receipt-purge-2026-09.json"


def drop_receipt(home: Path) -> None:
    receipt_of(home).unlink()


def change_receipt(home: Path) -> None:
    receipt_of(home).write_text(receipt_of(home).read_text() + "\n")


def swap_month_of_receipt(home: Path) -> None:
    text = receipt_of(home).read_text().replace('"month": "2026-09"', '"month": "2026-08"')
    receipt_of(home).write_text(text)


def add_receipt(home: Path) -> None:
    text = receipt_of(home).read_text().replace('"month": "2026-09"', '"month": "2026-08"')
    (home / "audit" / "receipt-purge-2026-08.json").write_text(text)


def partition(home: Path, table: str, period: str) -> Path:
    return home / "tables" / table / f"month={period[:7]}" / f"{period}.parquet"


def spoil_receipt(home: Path) -> None:
    receipt_of(home).write_text('{"month": "2026-09", "tables": [1]}')


def forget_head_of_receipt(home: Path) -> None:
    receipt = json.loads(receipt_of(home).read_text())
    receipt_of(home).write_text(json.dumps({**receipt, "audit_head": "0" * 64}))


def record_purge_twice(home: Path) -> None:
    log = AuditLog(home / "audit")
    (purge,) = (entry for entry in log.entries() if entry.kind == "purge")
    log.append(parse_instant("2026-10-05T06:30:00Z"), Clock(), "purge", purge.detail)


def drop_partition(home: Path) -> None:
    partition(home, "apps_daily", "2026-09-30").unlink()


def change_partition(home: Path) -> None:
    partition(home, "closings_daily", "2026-10-01").write_bytes(b"other")


def change_monthly(home: Path) -> None:
    partition(home, "usage_monthly", "2026-09").write_bytes(b"other")


def change_copy(home: Path) -> None:
    (path,) = (home / "cache/usage_daily").iterdir()
    rows = pq.ParquetFile(partition(home, "usage_daily", "2026-10-01")).read()
    pq.write_table(rows, path)


def plant_partition(home: Path) -> None:
    path = partition(home, "usage_daily", "2026-08-01")
    path.parent.mkdir(parents=True)
    path.write_bytes(partition(home, "usage_daily", "2026-09-30").read_bytes())


@pytest.mark.parametrize(
    ("damage", "check", "words"),
    [
        (drop_entry, "chain", "broken at entry 4"),
        (change_entry, "chain", "broken at entry"),
        (empty_log, "chain", "missing or empty"),
        (drop_last_closing, "partitions", "2026-10-03 is in no closing or receipt"),
        (drop_receipt, "receipts", "the receipt of 2026-09 is missing"),
        (change_receipt, "receipts", "is not as it was recorded"),
        (swap_month_of_receipt, "receipts", "is of another month"),
        (spoil_receipt, "receipts", "does not read"),
        (forget_head_of_receipt, "receipts", "names an audit entry that is not there"),
        (record_purge_twice, "receipts", "the purge of 2026-09 is in the audit log twice"),
        (add_receipt, "receipts", "the receipt of 2026-08 has no entry"),
        (drop_partition, "partitions", "apps_daily of 2026-09-30 is missing"),
        (change_partition, "partitions", "closings_daily of 2026-10-01 is not as it was closed"),
        (change_monthly, "partitions", "usage_monthly of 2026-09 is not as it was closed"),
        (change_copy, "partitions", "the copy of usage_daily of 2026-09 is not what its days say"),
        (plant_partition, "partitions", "usage_daily of 2026-08-01 is in no closing or receipt"),
    ],
)
def test_what_was_changed_is_found(
    home: Path, run: Run, damage: Callable[[Path], Any], check: str, words: str
) -> None:
    damage(home)
    said = run(home, "audit", "verify")
    assert said.code == 6
    assert any(line.startswith(f"{check}: ") and words in line for line in said.out.splitlines()), (
        said.out
    )
    fields = run(home, "audit", "verify", "--json")
    assert fields.code == 6
    assert not fields.json["verified"]
    assert [f"{row['check']}: {row['what']}" for row in fields.json["rows"]] == (
        said.out.splitlines()
    )


def test_a_broken_log_is_printed_up_to_where_it_breaks(home: Path, run: Run) -> None:
    drop_entry(home)
    said = run(home, "audit", "log", "--json")
    assert said.code == 6
    assert [row["n"] for row in said.json["rows"]] == [1, 2, 3]


def test_what_retention_removed_is_not_missed(home: Path, run: Run) -> None:
    profile = home / "policy" / "profile.toml"
    profile.write_text(profile.read_text().replace("apps_daily = 0", "apps_daily = 1"))
    drop_partition(home)
    # One month of retention: September goes with the purge of November, not before.
    assert run(home, "audit", "verify").code == 6
    assert run(home, "purge", "--confirm-clock", now="2026-11-04T00:00:00Z").code == 0
    assert run(home, "audit", "verify", now="2026-11-04T00:00:00Z").code == 6
    november = home.parent / "november.ndjson"
    november.write_text(
        '{"record":"usage_counter.1","day":"2026-11-04","user":"acct-1","location":"us-nyc",'
        '"epoch":"9f3c2b7a11d04e55","bytes":1}\n'
    )
    assert run(home, "ingest", november, now="2026-11-04T12:00:00Z").code == 0
    assert run(home, "purge", "--confirm-clock", now="2026-12-03T12:00:00Z").code == 0
    said = run(home, "audit", "verify", now="2026-12-03T12:00:00Z")
    assert (said.code, said.out[:9]) == (0, "verified:")


def test_help_has_an_example(closed_home: Path, run: Run) -> None:
    for words in (("audit",), ("audit", "log"), ("audit", "verify"), ("audit", "checkpoint")):
        said = run(closed_home, *words, "--help", now=None)
        assert f"  aggregator {' '.join(words)}" in said.out


# -- checkpoints -------------------------------------------------------------------------------


def kept(home: Path) -> Path:
    return home / "audit" / "checkpoints.ndjson"


def entry(home: Path, kind: str = "ingest") -> None:
    AuditLog(home / "audit").append(parse_instant("2026-10-05T06:30:00Z"), Clock(), kind, {})


def test_a_checkpoint_says_where_the_log_ends(home: Path, run: Run) -> None:
    last = AuditLog(home / "audit").head()
    said = run(home, "audit", "checkpoint", "--json")
    assert (said.code, said.err) == (0, "")
    made = said.json
    assert (made.pop("schema_version"), made.pop("new")) == (1, True)
    assert (made["number"], made["digest"], made["receipts"]) == (last.number, last.digest, 1)
    assert (json.loads(kept(home).read_text()), kept(home).stat().st_mode & 0o777) == (made, 0o644)
    SCHEMA.validate(made)
    assert list(made) == json.loads(
        (Path(__file__).parents[1] / "schemas" / "audit_checkpoint.1.schema.json").read_text()
    )["required"]  # fmt: skip
    # The log itself did not move for it.
    assert AuditLog(home / "audit").head() == last
    said = run(home, "audit", "verify")
    assert (said.code, said.out.endswith(", checkpoints 1\n")) == (0, True)
    assert run(home, "audit", "verify", "--json").json["checkpoints"] == 1


def test_a_log_that_did_not_move_is_not_noted_again(home: Path, run: Run) -> None:
    assert run(home, "audit", "checkpoint").code == 0
    before = kept(home).read_bytes()
    again = run(home, "audit", "checkpoint", now="2026-10-05T08:00:00Z")
    assert (again.code, again.out, "already" in again.err) == (0, "", True)
    assert kept(home).read_bytes() == before
    entry(home)
    assert run(home, "audit", "checkpoint").code == 0
    assert kept(home).read_bytes().startswith(before)
    assert len(CheckpointFile(kept(home)).read()) == 2


def test_it_goes_to_a_place_off_the_host_as_well(home: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere.ndjson"
    for _ in range(2):
        assert run(home, "audit", "checkpoint", "--out", out).code == 0
        assert out.read_bytes() == kept(home).read_bytes()
    line = run(home, "-q", "audit", "checkpoint", "--out", "-")
    assert (line.code, line.out, line.err) == (0, kept(home).read_text(), "")
    assert run(home, "audit", "checkpoint", "--out", "-", "--json").code == 2
    for number in range(2):
        entry(home)
        assert run(home, "audit", "checkpoint", "--out", out).code == 0
        # Whoever keeps only every other line has checkpoints all the same.
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(lines[number:]))
    assert run(home, "audit", "verify", "--checkpoint", out).code == 0
    assert run(home, "audit", "verify", "--checkpoint", out, "--json").json["checkpoints"] == 5


def test_a_place_that_cannot_be_is_told(home: Path, run: Run, tmp_path: Path) -> None:
    gone = run(home, "audit", "checkpoint", "--out", tmp_path / "gone" / "x")
    assert (gone.code, "is it mounted" in gone.err) == (3, True)
    other = tmp_path / "notes.txt"
    for text in ("mine", "mine\n", '{"checkpoint":"audit_checkpoint.2"}\n'):
        other.write_text(text)
        said = run(home, "audit", "checkpoint", "--out", other)
        assert (said.code, other.read_text()) == (4, text)
    other.write_text('{"checkpoint":"audit_chec')  # torn
    assert run(home, "audit", "checkpoint", "--out", other).code == 0
    assert other.read_bytes() == kept(home).read_bytes()
    said = run(home, "audit", "verify", "--checkpoint", tmp_path / "none")
    assert (said.code, "there is no file" in said.err) == (4, True)


def cut_end(home: Path) -> None:
    """Cut off the last entry: the chain before it is whole."""
    lines = log_of(home).read_text().splitlines(keepends=True)
    log_of(home).write_text("".join(lines[:-1]))


def write_anew(home: Path) -> None:
    """Write a whole new log with as many entries, each following from the one before."""
    entries = list(AuditLog(home / "audit").entries())
    log_of(home).unlink()
    for one in entries:
        detail = {**one.detail, "files": 9} if one.kind == "ingest" else one.detail
        AuditLog(home / "audit").append(parse_instant(one.at), one.clock, one.kind, detail)


@pytest.mark.parametrize("where", ["kept", "elsewhere"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_end, "its end was cut off"),
        (write_anew, "the log was written anew"),
        (change_receipt, "receipts are not as"),
        (drop_receipt, "receipts are not as"),
    ],
)
def test_what_a_chain_alone_cannot_tell_is_found(
    home: Path, run: Run, tmp_path: Path, damage: Callable[[Path], None], words: str, where: str
) -> None:
    entry(home)  # a last one, so that nothing else misses what is cut off
    out = tmp_path / "elsewhere.ndjson"
    assert run(home, "audit", "checkpoint", "--out", out).code == 0
    if where == "elsewhere":
        kept(home).unlink()  # by whoever changes the log
    damage(home)
    named = ("--checkpoint", out) if where == "elsewhere" else ()
    said = run(home, "audit", "verify", *named)
    assert said.code == 6
    assert any(line.startswith("checkpoints: ") and words in line for line in said.out.splitlines())
    if where == "elsewhere" and damage is cut_end:
        # The control: without what was kept elsewhere nobody would know.
        assert run(home, "audit", "verify").code == 0
        assert run(home, "audit", "checkpoint", "--out", out).code == 6
    if where == "kept" and damage in (cut_end, write_anew):
        # It is not covered up by a new one.
        before = kept(home).read_bytes()
        told = run(home, "audit", "checkpoint")
        assert (told.code, "no checkpoint is made" in told.err) == (6, True)
        assert kept(home).read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "\n", "{}\n", "[]\n", "7\n", '{"checkpoint":"audit_checkpoint.1"}\n', "\xff\n",
        '{"checkpoint":"audit_checkpoint.2","at":"2026-10-05T06:30:00Z","number":1,"digest":"x",'
        '"receipts":0,"receipts_digest":"x"}\n',
        '{"checkpoint":"audit_checkpoint.1","at":"2026-10-05T06:30:00Z","number":true,"digest":"'
        + "a" * 64 + '","receipts":0,"receipts_digest":"' + "a" * 64 + '"}\n',
        '{"checkpoint":"audit_checkpoint.1","at":"today","number":1,"digest":"'
        + "a" * 64 + '","receipts":0,"receipts_digest":"' + "a" * 64 + '"}\n',
        "something else",
    ],
)  # fmt: skip
def test_a_line_that_is_no_checkpoint_is_told(home: Path, run: Run, line: str) -> None:
    kept(home).write_text(line, encoding="latin-1")
    said = run(home, "audit", "verify")
    assert (said.code, "checkpoints.ndjson" in said.out) == (6, True)
    assert run(home, "audit", "checkpoint").code == 6
    assert kept(home).read_text(encoding="latin-1") == line


def test_no_checkpoint_is_made_of_a_broken_log(home: Path, run: Run) -> None:
    drop_entry(home)
    assert run(home, "audit", "checkpoint").code == 6
    empty_log(home)
    assert run(home, "audit", "checkpoint", "-q").code == 6
    assert not kept(home).exists()


def test_killed_at_any_step_a_checkpoint_is_whole_or_not_there(tmp_path: Path) -> None:
    start = TinyHome.make(tmp_path / "start", "2026-10-04T00:00:00Z")
    now = "2026-10-05T06:00:00Z"

    def work(home: TinyHome) -> None:
        with home.open(now) as house:
            audit.checkpoint(house)

    work(start)
    entry(start.root)
    for number in range(1, 50):
        home = TinyHome(tmp_path / str(number))
        shutil.copytree(start.root, home.root)
        with Faults(number) as faults:
            try:
                work(home)
            except DeadError:
                pass
            else:
                break
        assert faults.dead
        verified = audit.verify(home.read(now))
        assert verified.problems == ()
        assert verified.checkpoints in (1, 2)
        work(home)
        numbers = [one.number for one in CheckpointFile(kept(home.root)).read()]
        assert numbers == [1, 2]
        assert kept(home.root).read_bytes().endswith(b"}\n")
    else:
        pytest.fail("it never came to its end")
    assert number > 1
