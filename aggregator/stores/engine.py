"""The engine that runs the roll-up: DuckDB in memory, unable to spill or to reach a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Protocol, Self

import duckdb
import pyarrow as pa

from aggregator.errors import IntegrityError

_INTERRUPTED: Final = "Query interrupted"
# In this order: what may be changed no more comes last.
_SETTINGS: Final = (
    "temp_directory = ''",
    "enable_progress_bar = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "preserve_insertion_order = false",
    "enable_external_access = false",
    "lock_configuration = true",
)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C in the midst of a query be what it is: DuckDB makes a RuntimeError of it."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


class Engine(Protocol):
    """What a roll-up needs of an engine."""

    def register(self, name: str, table: pa.Table) -> None:
        """Make `table` a relation called `name`, in place of an earlier one."""

    def query(self, sql: str) -> pa.Table:
        """Return the result of `sql`."""


class DuckDBEngine:
    """DuckDB in memory: no temporary folder, so that a spill of names is impossible."""

    def __init__(self) -> None:
        """Open an engine that sees registered tables only."""
        self._connection = duckdb.connect(":memory:")
        for setting in _SETTINGS:
            self._connection.execute(f"SET {setting}")

    def register(self, name: str, table: pa.Table) -> None:
        """Make `table` a relation called `name`, in place of an earlier one."""
        self._connection.register(name, table)

    def query(self, sql: str) -> pa.Table:
        """Return the result of `sql`; IntegrityError if a total does not fit its column."""
        try:
            with interruptible():
                return self._connection.sql(sql).to_arrow_table()
        except (duckdb.ConversionException, duckdb.OutOfRangeException):
            raise IntegrityError("a total is larger than a table can hold") from None

    def close(self) -> None:
        """Let go of everything."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close."""
        self.close()
