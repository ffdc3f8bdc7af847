"""A forecast of daily traffic with its uncertainty: pure arithmetic on days.

The logarithm of each week's mean is drawn on as a straight line through the last quarter: weeks,
so that weekdays are out of it; logarithms, since traffic grows by shares of itself. How far such a
forecast may be wrong is not assumed but counted: the same forecast is made for every week of the
past that it can be made for, and the interval has room for 80 % of their errors (split conformal
prediction; V. Vovk et al., Algorithmic Learning in a Random World, 2005). Where the past is too
short for that, the wider of two models' errors is taken: of a line with independent weeks, and of
a random walk.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Final

COVERAGE_PERCENT: Final = 80
_Z: Final = 1.2816  # of 80 % of a normal distribution, both sides
WEEK_DAYS: Final = 7
_FITTED: Final = 13  # weeks that the line goes through
_LEAST: Final = 6  # weeks without which there is no forecast
_LEAST_DAYS: Final = 4  # of a week, for a mean of it
_LEAST_TESTS: Final = 10
_MONTH_DAYS: Final = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """The mean of a day in the week that ends so many days ahead, between `low` and `high`.

    `growth` is the factor of 30 days that the line has, `tests` how many forecasts of the past the
    interval is counted from; 0 where it is of a model.
    """

    expected: float
    low: float
    high: float
    growth: float
    tests: int


def forecast(weeks: Sequence[float], ahead: int) -> Forecast | None:
    """Return the forecast for `ahead` days after the last of `weeks`, the means of a day of each.

    None with fewer than six weeks. None of them may be nothing.
    """
    if len(weeks) < _LEAST:
        return None
    steps = max(1, round(ahead / WEEK_DAYS))
    logs = [math.log(value) for value in weeks]
    expected, slope = _ahead(logs, steps)
    errors = sorted(
        abs(logs[origin + steps - 1] - _ahead(logs[max(0, origin - _FITTED) : origin], steps)[0])
        for origin in range(_LEAST, len(logs) - steps + 1)
        if origin >= min(_FITTED, len(logs))
    )
    tests = len(errors) if len(errors) >= _LEAST_TESTS else 0
    room = _counted(errors) if tests else _modelled(logs[-_FITTED:], steps)
    return Forecast(
        expected=_exp(expected),
        low=_exp(expected - room),
        high=_exp(expected + room),
        growth=_exp(slope * _MONTH_DAYS / WEEK_DAYS),
        tests=tests,
    )


def known(weeks: Mapping[int, tuple[int, int]], last: int) -> list[float]:
    """Return the means of a day of the weeks up to the number `last`, as far as they are known.

    `weeks` has the known days of each week by its number, and their sum. The weeks begin after one
    with fewer than four known days, or with nothing at all.
    """
    found: list[float] = []
    for number in range(last, -1, -1):
        days, total = weeks.get(number, (0, 0))
        if days < _LEAST_DAYS or total <= 0:
            break
        found.append(total / days)
    return found[::-1]


def _ahead(logs: Sequence[float], steps: int) -> tuple[float, float]:
    """Return what a line through the last weeks comes to `steps` after them, and its slope."""
    fitted = logs[-_FITTED:]
    weights, mean = _weights(len(fitted)), sum(fitted) / len(fitted)
    # The weights add up to nothing, so that the mean need not be taken off each value.
    slope = sum(map(operator.mul, weights, fitted))
    return mean + slope * ((len(fitted) - 1) / 2 + steps), slope


@functools.cache
def _weights(count: int) -> tuple[float, ...]:
    """Return what each of so many values counts for in the slope of a line through them."""
    middle = (count - 1) / 2
    spread = count * (count * count - 1) / 12
    return tuple((number - middle) / spread for number in range(count))


def _counted(errors: Sequence[float]) -> float:
    """Return the error that 80 % of the sorted `errors`, and one more, are not above."""
    position = math.ceil((len(errors) + 1) * COVERAGE_PERCENT / 100)
    return errors[min(position, len(errors)) - 1]


def _modelled(logs: Sequence[float], steps: int) -> float:
    """Return the wider error of two models: a line with independent weeks, a random walk.

    How much a walk moves in a week is the variance of the moves less that of noise on top of it,
    which shows in that a move up is followed by one down (their covariance).
    """
    count = len(logs)
    middle = (count - 1) / 2
    start, slope = _ahead(logs, 1 - count)
    residuals = [value - start - slope * number for number, value in enumerate(logs)]
    noise = sum(error**2 for error in residuals) / (count - 2)
    spread = sum((number - middle) ** 2 for number in range(count))
    line = noise * (1 + 1 / count + (count - 1 + steps - middle) ** 2 / spread)
    moves = [after - before for before, after in itertools.pairwise(logs)]
    drift = sum(moves) / len(moves)
    apart = [move - drift for move in moves]
    variance = sum(move**2 for move in apart) / (len(moves) - 1)
    turns = sum(one * after for one, after in itertools.pairwise(apart)) / (len(moves) - 1)
    walk = max(0.0, variance + 2 * turns) * steps * (1 + steps / len(moves))
    return _Z * (1 + 1 / (count - 2)) * math.sqrt(max(line, walk))


def _exp(logarithm: float) -> float:
    """Return e to this, and what a float holds at the most rather than an error."""
    return math.exp(min(logarithm, 700.0))
