"""When a job is due: as a plain search through the calendar finds it, in UTC on every host."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs import times
from jobs.table import JOBS

from .test_calendar import taken

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# From one leap day to the next; none that must also be a Sunday: such lines are refused.
LONGEST_DAYS = 8 * 366 + 1
ZONES = ("Europe/Berlin", "America/St_Johns", "Pacific/Apia", "UTC")
# An hour before, within and after each switch of 2026 in Berlin and St. John's.
SWITCHES = ("2026-03-08T05:30", "2026-03-29T01:00", "2026-10-25T01:00", "2026-11-01T04:30")

instants = st.timedeltas(dt.timedelta(0), dt.timedelta(days=7 * 365)).map(
    lambda since: dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + since
)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def numbers(field: str, least: int, most: int, names: tuple[str, ...] = ()) -> set[int]:
    """Read a field of a cron line one number at a time, the plain way."""
    found = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        ends = [names.index(end) + least if end in names else end for end in (first, last or first)]
        low, high = (least, most) if span == "*" else (int(ends[0]), int(ends[1]))
        found |= {n for n in range(low, high + 1) if (n - low) % int(step or 1) == 0}
    return found


def searched(line: str, now: dt.datetime) -> dt.datetime | None:
    """Return the first minute from `now` on that `line` names: every minute of each day in turn."""
    minute, hour, day, month, weekday = line.split()
    minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
    days, months = numbers(day, 1, 31), numbers(month, 1, 12, MONTHS)
    weekdays = numbers(weekday, 0, 6, DAYS)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(LONGEST_DAYS):
        one = midnight + dt.timedelta(days=offset)
        if one.day not in days or one.month not in months or one.weekday() not in weekdays:
            continue
        for number in range(24 * 60):
            moment = one + dt.timedelta(minutes=number)
            if moment >= now and moment.hour in hours and moment.minute in minutes:
                return moment
    return None


@contextlib.contextmanager
def host_in(zone: str) -> Iterator[None]:
    """Let this process believe that it is in `zone`."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@settings(max_examples=150, deadline=None)
@given(taken, instants)
@example("0 0 29 2 *", at("2028-02-29T00:00:01"))
@example("20 0 * * *", at("2026-12-31T23:59:59"))
def test_the_next_due_time_is_what_a_plain_search_finds(line: str, now: dt.datetime) -> None:
    found = times.next_due(line, now)
    assert found == searched(line, now), line
    assert found is not None
    assert found >= now
    assert found.utcoffset() == dt.timedelta(0)


@settings(max_examples=60, deadline=None)
@given(taken, instants, st.integers(-14 * 60, 14 * 60))
def test_the_zone_of_the_instant_changes_nothing(line: str, now: dt.datetime, offset: int) -> None:
    elsewhere = now.astimezone(dt.timezone(dt.timedelta(minutes=offset)))
    assert times.next_due(line, elsewhere) == times.next_due(line, now)


@settings(max_examples=60, deadline=None)
@given(taken, instants, st.sampled_from(ZONES))
def test_the_zone_of_the_host_changes_nothing(line: str, now: dt.datetime, zone: str) -> None:
    with host_in("UTC"):
        expected = times.next_due(line, now), times.patience(line)
    with host_in(zone):
        assert (times.next_due(line, now), times.patience(line)) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_no_run_is_skipped_or_doubled_when_the_host_s_clocks_change(
    zone: str, switch: str, job: times.Job
) -> None:
    """A day whose wall clock has 23 or 25 hours has as many runs as any other."""
    moment = at(switch) - dt.timedelta(hours=24)
    end, found = moment + dt.timedelta(hours=48), []
    with host_in(zone):
        while (due := times.next_due(job.cron, moment)) is not None and due < end:
            found.append(due)
            moment = due + dt.timedelta(seconds=1)
    usual = {"ingest": 576, "mail": 288, "month-end": 48}
    assert len(found) == usual.get(job.name, 2)
    gaps = {after - before for before, after in itertools.pairwise(found)}
    assert len(gaps) == 1


@pytest.mark.parametrize(
    ("line", "now", "due"),
    [
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:01", "2032-02-29T00:00"),
        ("20 0 * * *", "2028-02-28T00:21", "2028-02-29T00:20"),
        ("20 0 * * *", "2027-02-28T00:21", "2027-03-01T00:20"),
        ("0 6 31 * *", "2026-09-01T00:00", "2026-10-31T06:00"),
        ("0 6 31 * *", "2027-01-31T06:01", "2027-03-31T06:00"),
        ("0 6 30 2,4 *", "2027-01-01T00:00", "2027-04-30T06:00"),
        ("40 * * * *", "2026-12-31T23:41", "2027-01-01T00:40"),
        ("0 0 1 * *", "2026-11-30T23:59:59.999999", "2026-12-01T00:00"),
        ("0 0 * * mon", "2026-10-31T12:00", "2026-11-02T00:00"),
        ("0 0 * * sun", "2026-10-26T00:00", "2026-11-01T00:00"),
        ("*/15 * * * *", "2026-10-31T23:45:00.000001", "2026-11-01T00:00"),
    ],
)
def test_leap_days_and_month_ends(line: str, now: str, due: str) -> None:
    assert times.next_due(line, at(now)) == at(due)


def test_a_day_that_never_comes_is_never_due() -> None:
    assert times.next_due("0 0 31 2 *", at("2026-01-01")) is None


def test_the_jobs_that_are_off_are_left_out_and_the_order_stays() -> None:
    assert [(one.job.name, one.cron) for one in times.planned({})] == [
        (job.name, job.cron) for job in JOBS
    ]
    chosen = times.planned({"doctor": "off", "ingest": "1 2 3 4 *", "mail": "off"})
    assert [one.job.name for one in chosen] == ["ingest", "daily", "month-end", "checkpoint"]
    assert [one.cron for one in chosen][:2] == ["1 2 3 4 *", JOBS[1].cron]
    assert times.planned({job.name: times.OFF for job in JOBS}) == ()


@pytest.mark.parametrize(
    ("line", "hours"),
    [("*/5 * * * *", 1 + 1 / 12), ("40 * * * *", 2), ("20 0 * * *", 48), ("0 0 * * mon", 14 * 24)],
)
def test_patience_is_twice_the_time_between_two_runs_and_an_hour_more_at_least(
    line: str, hours: float
) -> None:
    assert times.patience(line) == dt.timedelta(hours=hours)


@settings(max_examples=100, deadline=None)
@given(taken, instants)
@example("*/5 8-17 * * mon-fri", at("2026-10-10T12:00"))
@example("* 0-5 * * *", at("2026-10-10T00:00"))
@example("0 3 1 1 *", at("2026-10-10T12:00"))
def test_patience_outlasts_the_wait_for_the_next_run(line: str, now: dt.datetime) -> None:
    """A job that ran at every time it was due is never missed."""
    last = times.next_due(line, now)
    assert last is not None
    due = times.next_due(line, last + dt.timedelta(minutes=1))
    assert due is not None
    wait = due - last
    # Asked at any instant of the wait, as the jobs that run in it do.
    for moment in (last, last + wait / 2, due - dt.timedelta(seconds=1)):
        assert times.patience(line) >= wait, (line, moment)
