"""The account map of a running agent: reloaded when it changes, kept when the new one is broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aggregator.agent.config import AccountsSettings
from aggregator.agent.mapping import COMMAND_SECONDS, UNKNOWN_SECONDS, AccountBook
from aggregator.agent.readings import Capture, Reading


def capture(*names: str) -> Capture:
    """Return a capture of some names, without accounts."""
    return Capture(tuple(Reading(name, None, name, 1) for name in names), {}, "test")


class Book:
    """A map, and what it said."""

    def __init__(self, settings: AccountsSettings) -> None:
        """Hold the map of `settings`."""
        self.said: list[str] = []
        self.book = AccountBook(settings, self.said.append)

    def accounts(self, *names: str, at: float = 0) -> list[str | None]:
        """Return the accounts of names."""
        return [reading.account for reading in self.book.name(capture(*names), at).readings]


def test_a_file_is_read_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text("k1,alice\n", encoding="utf-8")
    book = Book(AccountsSettings(file, ()))
    assert book.accounts("k1", "k2") == ["alice", None]
    file.write_text("k1,alice\nk2,bob\n", encoding="utf-8")
    assert book.accounts("k1", "k2") == ["alice", "bob"]
    (tmp_path / "new").write_text("k1,carol\nk2,dave\n", encoding="utf-8")
    (tmp_path / "new").rename(file)
    assert book.accounts("k1", "k2") == ["carol", "dave"]
    assert book.said == []


def test_a_broken_map_leaves_the_one_before_and_is_told_once_without_its_row(
    tmp_path: Path,
) -> None:
    file = tmp_path / "map.csv"
    file.write_text("k1,alice\n", encoding="utf-8")
    book = Book(AccountsSettings(file, ()))
    assert book.accounts("k1") == ["alice"]
    file.write_text("k1,alice\nsecretkey,bob,three\n", encoding="utf-8")
    for _ in range(3):
        assert book.accounts("k1") == ["alice"]
    (said,) = book.said
    assert "line 2 has not two columns" in said
    assert "the one before stays in use" in said
    assert not any(word in said for word in ("secretkey", "bob", "alice"))
    file.unlink()
    for _ in range(3):
        assert book.accounts("k1") == ["alice"]
    assert len(book.said) == 2
    assert "No such file" in book.said[1]
    file.write_text("k1,carol\n", encoding="utf-8")
    assert book.accounts("k1") == ["carol"]


def test_without_any_map_nobody_is_named(tmp_path: Path) -> None:
    book = Book(AccountsSettings(tmp_path / "missing", ()))
    for _ in range(3):
        assert book.accounts("k1") == [None]
    (said,) = book.said
    assert (
        said == "the map of accounts cannot be read: No such file or directory; there is none yet"
    )
    (tmp_path / "missing").write_text("k1,alice\n", encoding="utf-8")
    assert book.accounts("k1") == ["alice"]


@pytest.fixture
def counting(tmp_path: Path) -> AccountsSettings:
    """A command that appends to a file each time it runs, and maps k1."""
    log = tmp_path / "runs"
    code = f"open({str(log)!r}, 'a').write('x'); print('k1,alice')"
    return AccountsSettings(None, (sys.executable, "-c", code))


def runs(tmp_path: Path) -> int:
    """Return how often the command ran."""
    return len((tmp_path / "runs").read_text(encoding="ascii"))


def test_a_command_is_run_each_hour(tmp_path: Path, counting: AccountsSettings) -> None:
    book = Book(counting)
    for at in (0, 1, COMMAND_SECONDS - 1):
        assert book.accounts("k1", at=at) == ["alice"]
    assert runs(tmp_path) == 1
    book.accounts("k1", at=COMMAND_SECONDS)
    assert runs(tmp_path) == 2
    book.book.forget_age()
    book.accounts("k1", at=COMMAND_SECONDS + 1)
    assert runs(tmp_path) == 3


def test_an_unknown_key_runs_it_earlier_but_at_a_bounded_rate(
    tmp_path: Path, counting: AccountsSettings
) -> None:
    book = Book(counting)
    for at in range(0, int(UNKNOWN_SECONDS), 10):
        assert book.accounts("k1", "k2", at=at) == ["alice", None]
    assert runs(tmp_path) == 1
    for at in range(int(UNKNOWN_SECONDS), int(3 * UNKNOWN_SECONDS), 10):
        book.accounts("k1", "k2", at=at)
    assert runs(tmp_path) == 3


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('alice')", "its command ended with 1"),
        ("print('alice')", "line 1 has not two columns"),
    ],
)
def test_a_command_that_fails_keeps_the_map_and_its_output_quiet(
    capfd: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    book = Book(AccountsSettings(None, (sys.executable, "-c", code)))
    assert book.accounts("k1") == [None]
    (said,) = book.said
    assert words in said
    assert "there is none yet" in said
    assert "alice" not in said
    assert capfd.readouterr() == ("", "")


def test_a_command_that_is_not_there() -> None:
    book = Book(AccountsSettings(None, ("/nowhere/command",)))
    assert book.accounts("k1") == [None]
    assert book.said == [
        "the map of accounts cannot be made: FileNotFoundError at its command; there is none yet"
    ]
