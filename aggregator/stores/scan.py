"""Read or add up some columns of many partitions: what reports do, over any number of years.

A day is a file of a few kilobytes, so what costs is opening it: DuckDB opens five years of them
several times as fast as the general reader of `TableStore` does, and whole months that are
`Gathered` are one file each.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import duckdb
import pyarrow as pa

from aggregator.errors import IntegrityError
from aggregator.model.tables import TABLES
from aggregator.stores.engine import interruptible
from aggregator.stores.gathered import Gathered
from aggregator.stores.tables import TableStore, arrow_schema

_MONTH: Final = pa.field("month", pa.string(), nullable=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are meant: those whose dimension has one of `values`, or has none of them."""

    dimension: str
    values: frozenset[str]
    without: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """Steps of time, of so many `days` each, from `first` on."""

    first: dt.date
    days: int


def read_columns(
    store: TableStore,
    table: str,
    periods: Sequence[str],
    columns: Sequence[str],
    where: Sequence[Filter] = (),
) -> pa.Table:
    """Return `columns` of the named partitions, in the order of both; all must be there.

    IntegrityError names a partition that does not read as its table's schema.
    """
    whole = arrow_schema(TABLES[table])
    schema = pa.schema([whole.field(name) for name in columns])
    names = ", ".join(_quoted(name) for name in columns)
    condition, values = _condition(where)
    text = f"SELECT {names} FROM {_FROM}{condition}"  # noqa: S608 - of the closed lists of columns
    return _query(store, table, periods, text, values, schema)


def sums(
    store: TableStore,
    table: str,
    periods: Sequence[str],
    by: Sequence[str],
    measures: Sequence[str],
    where: Sequence[Filter] = (),
    steps: Steps | None = None,
) -> pa.Table:
    """Return the sums of `measures` of the named partitions by the dimensions `by`, in no order.

    With `steps` each group has a row a step of time that it has rows in: the column `step` has its
    number, `cells` how many rows were added up. OverflowError where a sum is beyond 64 bits,
    IntegrityError as by `read_columns`.
    """
    wanted = {name: f"CAST(SUM({_quoted(name)}) AS BIGINT)" for name in measures}
    if steps is not None:
        wanted["cells"] = "COUNT(*)"
    return _grouped(store, table, periods, by, wanted, where, steps)


def crowds(
    store: TableStore,
    periods: Sequence[str],
    by: Sequence[str],
    floor: int,
    where: Sequence[Filter] = (),
) -> pa.Table:
    """Return how many cells of a day there are by `by`, those below `floor`, and their users.

    Columns after `by`: cells, cells_below, least_users, users (their sum), most_users.
    """
    wanted = {
        "cells": "COUNT(*)",
        "cells_below": f"COUNT(*) FILTER (users < {int(floor)})",
        "least_users": "MIN(users)",
        "users": "CAST(SUM(users) AS BIGINT)",
        "most_users": "MAX(users)",
    }
    return _grouped(store, "usage_daily", periods, by, wanted, where)


_FROM: Final = "read_parquet($paths, hive_partitioning = false)"


def _grouped(
    store: TableStore,
    table: str,
    periods: Sequence[str],
    by: Sequence[str],
    wanted: Mapping[str, str],
    where: Sequence[Filter],
    steps: Steps | None = None,
) -> pa.Table:
    """Return what is `wanted`, as SQL by name, of each group; a day may be grouped by its month."""
    whole = arrow_schema(TABLES[table])
    fields = [_MONTH if name == "month" else whole.field(name) for name in by]
    if steps is not None:
        fields.append(pa.field("step", pa.int64()))
    schema = pa.schema([*fields, *(pa.field(name, pa.int64()) for name in wanted)])
    of_day = "month" in by and not TABLES[table].monthly
    keys = {name: _quoted(name) for name in by}
    if of_day:
        keys["month"] = "date_trunc('month', day)"
    if steps is not None:
        keys["step"] = f"date_diff('day', DATE '{steps.first}', day) // {steps.days:d}"
    inner = ", ".join(f"{sql} AS {_quoted(name)}" for name, sql in {**keys, **wanted}.items())
    outer = ", ".join(
        "strftime(month, '%Y-%m') AS month" if of_day and name == "month" else _quoted(name)
        for name in schema.names
    )
    condition, values = _condition(where)
    groups = ", ".join(keys.values())
    text = f"SELECT {outer} FROM (SELECT {inner} FROM {_FROM}{condition} GROUP BY {groups})"  # noqa: S608 - of the closed lists of columns
    return _query(store, table, periods, text, values, schema)


def _condition(where: Sequence[Filter]) -> tuple[str, dict[str, list[str]]]:
    """Return a WHERE clause and its parameters, "" for no filter."""
    parts, values = [], {}
    for number, one in enumerate(where):
        name = f"values{number}"
        negation = "NOT " if one.without else ""
        column = f"CAST({_quoted(one.dimension)} AS VARCHAR)"
        parts.append(f"{negation}list_contains(CAST(${name} AS VARCHAR[]), {column})")
        values[name] = sorted(one.values)
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), values


def _quoted(name: str) -> str:
    return f'"{name}"'  # of the closed list of columns


def _query(
    store: TableStore,
    table: str,
    periods: Sequence[str],
    text: str,
    values: Mapping[str, Any],
    schema: pa.Schema,
) -> pa.Table:
    """Return what the statement `text` finds in the partitions, as `schema` has it."""
    if not periods:
        return schema.empty_table()
    folder = str(store.folder.resolve())  # the connection compares paths as texts
    # As TableStore.path has them, but texts: years of days are many.
    days = [f"{folder}/{table}/month={period[:7]}/{period}.parquet" for period in periods]
    copies = str(Gathered(store).folder.resolve())
    months = _with_months(store, table, days, copies)
    for paths in (months, days) if months != days else (days,):
        try:
            with duckdb.connect(":memory:") as connection, interruptible():
                _close_in(connection, folder, copies)
                found = connection.sql(text, params={"paths": paths, **values})
                return found.to_arrow_table().cast(schema)
        except (duckdb.ConversionException, duckdb.OutOfRangeException):
            raise OverflowError(table) from None
        except (duckdb.Error, pa.ArrowException, ValueError):
            continue  # a copy that is damaged, or was removed just now: the days say the same
    store.read(table, periods)  # slow, but it names the partition
    raise IntegrityError(f"the partitions of {table} do not read as its schema")


def _with_months(store: TableStore, table: str, days: Sequence[str], copies: str) -> list[str]:
    """Return the files `days`, those of a whole month replaced by its copy where there is one."""
    gathered, paths = Gathered(store), []
    for folder, files in groupby(days, key=os.path.dirname):
        of_month = list(files)
        copy = gathered.find(table, folder[-len("YYYY-MM") :], of_month)
        paths += of_month if copy is None else [f"{copies}/{table}/{copy.name}"]
    return paths


def _close_in(connection: duckdb.DuckDBPyConnection, *folders: str) -> None:
    """Let the connection see `folders` only, and leave nothing on disk."""
    quoted = ", ".join("'{}'".format(one.replace("'", "''")) for one in folders)
    for setting in (
        "temp_directory = ''",
        "enable_progress_bar = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        f"allowed_directories = [{quoted}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
