"""When a day closes, when a month is purged, and which days are acceptable at an instant.

A day is OPEN, then in GRACE, then CLOSED by the roll-up that closes it, then PURGED with its
month. The purge instant of a month is a fact of the calendar: from then on the clock alone
refuses the month's records, whether or not the purge has run (promises CL-2, CV-5).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Final

from aggregator.model.days import end_of_day, end_of_month, month_of, start_of
from aggregator.model.reasons import Reason

EARLY_TOLERANCE: Final = dt.timedelta(hours=2)
ONE_DAY: Final = dt.timedelta(days=1)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Calendar:
    """The two graces of a policy profile, and the instants that follow from them."""

    day_grace: dt.timedelta
    purge_grace: dt.timedelta

    def purges_at(self, month: str) -> dt.datetime:
        """Return the instant from which `month` is to be destroyed."""
        # A month that ends at the calendar's own end has no later instant to wait for.
        return _LAST if month == "9999-12" else end_of_month(month) + self.purge_grace

    def closes_at(self, day: dt.date) -> dt.datetime:
        """Return the instant from which a roll-up closes `day`: never after its month's purge."""
        purges_at = self.purges_at(month_of(day))
        if _LAST - start_of(day) <= ONE_DAY + self.day_grace:
            return purges_at  # past the calendar's end, as no instant can be
        return min(end_of_day(day) + self.day_grace, purges_at)

    def is_closable(self, day: dt.date, now: dt.datetime) -> bool:
        """Say whether the grace of `day` is over at `now`."""
        return now >= self.closes_at(day)

    def is_purgeable(self, month: str, now: dt.datetime) -> bool:
        """Say whether the purge of `month` is due at `now`."""
        return now >= self.purges_at(month)


@dataclasses.dataclass(frozen=True, slots=True)
class DayGate:
    """Which days may enter at `now`; `purged_through` is the watermark, "" before any purge."""

    calendar: Calendar
    now: dt.datetime
    purged_through: str = ""

    def reason(self, day: dt.date) -> Reason | None:
        """Return why a record of `day` is refused, or None if it may enter."""
        if self.is_over(month_of(day)):
            return Reason.DAY_PURGED
        if start_of(day) - self.now > EARLY_TOLERANCE:
            return Reason.TOO_EARLY
        return None

    def is_over(self, month: str) -> bool:
        """Say whether nothing of `month` may enter any more, whether or not it was purged yet."""
        return month <= self.purged_through or self.calendar.is_purgeable(month, self.now)
