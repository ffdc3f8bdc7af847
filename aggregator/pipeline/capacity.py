"""How near its limits each location is: peak days, growth, what a user takes, a forecast."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.errors import IntegrityError, UsageError
from aggregator.model.tables import OTHER
from aggregator.pipeline import report, report_rows
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.report import Plan, Question, Report
from aggregator.rules import periods
from aggregator.rules.forecast import WEEK_DAYS, Forecast, forecast, known
from aggregator.stores import scan

AHEAD_DAYS: Final = 90
ALL: Final = "(all)"
"""The row of all locations together; no location can have this name."""
_SHOWN_DAYS: Final = 90
_WEEKS: Final = 104
_DAILY: Final = ("day", "location", "users", "bytes")
_PERCENTILES: Final = ("p50_bytes", "p90_bytes", "p99_bytes")
_SECONDS_A_DAY: Final = 86_400
_BITS: Final = 8 / 1_000_000

_SCHEMA: Final = pa.schema(
    [
        ("location", pa.string()),
        ("mean_users", pa.int64()),
        ("mean_bytes", pa.int64()),
        ("peak_day", pa.date32()),
        ("peak_bytes", pa.int64()),
        ("p50_bytes", pa.int64()),
        ("p90_bytes", pa.int64()),
        ("p99_bytes", pa.int64()),
        ("growth_percent", pa.float64()),
        ("forecast_bytes", pa.int64()),
        ("forecast_low_bytes", pa.int64()),
        ("forecast_high_bytes", pa.int64()),
        ("forecast_tests", pa.int64()),
        ("forecast_peak_bytes", pa.int64()),
        ("servers", pa.int64()),
        ("server_mbits", pa.float64()),
        ("servers_needed", pa.int64()),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the capacity report.

    `question` has its span, filter, order and limit; the forecast is for `ahead` days after the
    last closed day. With `server_mbits`, what a server can carry as the mean of a day in Mbit/s,
    the servers that a location needs are told.
    """

    question: Question
    ahead: int = AHEAD_DAYS
    server_mbits: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """The rows by location, and that of all together, None without a closed day."""

    report: Report
    every: Mapping[str, Any] | None


def gather(house: Deployment, wish: Wish) -> Capacity:
    """Return a row a location, that whose servers have the most to carry first.

    UsageError as by `report.plan`.
    """
    question = wish.question
    today = house.now.date()
    asked = dataclasses.replace(
        question,
        by=("location",),
        first=question.first or _first(question.last, today),
        sort=None,
        limit=None,
    )
    plan = report.plan("usage", asked, today)
    shown = report.periods_of(house, plan.table, plan.first, plan.last)
    if not shown:
        return Capacity(Report(plan, _SCHEMA.empty_table(), ()), None)
    last = dt.date.fromisoformat(shown[-1])
    by_place = _by_place(scan.read_columns(house.tables, "usage_daily", shown, _DAILY, plan.where))
    weeks = _weeks(house, plan, last)
    percentiles = _percentiles(house, shown[-1])
    servers = _servers(house)
    rows = {
        place: _row(place, days, weeks.get(place, ()), wish, servers.get(place))
        for place, days in by_place.items()
    }
    every = rows.pop(ALL)
    told = [row | percentiles.get(place, {}) for place, row in rows.items()]
    data = pa.Table.from_pylist(told, schema=_SCHEMA)
    return Capacity(_arranged(plan, data, question, shown), every)


def _first(last: str | None, today: dt.date) -> str:
    """Return the first day that is shown where none was asked for: some before the last one."""
    end = None if last is None else periods.parse(last, today)
    if end is None:
        return f"{_SHOWN_DAYS}d"
    return (end.last - dt.timedelta(days=_SHOWN_DAYS)).isoformat()


def _arranged(plan: Plan, data: pa.Table, question: Question, shown: tuple[str, ...]) -> Report:
    """Return the rows in the order asked for."""
    if question.sort is None:
        keys = [("server_mbits", "descending"), ("mean_bytes", "descending")]
        data = data.take(pc.sort_indices(data, [*keys, ("location", "ascending")]))
    else:
        order = report_rows.Order(question.sort.removeprefix("-"), question.sort.startswith("-"))
        if order.column not in data.column_names:
            raise UsageError(f"--sort takes one of: {', '.join(data.column_names)}")
        data = report_rows.ordered(data, ("location",), order)
    limited = data if question.limit is None else data.slice(0, question.limit)
    return Report(plan, limited, shown, data.num_rows)


Days = Mapping[dt.date, tuple[int, int]]
"""Users and bytes by day."""


def _by_place(found: pa.Table) -> dict[str, dict[dt.date, tuple[int, int]]]:
    """Return the days of each location, and of all added up."""
    places: dict[str, dict[dt.date, tuple[int, int]]] = {}
    every: dict[dt.date, tuple[int, int]] = {}
    columns = (found[name].to_pylist() for name in _DAILY)
    for day, place, users, size in zip(*columns, strict=True):
        places.setdefault(place, {})[day] = (users, size)
        so_far = every.get(day, (0, 0))
        every[day] = (so_far[0] + users, so_far[1] + size)
    return {ALL: every, **places}


def _weeks(house: Deployment, plan: Plan, last: dt.date) -> dict[str, list[float]]:
    """Return the mean of a day in each week up to `last`, by location, and of all added up."""
    first = last - dt.timedelta(days=_WEEKS * WEEK_DAYS - 1)
    history = report.periods_of(house, plan.table, str(first), str(last))
    steps = scan.Steps(first, WEEK_DAYS)
    found = scan.sums(
        house.tables, "usage_daily", history, ("location",), ("bytes",), plan.where, steps
    )
    places: dict[str, dict[int, tuple[int, int]]] = {ALL: {}}
    names = ("location", "step", "cells", "bytes")  # of a location, one cell a day
    for place, week, days, size in zip(*(found[name].to_pylist() for name in names), strict=True):
        places.setdefault(place, {})[week] = (days, size)
        so_far = places[ALL].get(week, (0, 0))
        places[ALL][week] = (max(days, so_far[0]), size + so_far[1])
    # What is in the remainder changes with the release rule: no forecast is made of it.
    return {place: known(weeks, _WEEKS - 1) for place, weeks in places.items() if place != OTHER}


def _percentiles(house: Deployment, day: str) -> dict[str, dict[str, Any]]:
    """Return what a user of each location took on `day`."""
    found = scan.read_columns(house.tables, "usage_daily", [day], ("location", *_PERCENTILES))
    return {
        row["location"]: {name: row[name] for name in _PERCENTILES} for row in found.to_pylist()
    }


def _row(
    place: str, days: Days, weeks: Sequence[float], wish: Wish, servers: int | None
) -> dict[str, Any]:
    """Return the row of a location."""
    most, peak = max((size, day) for day, (_, size) in days.items())
    mean = sum(size for _, size in days.values()) / len(days)
    ahead = forecast(weeks, wish.ahead)
    ratio = most / mean if mean else 1.0
    return {
        "location": place,
        "mean_users": round(sum(users for users, _ in days.values()) / len(days)),
        "mean_bytes": round(mean),
        "peak_day": peak,
        "peak_bytes": most,
        **_told(ahead, ratio),
        **_load(ahead, ratio, most, wish, servers),
    }


def _told(ahead: Forecast | None, ratio: float) -> dict[str, Any]:
    if ahead is None:
        return {}
    return {
        "growth_percent": round(100 * (ahead.growth - 1), 1),
        "forecast_bytes": _three(ahead.expected),
        "forecast_low_bytes": _three(ahead.low),
        "forecast_high_bytes": _three(ahead.high),
        "forecast_tests": ahead.tests,
        "forecast_peak_bytes": _three(ahead.expected * ratio),
    }


def _load(
    ahead: Forecast | None, ratio: float, peak: int, wish: Wish, servers: int | None
) -> dict[str, Any]:
    """Return what a server carries on a peak day to come, and how many are needed."""
    carried = peak if ahead is None else ahead.expected * ratio
    mbits = carried * _BITS / _SECONDS_A_DAY
    needed = None
    if wish.server_mbits is not None:
        # Of the upper end of the forecast: four in five to be right, and half of the rest above.
        most = min(carried if ahead is None else ahead.high * ratio, 2.0**63)
        needed = max(1, math.ceil(most * _BITS / _SECONDS_A_DAY / wish.server_mbits))
    return {
        "servers": servers,
        "server_mbits": round(mbits / servers, 1) if servers else None,
        "servers_needed": needed,
    }


def _servers(house: Deployment) -> Counter[str]:
    """Return how many agents that are not revoked report each location, and all of them."""
    servers: Counter[str] = Counter()
    for name in house.agents.ids():
        try:
            agent = house.agents.load(name)
        except IntegrityError:  # `doctor` tells of it
            continue
        if agent is not None and agent.revoked_at is None:
            servers.update(agent.locations)
            servers[ALL] += 1
    return servers


def _three(value: float) -> int:
    """Return a number of bytes to three significant digits: a forecast knows no more."""
    return min(int(float(f"{value:.3g}")), 2**63 - 1)
