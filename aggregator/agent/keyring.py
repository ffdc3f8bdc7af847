"""The month keys that the aggregator announced, and when to ask for them again."""

from __future__ import annotations

import datetime as dt
from typing import Final

from aggregator.model.days import end_of_month
from aggregator.wire.keys import Announcement, PublishedKey, read_announcement

_ASK_SECONDS: Final = 3600.0


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

    def is_stale(self, monotonic: float) -> bool:
        """Say whether to ask the door: once an hour, whether anybody is connected or not.

        So the hour in which an agent was heard says nothing of its users (CS-6).
        """
        asked = self._fetched_at
        return asked is None or self._doubted or monotonic - asked >= _ASK_SECONDS


def is_over(month: str, now: dt.datetime) -> bool:
    """Say whether `month` has ended at `now`."""
    return end_of_month(month) <= now
