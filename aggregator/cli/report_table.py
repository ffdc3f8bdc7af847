"""A report as people read it: the table that fits its terminal, and the words beneath it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aggregator.cli import show

if TYPE_CHECKING:
    from aggregator.cli.grid import Column
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.report import Report
    from aggregator.pipeline.trends import Trend

# What is left out first where a terminal is narrow; the others stay.
_PRIORITY: Final = {
    "histogram": 9, "forecast_tests": 9, "p99_bytes": 8, "p90_bytes": 7, "late_bytes": 6,
    "p50_bytes": 5, "mean_users": 5, "peak_day": 5, "peak_bytes": 4, "servers_needed": 2,
    "forecast_low_bytes": 3, "forecast_high_bytes": 3, "trend": 4, "bar": 3,
    "successes": 6, "attempts_before": 5, "bytes_before": 5, "user_days": 2,
    "success_percent_before": 2,
}  # fmt: skip
# Rows up to which histograms are drawn, and up to which a terminal shows all: beyond, nobody looks
# at each.
_DRAWN_ROWS: Final = 2000
_MOST_ROWS: Final = 2000


def as_table(answer: Report, *, to_file: bool) -> tuple[bytes, list[str]]:
    """Return the table as text, and notes on what is drawn in it and what is left out of it."""
    from aggregator.cli import grid

    if not answer.data.num_rows:
        return b"", []
    notes = []
    if answer.data.num_rows > _MOST_ROWS and sys.stdout.isatty() and not to_file:
        answer, note = _few(answer)
        notes.append(note)
    width = grid.FILE_WIDTH if to_file else grid.width_of_output()
    columns, left_out = grid.fit(columns_of(answer), width)
    header, *rest = grid.lines(columns, width)
    if not to_file:
        header = grid.bold(header)
    text = "".join(f"{line}\n" for line in (header, *rest))
    return text.encode(), [*notes, *_table_notes(answer, left_out)]


def _few(answer: Report) -> tuple[Report, str]:
    """Return a report with as many rows as somebody may look at, and what is said of that."""
    count = answer.data.num_rows
    start, which = (0, "first") if answer.plan.order else (count - _MOST_ROWS, "last")
    few = dataclasses.replace(answer, data=answer.data.slice(start, _MOST_ROWS))
    note = f"a terminal shows the {which} {_MOST_ROWS:,} of {count:,} rows; see --from, --by, --out"
    return few, note


def sliced(answer: Report, rows: int) -> Report:
    """Return a report with no more than the first so many rows."""
    return dataclasses.replace(answer, data=answer.data.slice(0, rows))


def without_empty(answer: Report) -> Report:
    """Return a report without the columns in which nothing is told."""
    data = answer.data
    told = [name for name in data.column_names if data[name].null_count < data.num_rows]
    return dataclasses.replace(answer, data=data.select(told))


def columns_of(answer: Report) -> list[Column]:
    """Return the columns of a report, as people read them."""
    from aggregator.cli.formats import dimension_text
    from aggregator.cli.grid import Column
    from aggregator.pipeline import report_rows

    data = report_rows.with_success_percent(answer.data)
    if data.num_rows > _DRAWN_ROWS and "histogram" in data.column_names:
        data = data.drop_columns(["histogram"])
    has_measures = len(data.column_names) > len(answer.plan.by)
    main = report_rows.main_measure(data) if has_measures else None
    columns = []
    for name in data.column_names:
        values = data[name].to_pylist()
        is_ordered_by = answer.plan.order is not None and answer.plan.order.column == name
        priority = 0 if is_ordered_by else _PRIORITY.get(name, 0)
        if name in answer.plan.by:
            texts = {value: dimension_text(name, value) for value in set(values)}
            cells = [texts[value] for value in values]
            columns.append(Column(name, cells, right=name == "asn"))
        elif name == "histogram":
            columns.append(Column(name, _sparks(values), priority=priority))
        else:
            texts = {value: number_text(name, value) for value in set(values)}
            cells = [texts[value] for value in values]
            columns.append(Column(_title(name), cells, True, priority))
        if name == main:
            drawn = [value or 0 for value in values]
            columns.append(Column("", (), priority=_PRIORITY["bar"], bar_of=drawn))
    if answer.trend is not None:
        columns.append(Column("trend", _trend_texts(answer), priority=_PRIORITY["trend"]))
    return columns


def _title(name: str) -> str:
    if name == "success_change_points":
        return "± points"
    return name.removesuffix("_bytes").replace("_percent", " %").replace("_", " ")


def _trend_texts(answer: Report) -> list[str]:
    """Return a spark line a row: from near its own least, or in the range of all success rates."""
    from aggregator.cli.chart import spark

    assert answer.trend is not None
    keys = zip(*(answer.data[name].to_pylist() for name in answer.plan.by), strict=True)
    rows = [answer.trend.values.get(key, ()) for key in keys]
    if not answer.trend.is_percent:
        return [spark(_from_low([value or 0.0 for value in row])) for row in rows]
    told = [value for row in rows for value in row if value is not None]
    low = min(told, default=0.0) - 1.0  # so that the lowest is seen
    return [
        spark([0.0 if value is None else value - low for value in row], 100.0 - low) for row in rows
    ]


def _from_low(values: Sequence[float]) -> Sequence[float]:
    """Return values less what they all share, but as much as they differ: changes are seen."""
    if not values:
        return values
    low = max(0.0, 2 * min(values) - max(values))
    return [value - low for value in values]


def number_text(name: str, value: float | dt.date | None) -> str:
    """Return a measure's value for people, "-" for none told."""
    if value is None:
        return show.size(None)
    if isinstance(value, dt.date):
        return value.isoformat()
    if name in ("bytes", "bytes_before") or name.endswith("_bytes"):
        return show.size(int(value))
    if name in ("change_percent", "success_change_points"):
        return f"{value:+.1f}"
    if name == "success_percent_before":
        return f"{value:.1f}"
    return f"{value:.1f}" if name.endswith("_percent") else f"{value:,}"


def _sparks(histograms: Sequence[list[dict[str, int]]]) -> list[str]:
    from aggregator.cli.chart import spark
    from aggregator.cli.formats import edges_of

    edges = edges_of(histograms)
    users = [
        {bucket["from_bytes"]: bucket["users"] for bucket in histogram} for histogram in histograms
    ]
    return [spark([one.get(edge, 0) for edge in edges]) for one in users]


def footer(house: Deployment, answer: Report) -> list[str]:
    """Return what a reader should know of the rows, in lines for stderr."""
    plan, count = answer.plan, answer.data.num_rows
    if not count:
        return [_nothing(house, answer)]
    first, last = answer.periods[0], answer.periods[-1]
    between = first if first == last else f"{first} to {last}"
    rows = f"{count:,} {'row' if count == 1 else 'rows'}"
    if answer.found > count:
        rows = f"the first {count:,} of {answer.found:,} rows"
    lines = [f"{between}: {rows} of {plan.table.name}"]
    if answer.before is not None:
        lines.append(f"compared with {answer.before.first} to {answer.before.last}")
    if _has_other(answer):
        lines.append(
            f"other: cells that may not be named (fewer than {house.profile.k} users, or one user"
            " weighs too much), added up"
        )
    if plan.floor is not None:
        cells, below = (sum(answer.data[name].to_pylist()) for name in ("cells", "cells_below"))
        lines.append(
            f"fewer than {plan.floor:,} users (CS-4): {below:,} of {cells:,} cells of a day"
        )
    if "user_days" in answer.data.column_names:
        lines.append("user_days: a user counts once for every day and cell")
    if not plan.table.additive and plan.last is None:
        days = house.tables.periods("usage_daily")
        if days and days[-1][:7] > last:
            lines.append(f"{days[-1][:7]} is not purged yet; --by month adds up its closed days")
    return lines


def _table_notes(answer: Report, left_out: Sequence[str]) -> list[str]:
    lines = []
    if "histogram" in answer.data.column_names and "histogram" not in left_out:
        lines += _axis(answer)
    if answer.trend is not None and "trend" not in left_out:
        lines.append(_trend_note(answer.trend))
    names = [name for name in left_out if name]
    if names:
        lines.append(f"too narrow for {', '.join(names)}; --format csv has every column")
    return lines


def _trend_note(trend: Trend) -> str:
    what = {"success_percent": "success %"}.get(trend.measure, trend.measure)
    each = "a day each" if trend.days == 1 else f"about {trend.days} days each"
    return f"trend: {what} over that time, {each}, not from zero"


def _has_other(answer: Report) -> bool:
    if answer.plan.table.name in ("rejections_daily", "notices_monthly"):
        return False
    columns = [answer.data[name] for name in answer.plan.by if name not in ("day", "month")]
    return any({"other", -1} & set(column.unique().to_pylist()) for column in columns)


def _axis(answer: Report) -> list[str]:
    from aggregator.cli.formats import edges_of

    if answer.data.num_rows > _DRAWN_ROWS:
        return []
    edges = edges_of(answer.data["histogram"].to_pylist())
    if len(edges) < 2:
        return []
    return [f"histogram: users by bytes, {show.size(edges[0])} to {show.size(edges[-1])}"]


def _nothing(house: Deployment, answer: Report) -> str:
    from aggregator.pipeline.report import available

    table = answer.plan.table
    there = available(house, table)
    if there is None and table.name == "rejections_daily":
        return "no record was ever rejected"
    if there is None and table.name == "notices_monthly":
        return "no notice was ever queued: aggregator fairuse check shows who passes a rule"
    if there is None and table.monthly:
        return "no month is purged yet: its purge writes a month's table; try --by day,location"
    if there is None:
        return "no day is closed yet: aggregator rollup closes a day when its grace is over"
    start = f" from {answer.plan.first}" if answer.plan.first else ""
    end = f" to {answer.plan.last}" if answer.plan.last else ""
    return f"no rows{start}{end}; {table.name} has {there[0]} to {there[1]}"
