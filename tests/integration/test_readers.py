"""The tables as others open them: a folder, nothing configured, and the rows are all there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
from benchmarks import years

from aggregator.model.tables import TABLES, Kind
from aggregator.stores.tables import TableStore

pytestmark = pytest.mark.integration
NEEDS = None
Rows = list[dict[str, Any]]


def _duckdb(folder: Path) -> Rows:
    found = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/*/*.parquet')")
    rows: Rows = found.to_arrow_table().to_pylist()
    return rows


def _polars(folder: Path) -> Rows:
    import polars

    return polars.scan_parquet(f"{folder}/").collect().to_dicts()


def _pandas(folder: Path) -> Rows:
    import pandas

    rows: Rows = pandas.read_parquet(f"{folder}/", dtype_backend="pyarrow").to_dict("records")
    return rows


def _arrow(folder: Path) -> Rows:
    import pyarrow.parquet

    rows: Rows = pyarrow.parquet.read_table(folder).to_pylist()
    return rows


READERS: Final[dict[str, Callable[[Path], Rows]]] = {
    "duckdb": _duckdb, "polars": _polars, "pandas": _pandas, "arrow": _arrow
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    home = tmp_path_factory.mktemp("readers") / "home"
    years.make(home, 1, 12)
    return TableStore(home / "tables")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("reader", READERS)
def test_every_table_opens_as_it_is(tables: TableStore, reader: str, table: str) -> None:
    """The month is there even in daily tables, from the names of the folders."""
    if not tables.periods(table):
        pytest.skip("the year has no such rows")
    rows = READERS[reader](tables.folder / table)
    expected = tables.rows(table, tables.periods(table))
    assert len(rows) == len(expected) > 0
    model = TABLES[table]
    for name, kind in model.columns.items():
        if kind is Kind.COUNT:
            assert sum(row[name] for row in rows) == sum(row[name] for row in expected)
        elif kind in (Kind.TEXT, Kind.MONTH):
            assert {str(row[name]) for row in rows} == {row[name] for row in expected}
    own = "month" if model.monthly else "day"
    assert {str(row["month"]) for row in rows} == {str(row[own])[:7] for row in expected}
