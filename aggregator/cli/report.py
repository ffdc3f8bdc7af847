"""`aggregator report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, global_options, take_globals, wall_clock
from aggregator.errors import UsageError

if TYPE_CHECKING:
    from aggregator.cli.grid import Column
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.report import Question, Report

_FORMATS: Final = ("table", "json", "csv", "md", "parquet")
# What is left out first where a terminal is narrow; the others stay.
_PRIORITY: Final = {
    "histogram": 9, "p99_bytes": 8, "p90_bytes": 7, "late_bytes": 6, "p50_bytes": 5, "bar": 3,
}  # fmt: skip
# Rows up to which histograms are drawn: beyond, nobody looks at each.
_DRAWN_ROWS: Final = 2000

# kind: what it is, what --by takes, examples.
_KINDS: Final = {
    "usage": (
        "Users and bytes by day and location.",
        "month, day, location",
        ("--from 2026-10-01 --to 2026-10-07", "--by month,location --format csv",
         "--by location --from last-month --compare --sort -change_percent --limit 10"),
    ),
    "connections": (
        "Users, attempts and successes by day, location and country, or by ISP.",
        "month, day, location, country; or month, day, asn",
        ("--by day --from last-week", "--by asn --where country=DE --from 2026-10-01",
         "--by location --where country=DE --from monday --compare --sort success_change_points"),
    ),
    "apps": (
        "Users, attempts and successes by day, app and version.",
        "month, day, app, version",
        ("--by app,version --from 2026-10", "--by version --where app=android --from 30d",
         "--by month,app --format json"),
    ),
    "crowd": (
        "How many users share a location on a day: the crowd that each of them is one of.",
        "month, day, location",
        ("--from last-month --sort least_users", "--by day,location --where location=is-rey",
         "--floor 500 --format json"),
    ),
    "fair-use": (
        "Fair-use notices by month, rule, step and audience, and what became of them: counts.",
        "month, rule, percent, audience",
        ("--by month", "--by rule,audience --from 2026-01", "--format json"),
    ),
    "rejections": (
        "Rejected records by arrival day and reason; no value of any record is kept.",
        "month, day, location, agent_build, schema, reason, field, json_type",
        ("--by reason,field", "--from 2026-10-05 --format json"),
    ),
}  # fmt: skip

_EPILOG = """\b
Examples:
  aggregator report usage --from 2026-10-01 --to 2026-10-07
  aggregator report connections --by day --format csv --out connections.csv
  aggregator report apps --by month,app
  aggregator report fair-use --by month
  aggregator report rejections --by reason,field --json
"""


@click.group("report", epilog=_EPILOG)
@global_options
@click.pass_context
def report_command(context: click.Context, /, **values: Any) -> None:
    """Read the published tables: as a table, JSON, CSV, Markdown or Parquet.

    A grouping coarser than a table's own adds its cells up. Added users are called user_days:
    a user counts once for every day and cell, since the tables do not know who was the same.

    Days may be named: yesterday, monday (the last one), 7d, this-week, last-week, mtd (this month
    so far), last-month, ytd, last-year.
    """
    context.obj = take_globals(context, values)


def _kind_command(kind: str) -> click.Command:
    summary, dimensions, examples = _KINDS[kind]
    lines = "\n".join(f"  aggregator report {kind} {example}" for example in examples)

    @command(kind, help=summary, short_help=summary, epilog=f"\b\nExamples:\n{lines}\n")
    @click.option("--from", "first", metavar="DAY", help="First day, or month, of the report.")
    @click.option("--to", "last", metavar="DAY", help="Last day, or month, which is in it.")
    @click.option("--by", metavar="LIST", help=f"Group by any of: {dimensions}.")
    @click.option(
        "--where",
        metavar="NAME=VALUES",
        multiple=True,
        help="Only rows with one of these values, commas between; != for all others.",
    )
    @click.option(
        "--compare", is_flag=True, help="Beside it the time right before, as long, and the change."
    )
    @click.option(
        "--sort", metavar="COLUMN", help="Put in this order; -COLUMN has the largest first."
    )
    @click.option(
        "--limit", type=click.IntRange(1), metavar="N", help="Only the first so many rows."
    )
    @click.option("--format", "format_", type=click.Choice(_FORMATS), help="Default: table.")
    @click.option("--out", metavar="FILE", help="Write to this file instead of standard output.")
    def run(
        said: Globals,
        first: str | None,
        last: str | None,
        by: str | None,
        where: tuple[str, ...],
        compare: bool,
        sort: str | None,
        limit: int | None,
        format_: str | None,
        out: str | None,
        floor: int | None = None,
    ) -> None:
        from aggregator.pipeline.report import Question
        from aggregator.pipeline.report_rows import CROWD_FLOOR

        names = None if by is None else [name.strip() for name in by.split(",")]
        floor = floor or CROWD_FLOOR
        question = Question(names, first, last, where, sort, limit, compare, floor)
        _report(said, kind, question, _format(said, format_, out), out)

    if kind == "crowd":
        run = click.option(
            "--floor",
            type=click.IntRange(1),
            metavar="N",
            help="From how many users on it is a crowd.  [default: 1000]",
        )(run)
    return run


for _kind in _KINDS:
    report_command.add_command(_kind_command(_kind))


def _format(said: Globals, format_: str | None, out: str | None) -> str:
    if said.json and format_ not in (None, "json"):
        raise UsageError(f"--json and --format {format_} contradict each other; give one")
    chosen = "json" if said.json else format_ or "table"
    if chosen == "parquet" and out in (None, "-") and sys.stdout.isatty():
        raise UsageError("a terminal cannot show Parquet; name a file with --out FILE, or pipe it")
    return chosen


def _report(said: Globals, kind: str, question: Question, chosen: str, out: str | None) -> None:
    from aggregator.cli.formats import FORMATS
    from aggregator.pipeline import report

    plan = report.plan(kind, question, (said.now or wall_clock()).date())
    house = said.read()
    answer = report.gather(house, plan)
    left_out: list[str] = []
    drawn = chosen == "table"
    if drawn:
        data, left_out = _as_table(answer, to_file=out not in (None, "-"))
    else:
        data = FORMATS[chosen](answer)
    _put(data, out)
    for line in (*_footer(house, answer), *(_table_notes(answer, left_out) if drawn else ())):
        show.words(said, line)
    if house.profile.k < 2:  # even with --quiet: whoever reads the report must know
        print(
            "warning: this profile publishes cells of fewer than 2 users"
            f" (release.k = {house.profile.k})",
            file=sys.stderr,
        )


def _put(data: bytes, out: str | None) -> None:
    """Write `data` to standard output or to the file `out`, which is whole or as it was."""
    from aggregator.stores import atomic

    if out in (None, "-"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(str(out)).resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe is written to, not replaced
        elif not path.parent.is_dir():
            raise UsageError("--out names a file in a folder that is not there; make it first")
        else:
            atomic.write(path, data, mode=0o666)  # what the umask leaves of it
    except OSError as error:
        raise UsageError(f"--out cannot be written: {error.strerror}") from None


def _as_table(answer: Report, *, to_file: bool) -> tuple[bytes, list[str]]:
    """Return the table as text, and the names of the columns that did not fit."""
    from aggregator.cli import grid

    if not answer.data.num_rows:
        return b"", []
    width = grid.FILE_WIDTH if to_file else grid.width_of_output()
    columns, left_out = grid.fit(_columns(answer), width)
    header, *rest = grid.lines(columns, width)
    if not to_file:
        header = grid.bold(header)
    return "".join(f"{line}\n" for line in (header, *rest)).encode(), left_out


def _columns(answer: Report) -> list[Column]:
    from aggregator.cli.formats import dimension_text
    from aggregator.cli.grid import Column
    from aggregator.pipeline import report_rows

    data = report_rows.with_success_percent(answer.data)
    if data.num_rows > _DRAWN_ROWS and "histogram" in data.column_names:
        data = data.drop_columns(["histogram"])
    main = report_rows.main_measure(data)
    columns = []
    for name in data.column_names:
        values = data[name].to_pylist()
        priority = _PRIORITY.get(name, 0)
        if name in answer.plan.by:
            cells = [dimension_text(name, value) for value in values]
            columns.append(Column(name, cells, right=name == "asn"))
        elif name == "histogram":
            columns.append(Column(name, _sparks(values), priority=priority))
        else:
            cells = [_number(name, value) for value in values]
            title = name.removesuffix("_bytes").replace("_percent", " %").replace("_", " ")
            columns.append(Column(title, cells, True, priority))
        if name == main:
            columns.append(Column("", (), priority=_PRIORITY["bar"], bar_of=values))
    return columns


def _number(name: str, value: float | None) -> str:
    if value is None:
        return show.size(None)
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


def _footer(house: Deployment, answer: Report) -> list[str]:
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
    names = [name for name in left_out if name]
    if names:
        lines.append(f"too narrow for {', '.join(names)}; --format csv has every column")
    return lines


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
