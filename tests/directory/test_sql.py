"""A database: the operator's query as it is, only reading, and none of the database's words."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aggregator.directory.lookup import check
from aggregator.errors import ConfigError
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry, Secret

from . import places
from .places import MARK

QUERY = "SELECT account, exempt FROM accounts ORDER BY account"
ENDLESS = (
    "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n AS account FROM n"
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / f"{MARK}.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE accounts (account, exempt)")
        made.executemany(
            "INSERT INTO accounts VALUES (?, ?)", [(f"acct-{n:05d}", n % 2) for n in range(4_500)]
        )
    made.close()
    return path


def of(path: Path, query: str = QUERY, **other: Any) -> DirectorySettings:
    named = {"url": f"sqlite:///{path}", "timeout_seconds": places.FOREVER, **other}
    return DirectorySettings(DirectoryKind.SQL, query=query, **named)


def test_all_rows_are_read(database: Path) -> None:
    before = places.open_files()
    found = places.ask(of(database), ["acct-00000", "acct-04499"])
    assert found == {
        "acct-00000": Entry("acct-00000"), "acct-04499": Entry("acct-04499", exempt=True),
    }  # fmt: skip
    assert places.open_files() == before


def test_the_url_may_be_a_secret(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"{MARK}.url"
    file.write_text(f"sqlite:///{database}\n")
    monkeypatch.setenv("DIRECTORY_URL", f"sqlite:///{database}")
    for secret in (Secret(file=str(file)), Secret(variable="DIRECTORY_URL")):
        assert check(of(database, url=secret)) == ("account", "exempt")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\r\n", b"\xff"])
def test_a_secret_that_is_none_is_told_by_its_setting(
    database: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / f"{MARK}.url"
    if content is not None:
        file.write_bytes(content)
    settings = of(database, url=Secret(file=str(file)))
    assert "check directory.url_file" in places.fails(settings)


def test_a_variable_that_is_not_set_is_told_by_its_setting(database: Path) -> None:
    settings = of(database, url=Secret(variable=f"{MARK}_UNSET"))
    assert "check directory.url_env" in places.fails(settings)


@pytest.mark.parametrize(
    "query",
    [
        f"DELETE FROM accounts WHERE account <> '{MARK}'",
        f"DELETE FROM accounts WHERE account <> '{MARK}' RETURNING account",
        f"CREATE TABLE more AS SELECT '{MARK}' AS account",
        f"SELECT '{MARK}' AS account FROM nowhere",
        f"SELECT {MARK}'",
        f"SELECT account FROM accounts; SELECT '{MARK}'",
    ],
)
def test_a_query_that_does_not_read_fails_and_changes_nothing(database: Path, query: str) -> None:
    before = database.read_bytes()
    line = places.fails(of(database, query))
    assert "Error from the database; " in line
    assert database.read_bytes() == before
    assert sorted(one.name for one in database.parent.iterdir()) == [database.name]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("PRAGMA temp_store = 2", "gives no rows"),
        (f"SELECT exempt AS '{MARK}' FROM accounts", 'no column "account"'),
        ("SELECT account, account FROM accounts", "a column twice"),
        ("SELECT account FROM accounts WHERE account = ''", "names no account"),
        (f"SELECT account, '{MARK}' AS exempt FROM accounts", "in row 1 "),
        (f"{QUERY} IS NOT NULL LIMIT 0", "names no account"),
        ("SELECT account, x'01' AS exempt FROM accounts", "in row 1 "),
        ("SELECT 1.5 AS account", "in row 1 "),
        ("SELECT NULL AS account", "in row 1 "),
        ("SELECT account, iif(rowid = 4400, 2, 0) AS exempt FROM accounts", "in row 4400 "),
    ],
)
def test_a_query_whose_rows_cannot_be_trusted_fails(database: Path, query: str, said: str) -> None:
    assert said in places.fails(of(database, query), "acct-00001")


def test_the_databases_own_words_stay_there(database: Path) -> None:
    query = f"SELECT account, json_extract('{MARK}', '$') AS plan FROM accounts"
    assert "got OperationalError from the database; " in places.fails(of(database, query))
    database.write_bytes(MARK.encode() * 1_000)
    assert "got DatabaseError from the database; " in places.fails(of(database))


def test_the_logs_of_its_libraries_go_nowhere(
    database: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check(of(database)) == ("account", "exempt")
    for name in ("sqlalchemy.pool.impl.NullPool", "sqlalchemy.engine.Engine", "psycopg"):
        logging.getLogger(name).error(MARK)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert "was not found" in places.fails(of(tmp_path / MARK))
    assert "was not found" in places.fails(of(tmp_path, url="sqlite://"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"{MARK}", "no URL that leads"),
        (f"nosuchdatabase://u:{MARK}@{MARK}/x", "driver that is not installed"),
        (f"mysql+nosuchdriver://u:{MARK}@{MARK}/x", "driver that is not installed"),
    ],
)
def test_a_url_that_leads_nowhere_is_not_repeated(tmp_path: Path, url: str, said: str) -> None:
    assert said in places.fails(of(tmp_path, url=url))


def test_the_deadline_ends_a_query_that_never_does(database: Path) -> None:
    before = places.open_files()
    count = f"SELECT count(*) AS account FROM ({ENDLESS})"
    for query in (ENDLESS, count):
        assert "timed out after 0.3 s; " in places.fails(
            of(database, query, timeout_seconds=places.SOON)
        )
    assert places.open_files() == before


def test_a_check_reads_the_first_row_of_a_query_that_never_ends(database: Path) -> None:
    with places.nothing_left():
        assert check(of(database, ENDLESS)) == ("account",)


def test_without_sqlalchemy_it_is_said_what_to_install(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"install usage-aggregator\[sql\]") as raised:
        check(of(database))
    assert places.tells_nothing(raised.value)


def test_sqlalchemy_is_not_loaded_before_it_is_needed() -> None:
    program = "import sys, aggregator.directory.lookup; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
