"""The audit log: every line names the one before; a torn one was never acknowledged."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from aggregator.errors import IntegrityError
from aggregator.model.clock import Clock
from aggregator.stores.audit import GENESIS, AuditLog

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)


def filled(folder: Path, count: int = 5) -> AuditLog:
    """Return a log with so many entries."""
    log = AuditLog(folder)
    for number in range(count):
        log.append(NOW + dt.timedelta(hours=number), Clock(NOW), "ingest", {"files": number})
    return log


def lines_of(log: AuditLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_entries_form_a_chain(tmp_path: Path) -> None:
    log = filled(tmp_path)
    entries = list(log.entries())
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.detail["files"] for entry in entries] == [0, 1, 2, 3, 4]
    previous = [GENESIS, *(entry.digest for entry in entries)]
    assert [entry.previous for entry in entries] == previous[:-1]
    assert log.last() == entries[-1]
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_an_empty_or_absent_log_has_no_entry(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit")
    assert list(log.entries()) == []
    assert log.last() is None
    log.path.parent.mkdir()
    log.path.write_bytes(b"")
    assert log.last() is None


def test_the_clocks_doubt_is_kept(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    doubt = Clock(NOW, NOW, NOW - dt.timedelta(days=9))
    log.append(NOW, doubt, "clock_jump", {})
    last = log.last()
    assert last is not None
    assert last.clock == doubt


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("how", ["edited", "deleted", "repeated", "swapped", "renumbered"])
def test_a_changed_line_is_found(tmp_path: Path, number: int, how: str) -> None:
    log = filled(tmp_path, 6)
    lines = lines_of(log)
    match how:
        case "edited":
            lines[number] = lines[number].replace(b'"ingest"', b'"purge"')
        case "deleted":
            del lines[number]
        case "repeated":
            lines.insert(number, lines[number])
        case "swapped":
            lines[number], lines[number + 1] = lines[number + 1], lines[number]
        case _:
            lines[number] = lines[number].replace(b'"n":', b'"n":1')
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(IntegrityError, match="audit log is broken"):
        list(log.entries())


def test_a_last_line_with_a_wrong_number_is_found(tmp_path: Path) -> None:
    """No later line vouches for the last one; its number is checked all the same."""
    log = filled(tmp_path, 3)
    log.path.write_bytes(log.path.read_bytes().replace(b'"n":3', b'"n":4'))
    with pytest.raises(IntegrityError, match="broken at entry 3"):
        list(log.entries())


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b"\xff\n", b'{"n":1}\n', b"null\n"])
def test_a_line_that_is_no_entry_is_found_everywhere(tmp_path: Path, line: bytes) -> None:
    log = filled(tmp_path, 2)
    log.path.write_bytes(log.path.read_bytes() + line)
    with pytest.raises(IntegrityError):
        list(log.entries())
    with pytest.raises(IntegrityError):
        log.last()


@pytest.mark.parametrize("torn", [b"{", b'{"n":6,"at":"2026', bytes(300), b"x" * 60_000])
def test_a_torn_line_was_never_acknowledged_and_the_next_replaces_it(
    tmp_path: Path, torn: bytes
) -> None:
    log = filled(tmp_path, 5)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert len(list(log.entries())) == 5
    last = log.last()
    assert last is not None
    assert last.number == 5
    log.append(NOW, Clock(NOW), "rollup", {})
    assert log.path.read_bytes().startswith(whole)
    assert [entry.kind for entry in log.entries()][-2:] == ["ingest", "rollup"]
    assert [json.loads(line)["n"] for line in lines_of(log)] == [1, 2, 3, 4, 5, 6]


def test_the_first_line_may_be_torn_too(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.path.write_bytes(b'{"n":1,')
    assert log.last() is None
    log.append(NOW, Clock(NOW), "init", {})
    assert [entry.number for entry in log.entries()] == [1]


def test_the_last_entry_is_read_from_the_end_alone(tmp_path: Path) -> None:
    """Five-minute runs of years must not read the whole log each time."""
    log = filled(tmp_path, 3)
    first, rest = log.path.read_bytes().split(b"\n", 1)
    log.path.write_bytes(b"x" * len(first) + b"\n" + b"\n" * 200_000 + rest)
    last = log.last()
    assert last is not None
    assert last.number == 3
