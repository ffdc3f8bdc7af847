"""What `aggregator demo` says: one method an act, in words that need no manual."""

from __future__ import annotations

import datetime as dt
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregator.cli import chart, grid, show
from aggregator.model.days import instant
from aggregator.model.tables import OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.demo.daemons import DaemonsRead, SourceRead
    from aggregator.demo.story import After, Before, Days, FairUse, Story

_WIDTH: Final = 88
_INDENT: Final = "  "


class Teller:
    """Prints the acts of a story on stdout, each as soon as it is over."""

    def __init__(self, story: Story) -> None:
        """Tell `story`, no wider than the terminal."""
        self.story = story
        self.width = min(grid.width_of_output(), _WIDTH)
        self._acts = self._checks = 0

    def opening(self) -> None:
        """Say what is going to be shown."""
        self._say(
            "From VPN daemons' counters to tables without a person in them, and to the month end"
            " that destroys the counters: 40 days in one go, every claim checked.",
            indent="",
        )

    def daemons(self, told: DaemonsRead) -> None:
        """Show a client field by field, and both daemons' counters becoming totals."""
        self._act("What a VPN daemon says, and what is kept of it")
        self._say(
            "One client in the status file of an OpenVPN 2.6 server (captured on a test network):"
        )
        self._table(
            grid.Column("field", [one.name for one in told.client]),
            grid.Column("value", [one.value for one in told.client]),
            grid.Column("what becomes of it", [one.fate for one in told.client]),
        )
        self._say(
            "Four readings each of two real servers; in brackets the sessions, where there are"
            " several. A counter that falls was restarted: what it had counted stays in the total."
            " The first reading is only the baseline, since it may have been charged before."
        )
        self._readings([(source, name) for source in told.sources for name in source.shown])
        unmapped = sum(source.dropped.get("unmapped", 0) for source in told.sources)
        self._say(
            f"WireGuard names its peers by key; the server's own list makes them accounts, and"
            f" {unmapped} readings of keys that are not on it were dropped. An account that moved"
            " nothing sends nothing."
        )
        self._show_checks()

    def days(self, days: Days) -> None:
        """Tell of the forty days, and what was refused in them."""
        from aggregator.demo.fleet import ACCOUNTS, FIRST_DAY, LAST_DAY, PLACES, REPORTS_A_DAY
        from aggregator.demo.junk import WORDS

        self._act(f"{(LAST_DAY - FIRST_DAY).days + 1} days of a fleet, night by night")
        self._say(
            f"{ACCOUNTS:,} made-up accounts use {len(PLACES)} locations from {_long(FIRST_DAY)} to"
            f" {_long(LAST_DAY)}. Their servers send running totals {REPORTS_A_DAY} times a day,"
            f" {days.restarts} of them restart on the way, and {days.repeats:,} records come twice"
            " or a day late: none of it changes a total. Every night the jobs of `aggregator run`"
            " close the day whose grace of 24 hours is over, and purge a month when it is due."
        )
        facts = [
            ("records accepted", f"{days.accepted:,}"),
            ("records rejected", f"{days.reasons.total():,}"),
            ("days closed", f"{len(days.closed)}, {days.closed[0]} to {days.closed[-1]}"),
            *((f"purge of {month}", f"ran by itself at {at}") for month, at in days.purged.items()),
        ]
        self._facts(facts)
        self._say("Rejected records leave nothing behind but these counts:")
        reasons = days.reasons.most_common()
        self._table(
            grid.Column("reason", [reason for reason, _ in reasons]),
            grid.Column("records", [f"{count:,}" for _, count in reasons], right=True),
            grid.Column("what it was", [WORDS.get(reason, "") for reason, _ in reasons]),
        )
        self._show_checks()

    def reports(self, days: Days) -> None:
        """Show what may be published: a day, the month in charts, connections, what was folded."""
        self._act("What may be published")
        last = days.closed[-1]
        self._say(f"`aggregator report usage` of {last}, the last day closed:")
        rows = self._rows("usage", ("day", "location"), last, last)
        self._table(
            grid.Column("location", [row["location"] for row in rows]),
            grid.Column("users", [f"{row['users']:,}" for row in rows], right=True),
            grid.Column("bytes", [show.size(row["bytes"]) for row in rows], right=True),
            *(
                grid.Column(name, [show.size(row[column]) for row in rows], right=True)
                for name, column in (("median user", "p50_bytes"), ("90th percent", "p90_bytes"))
            ),
        )
        self._folding(days)
        self._charts(days)
        self._apps(last)

    def fair_use(self, told: FairUse) -> None:
        """Show what the support desk is told of the one user who takes very much."""
        from aggregator.demo.story import MONTH

        self._act("Whether one user takes more than many others together")
        self._say(
            f"The rule of this profile: a user whose month outweighs {told.outweighs} others. Of"
            f" {told.users:,} users in {MONTH} it finds {told.told}; the support desk is told:"
        )
        for sentence in told.sentences:
            self._say(sentence, indent=_INDENT * 2)
        self._say(
            "Who that is, the operator's own directory says when the mail is sent. The notice is"
            " sealed with the month's key, queued once, and goes with it; here is no mail server,"
            " so it waits."
        )
        self._show_checks()

    def before(self, found: Before) -> None:
        """Tell what a search sees while the month's key is there."""
        from aggregator.demo.fleet import PLANTED
        from aggregator.demo.story import MONTH
        from aggregator.pipeline.search import What

        self._act(f"A search for {len(PLANTED)} accounts, before the purge of {MONTH}")
        self._say(
            "They are looked for in every file: as text, UTF-16, hexadecimal and base64, in"
            " decoded Parquet, and by pseudonym in every sealed file that a key here opens."
            " A search is worth something only if it can find:"
        )
        home = found.home
        pseudonyms = len(home.files_with(What.PSEUDONYM))
        keys = ", ".join(home.files_with(What.SECRET))
        self._facts(
            [
                (
                    "in what servers sent",
                    f"{_of(found.delivered.names)}, in {len(found.delivered.files_with(What.NAME))}"
                    f" of {found.delivered.files} files",
                ),
                ("in the home, as names", f"{_of(home.names)} in {home.files} files"),
                (
                    "in the home, with the key",
                    f"{_of(home.pseudonyms)}, in {pseudonyms} of {home.opened} sealed files",
                ),
                (f"the key of {MONTH}", f"in {keys or 'no file'}"),
            ]
        )
        self._show_checks()

    def after(self, told: After) -> None:
        """Show the receipt, the same search again, and a record that comes too late."""
        from aggregator.demo.story import CONTROL, MONTH
        from aggregator.pipeline.search import What, Where

        self._act(f"Month end: {MONTH} is purged")
        self._receipt(told.receipt)
        home, refused = told.home, ", ".join(told.late_reasons)
        self._say(
            "The same search again, with all that could have been noted before: names, pseudonyms,"
            " and the key itself."
        )
        controls = len(told.control.files_with(What.NAME, Where.DECODED))
        raw = len(told.control.files_with(What.NAME, Where.BYTES))
        self._facts(
            [
                (
                    "names",
                    f"{_of(home.names)} in {home.files} files, {home.decoded} of them decoded",
                ),
                ("pseudonyms", f"{_of(home.pseudonyms)}, {home.opened} sealed files opened"),
                ("the key", "not found" if not home.secrets else "FOUND"),
                (
                    "control",
                    f"{CONTROL}, a location, is found in {controls} tables"
                    + (f" ({raw} without decoding)" if raw < controls else ""),
                ),
                ("tables", f"{told.tables} as before, byte for byte; {len(told.added)} added"),
                ("a late record", f"refused: {refused}" if refused else "ACCEPTED"),
            ]
        )
        self._say(
            f"The {home.opened} sealed files that still open are of the month that goes on: the"
            " accounts looked for left before it began."
        )
        self._show_checks()

    def closing(self, kept: Path | None) -> None:
        """Say what was seen, and what to try next."""
        checks = self.story.checks
        held = sum(check.holds for check in checks)
        print(grid.bold(f"{held} of {len(checks)} checks hold."))
        self._say(
            "You saw accounts become pseudonyms on arrival, days become tables that name no crowd"
            " below 10 users, and a month's counters end with their key.",
            indent="",
        )
        home = "usage" if kept is None else shlex.quote(str(kept))
        print("Next, with your own data:" if kept is None else f"Next, in {home}:")
        for line in _next(home, kept is not None, instant(self.story.now)):
            print(f"{_INDENT}{line}")
        sys.stdout.flush()

    def _readings(self, rows: Sequence[tuple[SourceRead, str]]) -> None:
        from aggregator.demo.daemons import MOMENTS

        totals = {
            (record.location, record.user): record.bytes
            for source, _ in rows
            for record in source.records
        }
        cells = [[_reading(source.shown[name][at]) for source, name in rows] for at in range(4)]
        self._table(
            grid.Column("daemon", [source.source for source, _ in rows], priority=1),
            grid.Column("account", [name for _, name in rows]),
            *(
                grid.Column(moment, cell, right=True)
                for moment, cell in zip(MOMENTS, cells, strict=True)
            ),
            grid.Column(
                "total",
                [show.size(totals.get((source.location, name))) for source, name in rows],
                right=True,
            ),
        )

    def _folding(self, days: Days) -> None:
        k = self.story.read().profile.k
        folded = ", ".join(f"{place} on {count}" for place, count in days.folded.most_common())
        self._say(
            f"A cell needs {k} users, and none with more than half of its bytes. What falls short"
            f" is folded into `{OTHER}`, and the next smallest with it until the rest passes too,"
            f" so that totals stay exact: of {len(days.closed)} days, {folded}."
            f" {100 * days.named_users / days.users:.1f} % of all user-days are in cells with a"
            f" name. A percentile is left out where fewer than {k} users lie above it."
        )

    def _charts(self, days: Days) -> None:
        from aggregator.demo.story import MONTH

        room = self.width - len(_INDENT)
        daily = self._rows("usage", ("day",), days.closed[0], days.closed[-1])
        self._say("Traffic a day, all locations:")
        points = [(str(row["day"]), float(row["bytes"])) for row in daily]
        self._lines(chart.series(points, width=room, unit=_size, height=6))
        self._say(f"Traffic by location, {MONTH}:")
        places = self._rows("usage", ("location",), MONTH, MONTH)
        bars = sorted(((row["location"], float(row["bytes"])) for row in places), key=_largest)
        self._lines(chart.bars(bars, width=room, unit=_size))

    def _apps(self, last: str) -> None:
        self._say(f"Connections that succeeded, by app version, {last} (no user in it at all):")
        rows = self._rows("apps", ("day", "app", "version"), last, last)
        self._table(
            grid.Column("app", [row["app"] for row in rows]),
            grid.Column("version", [row["version"] for row in rows]),
            grid.Column("attempts", [f"{row['attempts']:,}" for row in rows], right=True),
            grid.Column("succeeded", [_percent(row) for row in rows], right=True),
        )
        worst = min(rows, key=lambda row: row["successes"] / row["attempts"])
        self._say(
            f"{worst['app']} {worst['version']} fails most: a broken release shows without anyone"
            " being watched."
        )

    def _receipt(self, receipt: Any) -> None:
        gone = receipt["destroyed"]
        self._facts(
            [
                ("due", receipt["due_at"]),
                ("purged", receipt["purged_at"]),
                ("tables verified", "yes" if receipt["verified"] else "NO"),
                (
                    "destroyed",
                    f"{gone['key_sets']} key set, then {gone['segments']} sealed segments",
                ),
                ("receipt", f"audit/receipt-purge-{receipt['month']}.json"),
            ]
        )

    def _rows(self, kind: str, by: tuple[str, ...], first: str, last: str) -> list[dict[str, Any]]:
        from aggregator.pipeline import report

        return report.gather(
            self.story.read(), report.plan(kind, report.Question(by, first, last), dt.date.min)
        ).rows()

    def _act(self, title: str) -> None:
        self._acts += 1
        print(f"{grid.bold(f'{self._acts} · {title}')}\n")

    def _say(self, text: str, indent: str = _INDENT) -> None:
        lines = textwrap.wrap(
            text, self.width - len(indent), break_on_hyphens=False, break_long_words=False
        )
        self._lines(lines, indent)

    def _lines(self, lines: Sequence[str], indent: str = _INDENT) -> None:
        print("\n".join(f"{indent}{line}".rstrip() for line in lines), end="\n\n", flush=True)

    def _table(self, *columns: grid.Column) -> None:
        kept, _ = grid.fit(columns, self.width - len(_INDENT))
        self._lines(grid.lines(kept, self.width - len(_INDENT)))

    def _facts(self, facts: Sequence[tuple[str, str]]) -> None:
        wide = max(len(name) for name, _ in facts)
        self._lines([f"{name:<{wide}}  {value}" for name, value in facts])

    def _show_checks(self) -> None:
        new = self.story.checks[self._checks :]
        self._checks = len(self.story.checks)
        self._lines([f"{'✓' if check.holds else '✗ FAILED:'} {check.claim}" for check in new])


def _next(home: str, is_kept: bool, now: str) -> list[str]:
    if is_kept:
        return [
            f"aggregator --home {home} report usage --by month,location",
            f"aggregator --home {home} --now {now} report site --out usage-site",
            f"aggregator --home {home} audit verify",
            f"aggregator --home {home} --now {now} ingest YOUR.ndjson",
        ]
    return [
        "aggregator demo --home rehearsal        (again, to look around in it)",
        "wg show wg0 transfer | aggregator-agent read --source wireguard -",
        f"aggregator --home {home} init",
        f"aggregator --home {home} ingest YOUR.ndjson",
    ]


def _of(count: int) -> str:
    from aggregator.demo.fleet import PLANTED

    return f"{count} of {len(PLANTED)}"


def _reading(shown: tuple[int, int] | None) -> str:
    sessions, total = shown or (1, None)
    return show.size(total) if sessions == 1 else f"{show.size(total)} ({sessions})"


def _size(count: float) -> str:
    return show.size(round(count))


def _largest(row: tuple[str, float]) -> tuple[bool, float]:
    return row[0] == OTHER, -row[1]


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['successes'] / row['attempts']:.1f} %"


def _long(day: dt.date) -> str:
    return f"{day.day} {day:%B %Y}"
