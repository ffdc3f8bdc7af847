"""`aggregator report capacity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.cli.report_ways import Way, deliver, way_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aggregator.pipeline.capacity import Capacity

_FORMATS = ("table", "json", "csv", "md", "parquet", "svg", "png")
_EPILOG = """\b
Examples:
  aggregator report capacity --limit 10
  aggregator report capacity --server-mbits 800 --sort -servers_needed
  aggregator report capacity --limit 20 --mail capacity@provider.example
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
@way_options(_FORMATS)
def capacity_command(said: Globals, ahead: int, server_mbits: float | None, **asked: Any) -> None:
    """Show where a server is needed: peak days, growth, what a user takes, a forecast.

    That whose servers have the most to carry comes first.
    """
    from aggregator.pipeline import capacity
    from aggregator.pipeline.report import Question

    names = ("first", "last", "where", "sort", "limit")
    wish = capacity.Wish(Question(None, *(asked.pop(name) for name in names)), ahead, server_mbits)

    def tell(way: Way) -> None:
        from aggregator.cli import formats, output, report_table

        found = capacity.gather(said.read(), wish)
        notes: list[str] = []
        if way.is_table:
            shown = report_table.without_empty(found.report)
            data, notes = report_table.as_table(shown, to_file=way.to_file)
        else:
            data = formats.FORMATS[way.format](found.report)
        output.put(data, way.out)
        for line in (*_footer(found, ahead), *notes):
            show.words(said, line)

    def mail(to: Sequence[str]) -> None:
        from aggregator.cli import report_mail, report_table
        from aggregator.cli.picture import as_png

        house = said.read()
        found = capacity.gather(house, wish)
        answer = report_table.without_empty(found.report)
        title = report_mail.title("capacity", answer)
        picture = as_png(answer) if answer.data.num_rows else None
        report_mail.send(
            house, report_mail.Letter("capacity", title, answer, _footer(found, ahead), picture), to
        )

    deliver(said, asked, tell, mail)


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
