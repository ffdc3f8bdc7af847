"""All kinds of directory give the same entries for the same accounts (CT-3)."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.directory.entries import COLUMNS
from aggregator.directory.lookup import SOURCES, check
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry, Secret

from . import places

ROWS: tuple[tuple[Any, ...], ...] = (
    ("acct-1", "one@example.net", "de", "basic", False, True, None),
    ("acct-2", None, "fr-CA", "family", True, False, False),
    ('acct, "3"', "three@example.net", "no language", None, None, None, True),
    ("кто-то", "vier@bücher.example", "en", "b;c", False, False, False),
    (81723, " five@example.net ", None, 7, 0, 1, 0),
    ("six@example.net", "six@example.net\r\nBcc: all@example.net", "DE", "a\x00b", 0, 0, 0),
    ("nobody-asks", "seven@example.net", "en", "basic", True, True, True),
)
GOLDEN = {
    "acct-1": Entry("acct-1", "one@example.net", "de", "basic", objects=True),
    "acct-2": Entry("acct-2", None, "fr-CA", "family", exempt=True),
    'acct, "3"': Entry('acct, "3"', "three@example.net", restricted=True),
    "кто-то": Entry("кто-то", "vier@bücher.example", "en", "b;c"),
    "81723": Entry("81723", "five@example.net", None, "7", objects=True),
    "six@example.net": Entry("six@example.net", None, "DE"),
}


def as_csv(flags: tuple[str, str] = ("false", "true"), **options: Any) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, **options)
    writer.writerow(["Account", " ADDRESS", "language", "plan", "name", *COLUMNS[4:]])
    for row in ROWS:
        known = ["" if value is None else value for value in row]
        marks = ["" if value is None else flags[bool(value)] for value in row[4:]]
        writer.writerow([*known[:4], f"{places.MARK}\nof two lines", *marks])
    return text.getvalue()


def as_json() -> str:
    names = ("ACCOUNT", *COLUMNS[1:])
    return places.json_lines(
        {"name": {"account": places.MARK}} | dict(zip(names, row, strict=True)) for row in ROWS
    )


def as_database(path: Path) -> str:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE people (ACCOUNT, e, language, plan, x, o, r)")
        database.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?)", ROWS)
    database.close()
    return f"sqlite:///{path}"


@pytest.fixture(
    params=[
        "csv", "semicolons", "sql", "http csv", "http json", "https", "chunked",
        "command csv", "command json",
    ]
)  # fmt: skip
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectorySettings]:
    kind, _, how = request.param.partition(" ")
    text = as_json() if how == "json" else as_csv()
    match kind:
        case "csv":
            yield places.csv_file(tmp_path, as_csv(("0", "1")))
        case "semicolons":
            text = as_csv(("No", " YES "), delimiter=";", lineterminator="\n")
            yield places.csv_file(tmp_path, "\ufeff" + text)
        case "sql":
            query = (
                "SELECT ACCOUNT, e AS address, language, plan, x AS Exempt, o AS OBJECTS,"
                " r AS restricted, ':name 100%' AS name FROM people WHERE '1:2%s' <> '' -- 5 %"
            )
            yield DirectorySettings(
                DirectoryKind.SQL, url=as_database(tmp_path / "accounts.db"), query=query
            )
        case "command":
            path = tmp_path / "rows"
            path.write_text(text, newline="")
            yield places.show(path)
        case _:
            secured = kind == "https"
            context, ca_file = places.certificates(tmp_path) if secured else (None, None)
            with places.site(context) as site:
                site.answers["/"] = (
                    (lambda answer: answer.say(chunked(text), Transfer_Encoding="chunked"))
                    if kind == "chunked"
                    else (lambda answer: answer.whole(text))
                )
                yield site.settings("/", ca_file=ca_file)


def chunked(text: str, size: int = 7) -> bytes:
    data = text.encode()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def test_every_kind_gives_the_same_entries(settings: DirectorySettings) -> None:
    with places.nothing_left():
        assert places.ask(settings, [*GOLDEN, "not-there"]) == GOLDEN


def test_every_kind_tells_its_columns_and_no_more(settings: DirectorySettings) -> None:
    with places.nothing_left():
        assert check(settings) == COLUMNS


def test_every_kind_has_a_source() -> None:
    assert set(SOURCES) == set(DirectoryKind)


def test_what_is_missing_is_nothing(tmp_path: Path) -> None:
    settings = places.csv_file(tmp_path, "account\nacct-1\n\nacct-2\n")
    assert check(settings) == ("account",)
    assert places.ask(settings, ["acct-2"]) == {"acct-2": Entry("acct-2")}


def test_nobody_is_asked_about_nobody(tmp_path: Path) -> None:
    missing = DirectorySettings(DirectoryKind.CSV, path=str(tmp_path / "missing"))
    assert places.ask(missing, []) == {}


def test_neither_settings_nor_entries_show_what_they_hold() -> None:
    settings = DirectorySettings(
        DirectoryKind.SQL,
        url=f"postgresql://u:{places.MARK}@db.example/x",
        query=f"SELECT '{places.MARK}'",
        command=(places.MARK,),
    )
    assert places.MARK not in repr(settings)
    assert places.MARK not in repr(Entry(places.MARK, places.MARK))
    assert places.MARK not in repr(
        DirectorySettings(DirectoryKind.HTTP, url=Secret(places.MARK), token=None)
    )
