"""Reports: which published table answers a question, and its rows, summed where less is asked.

Only the tables are read, so a report can say nothing that was not released. A sum over cells
never has distinct users: it is called `user_days`, and percentiles are not in it.
"""

from __future__ import annotations

import calendar
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.errors import UsageError
from aggregator.model.days import is_month, parse_day
from aggregator.model.tables import TABLES, Kind, Table
from aggregator.pipeline.deployment import Deployment
from aggregator.stores.scan import read_columns
from aggregator.stores.tables import text_of

USER_DAYS: Final = "user_days"
SUCCESS_PERCENT: Final = "success_percent"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What can be reported: its tables, the one of the default first, and the default grouping."""

    tables: tuple[str, ...]
    by: tuple[str, ...]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension that any of its tables can be grouped by, coarsest first."""
        names = [name for table in self.tables for name in dimensions_of(TABLES[table])]
        return tuple(dict.fromkeys(("month", *names)))


SUBJECTS: Final[Mapping[str, Subject]] = MappingProxyType(
    {
        "usage": Subject(("usage_daily", "usage_monthly"), ("day", "location")),
        "connections": Subject(
            ("connections_daily", "connections_isp_daily"), ("day", "location", "country")
        ),
        "apps": Subject(("apps_daily",), ("day", "app", "version")),
        "fair-use": Subject(("notices_monthly",), ("month", "rule", "percent", "audience")),
        "rejections": Subject(("rejections_daily",), ("day", "reason")),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a question is answered: from which table, by which dimensions, over which periods.

    `exact` says that the rows are the table's own; otherwise they are sums of them.
    """

    table: Table
    by: tuple[str, ...]
    exact: bool
    first: str | None
    last: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The answer: `data` has the columns in order; `periods` are the partitions it is from."""

    plan: Plan
    data: pa.Table
    periods: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as JSON has them: days as text, bytes as numbers."""
        rows: list[dict[str, Any]] = self.data.to_pylist()
        return [{name: text_of(value) for name, value in row.items()} for row in rows]


def dimensions_of(table: Table) -> tuple[str, ...]:
    """Return the dimensions of a table, in the order of its columns."""
    return tuple(table.columns)[: table.dimensions]


def plan(
    kind: str, by: Sequence[str] | None = None, first: str | None = None, last: str | None = None
) -> Plan:
    """Return how the report `kind` by the dimensions `by` is answered.

    `first` and `last` are inclusive: days, or months that stand for their first and last day.
    UsageError says which dimensions there are, or what is wrong with a period.
    """
    subject = SUBJECTS[kind]
    wanted = subject.by if by is None else tuple(by)
    table, exact = _table_for(kind, subject, wanted)
    start = None if first is None else _period(first, "--from", table, at_end=False)
    end = None if last is None else _period(last, "--to", table, at_end=True)
    if start and end and start > end:
        raise UsageError(f"--from {start} is after --to {end}")
    return Plan(table, wanted, exact, start, end)


def gather(house: Deployment, chosen: Plan) -> Report:
    """Return the rows that `chosen` asks for, from the partitions in its range only."""
    table = chosen.table
    periods = tuple(
        period
        for period in house.tables.periods(table.name)
        if (chosen.first or "") <= period and (chosen.last is None or period <= chosen.last)
    )
    if chosen.exact:
        data = read_columns(house.tables, table.name, periods, list(table.columns))
        if chosen.by != dimensions_of(table):
            data = _sorted(data, chosen.by)
        return Report(chosen, data, periods)
    measures = _summable(table)
    named = {"day" if name == "month" and not table.monthly else name for name in chosen.by}
    columns = [name for name in table.columns if name in named or name in measures]
    data = read_columns(house.tables, table.name, periods, columns)
    return Report(chosen, _summed(data, chosen.by, measures), periods)


def with_success_percent(data: pa.Table) -> pa.Table:
    """Return `data` with the share of attempts that succeeded, in percent to one decimal.

    It is null where there was no attempt; a table without attempts is returned as it is.
    """
    if "attempts" not in data.column_names or SUCCESS_PERCENT in data.column_names:
        return data
    attempts = data["attempts"].cast(pa.float64())
    some = pc.if_else(pc.greater(attempts, 0), attempts, pa.scalar(None, pa.float64()))
    successes = data["successes"].cast(pa.float64())
    percent = pc.round(pc.divide(pc.multiply(successes, 100.0), some), 1)
    return data.append_column(SUCCESS_PERCENT, percent)


def available(house: Deployment, table: Table) -> tuple[str, str] | None:
    """Return the first and the last period that `table` has, None if it is empty."""
    periods = house.tables.periods(table.name)
    return (periods[0], periods[-1]) if periods else None


def _table_for(kind: str, subject: Subject, by: tuple[str, ...]) -> tuple[Table, bool]:
    """Return the table that has the dimensions `by`, and whether exactly these."""
    allowed = ", ".join(subject.dimensions)
    unknown = [name for name in by if name not in subject.dimensions]
    if unknown or not by:
        # What was typed is not repeated: it could be anything.
        raise UsageError(f"--by of report {kind} takes a comma-separated list of: {allowed}")
    if len(set(by)) != len(by):
        raise UsageError(f"--by names a dimension twice; each of {allowed} may be there once")
    tables = [TABLES[name] for name in subject.tables]
    for table in tables:
        if set(by) == set(dimensions_of(table)):
            return table, True
    for table in tables:
        if table.additive and set(by) <= {"month", *dimensions_of(table)}:
            return table, False
    together = "; or ".join(
        ", ".join(dict.fromkeys(("month", *dimensions_of(table))))
        for table in tables
        if table.additive
    )
    raise UsageError(f"no table has {' and '.join(by)} together; --by takes some of: {together}")


def _period(text: str, option: str, table: Table, *, at_end: bool) -> str:
    """Return the period of `table` that `text` names, as the first or the last of a range."""
    month = text if is_month(text) else None
    if month is None and parse_day(text) is None:
        raise UsageError(f"{option} takes a day such as 2026-10-05 or a month such as 2026-10")
    if table.monthly:
        return text[:7]
    if month is None:
        return text
    last = calendar.monthrange(int(month[:4]), int(month[5:]))[1]
    return f"{month}-{last if at_end else 1:02d}"


def _summable(table: Table) -> tuple[str, ...]:
    counts = list(table.columns.items())[table.dimensions :]
    return tuple(name for name, kind in counts if kind is Kind.COUNT)


def _summed(data: pa.Table, by: tuple[str, ...], measures: tuple[str, ...]) -> pa.Table:
    """Return the sums of `measures` by the dimensions `by`, in their order."""
    if "month" in by and "month" not in data.column_names:
        months = pc.utf8_slice_codeunits(data["day"].cast(pa.string()), 0, 7)
        data = data.append_column("month", months)
    sums = data.group_by(list(by)).aggregate([(name, "sum") for name in measures])
    columns = {name: sums[name] for name in by}
    for name in measures:
        columns[USER_DAYS if name == "users" else name] = sums[f"{name}_sum"]
    return with_success_percent(_sorted(pa.table(columns), by))


def _sorted(data: pa.Table, by: tuple[str, ...]) -> pa.Table:
    return data.sort_by([(name, "ascending") for name in by])
