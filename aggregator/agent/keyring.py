"""The month keys that the aggregator announced, and when to ask for them again."""

from __future__ import annotations

import datetime as dt
from typing import Final

from aggregator.model.days import end_of_month, month_of
from aggregator.wire.keys import Announcement, PublishedKey, read_announcement

_DAY_SECONDS: Final = 24 * 3600.0
_MISSING_SECONDS: Final = 3600.0
_AHEAD: Final = dt.timedelta(days=7)


class KeyRing:
    """The keys of the last announcement whose signature was the aggregator's."""

    def __init__(self, door_key: bytes) -> None:
        """Trust announcements signed with the Ed25519 key `door_key`, and no others."""
        self._door_key = door_key
        self._announcement: Announcement | None = None
        self._fetched_at: float | None = None
        self._doubted = False

    @property
    def is_known(self) -> bool:
        """Whether there is an announcement at all."""
        return self._announcement is not None

    def take(self, content: bytes) -> None:
        """Take an announcement; BadInputError or IntegrityError if it is none of the aggregator."""
        self._announcement = read_announcement(content, self._door_key)

    def fetched(self, monotonic: float) -> None:
        """Note that the door was asked, whatever came of it."""
        self._fetched_at = monotonic
        self._doubted = False

    def doubt(self) -> None:
        """Note that the door does not know a key of ours, so that it is asked again."""
        self._doubted = True

    def key(self, month: str) -> PublishedKey | None:
        """Return the key to seal the records of `month` to, None if it is not announced."""
        if self._announcement is None:
            return None
        found = [key for key in self._announcement.keys if key.month == month]
        return found[-1] if found else None

    def is_stale(self, monotonic: float, now: dt.datetime, months: set[str]) -> bool:
        """Say whether to ask the door: once a day, and each hour while a key is missing.

        `months` are those of the records that wait; besides the month that it is, the next one is
        needed from seven days before its start.
        """
        if self._fetched_at is None or self._doubted:
            return True
        age = monotonic - self._fetched_at
        if age >= _DAY_SECONDS:
            return True
        month = month_of(now.date())
        needed = months | {month, month_of((now + _AHEAD).date())}
        missing = any(self.key(each) is None for each in needed)
        return missing and age >= _MISSING_SECONDS


def is_over(month: str, now: dt.datetime) -> bool:
    """Say whether `month` has ended at `now`."""
    return end_of_month(month) <= now
