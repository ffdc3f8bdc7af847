"""Days and spans of days as people name them: yesterday, last-week, monday, mtd.

All of them end before the day on which they are said, unless that day is named: reports are of
days, and today's is not over. Weeks begin on Monday (ISO 8601).
"""

from __future__ import annotations

import calendar
import dataclasses
import datetime as dt
import re
from typing import Final

from aggregator.model.days import is_month, parse_day

_ONE_DAY: Final = dt.timedelta(days=1)
_WEEKDAYS: Final = tuple(name.lower() for name in calendar.day_name)
_LAST_DAYS: Final = re.compile(r"([1-9][0-9]{0,3})d")
WHOLE: Final = ("yesterday", "last-week", "last-month", "last-year")
"""Those that are over, so that "from last-week" means that week and no day more."""
NAMES: Final = (*WHOLE, "today", "monday", "7d", "this-week", "mtd", "ytd")
"""One of each kind, for help and errors."""


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Days from `first` to `last`, both of them in it."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> int:
        """How many days there are."""
        return (self.last - self.first).days + 1

    def before(self) -> Span:
        """Return the span of as many days right before it.

        Of whole months it is as many whole months, of part of one that part of the month before:
        so October compares with September, and the 1st to the 9th with the 1st to the 9th.
        """
        if self.first.day == 1:
            months = 12 * (self.last.year - self.first.year) + self.last.month - self.first.month
            start = _months_later(self.first, -(months + 1))
            if self.last == _end_of_month(self.last):
                return Span(start, self.first - _ONE_DAY)
            end = _months_later(self.last.replace(day=1), -(months + 1))
            return Span(start, min(end.replace(day=1) + (self.last.day - 1) * _ONE_DAY,
                                   _end_of_month(end)))  # fmt: skip
        return Span(self.first - self.days * _ONE_DAY, self.first - _ONE_DAY)


def parse(text: str, today: dt.date) -> Span | None:
    """Return the days that `text` names when it is said on `today`, None if it names none."""
    if (day := parse_day(text)) is not None:
        return Span(day, day)
    if is_month(text):
        first = dt.date(int(text[:4]), int(text[5:]), 1)
        return Span(first, _end_of_month(first))
    word = text.lower()
    if word in _WEEKDAYS:
        # The last one that has begun; on a Monday "monday" is today.
        day = today - ((today.weekday() - _WEEKDAYS.index(word)) % 7) * _ONE_DAY
        return Span(day, day)
    if match := _LAST_DAYS.fullmatch(word):
        return Span(today - int(match[1]) * _ONE_DAY, today - _ONE_DAY)
    return _named(word, today)


def _named(word: str, today: dt.date) -> Span | None:
    monday = today - today.weekday() * _ONE_DAY
    first = today.replace(day=1)
    new_year = first.replace(month=1)
    spans = {
        "today": Span(today, today),
        "yesterday": Span(today - _ONE_DAY, today - _ONE_DAY),
        "this-week": Span(monday, today),
        "last-week": Span(monday - 7 * _ONE_DAY, monday - _ONE_DAY),
        "mtd": Span(first, today),
        "last-month": Span(_months_later(first, -1), first - _ONE_DAY),
        "ytd": Span(new_year, today),
        "last-year": Span(new_year.replace(year=new_year.year - 1), new_year - _ONE_DAY),
    }
    return spans.get(word)


def _months_later(first: dt.date, months: int) -> dt.date:
    """Return the first day of the month so many months after that of `first`, a month's first."""
    number = 12 * first.year + first.month - 1 + months
    return dt.date(number // 12, number % 12 + 1, 1)


def _end_of_month(day: dt.date) -> dt.date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])
