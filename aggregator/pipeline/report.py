"""Reports: which published table answers a question, and its rows, summed where less is asked.

Only the tables are read, so a report can say nothing that was not released.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from aggregator.errors import UsageError
from aggregator.model.days import month_of, text_of
from aggregator.model.tables import OTHER, OTHER_ASN, TABLES, Table
from aggregator.pipeline import report_rows, trends
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.report_rows import Order
from aggregator.pipeline.trends import Trend
from aggregator.rules import periods
from aggregator.rules.periods import Span
from aggregator.stores import scan
from aggregator.stores.scan import Filter


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
        "crowd": Subject(("usage_daily",), ("location",)),
        "fair-use": Subject(("notices_monthly",), ("month", "rule", "percent", "audience")),
        "mail": Subject(("notices_monthly",), ("month", "audience")),
        "rejections": Subject(("rejections_daily",), ("day", "reason")),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks of a subject, as it was typed.

    `first` and `last` are days, months, or names of days (`rules.periods`), both in it. `where` has
    texts such as "country=DE,AT" and "app!=ios". `sort` is a column, "-" before it for the largest
    first.
    """

    by: Sequence[str] | None = None
    first: str | None = None
    last: str | None = None
    where: Sequence[str] = ()
    sort: str | None = None
    limit: int | None = None
    compare: bool = False
    floor: int = report_rows.CROWD_FLOOR


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a question is answered: from which table, by which dimensions, over which periods.

    `exact` says that the rows are the table's own; otherwise they are sums of them. `floor` is that
    of a crowd, None where something else is asked.
    """

    table: Table
    by: tuple[str, ...]
    exact: bool
    first: str | None
    last: str | None
    where: tuple[Filter, ...] = ()
    order: Order | None = None
    limit: int | None = None
    compare: bool = False
    floor: int | None = None
    trend: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The answer: `data` has the columns in order; `periods` are the partitions it is from.

    `found` is how many rows there were before the limit, `before` the span it is compared with,
    `trend` how each group's `measure` went in that time, where that was asked for.
    """

    plan: Plan
    data: pa.Table
    periods: tuple[str, ...]
    found: int = 0
    before: Span | None = None
    trend: Trend | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as JSON has them: days as text, bytes as numbers."""
        rows: list[dict[str, Any]] = self.data.to_pylist()
        return [{name: text_of(value) for name, value in row.items()} for row in rows]


def dimensions_of(table: Table) -> tuple[str, ...]:
    """Return the dimensions of a table, in the order of its columns."""
    return tuple(table.columns)[: table.dimensions]


def plan(kind: str, question: Question, today: dt.date, *, trend: bool = False) -> Plan:
    """Return how the `question` about the subject `kind` is answered when it is asked `today`.

    With `trend` the answer has how each group went, where its rows are sums over several days.
    UsageError says which dimensions there are, or what is wrong with a period.
    """
    subject = SUBJECTS[kind]
    wanted = subject.by if question.by is None else tuple(question.by)
    filters = tuple(_filter(subject, text) for text in question.where)
    table, exact = _table_for(kind, subject, wanted, [one.dimension for one in filters])
    start, end = _range(question, today, table)
    floor = question.floor if kind == "crowd" else None
    if question.compare and floor is not None:
        raise UsageError("a crowd is compared with nothing; it has --from and --to")
    if question.compare and {"day", "month"} & set(wanted):
        raise UsageError("--compare takes a --by without day and month, such as --by location")
    if question.compare and start is None:
        raise UsageError("--compare needs --from, such as --from last-week")
    text = question.sort
    order = None if text is None else Order(text.removeprefix("-"), text.startswith("-"))
    return Plan(
        table, wanted, exact and floor is None, start, end, filters, order, question.limit,
        question.compare, floor, trend and _has_trend(table, wanted, floor),
    )  # fmt: skip


def _has_trend(table: Table, by: tuple[str, ...], floor: int | None) -> bool:
    return floor is None and not table.monthly and not {"day", "month"} & set(by)


def gather(house: Deployment, chosen: Plan) -> Report:
    """Return the rows that `chosen` asks for, from the partitions in its range only."""
    periods_in = periods_of(house, chosen.table, chosen.first, chosen.last)
    data, trend = _rows(house, chosen, periods_in)
    before = None
    if chosen.compare and periods_in:
        before = _span_before(chosen, periods_in)
        first, last = (_of_table(day, chosen.table) for day in (before.first, before.last))
        earlier = periods_of(house, chosen.table, first, last)
        data = report_rows.compared(data, _rows(house, chosen, earlier)[0], chosen.by)
    if chosen.order is not None:
        if chosen.order.column not in data.column_names:
            names = (name for name in data.column_names if name != "histogram")
            raise UsageError(f"--sort takes one of: {', '.join(names)}; the largest first: -bytes")
        data = report_rows.ordered(data, chosen.by, chosen.order)
    limited = data if chosen.limit is None else data.slice(0, chosen.limit)
    return Report(chosen, limited, periods_in, data.num_rows, before, trend)


def _rows(
    house: Deployment, chosen: Plan, periods_in: tuple[str, ...]
) -> tuple[pa.Table, Trend | None]:
    """Return the rows, in order, and the trend of each where one is asked for."""
    table, where = chosen.table, chosen.where
    if chosen.exact:
        data = scan.read_columns(house.tables, table.name, periods_in, list(table.columns), where)
        if chosen.by != dimensions_of(table):
            data = report_rows.ordered(data, chosen.by)
        if chosen.order is not None and chosen.order.column == report_rows.SUCCESS_PERCENT:
            data = report_rows.with_success_percent(data)
        return data, None
    if chosen.floor is not None:
        found = scan.crowds(house.tables, periods_in, chosen.by, chosen.floor, where)
        return report_rows.crowds(found, chosen.by), None
    measures = report_rows.summable(table)
    steps = trends.steps(periods_in) if chosen.trend else None
    try:
        found = scan.sums(house.tables, table.name, periods_in, chosen.by, measures, where, steps)
    except OverflowError:
        raise UsageError("a sum is beyond 64 bits: ask for fewer days") from None
    if steps is None:
        return report_rows.summed(found, chosen.by), None
    trend = trends.trend(found, chosen.by, steps, periods_in)
    return report_rows.summed(trends.total(found, chosen.by, measures), chosen.by), trend


def periods_of(
    house: Deployment, table: Table, first: str | None, last: str | None
) -> tuple[str, ...]:
    """Return the periods that `table` has from `first` to `last`, both in it, None for no end."""
    return tuple(
        period
        for period in house.tables.periods(table.name)
        if (first or "") <= period and (last is None or period <= last)
    )


def _span_before(chosen: Plan, periods_in: Sequence[str]) -> Span:
    """Return the span right before that of a plan, which ends with what there is at the latest."""
    last = min(filter(None, (chosen.last, periods_in[-1])))
    start, end = (periods.parse(text, dt.date.min) for text in (chosen.first or "", last))
    assert start is not None
    assert end is not None
    try:
        return Span(start.first, end.last).before()
    except (ValueError, OverflowError):
        raise UsageError("--compare: there is nothing before that") from None


def available(house: Deployment, table: Table) -> tuple[str, str] | None:
    """Return the first and the last period that `table` has, None if it is empty."""
    periods = house.tables.periods(table.name)
    return (periods[0], periods[-1]) if periods else None


def _table_for(
    kind: str, subject: Subject, by: tuple[str, ...], filtered: Sequence[str]
) -> tuple[Table, bool]:
    """Return the table with the dimensions `by` and those `filtered`; whether exactly these."""
    allowed = ", ".join(subject.dimensions)
    unknown = [name for name in by if name not in subject.dimensions]
    if unknown or not by:
        # What was typed is not repeated: it could be anything.
        raise UsageError(f"--by of report {kind} takes a comma-separated list of: {allowed}")
    if len(set(by)) != len(by):
        raise UsageError(f"--by names a dimension twice; each of {allowed} may be there once")
    tables = [TABLES[name] for name in subject.tables]
    needed = set(by) | set(filtered)
    for table in tables:
        if set(by) == set(dimensions_of(table)) and needed == set(by):
            return table, True
    for table in tables:
        if table.additive and needed <= {"month", *dimensions_of(table)}:
            return table, False
    together = "; or ".join(
        ", ".join(dict.fromkeys(("month", *dimensions_of(table))))
        for table in tables
        if table.additive
    )
    words = " and ".join(sorted(needed, key=subject.dimensions.index))
    raise UsageError(f"no table has {words} together; --by and --where take some of: {together}")


def _filter(subject: Subject, text: str) -> Filter:
    """Return the filter that `text` spells, such as country=DE,AT or asn!=other."""
    name, equals, values = text.partition("=")
    without = name.endswith("!")
    dimension = name.removesuffix("!").strip()
    allowed = [one for one in subject.dimensions if one not in ("day", "month")]
    if not equals or dimension not in allowed or not values.strip():
        example = f"{allowed[0]}=NAME" if allowed else ""
        raise UsageError(
            f"--where takes {example}, several NAMEs with commas between, != for"
            f" all others; of: {', '.join(allowed)}"
        )
    found = {_stored(dimension, one.strip()) for one in values.split(",") if one.strip()}
    return Filter(dimension, frozenset(found), without)


def _stored(dimension: str, value: str) -> str:
    """Return a value as the tables have it."""
    if dimension == "asn":
        words = {OTHER: str(OTHER_ASN), "unknown": "0"}
        return words.get(value.lower(), value.upper().removeprefix("AS"))
    return value.upper() if dimension == "country" and len(value) == 2 else value


def _range(question: Question, today: dt.date, table: Table) -> tuple[str | None, str | None]:
    """Return the first and the last period that are meant, None where there is no bound."""
    start = end = None
    if question.first is not None:
        span = _span(question.first, "--from", today)
        start = _of_table(span.first, table)
        if question.last is None and question.first.lower() in periods.WHOLE:
            end = _of_table(span.last, table)
    if question.last is not None:
        end = _of_table(_span(question.last, "--to", today).last, table)
    if start and end and start > end:
        raise UsageError(f"--from {start} is after --to {end}")
    return start, end


def span_of(first: str | None, last: str | None, today: dt.date) -> Span | None:
    """Return the days from `first` to `last` as they were typed on `today`, None for neither.

    UsageError for what names no day, or the wrong order.
    """
    if first is None and last is None:
        return None
    start, end = _range(Question(first=first, last=last), today, TABLES["usage_daily"])
    return Span(
        dt.date.fromisoformat(start) if start else dt.date.min,
        dt.date.fromisoformat(end) if end else today,
    )


def _span(text: str, option: str, today: dt.date) -> Span:
    span = periods.parse(text, today)
    if span is None:
        raise UsageError(
            f"{option} takes a day such as 2026-10-05 or a month such as 2026-10,"
            f" or one of: {', '.join(periods.NAMES)}"
        )
    return span


def _of_table(day: dt.date, table: Table) -> str:
    """Return the period of `table` that `day` lies in."""
    return month_of(day) if table.monthly else day.isoformat()
