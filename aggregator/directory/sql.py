"""A database, asked by the operator's own query in a transaction that only reads.

Any database that SQLAlchemy has a dialect for; its driver is the operator's to install.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from aggregator.directory.entries import COLUMNS, Batch, Row, places, text_row
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.directory.secrets import needed, read
from aggregator.directory.watch import Watch, Way
from aggregator.errors import ConfigError
from aggregator.model.settings import DirectorySettings

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult

# Connecting cannot be ended from outside; these drivers take the seconds after which they give up.
_PATIENCE: Final = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "pg8000": ("timeout",),
    "pymysql": ("connect_timeout", "read_timeout"),
    "mysqldb": ("connect_timeout", "read_timeout"),
}
# What is said first, so that the query can only read and gives up in time, by dialect.
_FIRST: Final = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET LOCAL statement_timeout = {milliseconds}",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
# Their logs hold tracebacks, and so the query and the database's words.
_WORDY: Final = ("sqlalchemy", "psycopg")
_OPTIONS: Final[dict[str, dict[str, Any]]] = {"postgresql": {"postgresql_readonly": True}}


def batches(settings: DirectorySettings, watch: Watch, size: int) -> Generator[Batch]:
    """Yield the rows of `query`, streamed where the driver can.

    ConfigError if SQLAlchemy is not installed. Of the database's words only the class of its
    error is told: they may quote the query, and what was found.
    """
    try:
        import sqlalchemy  # noqa: PLC0415 - only where the accounts are in a database
    except ModuleNotFoundError:
        raise ConfigError(
            "a directory of kind sql needs SQLAlchemy; install usage-aggregator[sql]"
        ) from None
    _hush()
    query = needed(settings.query, "query")
    url = _url(settings)
    try:
        engine = sqlalchemy.create_engine(
            url,
            connect_args=_patience(url, watch),
            hide_parameters=True,
            poolclass=sqlalchemy.NullPool,
        )
    except (ImportError, sqlalchemy.exc.ArgumentError):
        raise BrokenError(Trouble.NO_DRIVER) from None
    try:
        with engine.connect() as connection, watch.ending(_end(connection)):
            yield from _batches(_ask(connection, query, watch), size)
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise BrokenError(Trouble.DATABASE, type(error).__name__) from None
    finally:
        engine.dispose()


def _hush() -> None:
    """Keep the logs of what talks to the database from everyone, standard error too."""
    for name in _WORDY:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False


def _url(settings: DirectorySettings) -> URL:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see above
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - see above

    try:
        url = make_url(read(settings.url, "url"))
    except (ArgumentError, ValueError):
        raise BrokenError(Trouble.NO_URL) from None
    file = url.database or ""
    own_name = url.get_backend_name() == "sqlite" and not file.startswith("file:")
    if own_name and not os.path.isfile(file):
        # SQLite would make it.
        raise BrokenError(Trouble.NOT_FOUND)
    return url


def _patience(url: URL, watch: Watch) -> dict[str, Any]:
    seconds = int(watch.left()) + 1
    names = _PATIENCE.get(url.get_driver_name(), ())
    return {name: seconds for name in names if name not in url.query}


def _ask(connection: Connection, query: str, watch: Watch) -> CursorResult[Any]:
    dialect = connection.dialect.name
    connection.execution_options(**_OPTIONS.get(dialect, {}))
    if dialect in _FIRST:
        milliseconds = int(watch.left() * 1000) + 1
        connection.exec_driver_sql(_FIRST[dialect].format(milliseconds=milliseconds))
    # The query is the operator's, as it is: neither a colon nor a percent sign means anything.
    result = connection.exec_driver_sql(
        query, execution_options={"stream_results": True, "no_parameters": True}
    )
    if not result.returns_rows:
        raise BrokenError(Trouble.NO_ROWS)
    return result


def _batches(result: CursorResult[Any], size: int) -> Iterator[Batch]:
    found = places(result.keys())
    columns = tuple(name for name in COLUMNS if name in found)
    at = [found.get(name) for name in COLUMNS]
    before = 0
    for part in result.partitions(size):
        rows: list[Row] = []
        for values in part:
            try:
                rows.append(text_row(None if place is None else values[place] for place in at))
            except ValueError:
                raise BrokenError(Trouble.MALFORMED, before + len(rows) + 1) from None
        yield Batch(columns, rows)
        before += len(rows)
    if not before:
        yield Batch(columns, [])


def _end(connection: Connection) -> Way:
    """Return what makes a driver's blocked call return, from another thread."""
    driver: Any = connection.connection.driver_connection

    def end() -> None:
        # SQLite has a way of its own; for others the connection is cut, so that nothing is
        # waited for, also where the network is gone. Any driver may raise errors of its own:
        # then there is nothing left to end.
        with contextlib.suppress(Exception):
            if hasattr(driver, "interrupt"):
                driver.interrupt()
            elif hasattr(driver, "fileno"):
                with socket.socket(fileno=os.dup(driver.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    return end
