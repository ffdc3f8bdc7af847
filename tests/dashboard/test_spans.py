"""Days in addresses: taken as reports take them, and nothing else."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.dashboard import spans
from aggregator.rules.periods import Span

TODAY = dt.date(2026, 10, 5)


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2026-09-01", "2026-09-30", ("2026-09-01", "2026-09-30")),
        ("2026-09", "", ("2026-09-01", "2026-10-05")),
        ("2026-09", "2026-09", ("2026-09-01", "2026-09-30")),
        ("last-week", "", ("2026-09-28", "2026-10-04")),
        ("Last-Week", "today", ("2026-09-28", "2026-10-05")),
        ("7d", "", ("2026-09-28", "2026-10-05")),
        ("mtd", "9999-12-31", ("2026-10-01", "2026-10-05")),
    ],
)
def test_days_as_reports_name_them(first: str, last: str, expected: tuple[str, str]) -> None:
    assert spans.asked(first, last, TODAY) == Span(day(expected[0]), day(expected[1]))


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("", "2026-09-01"), ("nonsense", ""), ("2026-09-01", "nonsense"), ("2026-13", ""),
        ("2026-10-06", ""), ("2026-09-02", "2026-09-01"), ("0001-01-01", "today"),
        ("9" * 10_000 + "d", ""), ("1999-12-31", ""),
    ],
)  # fmt: skip
def test_what_names_no_days(first: str, last: str) -> None:
    assert spans.asked(first, last, TODAY) is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_days_or_none(first: str, last: str) -> None:
    found = spans.asked(first, last, TODAY)
    assert found is None or found.first <= found.last <= TODAY


@given(st.dates(dt.date(2000, 1, 1)), st.dates(dt.date(2000, 1, 1)), st.text(max_size=9))
def test_days_come_back_from_a_path(one: dt.date, other: dt.date, rest: str) -> None:
    span = Span(min(one, other), max(one, other))
    assert spans.split(f"{spans.prefix(span)}/{rest}") == (span, f"/{rest}")
    assert spans.split(f"{spans.prefix(None)}/{rest}") == (None, f"/{rest}")


@pytest.mark.parametrize(
    "path",
    ["/2026-09-02..2026-09-01/", "/2026-09-31..2026-10-01/", "/1999-01-01..2026-01-01/x", "//x"],
)
def test_a_path_without_days_stays_as_it_is(path: str) -> None:
    assert spans.split(path) == (None, path)
