"""UTC days and months, as the calendar of the house counts them.

A day is a `datetime.date`; a month is its text `YYYY-MM`. Instants are aware `datetime`s in UTC.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

_MONTH: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_day(text: str) -> dt.date | None:
    """Return the day that `text` spells as YYYY-MM-DD, or None if it spells none."""
    if _DAY.fullmatch(text) is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def is_month(text: str) -> bool:
    """Say whether `text` is a month, YYYY-MM, of the years 0001 to 9999."""
    return _MONTH.fullmatch(text) is not None and text >= "0001"


def month_of(day: dt.date) -> str:
    """Return the month that `day` lies in."""
    return f"{day.year:04d}-{day.month:02d}"


def first_day(month: str) -> dt.date:
    """Return the first day of `month`."""
    return dt.date(int(month[:4]), int(month[5:]), 1)


def start_of(day: dt.date) -> dt.datetime:
    """Return the instant at which `day` starts, in UTC."""
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def end_of_day(day: dt.date) -> dt.datetime:
    """Return the instant at which `day` ends, in UTC."""
    return start_of(day) + dt.timedelta(days=1)


def end_of_month(month: str) -> dt.datetime:
    """Return the instant at which `month` ends, in UTC."""
    year, number = int(month[:4]), int(month[5:])
    return dt.datetime(year + number // 12, number % 12 + 1, 1, tzinfo=dt.UTC)


def instant(moment: dt.datetime) -> str:
    """Return `moment` as text to the second, such as 2026-11-01T00:30:00Z."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_instant(text: str) -> dt.datetime:
    """Return the instant that `text` spells; ValueError if it has no zone or is none."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("an instant needs its zone, such as Z")
    return moment.astimezone(dt.UTC)


def text_of(value: Any) -> Any:
    """Return a cell's value as JSON has it: a day as its text, all else as it is."""
    return value.isoformat() if isinstance(value, dt.date) else value
