"""How a deployment does, as findings: its inbox, rejections, days, tables and jobs.

Of agents and locations see `health_agents`. Every number of a location is one that was published.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from aggregator.model.runs import Run

LAG: Final = dt.timedelta(hours=24)
LONG_LAG: Final = dt.timedelta(hours=48)
USUAL_DAYS: Final = 7
MANY_TIMES: Final = 2
FEW_RECORDS: Final = 10
MUCH_LATE_PERCENT: Final = 1.0
FEW_NAMED_PERCENT: Final = 50.0


class State(enum.StrEnum):
    """How a check came out, the worst first."""

    PROBLEM = "problem"
    WARNING = "warning"
    OK = "ok"


class Check(enum.StrEnum):
    """What a finding is about, the most urgent first."""

    DOOR = "door"
    SILENT = "silent_agent"
    FROZEN = "frozen_counters"
    LAG = "lag"
    JOB = "job"
    WAITING = "waiting_batches"
    NEVER_HEARD = "never_heard"
    NO_RECORDS = "no_records"
    OLD_RECORDS = "old_records"
    REFUSED = "refused_batches"
    REJECTED = "rejections"
    CLOSED = "closed_days"
    LATE = "late_bytes"
    WITHHELD = "withheld_days"
    NAMED = "named_users"
    NEW = "not_heard_yet"
    HEARD = "heard"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one check found of its subject, since which day, and what to do about it.

    `subject` is an agent, a location, a reason, a table or a job, "" for the whole deployment.
    """

    check: str
    subject: str
    state: State
    since: str | None
    what: str
    remedy: str = ""


_WHY_WAITING: Final = {
    "unknown_agent": (State.WARNING, "their agent is not enrolled", "run: aggregator agent enrol"),
    "no_key": (
        State.PROBLEM, "the key that they are sealed to is not here",
        "restore the key set; without it they go with their month",
    ),
    "clock": (
        State.WARNING, "the clock is in doubt, or behind",
        "check the time; if it is right: aggregator ingest --confirm-clock",
    ),
    "unreadable": (
        State.PROBLEM, "they cannot be read", "see who owns the files in inbox/, and the disk"
    ),
}  # fmt: skip


def inbox(
    batches: int, waiting: Mapping[str, int], refused: Mapping[str, Mapping[str, int]], today: str
) -> Iterator[Finding]:
    """Yield why batches wait, and why some were refused on the last days, as drains noted it."""
    for reason, count in sorted(waiting.items()):
        usual = (State.WARNING, reason.replace("_", " "), "see: aggregator doctor")
        state, why, remedy = _WHY_WAITING.get(reason, usual)
        if batches:  # else they were purged, or taken away, since
            what = f"{counted(count, 'batch', 'batches')} in the inbox: {why}"
            yield Finding(Check.WAITING, reason, state, None, what, remedy)
    fresh = batches - sum(waiting.values())
    if fresh > 0 or not batches:
        what = f"{counted(max(fresh, 0), 'batch', 'batches')} wait for the next ingest"
        yield Finding(Check.WAITING, "", State.OK, None, what)
    yield from _refused(refused, today)


def _refused(refused: Mapping[str, Mapping[str, int]], today: str) -> Iterator[Finding]:
    recent = {day: counts for day, counts in refused.items() if _age(day, today) <= USUAL_DAYS}
    for reason in sorted({reason for counts in recent.values() for reason in counts}):
        days = [day for day in sorted(recent) if reason in recent[day]]
        count = sum(recent[day][reason] for day in days)
        what = (
            f"{counted(count, 'batch', 'batches')} refused and removed, the last on {days[-1]}:"
            f" {reason.replace('_', ' ')}"
        )
        yield Finding(
            Check.REFUSED, reason, State.WARNING, days[0], what, "see: aggregator agent list"
        )
    if not recent:
        what = f"no batch was refused in {USUAL_DAYS} days"
        yield Finding(Check.REFUSED, "", State.OK, None, what)


def rejections(by_day: Mapping[str, Mapping[str, int]], today: str) -> Iterator[Finding]:
    """Yield the reasons for which more was rejected on the last day than is usual.

    `by_day` has records by arrival day and reason; the usual is the mean of the 7 days before.
    """
    last = max((day for day in by_day if day <= today), default=None)
    if last is None or _age(last, today) > 1:
        what = f"no record was rejected since {last}" if last else "no record was ever rejected"
        yield Finding(Check.REJECTED, "", State.OK, None, what)
        return
    before = [counts for day, counts in by_day.items() if 0 < _age(day, last) <= USUAL_DAYS]
    for reason, count in sorted(by_day[last].items()):
        usual = sum(counts.get(reason, 0) for counts in before) / USUAL_DAYS
        many = count >= FEW_RECORDS and count > MANY_TIMES * usual
        what = (
            f"{counted(count, 'record')} rejected on {last}, usually {usual:,.0f} a day:"
            f" {reason.replace('_', ' ')}"
        )
        remedy = f"see: aggregator report rejections --by reason,field,agent_build --from {last}"
        state = State.WARNING if many else State.OK
        since = last if many else None
        yield Finding(Check.REJECTED, reason, state, since, what, remedy if many else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """What came after its day was closed: of a published row; `late` None may not be told."""

    month: str
    location: str
    total: int
    late: int | None

    @property
    def percent(self) -> float:
        """Its share of the location's bytes of the month."""
        return 100 * (self.late or 0) / self.total if self.total else 0.0


def late_bytes(rows: Sequence[Late]) -> Iterator[Finding]:
    """Yield the locations of which much came late in the last purged months, by their worst."""
    worst: dict[str, Late] = {}
    for row in rows:
        if row.location not in worst or row.percent > worst[row.location].percent:
            worst[row.location] = row
    much = [row for row in worst.values() if row.percent >= MUCH_LATE_PERCENT]
    for row in sorted(much, key=lambda row: (-row.percent, row.location)):
        yield Finding(
            Check.LATE, row.location, State.WARNING, f"{row.month}-01",
            f"{row.percent:.1f} % of its bytes in {row.month} came after their day was closed",
            "see why its agents deliver late; grace.day_hours in the profile says how long is good",
        )  # fmt: skip
    if not much:
        untold = sum(1 for row in rows if row.late is None)
        hidden = f"; {counted(untold, 'row')} may not be told" if untold else ""
        what = f"below {MUCH_LATE_PERCENT:.0f} % of any location's bytes{hidden}"
        yield Finding(Check.LATE, "", State.OK, None, what if rows else "no month is purged yet")


def lag(due: Sequence[str], behind: dt.timedelta) -> Finding:
    """Return how long closing is behind, of the days `due`, oldest first."""
    if behind <= LAG:
        what = (
            f"{counted(len(due), 'day')} due, for {span_text(behind)}" if due else "no day is due"
        )
        return Finding(Check.LAG, "", State.OK, due[0] if due else None, what)
    state = State.PROBLEM if behind > LONG_LAG else State.WARNING
    what = f"{counted(len(due), 'day')} to be closed, due for {span_text(behind)}"
    return Finding(Check.LAG, "", state, due[0], what, "run: aggregator run daily")


def closed(last: str | None, expected: str, due: Sequence[str]) -> Finding:
    """Return whether the last closed day is the one that is to be `expected` by now."""
    if last is None:
        return Finding(Check.CLOSED, "", State.OK, None, "no day is closed yet")
    if last >= expected or due:
        return Finding(Check.CLOSED, "", State.OK, None, f"the last closed day is {last}")
    missing = dt.date.fromisoformat(last) + dt.timedelta(days=1)
    what = f"no counter came in for the days after {last}, the last closed one"
    return Finding(
        Check.CLOSED, "", State.WARNING, missing.isoformat(), what,
        "see the agents, and the job ingest: aggregator status",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Closing:
    """What one table of one closed day says of itself."""

    day: str
    table: str
    users: int
    named_users: int
    withheld: bool


def released(closings: Iterable[Closing]) -> Iterator[Finding]:
    """Yield the tables of which days are withheld, or whose users are mostly in no named cell."""
    tables: dict[str, list[Closing]] = {}
    for one in closings:
        tables.setdefault(one.table, []).append(one)
    for table, rows in sorted(tables.items()):
        days = sorted(row.day for row in rows if row.withheld)
        if days:
            yield Finding(
                Check.WITHHELD, table, State.WARNING, days[0],
                f"{len(days)} of {counted(len(rows), 'day')} withheld, the last {days[-1]}",
                "its users are too few for any cell: regions in the profile put locations together",
            )  # fmt: skip
        yield from _named(table, rows)
    if not any(row.withheld for rows in tables.values() for row in rows):
        yield Finding(Check.WITHHELD, "", State.OK, None, "no closed day is withheld")


def _named(table: str, rows: Sequence[Closing]) -> Iterator[Finding]:
    users = sum(row.users for row in rows)
    if not users:
        return
    percent = 100 * sum(row.named_users for row in rows) / users
    first, what = min(row.day for row in rows), f"{percent:.1f} % of users in named cells"
    if percent >= FEW_NAMED_PERCENT:
        yield Finding(Check.NAMED, table, State.OK, None, f"{what} since {first}")
        return
    remedy = "regions in the profile say more than the cell other"
    yield Finding(Check.NAMED, table, State.WARNING, first, what, remedy)


def jobs(runs: Iterable[Run], switched_off: Collection[str]) -> Iterator[Finding]:
    """Yield the jobs whose last run failed; one that is switched off is nobody's concern."""
    failed = [run for run in runs if run.failures and run.job not in switched_off]
    for run in failed:
        since = run.failing_since or run.began_at
        times = "" if run.failures == 1 else f", {run.failures} times in a row"
        yield Finding(
            Check.JOB, run.job, State.PROBLEM, f"{since:%Y-%m-%d}",
            f"failed{times} (exit {run.exit_code}): {run.problem}",
            f"mend it, then run: aggregator run {run.job}",
        )  # fmt: skip
    if not failed:
        yield Finding(Check.JOB, "", State.OK, None, "no job failed")


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings as an operator reads them: the worst first, then what lasts longest."""
    states, checks = list(State), [check.value for check in Check]

    def place(one: Finding) -> tuple[int, int, str, str]:
        check = checks.index(one.check) if one.check in checks else -1
        return states.index(one.state), check, one.since or "9999", one.subject

    return sorted(findings, key=place)


def counted(number: int, what: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def span_text(span: dt.timedelta) -> str:
    """Return how long something lasts, for people."""
    hours = int(span.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h"


def _age(day: str, today: str) -> int:
    return (dt.date.fromisoformat(today) - dt.date.fromisoformat(day)).days
