"""When days close and months are purged (CL-2, CV-5)."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.model.days import (
    end_of_month,
    first_day,
    instant,
    is_month,
    month_of,
    parse_day,
    parse_instant,
    start_of,
)
from aggregator.model.reasons import Reason
from aggregator.rules.calendar import Calendar, DayGate

HOUR = dt.timedelta(hours=1)
SECOND = dt.timedelta(seconds=1)
DEFAULT = Calendar(24 * HOUR, 48 * HOUR)
NO_GRACE = Calendar(0 * HOUR, 0 * HOUR)
graces = st.integers(0, 24 * 14).map(lambda hours: hours * HOUR)


def utc(text: str) -> dt.datetime:
    return parse_instant(text)


@pytest.mark.parametrize(
    ("calendar", "day", "closes", "purges"),
    [
        (DEFAULT, "2026-10-05", "2026-10-07T00:00:00Z", "2026-11-03T00:00:00Z"),
        (DEFAULT, "2026-10-31", "2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"),
        (DEFAULT, "2026-12-31", "2027-01-02T00:00:00Z", "2027-01-03T00:00:00Z"),
        (DEFAULT, "2028-02-28", "2028-03-01T00:00:00Z", "2028-03-03T00:00:00Z"),
        (DEFAULT, "2028-02-29", "2028-03-02T00:00:00Z", "2028-03-03T00:00:00Z"),
        (DEFAULT, "2027-02-28", "2027-03-02T00:00:00Z", "2027-03-03T00:00:00Z"),
        (DEFAULT, "9999-11-30", "9999-12-02T00:00:00Z", "9999-12-03T00:00:00Z"),
        (NO_GRACE, "2026-10-05", "2026-10-06T00:00:00Z", "2026-11-01T00:00:00Z"),
        (NO_GRACE, "2026-10-31", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        # A purge without grace ends a day's grace with it.
        (
            Calendar(24 * HOUR, 0 * HOUR),
            "2026-10-31",
            "2026-11-01T00:00:00Z",
            "2026-11-01T00:00:00Z",
        ),
        (Calendar(72 * HOUR, HOUR), "2026-10-29", "2026-11-01T01:00:00Z", "2026-11-01T01:00:00Z"),
    ],
)
def test_cl2_days_close_and_months_end_exactly_at(
    calendar: Calendar, day: str, closes: str, purges: str
) -> None:
    date, month = dt.date.fromisoformat(day), day[:7]
    assert instant(calendar.closes_at(date)) == closes
    assert instant(calendar.purges_at(month)) == purges
    assert calendar.is_closable(date, utc(closes))
    assert not calendar.is_closable(date, utc(closes) - SECOND)
    assert calendar.is_purgeable(month, utc(purges))
    assert not calendar.is_purgeable(month, utc(purges) - SECOND)


@given(st.dates(), graces, graces)
@example(dt.date.max, 0 * HOUR, 0 * HOUR)
@example(dt.date(9999, 12, 30), 24 * HOUR, 48 * HOUR)
@example(dt.date(9999, 12, 17), 24 * 14 * HOUR, 0 * HOUR)
@example(dt.date.min, 0 * HOUR, 0 * HOUR)
def test_cl2_no_day_closes_after_its_purge_or_before_its_end(
    day: dt.date, day_grace: dt.timedelta, purge_grace: dt.timedelta
) -> None:
    calendar = Calendar(day_grace, purge_grace)
    closes = calendar.closes_at(day)
    assert closes <= calendar.purges_at(month_of(day))
    assert closes - start_of(day) >= 24 * HOUR - dt.timedelta(microseconds=1)
    assert not calendar.is_closable(day, start_of(day))


@pytest.mark.parametrize(
    ("day", "now", "purged_through", "reason"),
    [
        ("2026-10-05", "2026-10-05T12:00:00Z", "", None),
        ("2026-10-06", "2026-10-05T22:00:00Z", "", None),
        ("2026-10-06", "2026-10-05T21:59:59Z", "", Reason.TOO_EARLY),
        ("2026-10-01", "2026-11-02T23:59:59Z", "", None),
        ("2026-10-31", "2026-11-03T00:00:00Z", "", Reason.DAY_PURGED),
        ("2026-10-31", "2026-10-31T12:00:00Z", "2026-09", None),
        ("2026-10-31", "2026-10-31T12:00:00Z", "2026-10", Reason.DAY_PURGED),
        ("2026-09-30", "2026-10-01T12:00:00Z", "2026-10", Reason.DAY_PURGED),
        ("2026-11-01", "2026-10-31T22:00:00Z", "2026-10", None),
        ("9999-12-31", "9999-12-31T23:59:59Z", "", None),
        ("9999-12-31", "2026-10-01T00:00:00Z", "", Reason.TOO_EARLY),
        ("0001-01-01", "2026-10-01T00:00:00Z", "", Reason.DAY_PURGED),
    ],
)
def test_cv5_which_days_may_enter(
    day: str, now: str, purged_through: str, reason: Reason | None
) -> None:
    gate = DayGate(DEFAULT, utc(now), purged_through)
    assert gate.reason(dt.date.fromisoformat(day)) is reason


@pytest.mark.parametrize(
    "text", ["2026-02-29", "2026-13-01", "2026-1-1", "20261001", "0000-01-01", "2026-10-01 ", "",
             "2026-W40-1", "\uff12\uff10\uff12\uff16-10-01", "2026-10-01\n"],
)  # fmt: skip
def test_texts_that_are_no_day(text: str) -> None:
    assert parse_day(text) is None


@given(st.dates())
def test_days_and_months_agree(day: dt.date) -> None:
    assert parse_day(day.isoformat()) == day
    month = month_of(day)
    assert is_month(month)
    assert first_day(month) <= day
    if month != "9999-12":
        assert start_of(day) < end_of_month(month) <= start_of(first_day(month)) + 31 * 24 * HOUR


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "0000-01", "2026-1", "2026-10-01", "", "x"])
def test_texts_that_are_no_month(text: str) -> None:
    assert not is_month(text)


def test_an_instant_needs_its_zone() -> None:
    assert instant(utc("2026-11-01T01:30:00+01:00")) == "2026-11-01T00:30:00Z"
    with pytest.raises(ValueError, match="zone"):
        parse_instant("2026-11-01T00:30:00")
