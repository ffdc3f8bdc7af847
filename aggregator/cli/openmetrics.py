"""A report as OpenMetrics text: gauges with its dimensions as labels, for Prometheus and Grafana.

A row of a day has the timestamp of the day's end, so that `promtool tsdb create-blocks-from
openmetrics` takes years in; sums over several days have none, as node exporter's text files need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from aggregator.model.days import end_of_day, end_of_month

if TYPE_CHECKING:
    import pyarrow as pa
    from prometheus_client.core import GaugeMetricFamily

    from aggregator.model.tables import Table
    from aggregator.pipeline.report import Report

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TIME: Final = ("day", "month")
_ABOUT: Final = {
    "users": "Users.",
    "user_days": "Users, added up over days and cells.",
    "bytes": "Bytes, both directions added.",
    "attempts": "Connection attempts.",
    "successes": "Connection attempts that succeeded.",
    "success_percent": "Share of attempts that succeeded, in percent.",
}


def as_openmetrics(*reports: Report, dated: bool = True) -> bytes:
    """Return the measures of reports as gauges; a value that is not told has no sample.

    Reports of one day that are not `dated` have no timestamps.
    """
    from prometheus_client.openmetrics.exposition import generate_latest
    from prometheus_client.registry import Collector, CollectorRegistry

    class Rows(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            for report in reports:
                yield from _families(report, dated=dated)

        def describe(self) -> Sequence[GaugeMetricFamily]:
            return ()  # else it would collect once for nothing

    registry = CollectorRegistry()
    registry.register(Rows())
    written: bytes = generate_latest(registry)  # type: ignore[no-untyped-call] # has no annotations
    return written


def _families(report: Report, *, dated: bool) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    by = report.plan.by
    labels = [name for name in by if name not in _TIME]
    data = _in_order(report.data, labels, by)
    times = _timestamps(data, by if dated else ())
    keys = list(zip(*(_texts(data[name]) for name in labels), strict=True)) or [()] * data.num_rows
    for name in _measures(data, by):
        family = GaugeMetricFamily(
            f"aggregator_{_subject(report.plan.table)}_{name}",
            _ABOUT.get(name, f"{name.replace('_', ' ').capitalize()}."),
            labels=labels,
        )
        for key, at, value in zip(keys, times, data[name].to_pylist(), strict=True):
            if value is not None:
                family.add_metric(key, value, timestamp=at)
        yield family


def _in_order(data: pa.Table, labels: Sequence[str], by: Sequence[str]) -> pa.Table:
    """Return the rows of each series together, in the order of time, as OpenMetrics wants it."""
    from aggregator.pipeline.report_rows import ordered, with_success_percent

    return ordered(with_success_percent(data), [*labels, *(name for name in by if name in _TIME)])


def _measures(data: pa.Table, by: Sequence[str]) -> list[str]:
    import pyarrow as pa

    types = dict(zip(data.column_names, data.schema.types, strict=True))
    return [
        name
        for name, kind in types.items()
        if name not in by and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
    ]


def _timestamps(data: pa.Table, by: Sequence[str]) -> list[int | None]:
    """Return when each row's time ended, in seconds since 1970; None for no time of its own."""
    if "day" in by:
        return [int(end_of_day(day).timestamp()) for day in data["day"].to_pylist()]
    if "month" in by:
        return [int(end_of_month(month).timestamp()) for month in data["month"].to_pylist()]
    return [None] * data.num_rows


def _texts(column: pa.ChunkedArray) -> list[str]:
    values: list[Any] = column.to_pylist()
    return [str(value) for value in values]


def _subject(table: Table) -> str:
    return table.name.removesuffix("_daily")
