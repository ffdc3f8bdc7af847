"""Whether the clock may be trusted with destruction (CV-5)."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.clock import Clock
from aggregator.rules.clock import is_behind, observe

START = dt.datetime(2026, 10, 20, tzinfo=dt.UTC)


def at(hours: float) -> dt.datetime:
    return START + dt.timedelta(hours=hours)


def after(*hours: float, confirmed: bool = False) -> Clock:
    """Return the clock's state after entries at these hours; `confirmed` is of the last."""
    clock = Clock()
    for number, hour in enumerate(hours, 1):
        clock = observe(clock, at(hour), confirmed=confirmed and number == len(hours))
    return clock


@pytest.mark.parametrize(
    ("hours", "doubted"),
    [
        ((0,), False),
        ((10_000,), False),
        ((0, 48), False),
        ((0, 48.01), True),
        ((0, 48, 96, 144), False),
        ((0, 100, 105.99), True),
        ((0, 100, 106), False),
        ((0, 100, 103, 106, 107), False),
        ((0, 100, 200, 205), True),
        ((0, 100, 200, 206), False),
        ((0, 100, 10), False),
        ((0, 100, 48), False),
        ((0, 100, -5), False),
        ((0, 100, 99), True),
        ((0, -100), False),
        ((0, -100, 0), True),
        ((0, 100, 104, 103, 105.9), True),
        ((0, 100, 105, 154), True),
        # The clock turned back, but not as far as it came from: watched from where it is.
        ((0, 1000, 240), True),
        ((0, 1000, 240, 245.9), True),
        ((0, 1000, 240, 246), False),
        ((0, 1000, 240, 1000), True),
        ((0, 1000, 240, 1000, 1005), True),
    ],
)
def test_cv5_only_a_clock_that_is_not_in_doubt_may_destroy(
    hours: tuple[float, ...], doubted: bool
) -> None:
    assert after(*hours).in_doubt == doubted


def test_cv5_a_doubt_names_both_ends_of_the_jump() -> None:
    assert after(0, 100, 200) == Clock(at(200), at(200), at(0))


def test_confirmation_ends_a_doubt_and_opens_none() -> None:
    assert after(0, 100, confirmed=True) == Clock(at(100))
    assert after(0, 100, 101, confirmed=True) == Clock(at(101))


@given(st.lists(st.floats(-500, 2000), min_size=1, max_size=12))
def test_cv5_a_jump_always_opens_a_doubt_and_six_quiet_hours_always_end_it(
    hours: list[float],
) -> None:
    clock = after(*hours)
    assert clock.last_at == at(hours[-1])
    assert (clock.doubt_since is None) == (clock.before_jump is None)
    ahead = at(hours[-1] + 48.5)
    assert observe(clock, ahead).in_doubt
    later = observe(clock, at(hours[-1] + 6))
    assert not later.in_doubt


@pytest.mark.parametrize(
    ("hours", "behind"), [(0, False), (-2, False), (-3, True), (-24 * 400, True), (72, False)]
)
def test_a_clock_is_behind_where_it_lies_before_the_last_entry(hours: int, behind: bool) -> None:
    last = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
    assert is_behind(Clock(last), last + dt.timedelta(hours=hours)) == behind
    assert not is_behind(Clock(), last)


def test_a_clock_that_comes_back_from_a_doubted_jump_is_behind_nothing() -> None:
    right = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
    jumped = observe(Clock(right), right + dt.timedelta(days=400))
    assert not is_behind(jumped, right + dt.timedelta(minutes=5))


def test_a_clock_stays_behind_whatever_is_written_until_it_is_there_again() -> None:
    right, back = at(240), at(100)
    clock = observe(observe(Clock(right), back), back + dt.timedelta(minutes=5))
    assert is_behind(clock, back + dt.timedelta(minutes=10))
    assert not is_behind(clock, right - dt.timedelta(hours=1))
    assert observe(clock, right - dt.timedelta(hours=1)).behind is None
    assert observe(clock, back + dt.timedelta(minutes=10), confirmed=True) == Clock(
        back + dt.timedelta(minutes=10)
    )


def test_a_clock_that_jumps_ahead_from_behind_is_in_doubt_as_ever() -> None:
    """CV-5: what is remembered of turning back ends no doubt and begins none."""
    clock = observe(Clock(at(240)), at(100))
    jumped = observe(clock, at(400))
    assert (jumped.in_doubt, jumped.before_jump, jumped.behind) == (True, at(100), None)
