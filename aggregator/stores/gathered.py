"""Months of a daily table gathered into one file each: copies, so that years of days open quickly.

They lie beside the tables, not among them: `cache/NAME/YYYY-MM.STATE.copy`, Parquet. STATE is a
digest of the names, sizes and times of the day files that were copied, so a copy of what was
written or removed since is not found, and nothing is lost with any of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from aggregator.errors import IntegrityError
from aggregator.model.days import is_month
from aggregator.model.tables import TABLES
from aggregator.stores import atomic
from aggregator.stores.tables import TableStore

FOLDER: Final = "cache"
"""Of a home; it is made when there is a copy, and may be removed at any time."""
_SUFFIX: Final = ".copy"
_DAY_SUFFIX: Final = ".parquet"


class Gathered:
    """The copies of whole months that lie beside the tables of `store`."""

    def __init__(self, store: TableStore) -> None:
        """Look after the copies; there need not be any yet."""
        self.store = store
        self.folder = store.folder.parent / FOLDER

    def find(self, table: str, month: str, days: Sequence[str]) -> Path | None:
        """Return the copy of `month` if it is of exactly these `days`, as they are now."""
        state = self._state(table, month)
        if state is None or state[1] != len(days):
            return None
        path = self._path(table, month, state[0])
        return path if os.access(path, os.R_OK) else None

    def keep(self, table: str, month: str) -> bool:
        """Gather a month's days unless they are as they were gathered; say if they were.

        Copies of what the month was before are removed. IntegrityError names a day that does not
        read.
        """
        state = self._state(table, month)
        path = None if state is None else self._path(table, month, state[0])
        for other in self._copies(table, month):
            if other != path:
                atomic.remove(other)
        if path is None or path.exists():
            return False
        data = self.store.read(table, self.store.periods(table, month))
        sink = pa.BufferOutputStream()
        pq.write_table(data, sink, compression="snappy")  # a third faster to read than zstd
        atomic.write(path, bytes(memoryview(sink.getvalue())), mode=0o644)
        return True

    def false(self) -> Iterator[tuple[str, str, Path]]:
        """Yield the table, month and file of every copy that would be read but is not true."""
        for table in TABLES:
            for path in self._copies(table, "????-??"):
                month = path.name[: len("YYYY-MM")]
                is_read = self.find(table, month, self.store.periods(table, month)) == path
                if is_read and not self._is_true(table, month, path):
                    yield table, month, path

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the month of every copy, and its file, those that are never read again too."""
        for table in TABLES:
            for path in self._copies(table, "????-??"):
                month = path.name[: len("YYYY-MM")]
                if is_month(month):
                    yield month, path

    def _is_true(self, table: str, month: str, path: Path) -> bool:
        try:
            copy = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read()
            return bool(copy.equals(self.store.read(table, self.store.periods(table, month))))
        except (pa.ArrowException, OSError, ValueError, IntegrityError):
            return False  # of a day that does not read nobody can say that it is copied

    def _copies(self, table: str, month: str) -> list[Path]:
        return sorted((self.folder / table).glob(f"{month}.*{_SUFFIX}"))

    def _path(self, table: str, month: str, state: str) -> Path:
        return self.folder / table / f"{month}.{state}{_SUFFIX}"

    def _state(self, table: str, month: str) -> tuple[str, int] | None:
        """Return a digest of what a month's day files are, and their number; None without any."""
        try:
            with os.scandir(self.store.folder / table / f"month={month}") as found:
                files = [entry for entry in found if entry.name.endswith(_DAY_SUFFIX)]
                facts = sorted(
                    (one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files
                )
        except OSError:
            return None
        if not facts:
            return None
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16], len(facts)


def months_before(store: TableStore, last: str) -> Iterator[tuple[str, str]]:
    """Yield each daily table and each month before `last` that it has days of."""
    for name, table in TABLES.items():
        if not table.monthly:
            for folder in sorted((store.folder / name).glob("month=????-??")):
                month = folder.name.removeprefix("month=")
                if month < last:
                    yield name, month


def keep_months(store: TableStore, last: str) -> int:
    """Gather every month before `last` that is not gathered as it is; return how many were.

    A day that does not read keeps its month from it: whoever reads that day is told.
    """
    gathered, number = Gathered(store), 0
    for table, month in months_before(store, last):
        try:
            number += gathered.keep(table, month)
        except IntegrityError:
            continue
    return number
