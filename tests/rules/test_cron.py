"""Times as cron writes them: only what every reader understands alike is taken."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.model import cron
from aggregator.model.cron import MONTHS, WEEKDAYS, CronError

ALL = {
    "minutes": frozenset(range(60)),
    "hours": frozenset(range(24)),
    "days": frozenset(range(1, 32)),
    "months": frozenset(range(1, 13)),
    "weekdays": frozenset(range(7)),
}


def refused(text: str) -> str:
    with pytest.raises(CronError) as caught:
        cron.parse(text)
    return str(caught.value)


def test_times_are_what_they_say() -> None:
    found = cron.parse("2-57/5 */6 1,15 JAN,6-7 *")
    assert found.minutes == set(range(2, 58, 5))
    assert found.hours == {0, 6, 12, 18}
    assert found.days == {1, 15}
    assert found.months == {1, 6, 7}
    assert found.weekdays == ALL["weekdays"]
    assert not found.is_every_day
    weekly = cron.parse("  30 4 * * mon-wed,Sat,sun ")
    assert weekly.weekdays == {0, 1, 2, 5, 6}
    assert not weekly.is_every_day
    assert cron.parse("0 0 1-31 jan-dec *").is_every_day
    assert cron.parse("0 0 29 2 *").days == {29}


@st.composite
def parts(draw: st.DrawFn, least: int, most: int) -> tuple[str, frozenset[int]]:
    """Make one part of a list of numbers, and what it stands for."""
    first = draw(st.integers(least, most))
    last = draw(st.integers(first, most))
    step = draw(st.integers(1, most - least))
    whole, run = set(range(least, most + 1)), set(range(first, last + 1))
    several = [(f"{first}", {first}), (f"{first}-{last}", run), ("*", whole)]
    several.append((f"*/{step}", set(range(least, most + 1, step))))
    if step <= last - first:
        several.append((f"{first:02d}-{last}/{step}", set(range(first, last + 1, step))))
    text, found = draw(st.sampled_from(several))
    return text, frozenset(found)


def lists(least: int, most: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    return st.lists(parts(least, most), min_size=1, max_size=3).map(
        lambda several: (
            ",".join(text for text, _ in several),
            frozenset().union(*(found for _, found in several)),
        )
    )


@settings(deadline=None)
@given(lists(0, 59), lists(0, 23), lists(1, 12))
def test_every_list_of_parts_is_the_union_of_its_parts(
    minutes: tuple[str, frozenset[int]],
    hours: tuple[str, frozenset[int]],
    months: tuple[str, frozenset[int]],
) -> None:
    found = cron.parse(f"{minutes[0]} {hours[0]} * {months[0]} *")
    assert (found.minutes, found.hours, found.months) == (minutes[1], hours[1], months[1])


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1), st.lists(st.integers(1, 12), min_size=1))
def test_names_are_counted_from_monday_and_january(weekdays: list[int], months: list[int]) -> None:
    """The 5th of January 1970 was a Monday, as Python has it."""
    assert dt.date(1970, 1, 5).weekday() == WEEKDAYS.index("mon") == 0
    days = ",".join(WEEKDAYS[one] for one in weekdays)
    found = cron.parse(f"0 0 * {','.join(MONTHS[one - 1] for one in months)} {days}")
    assert found.weekdays == set(weekdays)
    assert found.months == set(months)


_PIECES = st.sampled_from(
    ["*", "/", "-", ",", " ", "0", "5", "31", "60", "007", "mon", "sun", "jan", "x", "ä", "?", "#"]
)


@settings(deadline=None)
@given(st.lists(_PIECES, max_size=16).map("".join) | st.text(max_size=20))
def test_any_text_is_times_or_a_mistake_that_repeats_nothing(text: str) -> None:
    try:
        found = cron.parse(text)
    except CronError as error:
        told = str(error)
    else:
        for name, whole in ALL.items():
            assert getattr(found, name)
            assert getattr(found, name) <= whole
        return
    assert cron.CronError.__mro__[1] is ValueError
    words = {"minute", "hour", "day", "month", "weekday", "sun", "cron"}
    assert not {word for word in text.split() if len(word) > 3 and word not in words} & set(
        told.split()
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "five fields"), ("0 0 * *", "five fields"), ("0 0 * * * *", "five fields"),
        ("@daily", "five fields"), ("0 0 * * ٣", "five fields"), ("60 0 * * *", "minute"),
        ("0 24 * * *", "hour"), ("0 0 0 * *", "day"), ("0 0 32 * *", "day"),
        ("0 0 * 13 *", "month"), ("0 0 * 0 *", "month"), ("0 0 * * 1", "name it"),
        ("0 0 * * 1-5", "name it"), ("0 0 * * */2", "steps"), ("0 0 * * mon/2", "steps"),
        ("0 0 * jan-dec/2 *", "steps"), ("5/2 0 * * *", "steps"), ("*/0 0 * * *", "steps"),
        ("*/60 0 * * *", "steps"), ("10-12/3 0 * * *", "steps"), ("30-10 * * * *", "backwards"),
        ("0 0 * * sat-mon", "backwards"), ("0 0 * * mon-sun", "sun"), ("0 0 * * fri-sun", "sun"),
        ("0 0 1 * mon", "either"), ("0 0 */2 * mon", "either"), ("0 0 31 feb,apr *", "never"),
        ("0 0 30 2 *", "never"), ("1,,2 0 * * *", "does not read"), ("l 0 * * *", "does not read"),
        ("0 0 l * *", "does not read"), ("0 0 15w * *", "does not read"), ("-1 0 * * *", "read"),
        ("0 0 * mon *", "month"), ("0 0 * * jan", "weekday"), ("100 0 * * *", "does not read"),
    ],
)  # fmt: skip
def test_what_readers_take_differently_is_refused(text: str, told: str) -> None:
    assert told in refused(text)
