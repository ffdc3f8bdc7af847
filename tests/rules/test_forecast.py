"""The forecast: it draws a growth on, and its interval holds what it promises of made-up series."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.rules.forecast import COVERAGE_PERCENT, forecast, known

Series = Callable[[random.Random, int], list[float]]


def grown(weeks: int, factor: float, start: float = 1e12) -> list[float]:
    return [start * factor**number for number in range(weeks)]


@pytest.mark.parametrize("factor", [0.98, 1.0, 1.03])
def test_a_steady_growth_goes_on(factor: float) -> None:
    found = forecast(grown(60, factor), 91)
    assert found is not None
    assert found.expected == pytest.approx(1e12 * factor ** (59 + 13), rel=1e-9)
    assert found.growth == pytest.approx(factor ** (30 / 7), rel=1e-9)
    assert found.low == pytest.approx(found.high, rel=1e-9)  # no forecast of the past was wrong
    assert found.tests == 60 - 13 - 13 + 1


@given(st.lists(st.floats(1, 1e18), max_size=80), st.integers(7, 730))
def test_the_forecast_is_within_its_interval_or_is_none(weeks: list[float], ahead: int) -> None:
    found = forecast(weeks, ahead)
    assert (found is None) == (len(weeks) < 6)
    if found is not None:
        assert 0 <= found.low <= found.expected <= found.high
        assert found.tests == 0 or found.tests >= 10


def test_without_a_past_to_test_on_the_interval_is_a_models() -> None:
    rng = random.Random("short")
    short = forecast([1e12 * rng.uniform(0.9, 1.1) for _ in range(8)], 28)
    assert short is not None
    assert short.tests == 0
    assert short.high / short.low > 1.2


def _walk(rng: random.Random, weeks: int) -> list[float]:
    level, found = 0.0, []
    for _ in range(weeks):
        level += 0.004 + rng.gauss(0, 0.02)
        found.append(1e12 * math.exp(level + rng.gauss(0, 0.03)))
    return found


def _line(rng: random.Random, weeks: int) -> list[float]:
    return [1e12 * math.exp(0.01 * number + rng.gauss(0, 0.05)) for number in range(weeks)]


@pytest.mark.parametrize("weeks", [20, 104])
@pytest.mark.parametrize("series", [_walk, _line])
def test_the_interval_holds_about_as_often_as_it_says(series: Series, weeks: int) -> None:
    rng = random.Random(f"coverage {series.__name__} {weeks}")
    ahead, held, rounds = 8, 0, 400
    for _ in range(rounds):
        whole = series(rng, weeks + ahead)
        found = forecast(whole[:weeks], 7 * ahead)
        assert found is not None
        held += found.low <= whole[-1] <= found.high
    # A model of independent weeks or of a walk, whichever is wider, may hold more often.
    assert COVERAGE_PERCENT - 12 <= 100 * held / rounds <= 97


def test_weeks_begin_after_one_that_is_not_known() -> None:
    weeks = {0: (7, 70), 1: (3, 30), 2: (7, 7), 3: (4, 8)}
    assert known(weeks, 3) == [1.0, 2.0]
    assert known({**weeks, 3: (7, 0)}, 3) == []
    assert known(weeks, 4) == []
    assert known({0: (7, 70)}, 0) == [10.0]
