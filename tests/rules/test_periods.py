"""Days and spans as people name them, and what lies right before a span."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.rules.periods import NAMES, WHOLE, Span, parse

days = st.dates(dt.date(1971, 1, 1), dt.date(2199, 12, 31))


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-10-05", "2026-10-05", "2026-10-05"),
        ("2028-02", "2028-02-01", "2028-02-29"),
        ("today", "2026-11-04", "2026-11-04"),
        ("yesterday", "2026-11-03", "2026-11-03"),
        ("wednesday", "2026-11-04", "2026-11-04"),
        ("Thursday", "2026-10-29", "2026-10-29"),
        ("monday", "2026-11-02", "2026-11-02"),
        ("7d", "2026-10-28", "2026-11-03"),
        ("1d", "2026-11-03", "2026-11-03"),
        ("this-week", "2026-11-02", "2026-11-04"),
        ("last-week", "2026-10-26", "2026-11-01"),
        ("mtd", "2026-11-01", "2026-11-04"),
        ("last-month", "2026-10-01", "2026-10-31"),
        ("ytd", "2026-01-01", "2026-11-04"),
        ("last-year", "2025-01-01", "2025-12-31"),
    ],
)
def test_what_is_meant_on_a_wednesday(text: str, first: str, last: str) -> None:
    assert parse(text, day("2026-11-04")) == Span(day(first), day(last))


@pytest.mark.parametrize("text", ["", "week", "0d", "-1d", "2026-13", "2026-02-30", "last", "d"])
def test_what_names_no_day(text: str) -> None:
    assert parse(text, day("2026-11-04")) is None


@pytest.mark.parametrize(
    ("first", "last", "before_first", "before_last"),
    [
        ("2026-10-12", "2026-10-18", "2026-10-05", "2026-10-11"),
        ("2026-10-05", "2026-10-05", "2026-10-04", "2026-10-04"),
        ("2026-10-01", "2026-10-31", "2026-09-01", "2026-09-30"),
        ("2026-03-01", "2026-03-31", "2026-02-01", "2026-02-28"),
        ("2026-10-01", "2026-10-09", "2026-09-01", "2026-09-09"),
        ("2026-03-01", "2026-03-30", "2026-02-01", "2026-02-28"),
        ("2026-01-01", "2026-12-31", "2025-01-01", "2025-12-31"),
        ("2026-01-01", "2026-11-04", "2025-02-01", "2025-12-04"),
    ],
)
def test_the_span_before(first: str, last: str, before_first: str, before_last: str) -> None:
    before = Span(day(first), day(last)).before()
    assert before == Span(day(before_first), day(before_last))


@given(st.sampled_from(NAMES), days)
def test_every_name_names_days_up_to_that_day(text: str, today: dt.date) -> None:
    span = parse(text, today)
    assert span is not None
    assert span.first <= span.last <= today
    if text in WHOLE:
        assert span.last < today


@given(days, st.integers(0, 800))
def test_the_span_before_ends_before_and_is_about_as_long(first: dt.date, more: int) -> None:
    span = Span(first, first + dt.timedelta(more))
    before = span.before()
    assert before.first <= before.last < span.first
    assert abs(before.days - span.days) <= (0 if first.day != 1 else 3 + span.days // 100)
