"""`aggregator report health`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any, Final

import click

from aggregator.cli import grid, show
from aggregator.cli.options import Globals, command
from aggregator.cli.report_ways import Way, deliver, way_options

if TYPE_CHECKING:
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.report import Report
    from aggregator.rules.health import Finding

_FORMATS: Final = ("table", "json", "csv", "md")
_COLUMNS: Final = ("state", "check", "subject", "since", "what", "remedy")
_HEADS: Final = ("state", "check", "of", "since", "what was found", "what to do")
_NARROW: Final = 4
"""The columns before the texts; their cells are never broken."""
_FIRST_TO_GO: Final = (3, 1)
"""Of the narrow columns, on a narrow terminal: since, then check."""
_BELOW: Final = "found, and what to do"
_GAP: Final = "  "
_WIDE_TEXT: Final = 40
_LEAST_TEXT: Final = 24
_SHOWN_OF_ONE: Final = 8
_EPILOG = """\b
Examples:
  aggregator report health
  aggregator report health --all --format md --out health.md
  aggregator report health --watch 300
  aggregator report health --json | jq -r '.[] | select(.state == "problem") | .subject'
\b
An agent asks for keys every hour, with users or without; it is silent when it was not heard for
27 h. Contacts are noted to the hour. frozen counters: connections succeed at a location, as many as
a cell needs users, and no user's counter moves there, which did in the 7 days before. The exit code
says nothing of what is found.
"""


@command("health", epilog=_EPILOG)
@click.option("--all", "everything", is_flag=True, help="Also what is well.")
@way_options(_FORMATS)
def health_command(said: Globals, everything: bool, **asked: Any) -> None:
    """Show what is wrong, the worst first: agents, counters, rejections, late bytes, lag.

    Silent agents, frozen counters, batches that wait or were refused, records rejected more than is
    usual, bytes that came late, days and jobs that are behind, days withheld.
    """
    from aggregator.pipeline import health

    def tell(way: Way) -> None:
        from aggregator.cli import formats, output

        findings = _findings(said.read())
        shown = _shown(findings, everything=everything)
        if way.is_table:
            width = grid.FILE_WIDTH if way.to_file else grid.width_of_output()
            lines = _table(shown, width, everything=everything)
            data = "".join(f"{line}\n" for line in lines).encode()
        else:
            data = formats.FORMATS[way.format](_report(shown))
        output.put(data, way.out)
        show.words(said, health.summary(findings))

    def mail(to: Sequence[str]) -> None:
        from aggregator.cli import report_mail

        house = said.read()
        findings = _findings(house)
        title = f"health: {health.summary(findings)}"
        answer = _report(_shown(findings, everything=everything))
        report_mail.send(house, report_mail.Letter("health", title, answer, ()), to)

    deliver(said, asked, tell, mail)


def _findings(house: Deployment) -> list[Finding]:
    from aggregator.pipeline import health
    from aggregator.rules.health import ordered

    return ordered([*health.gather(house), *_of_jobs(house)])


def _shown(findings: Sequence[Finding], *, everything: bool) -> list[Finding]:
    from aggregator.rules.health import State

    return [one for one in findings if everything or one.state is not State.OK]


def _of_jobs(house: Deployment) -> Iterator[Finding]:
    """Yield the troubles that jobs tell of and that are found nowhere else."""
    from aggregator.model.runs import Trouble
    from aggregator.rules.health import Finding, State
    from jobs import watch

    found_already = (Trouble.JOB_FAILED, Trouble.DAYS_LATE, Trouble.AGENTS_SILENT)
    for one in watch.look(house)[2]:
        if one.trouble not in found_already:
            subject, since = one.key.partition(":")[2], f"{one.since:%Y-%m-%d}"
            trouble = one.trouble.value
            yield Finding(trouble, subject, State.PROBLEM, since, one.what, one.remedy)


def _table(findings: Sequence[Finding], width: int, *, everything: bool) -> list[str]:
    """Return the lines of a table for people; of many findings of a kind only the first."""
    rows: list[tuple[str, ...]] = []
    for (state, check), alike in groupby(findings, key=lambda one: (one.state, one.check)):
        several = list(alike)
        kept = several if everything else several[:_SHOWN_OF_ONE]
        loud = state.value.upper() if state.value == "problem" else state.value
        name = check.replace("_", " ")
        told = ""
        for one in kept:
            remedy = "" if one.remedy == told else one.remedy  # of several alike, said once
            told = one.remedy
            rows.append((loud, name, one.subject, one.since or "", one.what, remedy))
        if len(several) > len(kept):
            rows.append((loud, name, "", "", f"and {len(several) - len(kept):,} more: --all", ""))
    return _lines(rows, width) if rows else []


def _lines(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return rows as lines no longer than `width`: what to do beside what was found, or below."""
    kept, widths = _kept(rows, width)
    left = max(_LEAST_TEXT, width - sum(widths) - len(_GAP) * len(widths))
    is_wide = left >= 2 * _WIDE_TEXT
    texts = [left]
    if is_wide:
        longest = max(len(_HEADS[_NARROW]), *(len(row[_NARROW]) for row in rows))
        first = min(longest, left // 2)
        texts = [first, left - len(_GAP) - first]
    names = _HEADS[_NARROW:] if is_wide else (_BELOW,)
    columns = [*widths, *texts]
    rule = "─" * (sum(columns) + len(_GAP) * (len(columns) - 1))
    made = [_placed([*(_HEADS[column] for column in kept), *names], columns), rule]
    for row in rows:
        found, remedy = row[_NARROW:]
        below = textwrap.wrap(remedy, texts[-1], initial_indent="" if is_wide else "→ ")
        blocks = [textwrap.wrap(found, texts[0]), below]
        if not is_wide:
            blocks = [[line for block in blocks for line in block]]
        cells = [[row[column]] for column in kept]
        made += [_placed(line, columns) for line in zip_longest(*cells, *blocks, fillvalue="")]
    return made


def _kept(rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """Return which of the narrow columns there is room for beside the texts, and their widths."""
    kept = list(range(_NARROW))
    sizes = [max(len(_HEADS[i]), *(len(row[i]) for row in rows)) for i in kept]
    for column in _FIRST_TO_GO:
        if sum(sizes[i] + len(_GAP) for i in kept) + _LEAST_TEXT <= width:
            break
        kept.remove(column)
    return kept, [sizes[i] for i in kept]


def _placed(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=True)).rstrip()


def _report(findings: Sequence[Finding]) -> Report:
    """Return findings as a report, for the formats that programs read."""
    import pyarrow as pa

    from aggregator.model.tables import TABLES
    from aggregator.pipeline.report import Plan, Report

    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    rows = [{name: getattr(one, name) for name in _COLUMNS} for one in findings]
    data = pa.Table.from_pylist(rows, schema=schema)
    plan = Plan(TABLES["closings_daily"], _COLUMNS, exact=False, first=None, last=None)
    return Report(plan, data, (), data.num_rows)
