"""Fair use: the arithmetic of the rules, exact to the byte (promises CS-9, CT-5, CT-6).

Every rule comes down to a limit of bytes that a user must exceed, in whole numbers: no rounding
decides. What a rule compares with is of all other users of the month; nobody is singled out of it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregator.errors import IntegrityError
from aggregator.model.days import end_of_month, start_of
from aggregator.model.fairuse import Excess, Rule, RuleKind
from aggregator.rules.release import rounded

USER_MONTH: Final = """
SELECT pseudonym, CAST(SUM(user_bytes) AS BIGINT) AS month_bytes
FROM user_days
GROUP BY pseudonym
"""
"""A month's user totals, from (pseudonym, user_bytes) of its days."""

LOCATION_SHARES: Final = """
WITH users AS (
    SELECT location, pseudonym, CAST(SUM(user_bytes) AS BIGINT) AS location_user_bytes
    FROM user_day
    GROUP BY location, pseudonym
),
totals AS (
    SELECT location AS place, COUNT(*) AS location_users,
           CAST(SUM(location_user_bytes) AS BIGINT) AS location_bytes
    FROM users
    GROUP BY location
)
SELECT location, pseudonym, location_user_bytes, location_users, location_bytes
FROM users INNER JOIN totals ON users.location = totals.place
"""
"""Each user's bytes of one day beside those of the location; the caller adds what it wants."""

_MOST: Final = np.iinfo(np.int64).max
_ONE_DAY: Final = dt.timedelta(days=1)

Integers = NDArray[np.int64]
Pseudonyms = NDArray[np.uint64]


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Peak:
    """The most that one user moved on one day: at all locations, or at one, with its own total."""

    pseudonym: int
    bytes: int
    day: str
    location: str | None = None
    location_bytes: int | None = None
    location_users: int | None = None


class Crowd:
    """The users of a month with their bytes so far, and what a user is compared with."""

    def __init__(self, pseudonyms: Pseudonyms, totals: Integers) -> None:
        """Take one total a pseudonym; IntegrityError if all together are too many bytes to add."""
        # In halves, neither of which can overflow: the sum itself might, and in silence.
        halves = int((totals >> 32).sum()), int((totals & 0xFFFFFFFF).sum())
        if (halves[0] << 32) + halves[1] > _MOST:
            raise IntegrityError("a total is larger than a table can hold")
        order = np.argsort(totals, kind="stable")
        self.pseudonyms = pseudonyms[order]
        self.totals = totals[order]
        self._sums = np.cumsum(self.totals)

    @property
    def users(self) -> int:
        """How many users there are."""
        return int(self.totals.size)

    @property
    def total(self) -> int:
        """The bytes of all users together."""
        return int(self._sums[-1]) if self.users else 0

    @property
    def median(self) -> int:
        """The nearest-rank median of the users' bytes, 0 without users."""
        return int(self.totals[(self.users + 1) // 2 - 1]) if self.users else 0

    def of(self, pseudonym: int) -> int | None:
        """Return the bytes of one user, None if there is none of this pseudonym."""
        wanted, order = np.uint64(pseudonym), self._by_pseudonym
        place = int(np.searchsorted(self.pseudonyms, wanted, sorter=order))
        if place == self.users or self.pseudonyms[order[place]] != wanted:
            return None
        return int(self.totals[order[place]])

    @functools.cached_property
    def _by_pseudonym(self) -> NDArray[np.intp]:
        return np.argsort(self.pseudonyms)

    def above(self, limit: int) -> Iterator[tuple[int, int]]:
        """Yield (pseudonym, bytes) of the users above `limit`, most bytes first."""
        first = int(np.searchsorted(self.totals, min(limit, _MOST), side="right"))
        found = zip(self.pseudonyms[first:].tolist(), self.totals[first:].tolist(), strict=True)
        yield from sorted(found, key=lambda one: (-one[1], one[0]))

    def lightest_below(self, moved: int) -> int:
        """Return how many of the lightest users together stay below `moved` bytes.

        A user who moved so much is never among them: the sum up to that user is no less.
        """
        return int(np.searchsorted(self._sums, moved, side="left"))

    def sum_of_lightest(self, count: int) -> int | None:
        """Return the bytes of the `count` lightest users, None if there are fewer others."""
        return int(self._sums[count - 1]) if 1 <= count < self.users else None


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """How much of a month is behind: from its first day with counters to now, and what is left."""

    month: str
    through: str
    elapsed: dt.timedelta
    remaining: dt.timedelta

    def projected(self, moved: int) -> int:
        """Return what `moved` bytes come to at the month's end if it goes on like this."""
        rest = moved * int(self.remaining.total_seconds())
        return moved + rest // int(self.elapsed.total_seconds())


def span(days: Sequence[str], now: dt.datetime) -> Span:
    """Return the span of the month of `days`, those with counters, oldest first, at `now`."""
    month = days[0][:7]
    end = end_of_month(month)
    begun = start_of(dt.date.fromisoformat(days[0]))
    # Counters of a day that has only just begun may be there: a day is the least to go by.
    until = min(max(now, begun + _ONE_DAY), end)
    return Span(month, days[-1], until - begun, end - until)


def limit(rule: Rule, percent: int, crowd: Crowd) -> int | None:
    """Return the bytes that a user must exceed to pass a step of a rule; None if nobody can.

    Not of LOCATION_SHARE, which has a limit for each location and day.
    """
    step = rule.threshold * percent
    if rule.kind.compares and crowd.users < 2:
        return None
    match rule.kind:
        case RuleKind.OUTWEIGHS_MEAN:
            # bytes > step % of the mean of the others, solved for bytes: those are in the total.
            return step * crowd.total // ((crowd.users - 1) * 100 + step)
        case RuleKind.OUTWEIGHS_LIGHTEST:
            return crowd.sum_of_lightest(step // 100 + 1)
        case RuleKind.TIMES_MEDIAN:
            # Where half of the users move nothing, there is nothing to be a multiple of.
            return step * crowd.median // 100 if crowd.median else None
        case _:
            return step // 100


def share_limit(rule: Rule, percent: int, location_bytes: int) -> int:
    """Return the bytes that a user must exceed of a location's `location_bytes` of one day."""
    return rule.threshold * percent * location_bytes // 10_000


def judge(
    rules: Iterable[Rule], crowd: Crowd, peaks: Mapping[str, Sequence[Peak]], spanned: Span
) -> list[Excess]:
    """Return what every user exceeds: one excess a rule, of the highest step that was passed.

    `peaks` has, by rule, the users of a rule about days who pass its lowest step, a peak a user.
    In the order of the rules; then the most bytes first.
    """
    found: list[Excess] = []
    for rule in rules:
        if rule.kind in (RuleKind.DAY_BYTES, RuleKind.LOCATION_SHARE):
            for peak in sorted(
                peaks.get(rule.name, ()), key=lambda one: (-one.bytes, one.pseudonym)
            ):
                found.append(of_peak(rule, peak, crowd, spanned))
            continue
        limits = [(percent, limit(rule, percent, crowd)) for percent in rule.warn_percent]
        lowest = limits[0][1]
        for pseudonym, moved in crowd.above(lowest) if lowest is not None else ():
            percent = max(step for step, least in limits if least is not None and moved > least)
            found.append(_excess(rule, percent, crowd, spanned, pseudonym, moved))
    return found


def of_month(rule: Rule, pseudonym: int, moved: int, crowd: Crowd, spanned: Span) -> Excess:
    """Return the arithmetic of a rule about a month for one user, percent 0 below every step."""
    limits = [(percent, limit(rule, percent, crowd)) for percent in rule.warn_percent]
    passed = [percent for percent, least in limits if least is not None and moved > least]
    return _excess(rule, max(passed, default=0), crowd, spanned, pseudonym, moved)


def of_peak(rule: Rule, peak: Peak, crowd: Crowd, spanned: Span) -> Excess:
    """Return the arithmetic of a rule about days and one user's peak, percent 0 as above."""
    passed = [step for step in rule.warn_percent if peak.bytes > peak_limit(rule, step, peak)]
    month_bytes = crowd.of(peak.pseudonym) or 0
    excess = _excess(rule, max(passed, default=0), crowd, spanned, peak.pseudonym, month_bytes)
    return dataclasses.replace(
        excess,
        bytes=peak.bytes,
        day=peak.day,
        location=peak.location,
        location_bytes=peak.location_bytes,
        location_users=peak.location_users,
    )


def peak_limit(rule: Rule, percent: int, peak: Peak) -> int:
    """Return the bytes that a peak must exceed to pass a step."""
    if peak.location_bytes is not None:
        return share_limit(rule, percent, peak.location_bytes)
    return rule.threshold * percent // 100


def _excess(
    rule: Rule, percent: int, crowd: Crowd, spanned: Span, pseudonym: int, moved: int
) -> Excess:
    others = crowd.total - moved
    numbers: dict[str, Any] = {
        "outweighs_mean": moved * (crowd.users - 1) / others if others else None,
        "times_median": moved / crowd.median if crowd.median else None,
    }
    return Excess(
        rule=rule.name,
        kind=rule.kind,
        threshold=rule.threshold,
        percent=percent,
        plans=rule.plans,
        month=spanned.month,
        through=spanned.through,
        pseudonym=pseudonym,
        bytes=moved,
        month_bytes=moved,
        projected_bytes=spanned.projected(moved),
        users=crowd.users,
        others_bytes=others,
        median_bytes=rounded(crowd.median),  # some user's own number, so it is told rounded
        outweighs_lightest=crowd.lightest_below(moved),
        **numbers,
    )
