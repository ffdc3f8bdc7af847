"""`aggregator report`."""

from __future__ import annotations

import datetime as dt
import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, global_options, take_globals, wall_clock
from aggregator.cli.report_ways import FORMATS, Way, deliver, way_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.pipeline.report import Question

# kind: what it is, what --by takes, examples.
_KINDS: Final = {
    "usage": (
        "Users and bytes by day and location.",
        "month, day, location",
        ("--from 2026-10-01 --to 2026-10-07", "--by month,location --format csv",
         "--by location --from last-month --compare --sort -change_percent --limit 10",
         "--by day --from 30d --format png --out usage.png"),
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
    "mail": (
        "What became of the mails about fair use: sent, delayed, failed, withheld (CS-10).",
        "month, rule, percent, audience",
        ("--by audience --from ytd", "--by month,audience --format csv"),
    ),
    "rejections": (
        "Rejected records by arrival day and reason; no value of any record is kept.",
        "month, day, location, agent_build, schema, reason, field, json_type",
        ("--by reason,field", "--from 2026-10-05 --format json"),
    ),
}  # fmt: skip

# Those with a module of their own, loaded only when they run.
_MODULES: Final = {
    "health": ("report_health", "What is wrong: silent agents, frozen counters, lag, late bytes."),
    "capacity": ("report_capacity", "Peak days, growth, forecast: where a server is needed."),
    "site": ("report_site", "Pages for people, that work from disk and offline."),
    "metrics": (
        "report_metrics",
        "The aggregates as OpenMetrics text, for Prometheus and Grafana.",
    ),
}

_EPILOG = """\b
Examples:
  aggregator report usage --from 2026-10-01 --to 2026-10-07
  aggregator report connections --by day --format csv --out connections.csv
  aggregator report apps --by month,app
  aggregator report capacity --limit 10
  aggregator report rejections --by reason,field --json
"""


class _Reports(click.Group):
    """The reports of `_KINDS`, and those of `_MODULES`, which are loaded late."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *_MODULES]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return super().get_command(context, name)
        module = importlib.import_module(f"aggregator.cli.{_MODULES[name][0]}")
        found: click.Command = getattr(module, f"{name}_command")
        return found

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = {name: about for name, (about, *_) in _KINDS.items()}
        with formatter.section("Commands"):
            formatter.write_dl([*rows.items(), *((n, about) for n, (_, about) in _MODULES.items())])


@click.group("report", cls=_Reports, epilog=_EPILOG)
@global_options
@click.pass_context
def report_command(context: click.Context, /, **values: Any) -> None:
    """Read the published tables: as a table, a picture, or for other programs.

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
    @_question_options(dimensions)
    @way_options(FORMATS)
    def run(
        said: Globals,
        first: str | None,
        last: str | None,
        by: str | None,
        where: tuple[str, ...],
        compare: bool,
        sort: str | None,
        limit: int | None,
        floor: int | None = None,
        **asked: Any,
    ) -> None:
        from aggregator.pipeline.report import Question
        from aggregator.pipeline.report_rows import CROWD_FLOOR

        names = None if by is None else [name.strip() for name in by.split(",")]
        floor = floor or CROWD_FLOOR
        question = Question(names, first, last, where, sort, limit, compare, floor)
        deliver(
            said,
            asked,
            lambda way: _report(said, kind, question, way),
            lambda to: _mail(said, kind, question, to),
        )

    if kind == "crowd":
        run = click.option(
            "--floor",
            type=click.IntRange(1),
            metavar="N",
            help="From how many users on it is a crowd.  [default: 1000]",
        )(run)
    return run


def _question_options(dimensions: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds the options that say what is asked."""
    options = (
        click.option("--from", "first", metavar="DAY", help="First day, or month, of the report."),
        click.option("--to", "last", metavar="DAY", help="Last day, or month, which is in it."),
        click.option("--by", metavar="LIST", help=f"Group by any of: {dimensions}."),
        click.option(
            "--where",
            metavar="NAME=VALUES",
            multiple=True,
            help="Only rows with one of these values, commas between; != for all others.",
        ),
        click.option(
            "--compare",
            is_flag=True,
            help="Beside it the time right before, as long, and the change.",
        ),
        click.option(
            "--sort", metavar="COLUMN", help="Put in this order; -COLUMN has the largest first."
        ),
        click.option(
            "--limit", type=click.IntRange(1), metavar="N", help="Only the first so many rows."
        ),
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


for _kind in _KINDS:
    report_command.add_command(_kind_command(_kind))


def _report(said: Globals, kind: str, question: Question, way: Way) -> None:
    from aggregator.cli import formats, output, report_table
    from aggregator.pipeline import report

    plan = report.plan(kind, question, _today(said), trend=way.is_table)
    house = said.read()
    answer = report.gather(house, plan)
    notes: list[str] = []
    if way.is_table:
        data, notes = report_table.as_table(answer, to_file=way.to_file)
    else:
        data = formats.FORMATS[way.format](answer)
    output.put(data, way.out)
    for line in (*report_table.footer(house, answer), *notes):
        show.words(said, line)
    if house.profile.k < 2:  # even with --quiet: whoever reads the report must know
        print(
            "warning: this profile publishes cells of fewer than 2 users"
            f" (release.k = {house.profile.k})",
            file=sys.stderr,
        )


def _mail(said: Globals, kind: str, question: Question, to: Sequence[str]) -> None:
    from aggregator.cli import report_mail, report_table
    from aggregator.cli.picture import as_png
    from aggregator.pipeline import report

    house = said.read()
    answer = report.gather(house, report.plan(kind, question, _today(said), trend=True))
    letter = report_mail.Letter(
        kind,
        report_mail.title(kind, answer),
        answer,
        report_table.footer(house, answer),
        as_png(answer) if answer.data.num_rows else None,
    )
    report_mail.send(house, letter, to)


def _today(said: Globals) -> dt.date:
    return (said.now or wall_clock()).date()
