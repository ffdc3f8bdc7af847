"""Times as cron writes them, in UTC; only what every reader of such a text understands alike.

Readers disagree on the rest: whether weekday 1 is Monday or Tuesday, where a week begins, and
whether a day and a weekday together mean either or both. So that is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Final

MONTHS: Final = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART: Final = re.compile(
    r"(\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?"
)


class CronError(ValueError):
    """A text that is no time; its words say what is wrong, in words of ours and field names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cron:
    """When something is due; `weekdays` count from Monday, 0. Sets are whole where all is meant."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def is_every_day(self) -> bool:
        """Whether no day is left out."""
        return (len(self.days), len(self.months), len(self.weekdays)) == (31, 12, 7)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    names: Sequence[str] = ()
    numbers: bool = True
    steps: bool = True

    @property
    def one(self) -> str:
        """Its name with the article that it needs."""
        return f"{'an' if self.name == 'hour' else 'a'} {self.name}"


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 6, WEEKDAYS, numbers=False, steps=False),
)


def parse(text: str) -> Cron:
    """Return the times that `text` spells; CronError says what is wrong with it."""
    words = text.lower().split()
    if len(words) != len(_FIELDS) or not text.isascii():
        raise CronError("has not five fields: minute, hour, day, month, weekday")
    parsed = [_values(word, field) for word, field in zip(words, _FIELDS, strict=True)]
    found = Cron(*parsed)
    if words[2] != "*" and words[4] != "*":
        raise CronError("names a day and a weekday, which cron reads as either and others as both")
    if not any(day <= _LONGEST[month - 1] for day in found.days for month in found.months):
        raise CronError("names a day that no such month has, so it never comes")
    return found


def _values(word: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise CronError(f"has {field.one} that does not read")
        found |= _part(match[1], match[2], match[3], match[4], field)
    return frozenset(found)


def _part(
    whole: str, first: str | None, last: str | None, step: str | None, field: _Field
) -> set[int]:
    """Return what one part of a list means: `*`, `a` or `a-b`, each but `a` also with `/n`."""
    if first is None:
        least, most = field.least, field.most
    else:
        least = _number(first, field)
        most = least if last is None else _number(last, field)
        if field.names is WEEKDAYS and last == "sun":
            raise CronError("has a range of weekdays up to sun, where some weeks begin; list them")
    if least > most:
        raise CronError(f"has {field.one} range that runs backwards")
    if step is None:
        return set(range(least, most + 1))
    named = any(one is not None and not one.isdigit() for one in (first, last))
    if not field.steps or named or whole == first or not 1 <= int(step) <= most - least:
        raise CronError(f"has {field.one} with steps that cannot be")
    return set(range(least, most + 1, int(step)))


def _number(word: str, field: _Field) -> int:
    names: Mapping[str, int] = {name: field.least + n for n, name in enumerate(field.names)}
    if word.isdigit() and not field.numbers:
        raise CronError("has a weekday as a number, which readers count differently; name it")
    if word in names:
        return names[word]
    if not word.isdigit() or not field.least <= int(word) <= field.most:
        raise CronError(f"has {field.one} that there is not")
    return int(word)
