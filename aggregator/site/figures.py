"""The numbers of the site, read from the published tables, each once."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from aggregator.model.tables import TABLES
from aggregator.pipeline import report
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.stores import scan

YEAR_DAYS: Final = 365
WINDOWS: Final = (7, 30)
_ONE_DAY: Final = dt.timedelta(days=1)

Outcome = tuple[int, int]
"""Attempts and successes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """The last so many days, and as many before them."""

    days: int
    now: Span
    before: Span


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """What was counted in a window, and in the time before it, by some key."""

    now: Mapping[Any, Outcome]
    before: Mapping[Any, Outcome]


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """Everything that pages tell of: `days` are all from the first to the last of `span`.

    Series by location or country have a value a day, None where nothing is told. `cross` has the
    outcomes of each window by (location, country), `isps` by autonomous system.
    """

    span: Span
    days: tuple[dt.date, ...]
    users: Mapping[str, Sequence[int | None]]
    bytes: Mapping[str, Sequence[int | None]]
    percentiles: Mapping[str, Mapping[str, int | None]]
    countries: Mapping[str, Sequence[Outcome | None]]
    apps: Mapping[tuple[str, str], Sequence[Outcome | None]]
    windows: tuple[Window, ...]
    cross: Mapping[int, Compared]
    isps: Mapping[int, Compared]
    closings: Sequence[Mapping[str, Any]]
    closed: tuple[str, ...]

    @property
    def last(self) -> dt.date:
        """The last closed day."""
        return self.span.last

    def total(self, series: Mapping[str, Sequence[int | None]]) -> list[int | None]:
        """Return what all of `series` come to, day by day; None where none is told."""
        return [added(values) for values in zip(*series.values(), strict=True)] if series else []

    def success(self) -> list[float | None]:
        """Return the share of attempts that succeeded, in percent, day by day."""
        series = zip(*self.countries.values(), strict=True) if self.countries else ()
        return [percent(summed(one for one in day if one)) for day in series]


def gather(house: Deployment, span: Span | None) -> Figures | None:
    """Return the figures of the days in `span`, else of the last year; None if none is closed."""
    closed = report.periods_of(
        house, TABLES["closings_daily"],
        str(span.first) if span else None, str(span.last) if span else None,
    )  # fmt: skip
    if not closed:
        return None
    last = dt.date.fromisoformat(closed[-1])
    earliest = dt.date.fromisoformat(closed[0])
    first = max(earliest, last - (YEAR_DAYS - 1) * _ONE_DAY) if span is None else earliest
    whole = Span(first, last)
    days = tuple(first + number * _ONE_DAY for number in range(whole.days))
    usage = _columns(house, "usage_daily", whole, ("day", "location", "users", "bytes"))
    return Figures(
        span=whole,
        days=days,
        users=_series(usage, days, "location", "users"),
        bytes=_series(usage, days, "location", "bytes"),
        percentiles=_percentiles(house, last),
        countries=_outcomes(_sums(house, "connections_daily", whole, ("day", "country")), days),
        apps=_outcomes(_sums(house, "apps_daily", whole, ("day", "app", "version")), days),
        windows=tuple(_windows(last)),
        cross={
            one.days: _compared(house, "connections_daily", one, ("location", "country"))
            for one in _windows(last)
        },
        isps={
            one.days: _compared(house, "connections_isp_daily", one, ("asn",))
            for one in _windows(last)
        },
        closings=house.tables.rows("closings_daily", closed),
        closed=closed,
    )


def added(values: Sequence[int | None]) -> int | None:
    """Return the sum of the numbers that are told, None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def summed(outcomes: Iterator[Outcome]) -> Outcome:
    """Return attempts and successes added up."""
    attempts = successes = 0
    for one in outcomes:
        attempts += one[0]
        successes += one[1]
    return attempts, successes


def one_decimal(value: float) -> float:
    """Return `value` to one decimal as the reports round it: halves to the even neighbour."""
    return round(value * 10) / 10


def percent(outcome: Outcome) -> float | None:
    """Return the share that succeeded, in percent, to one decimal; None without attempts."""
    return one_decimal(100.0 * outcome[1] / outcome[0]) if outcome[0] else None


def points(now: float | None, before: float | None) -> float | None:
    """Return the difference of two percentages, None without both."""
    return None if now is None or before is None else one_decimal(now - before)


def change(now: Sequence[int | None], before: Sequence[int | None]) -> float | None:
    """Return by how many percent the mean of a day grew, None where that says nothing.

    Where both times have as many days this is the change of the sums.
    """
    one, other = ([value for value in part if value is not None] for part in (now, before))
    base = sum(other) * len(one)
    if not base:
        return None
    return one_decimal(100.0 * (sum(one) * len(other) - base) / base)


def _windows(last: dt.date) -> Iterator[Window]:
    for days in WINDOWS:
        now = Span(last - (days - 1) * _ONE_DAY, last)
        yield Window(days, now, Span(now.first - days * _ONE_DAY, now.first - _ONE_DAY))


def _periods(house: Deployment, table: str, span: Span) -> tuple[str, ...]:
    return report.periods_of(house, TABLES[table], str(span.first), str(span.last))


def _columns(house: Deployment, table: str, span: Span, columns: Sequence[str]) -> pa.Table:
    return scan.read_columns(house.tables, table, _periods(house, table, span), columns)


def _sums(house: Deployment, table: str, span: Span, by: Sequence[str]) -> pa.Table:
    measures = ("attempts", "successes")
    return scan.sums(house.tables, table, _periods(house, table, span), by, measures)


def _series(
    found: pa.Table, days: Sequence[dt.date], key: str, measure: str
) -> dict[str, list[int | None]]:
    """Return the `measure` of each `key`, a value a day, the keys in order."""
    place = {day: number for number, day in enumerate(days)}
    series: dict[str, list[int | None]] = defaultdict(lambda: [None] * len(days))
    columns = (found[name].to_pylist() for name in ("day", key, measure))
    for day, name, value in zip(*columns, strict=True):
        series[name][place[day]] = value
    return dict(sorted(series.items()))


def _outcomes(found: pa.Table, days: Sequence[dt.date]) -> dict[Any, list[Outcome | None]]:
    """Return the outcomes of each key beside the day, one a day, the keys in order."""
    place = {day: number for number, day in enumerate(days)}
    keys = [name for name in found.column_names if name not in ("day", "attempts", "successes")]
    series: dict[Any, list[Outcome | None]] = defaultdict(lambda: [None] * len(days))
    columns = (found[name].to_pylist() for name in ("day", "attempts", "successes", *keys))
    for day, attempts, successes, *key in zip(*columns, strict=True):
        series[key[0] if len(key) == 1 else tuple(key)][place[day]] = (attempts, successes)
    return dict(sorted(series.items()))


def _compared(house: Deployment, table: str, window: Window, by: Sequence[str]) -> Compared:
    return Compared(
        *(_keyed(_sums(house, table, span, by)) for span in (window.now, window.before))
    )


def _keyed(found: pa.Table) -> dict[Any, Outcome]:
    *keys, attempts, successes = (found[name].to_pylist() for name in found.column_names)
    names = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
    return dict(zip(names, zip(attempts, successes, strict=True), strict=True))


def _percentiles(house: Deployment, day: dt.date) -> dict[str, dict[str, int | None]]:
    """Return what a user took on the last day that has usage, by location."""
    names = ("p50_bytes", "p90_bytes", "p99_bytes")
    found = _columns(house, "usage_daily", Span(day, day), ("location", *names))
    return {row["location"]: {name: row[name] for name in names} for row in found.to_pylist()}
