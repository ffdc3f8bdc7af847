"""A job is due at the same instants whoever starts it: our scheduler, systemd, any cron."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.model import cron
from aggregator.model.cron import MONTHS, WEEKDAYS, Cron, CronError
from jobs import times
from jobs.table import JOBS
from jobs.units import calendar

START = dt.datetime(2027, 12, 30, 23, 59, 30, tzinfo=dt.UTC)
HOW_MANY = 12
LONGEST = dt.timedelta(days=9 * 366)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze (package systemd)"
)


def _range(least: int, most: int) -> st.SearchStrategy[str]:
    """Return ranges with a step or without, as the settings take them."""

    def stepped(ends: tuple[int, int]) -> st.SearchStrategy[str]:
        low, high = ends
        steps = st.integers(1, high - low).map(lambda step: f"/{step}")
        return st.one_of(st.just(""), steps).map(lambda step: f"{low}-{high}{step}")

    pairs = st.tuples(st.integers(least, most), st.integers(least, most))
    return pairs.map(sorted).filter(lambda ends: ends[0] < ends[1]).flatmap(stepped)


def _field(least: int, most: int, names: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Return what a field may be: all of it, or a list of numbers, names, ranges and steps."""
    parts = [
        st.integers(least, most).map(str),
        st.integers(least, most).map(lambda number: f"{number:02d}"),
        _range(least, most),
        st.integers(1, most - least).map(lambda step: f"*/{step}"),
    ]
    if names:
        parts += [st.sampled_from(names), st.sampled_from([name.upper() for name in names])]
    lists = st.lists(st.one_of(parts), min_size=1, max_size=4).map(",".join)
    return st.one_of(st.just("*"), lists)


_weekday_parts = st.one_of(
    st.sampled_from(WEEKDAYS),
    st.sampled_from(["mon-fri", "tue-sat", "wed-thu", "Mon-Tue"]),
)
_days_and_weekdays = st.one_of(
    st.tuples(_field(1, 31), st.just("*")),
    st.tuples(st.just("*"), st.lists(_weekday_parts, min_size=1, max_size=4).map(",".join)),
)


@st.composite
def cron_lines(draw: st.DrawFn) -> str:
    """Return lines that the settings take, with some that they do not."""
    day, weekday = draw(_days_and_weekdays)
    minute, hour, month = draw(_field(0, 59)), draw(_field(0, 23)), draw(_field(1, 12, MONTHS))
    return f"{minute} {hour} {day} {month} {weekday}"


def _taken(line: str) -> bool:
    try:
        cron.parse(line)
    except CronError:
        return False
    return True


taken = cron_lines().filter(_taken)


def ours(line: str) -> list[dt.datetime]:
    """Return the first instants at which our scheduler runs what `line` says."""
    found: list[dt.datetime] = []
    moment = START
    while len(found) < HOW_MANY and (due := times.next_due(line, moment)) is not None:
        if due > START + LONGEST:
            break
        found.append(due)
        moment = due + dt.timedelta(seconds=1)
    return found


def systemds(text: str, count: int = HOW_MANY) -> list[dt.datetime]:
    """Return the first instants of OnCalendar=`text`, as systemd itself reckons them."""
    call = ["systemd-analyze", "calendar", f"--iterations={count}"]
    since = f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC"
    zone = {**os.environ, "TZ": "America/St_Johns", "LC_ALL": "C"}
    done = subprocess.run(
        [*call, since, text], env=zone, capture_output=True, text=True, timeout=60, check=True
    )
    stamps = re.findall(r"\w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)
    moments = [dt.datetime.fromisoformat(stamp).replace(tzinfo=dt.UTC) for stamp in stamps]
    return list(dict.fromkeys(moments))


@needs_systemd
@settings(max_examples=60, deadline=None)
@given(taken)
def test_systemd_runs_a_job_at_the_scheduler_s_instants(line: str) -> None:
    expected = ours(line)
    assert expected, line
    text = calendar.on_calendar(cron.parse(line))
    assert systemds(text, len(expected)) == expected, (line, text)


@needs_systemd
@pytest.mark.parametrize(
    "line",
    [
        *(job.cron for job in JOBS),
        "0 0 29 2 *",  # leap days only
        "59 23 31 * *",
        "0,30 */7 * jan,jun sun",
        "5-9,20-50/10 1,2,3 1-7,30 * *",
        "*/59 */23 */30 */11 *",
        "* * 1-31 1-12 *",
    ],
)
def test_systemd_knows_the_times_that_are_easily_got_wrong(line: str) -> None:
    expected = ours(line)
    assert systemds(calendar.on_calendar(cron.parse(line)), len(expected)) == expected


def _crontab_sets(text: str) -> Cron:
    """Read a crontab's five fields as crontab(5) says, in our own way of counting weekdays."""
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    found = []
    for field, (least, most) in zip(text.split(" "), bounds, strict=True):
        numbers: set[int] = set()
        for part in field.split(","):
            match = re.fullmatch(r"(?:(\*)|(\d+)(?:-(\d+)(?:/(\d+))?)?)", part)
            assert match is not None, part
            low = least if match[1] else int(match[2])
            high = most if match[1] else int(match[3] or match[2])
            assert least <= low <= high <= most
            numbers |= set(range(low, high + 1, int(match[4] or 1)))
        found.append(frozenset(numbers))
    weekdays = frozenset((number - 1) % 7 for number in found[4])
    return Cron(found[0], found[1], found[2], found[3], weekdays)


@given(taken)
def test_a_crontab_says_the_same_again(line: str) -> None:
    text = calendar.crontab(cron.parse(line))
    assert _crontab_sets(text) == cron.parse(line)
    # Readers disagree on what a day and a weekday together mean.
    assert "*" in (text.split()[2], text.split()[4])


@given(taken)
def test_a_calendar_is_short_plain_and_in_utc(line: str) -> None:
    text = calendar.on_calendar(cron.parse(line))
    assert re.fullmatch(
        r"(?:[A-Z][a-z,A-Z]* )?\*-[\d.,/*]+-[\d.,/*]+ [\d.,/*]+:[\d.,/*]+:00 UTC", text
    )


def test_the_table_s_own_times_read_well() -> None:
    found = {job.name: calendar.on_calendar(cron.parse(job.cron)) for job in JOBS}
    assert found == {
        "ingest": "*-*-* *:02..57/5:00 UTC",
        "daily": "*-*-* 00:20:00 UTC",
        "mail": "*-*-* *:04..54/10:00 UTC",
        "month-end": "*-*-* *:40:00 UTC",
        "checkpoint": "*-*-* 03:40:00 UTC",
        "doctor": "*-*-* 04:50:00 UTC",
    }
    assert {calendar.crontab(cron.parse(job.cron)) for job in JOBS} == {job.cron for job in JOBS}
