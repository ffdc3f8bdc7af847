"""The look-up: what it keeps, how rows are joined, its deadline, and what its errors hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.directory import lookup
from aggregator.directory.entries import Batch, Row
from aggregator.directory.errors import BrokenError, DirectoryError, Trouble, told
from aggregator.directory.lookup import SOURCES, check, look_up
from aggregator.directory.watch import Watch
from aggregator.errors import ConfigError, DeliveryError
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry

from . import places
from .places import MARK

CSV = DirectorySettings(DirectoryKind.CSV, path=f"/{MARK}", timeout_seconds=places.FOREVER)
BRIEF = DirectorySettings(DirectoryKind.CSV, path=f"/{MARK}", timeout_seconds=places.SOON)
HEAD = "account,address,language,plan,exempt,objects,restricted\n"


def source_of(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setitem(SOURCES, DirectoryKind.CSV, source)  # type: ignore[arg-type]  # a dict


def rows_of(count: int) -> list[Row]:
    return [(f"{MARK}-{number}", "", "", "", "", "", "") for number in range(count)]


def test_only_the_wanted_are_kept_and_every_account_is_hashed_once(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def hashed(account: bytes) -> int:
        seen.append(account)
        return places.pseudonym(account)

    accounts = [f"acct-{number}" for number in range(5_001)]
    text = HEAD + "".join(f"{one},{one}@example.net,,,,,\n" for one in accounts)
    wanted = [places.pseudonym(one.encode()) for one in ("acct-0", "acct-5000", "acct-9999")]
    found = look_up(places.csv_file(tmp_path, text), hashed, wanted)
    assert {one.address for one in found.values()} == {
        "acct-0@example.net", "acct-5000@example.net",
    }  # fmt: skip
    assert seen == [one.encode() for one in accounts]


def test_rows_that_contradict_each_other_protect(tmp_path: Path) -> None:
    text = (
        f"{HEAD}acct-1,old@example.net,de,basic,yes,,\n"
        f"acct-2,two@example.net,,,,,\n"
        f"acct-1,middle@example.net,fr,,,yes,\n"
        f"acct-1,new@example.net,en,family,no,no,no\n"
    )
    found = places.ask(places.csv_file(tmp_path, text), ["acct-1", "acct-2"])
    assert found == {
        "acct-1": Entry("acct-1", "new@example.net", "en", "family", exempt=True, objects=True),
        "acct-2": Entry("acct-2", "two@example.net"),
    }


def test_two_accounts_of_one_pseudonym_get_no_mail(tmp_path: Path) -> None:
    settings = places.csv_file(tmp_path, HEAD + "a,a@example.net,,,1,,\nb,b@example.net,,,,,\n")
    assert look_up(settings, lambda _: 7, [7]) == {7: Entry("b", None, exempt=True)}


def test_a_malformed_row_is_told_whoever_is_asked_for(tmp_path: Path) -> None:
    text = HEAD + "acct-1,a@example.net,,,,,\n" * 2_500 + f"{MARK},,,,{MARK},,\n"
    assert "row 2501 " in places.fails(places.csv_file(tmp_path, text), "acct-1")
    assert "row 2501 " in places.fails(places.csv_file(tmp_path, text), MARK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (HEAD, "names no account"),
        (HEAD + "\n\n", "names no account"),
        (f"{MARK},address\n{MARK},x\n", 'no column "account"'),
        (HEAD + MARK, "row 1 "),
        (HEAD.encode() + MARK.encode() + b"\xff", "UTF-8 in row 1 "),
        (HEAD + MARK * 200_000, "1 MB in row 1 "),
    ],
)
def test_a_directory_that_cannot_be_trusted_fails(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    settings = places.csv_file(tmp_path, text)
    before = places.open_files()
    assert said in places.fails(settings)
    assert said in places.check_fails(settings)
    assert places.open_files() == before


def test_a_file_that_is_not_there_or_is_none_fails(tmp_path: Path) -> None:
    def at(path: Path) -> DirectorySettings:
        return DirectorySettings(DirectoryKind.CSV, path=str(path))

    pipe = tmp_path / f"{MARK}.pipe"
    os.mkfifo(pipe)
    assert "not found" in places.fails(at(tmp_path / MARK))
    assert "not found" in places.fails(at(pipe / MARK))
    assert "not a plain file" in places.fails(at(pipe))
    assert "not a plain file" in places.fails(at(tmp_path))
    assert "cannot be read" in places.fails(at(tmp_path / (MARK * 100)))


@pytest.mark.parametrize("kind", list(DirectoryKind))
def test_a_setting_that_is_missing_is_named(kind: DirectoryKind) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml's directory needs") as raised:
        check(DirectorySettings(kind))
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.parametrize("trouble", list(Trouble))
def test_every_trouble_is_one_line_with_what_to_do(trouble: Trouble) -> None:
    for kind in DirectoryKind:
        line = str(told(kind, trouble, 7))
        assert line.startswith(f"the directory of accounts ({kind}) ")
        assert "; " in line
        assert not set("{}\n") & set(line)


def test_it_is_an_error_of_delivery() -> None:
    assert issubclass(DirectoryError, DeliveryError)
    assert DirectoryError.exit_code == 7


def test_the_deadline_ends_a_source_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, ended = threading.Event(), threading.Event()

    def source(_settings: DirectorySettings, watch: Watch, _size: int) -> Iterator[Batch]:
        try:
            with watch.ending(hanging.set):
                yield Batch(("account",), rows_of(1))
                assert hanging.wait(places.PATIENCE)
                raise OSError(MARK)
        finally:
            ended.set()

    source_of(monkeypatch, source)
    assert "timed out after 0.3 s" in places.fails(BRIEF)
    assert ended.is_set()


def test_the_deadline_holds_for_a_source_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def source(_settings: DirectorySettings, _watch: Watch, size: int) -> Iterator[Batch]:
        try:
            while True:
                yield Batch(("account",), rows_of(size))
        finally:
            closed.set()

    source_of(monkeypatch, source)
    assert "timed out after 0.3 s" in places.fails(BRIEF)
    assert closed.is_set()


def test_a_deaf_source_is_left_behind_and_ends_when_it_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wake, closed = threading.Event(), threading.Event()

    def source(_settings: DirectorySettings, _watch: Watch, _size: int) -> Iterator[Batch]:
        try:
            assert wake.wait(places.PATIENCE)
            yield Batch(("account",), rows_of(1))
        finally:
            closed.set()

    source_of(monkeypatch, source)
    monkeypatch.setattr(lookup, "_FAREWELL_SECONDS", 0.01)
    with places.nothing_left():
        with pytest.raises(DirectoryError, match=r"timed out after 0\.3 s"):
            places.ask(BRIEF, ["acct-1"])
        (deaf,) = [one for one in threading.enumerate() if one.name == "directory"]
        assert deaf.daemon
        wake.set()
        assert closed.wait(places.PATIENCE)


def test_who_waits_may_break_off(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def source(_settings: DirectorySettings, _watch: Watch, size: int) -> Iterator[Batch]:
        try:
            while True:
                yield Batch(("account",), rows_of(size))
        finally:
            closed.set()

    def interrupted(_account: bytes) -> int:
        raise KeyboardInterrupt

    source_of(monkeypatch, source)
    with places.nothing_left(), pytest.raises(KeyboardInterrupt):
        look_up(CSV, interrupted, [1])
    assert closed.is_set()


def test_rows_after_the_first_are_not_asked_for_by_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def source(_settings: DirectorySettings, watch: Watch, size: int) -> Iterator[Batch]:
        assert size == 1
        yield Batch(("account", "plan"), rows_of(1))
        with watch.ending(stop.set):
            assert stop.wait(places.PATIENCE)
        raise BrokenError(Trouble.CUT)

    source_of(monkeypatch, source)
    with places.nothing_left():
        assert check(CSV) == ("account", "plan")


def test_what_nobody_thought_of_is_told_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(_settings: DirectorySettings, _watch: Watch, _size: int) -> Iterator[Batch]:
        yield Batch(("account",), rows_of(3))
        raise ZeroDivisionError(MARK)

    source_of(monkeypatch, source)
    accounts = [f"{MARK}-0", f"{MARK}-2"]
    assert "could not be read: ZeroDivisionError; " in places.fails(CSV, *accounts)


def test_ways_to_end_are_taken_once_and_only_while_they_hold() -> None:
    taken: list[str] = []
    watch = Watch(places.FOREVER)
    with watch.ending(lambda: taken.append("left")):
        assert not watch.over
    with watch.ending(lambda: taken.append("outer")), watch.ending(lambda: taken.append("inner")):
        watch.end()
        watch.end()
    assert watch.over
    assert taken == ["inner", "outer"]
    with watch.ending(lambda: taken.append("too late")):
        assert taken == ["inner", "outer", "too late"]
