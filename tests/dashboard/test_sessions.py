"""Sessions end, and a key opens only to itself."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.dashboard.sessions import (
    IDLE_SECONDS,
    MOST,
    WHOLE_SECONDS,
    Key,
    Sessions,
    new_code,
)
from aggregator.errors import ConfigError


def test_a_session_goes_on_while_it_is_used_and_ends_when_it_is_not() -> None:
    sessions = Sessions()
    one = sessions.begin(0.0)
    for now in (0.0, IDLE_SECONDS - 1, 2 * IDLE_SECONDS - 2):
        assert sessions.goes_on(one, now)
    assert not sessions.goes_on(one, 3 * IDLE_SECONDS - 2)
    # It does not come back, whatever the clock says then.
    assert not sessions.goes_on(one, 0.0)


def test_a_session_ends_after_twelve_hours_however_much_it_is_used() -> None:
    sessions = Sessions()
    one = sessions.begin(0.0)
    for now in itertools.takewhile(lambda at: at < WHOLE_SECONDS, itertools.count(0.0, 600.0)):
        assert sessions.goes_on(one, now)
    assert not sessions.goes_on(one, WHOLE_SECONDS)


@given(st.lists(st.floats(0, IDLE_SECONDS * 2), max_size=20), st.integers(0, 20))
def test_what_has_ended_never_goes_on(gaps: list[float], ended: int) -> None:
    sessions, now = Sessions(), 0.0
    one, is_over, used = sessions.begin(now), False, 0.0
    for number, gap in enumerate(gaps):
        now += gap
        if number == ended:
            sessions.end(one)
            is_over = True
        is_over = is_over or now - used >= IDLE_SECONDS or now >= WHOLE_SECONDS
        assert sessions.goes_on(one, now) is not is_over
        used = used if is_over else now


def test_nobody_is_in_without_an_id_that_was_given() -> None:
    sessions = Sessions()
    one = sessions.begin(0.0)
    for other in (None, "", one[:-1], one + "A", one.swapcase(), "\udcff"):
        assert not sessions.goes_on(other, 1.0)
    assert sessions.goes_on(one, 1.0)
    sessions.end(None)
    assert len(one) >= 43  # 256 bits in 6 a letter


def test_of_too_many_the_one_used_longest_ago_ends() -> None:
    sessions = Sessions()
    first, *others = [sessions.begin(float(at)) for at in range(MOST)]
    assert sessions.goes_on(first, 100.0)
    sessions.begin(101.0)
    assert sessions.goes_on(first, 102.0)
    assert not sessions.goes_on(others[0], 102.0)
    assert all(sessions.goes_on(one, 102.0) for one in others[1:])
    assert len({first, *others}) == MOST


@given(st.text(min_size=8, max_size=40), st.text(max_size=40))
def test_a_password_opens_by_itself_only(password: str, other: str) -> None:
    key = Key(password, is_code=False)
    assert key.opens(password)
    assert key.opens(other) is (other == password)
    assert password not in repr(key)


@pytest.mark.parametrize("password", ["", "hunter2", "hunter2" * 200])
def test_a_password_too_short_or_too_long_is_refused_and_not_told(password: str) -> None:
    with pytest.raises(ConfigError, match="must have 8 to 1024 characters") as caught:
        Key(password, is_code=False)
    assert "hunter2" not in str(caught.value)


def test_a_code_is_read_as_people_type_it() -> None:
    code = new_code()
    key = Key(code, is_code=True)
    loose = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert key.opens(loose)
    assert not key.opens("")
    assert not key.opens(code[:-1])
    assert not key.opens(new_code())
    assert len(code.replace("-", "")) == 20
