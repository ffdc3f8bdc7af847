"""The published tables: hive-partitioned Parquet without a person in it.

A partition is one file: `tables/NAME/month=YYYY-MM/YYYY-MM-DD.parquet`, or `YYYY-MM.parquet` for
a monthly table. It is always replaced whole. The same rows give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from aggregator.errors import IntegrityError
from aggregator.model.tables import TABLES, Kind, Table
from aggregator.stores import atomic

_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    Kind.TEXT: pa.string(),
    Kind.DAY: pa.date32(),
    Kind.MONTH: pa.string(),
    Kind.COUNT: pa.int64(),
    Kind.COUNT_OR_NULL: pa.int64(),
    Kind.FLAG: pa.bool_(),
    Kind.HISTOGRAM: pa.list_(pa.struct([("from_bytes", pa.int64()), ("users", pa.int64())])),
}

Row = Mapping[str, Any]


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table's rows."""
    nullable = {Kind.COUNT_OR_NULL}
    return pa.schema(
        [
            pa.field(name, _TYPES[kind], nullable=kind in nullable)
            for name, kind in table.columns.items()
        ]
    )


def file_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table's files: that of its rows, but for the month.

    A monthly table has it twice: as a column, and in the names of its folders, from which Arrow and
    pandas make a dictionary. They read both only if the file's own is one as well.
    """
    schema = arrow_schema(table)
    if "month" not in schema.names:
        return schema
    place = schema.get_field_index("month")
    encoded = schema.field(place).with_type(pa.dictionary(pa.int32(), pa.string()))
    return schema.set(place, encoded)


class TableStore:
    """The published tables below `tables/`."""

    def __init__(self, folder: Path) -> None:
        """Look after the tables below `folder`."""
        self.folder = folder

    def path(self, table: str, period: str) -> Path:
        """Return the file of a partition; `period` is its day, or its month if monthly."""
        return self.folder / table / f"month={period[:7]}" / f"{period}.parquet"

    def has(self, table: str, period: str) -> bool:
        """Say whether a partition is there."""
        return self.path(table, period).exists()

    def periods(self, table: str, month: str = "????-??") -> list[str]:
        """Return the periods of a table's partitions, oldest first."""
        return sorted(path.stem for path in (self.folder / table).glob(f"month={month}/*.parquet"))

    def write(self, table: str, period: str, rows: Iterable[Row]) -> Path:
        """Replace one partition by `rows`, sorted by the table's dimensions; return its file."""
        model = TABLES[table]
        names = list(model.columns)[: model.dimensions]
        ordered = sorted(rows, key=lambda row: tuple(row[name] for name in names))
        try:
            data = pa.Table.from_pylist([dict(row) for row in ordered], schema=arrow_schema(model))
        except (OverflowError, pa.ArrowInvalid):
            raise IntegrityError(f"the sums of {table} {period} are implausible") from None
        sink = pa.BufferOutputStream()
        pq.write_table(data.cast(file_schema(model)), sink, compression="zstd", compression_level=3)
        path = self.path(table, period)
        atomic.write(path, bytes(memoryview(sink.getvalue())), mode=0o644)
        return path

    def remove(self, table: str, period: str) -> None:
        """Remove one partition; it may be gone already."""
        atomic.remove(self.path(table, period))

    def read(self, table: str, periods: Sequence[str]) -> pa.Table:
        """Return the rows of the named partitions, in their order; absent ones have none."""
        schema = arrow_schema(TABLES[table])
        paths = [self.path(table, period) for period in periods]
        return pa.concat_tables(
            [schema.empty_table(), *(_read(path, schema) for path in paths if path.exists())]
        )

    def rows(self, table: str, periods: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of the named partitions as dictionaries."""
        rows: list[dict[str, Any]] = self.read(table, periods).to_pylist()
        return rows

    def digest(self, table: str, period: str) -> str:
        """Return the SHA-256 of a partition's file."""
        return hashlib.sha256(self.path(table, period).read_bytes()).hexdigest()


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    content = path.read_bytes()  # apart: what pyarrow makes of damage may be an OSError as well
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read().cast(schema)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        raise IntegrityError(
            f"the partition {path.stem} of {path.parent.parent.name} does not read as its schema"
        ) from None
