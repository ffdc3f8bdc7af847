"""`aggregator report capacity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregator.pipeline.capacity import Capacity

_FORMATS = ("table", "json", "csv", "md", "parquet")
_EPILOG = """\b
Examples:
  aggregator report capacity --limit 10
  aggregator report capacity --server-mbits 800 --sort -servers_needed
  aggregator report capacity --ahead 180 --where location=de-fra,us-nyc --format json
\b
The forecast is of a mean day in the week that ends --ahead days after the last closed one: a line
through the last 13 weeks, of which 80 % of the same forecasts made for past weeks were within low
and high (forecast_tests says how many there were; 0: too few, so a model's error is taken). peak
is what the busiest day of such a week may come to. A server's Mbit/s are the mean of its peak day
to come; an evening has two or three times as much. other is never forecast: what is in it changes.
"""


@command("capacity", epilog=_EPILOG)
@click.option("--from", "first", metavar="DAY", help="First day that is shown.  [default: 90d]")
@click.option("--to", "last", metavar="DAY", help="Last day that is shown, and forecast from.")
@click.option("--where", metavar="location=NAMES", multiple=True, help="Only these locations.")
@click.option("--sort", metavar="COLUMN", help="Put in this order; -COLUMN: the largest first.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first so many rows.")
@click.option(
    "--ahead",
    type=click.IntRange(7, 730),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="Forecast so many days after the last one.",
)
@click.option(
    "--server-mbits",
    type=click.FloatRange(1, 1_000_000),
    metavar="MBITS",
    help="What a server carries as the mean of a day, in Mbit/s: tells how many are needed.",
)
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Default: table.")
@click.option("--out", metavar="FILE", help="Write to this file instead of standard output.")
def capacity_command(
    said: Globals, ahead: int, server_mbits: float | None, format_: str | None, out: str | None,
    **asked: Any,
) -> None:  # fmt: skip
    """Show where a server is needed: peak days, growth, what a user takes, a forecast.

    That whose servers have the most to carry comes first.
    """
    from aggregator.cli import output, report_table
    from aggregator.cli.formats import FORMATS
    from aggregator.cli.report import chosen_format
    from aggregator.pipeline import capacity
    from aggregator.pipeline.report import Question

    chosen = chosen_format(said, format_, out)
    question = Question(
        None, asked["first"], asked["last"], asked["where"], asked["sort"], asked["limit"]
    )
    found = capacity.gather(said.read(), capacity.Wish(question, ahead, server_mbits))
    notes: list[str] = []
    if chosen == "table":
        shown = report_table.without_empty(found.report)
        data, notes = report_table.as_table(shown, to_file=out not in (None, "-"))
    else:
        data = FORMATS[chosen](found.report)
    output.put(data, out)
    for line in (*_footer(found, ahead), *notes):
        show.words(said, line)


def _footer(found: Capacity, ahead: int) -> list[str]:
    report, every = found.report, found.every
    if every is None:
        return ["no closed day is in that time: aggregator rollup closes a day"]
    mean, peak = (show.size(every[name]) for name in ("mean_bytes", "peak_bytes"))
    lines = [
        f"{report.periods[0]} to {report.periods[-1]}: {show.counted(report.found, 'location')};"
        f" together {mean} on a mean day, {peak} on {every['peak_day']}"
    ]
    if every.get("forecast_bytes") is not None:
        lines.append(_forecast(every, ahead))
    else:
        lines.append("a forecast needs six weeks of closed days")
    if report.data.num_rows and not any(report.data["servers"].to_pylist()):
        lines.append("no agent is enrolled for these: what a server carries is not known")
    return lines


def _forecast(row: Mapping[str, Any], ahead: int) -> str:
    low, high = (show.size(row[f"forecast_{end}_bytes"]) for end in ("low", "high"))
    return (
        f"together in {ahead} days: {show.size(row['forecast_bytes'])} on a mean day, 80 % between"
        f" {low} and {high}; {row['growth_percent']:+.1f} % in 30 days"
    )
