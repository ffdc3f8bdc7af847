"""The times of a job, as systemd and every cron read them.

What a time may be is `model.cron`'s to say; here it is only written down for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aggregator.model.cron import WEEKDAYS, Cron

_MINUTES: Final = range(60)
_HOURS: Final = range(24)
_DAYS: Final = range(1, 32)
_MONTHS: Final = range(1, 13)
# As few numbers as this are told one by one.
_FEW: Final = 2


def on_calendar(times: Cron) -> str:
    """Return `times` for OnCalendar=, such as "*-*-* *:02..57/5:00 UTC"."""
    minute = _written(times.minutes, _MINUTES, "..", 2)
    hour = _written(times.hours, _HOURS, "..", 2)
    day = _written(times.days, _DAYS, "..", 2)
    month = _written(times.months, _MONTHS, "..", 2)
    names = [WEEKDAYS[at].capitalize() for at in sorted(times.weekdays)]
    weekdays = "" if len(names) == len(WEEKDAYS) else f"{','.join(names)} "
    return f"{weekdays}*-{month}-{day} {hour}:{minute}:00 UTC"


def crontab(times: Cron) -> str:
    """Return `times` as five fields that every cron reads alike: weekdays are numbers, 0 Sunday."""
    numbers = sorted((at + 1) % 7 for at in times.weekdays)
    fields = (
        _written(times.minutes, _MINUTES, "-", 1),
        _written(times.hours, _HOURS, "-", 1),
        _written(times.days, _DAYS, "-", 1),
        _written(times.months, _MONTHS, "-", 1),
        "*" if len(numbers) == len(WEEKDAYS) else ",".join(map(str, numbers)),
    )
    return " ".join(fields)


def _written(numbers: frozenset[int], whole: range, to: str, width: int) -> str:
    """Return a field: its numbers with `width` digits, `to` between the ends of a range."""
    if len(numbers) == len(whole):
        return "*"
    return ",".join(_part(part, to, width) for part in _parts(sorted(numbers)))


def _part(part: range, to: str, width: int) -> str:
    if len(part) == 1:
        return f"{part[0]:0{width}d}"
    step = f"/{part.step}" if part.step > 1 else ""
    return f"{part[0]:0{width}d}{to}{part[-1]:0{width}d}{step}"


def _parts(numbers: Sequence[int]) -> Iterator[range]:
    """Yield what `numbers`, which ascend, consist of: one even progression, or runs and singles."""
    whole = _progression(numbers)
    if whole is not None:
        yield whole
        return
    start = 0
    for end in range(1, len(numbers) + 1):
        if end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
            continue
        if end - start > _FEW:
            yield range(numbers[start], numbers[end - 1] + 1)
        else:
            yield from (range(number, number + 1) for number in numbers[start:end])
        start = end


def _progression(numbers: Sequence[int]) -> range | None:
    if len(numbers) <= _FEW:
        return None
    found = range(numbers[0], numbers[-1] + 1, numbers[1] - numbers[0])
    return found if list(found) == list(numbers) else None
