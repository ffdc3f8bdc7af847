"""The days that a page is about, as an address names them.

?from= and ?to= take what reports take. The answer goes on to an address that begins with the days
themselves, so that the links of its pages, which are relative, stay among them.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from aggregator.model.days import parse_day
from aggregator.rules import periods
from aggregator.rules.periods import Span

_EARLIEST: Final = dt.date(2000, 1, 1)
_PATH: Final = re.compile(r"/([0-9-]{10})\.\.([0-9-]{10})(/.*)", re.DOTALL)


def asked(first: str, last: str, today: dt.date) -> Span | None:
    """Return the days that ?from= and ?to= name on `today`; None if these are no days.

    Without ?to= they end with those that "last-week" and such name, else today.
    """
    start = _parsed(first, today)
    if start is None:
        return None
    end = Span(today, today)
    if last:
        named = _parsed(last, today)
        if named is None:
            return None
        end = named
    elif first.lower() in periods.WHOLE:
        end = start
    return _sound(start.first, min(end.last, today))


def split(path: str) -> tuple[Span | None, str]:
    """Return the days that begin a path, None without any, and the rest, which begins with "/"."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None, path
    first, last = parse_day(found[1]), parse_day(found[2])
    span = None if first is None or last is None else _sound(first, last)
    return (None, path) if span is None else (span, found[3])


def prefix(span: Span | None) -> str:
    """Return how the path of a page about `span` begins."""
    return "" if span is None else f"/{span.first.isoformat()}..{span.last.isoformat()}"


def _parsed(text: str, today: dt.date) -> Span | None:
    try:
        return periods.parse(text, today)
    except (ValueError, OverflowError):  # days that no calendar has
        return None


def _sound(first: dt.date, last: dt.date) -> Span | None:
    return Span(first, last) if _EARLIEST <= first <= last else None
