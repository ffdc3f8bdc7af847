"""`aggregator report metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command

if TYPE_CHECKING:
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.report import Report

# What is told of: the subject, and its dimensions beside the day.
_SUBJECTS: Final = (
    ("usage", ("location",)),
    ("connections", ("location", "country")),
    ("connections", ("asn",)),
    ("apps", ("app", "version")),
)
_EPILOG = """\b
Examples:
  aggregator report metrics --out /var/lib/node-exporter/vpn-usage.prom
  aggregator report metrics --from last-year --out year.om
  promtool tsdb create-blocks-from openmetrics year.om /var/lib/prometheus
\b
deploy/grafana has a dashboard that shows them.
"""


@command("metrics", epilog=_EPILOG)
@click.option("--from", "first", metavar="DAY", help="First day; each has its timestamp then.")
@click.option("--to", "last", metavar="DAY", help="Last day, which is in it.")
@click.option("--out", metavar="FILE", help="Write to this file instead of standard output.")
def metrics_command(said: Globals, first: str | None, last: str | None, out: str | None) -> None:
    """Write the aggregates as OpenMetrics text: users, bytes, connections, apps.

    Those of the last closed day, without a timestamp, as node exporter's text files have it. With
    --from every day of that time, for `promtool tsdb create-blocks-from openmetrics`.
    """
    from aggregator.cli import output
    from aggregator.cli.openmetrics import as_openmetrics

    house = said.read()
    dated = (first, last) != (None, None)
    if not dated:
        closed = house.tables.periods("closings_daily")
        first = last = closed[-1] if closed else None
    reports = list(_reports(house, first, last))
    output.put(as_openmetrics(*reports, dated=dated), out)
    periods = sorted({period for report in reports for period in report.periods})
    rows = show.counted(sum(report.data.num_rows for report in reports), "row")
    between = " to ".join(dict.fromkeys((periods[0], periods[-1]))) if periods else ""
    show.words(said, f"{between}: {rows}" if periods else "no day is closed in that time")


def _reports(house: Deployment, first: str | None, last: str | None) -> Iterator[Report]:
    from aggregator.pipeline import report

    for kind, dimensions in _SUBJECTS:
        question = report.Question(("day", *dimensions), first, last)
        yield report.gather(house, report.plan(kind, question, house.now.date()))
