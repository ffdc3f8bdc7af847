"""Publish month keys: make them when they are needed, and announce their public halves, signed.

What is announced is all that the door and the agents ever see of a month's keys.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregator.errors import BadInputError, IntegrityError
from aggregator.model.days import is_month, month_of
from aggregator.pipeline.deployment import Deployment
from aggregator.stores.keys import MonthKeys
from aggregator.wire import keys as wire
from aggregator.wire.keys import Announcement, PublishedKey

AHEAD: Final = dt.timedelta(days=7)
"""How long before a month begins its key is announced, so that no agent has to wait for it."""

_REFRESH: Final = dt.timedelta(days=1)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


def publish(house: Deployment) -> list[str]:
    """Announce the keys of every month that may be reported; return the months that are new.

    The current month's keys are made if they are missing, and the next one's from seven days
    before it begins. A month stays announced until its purge instant. Nothing is written while
    nothing changed, but once a day; nor by a clock that is behind. IntegrityError if a month's keys
    are damaged, after all others were announced; RefusedError if new keys could not be destroyed
    again.
    """
    if house.is_behind:
        return []  # keys of a month that is long over would be missed at a purge that never was
    keys, damaged = _keys(house)
    before = _last(house)
    if before is None or before.keys != keys or not _is_fresh(before, house.now):
        signing_key = house.agents.signing_key()
        house.agents.announce(wire.announce(keys, house.now, signing_key))
    known = set() if before is None else {(key.month, key.key_id) for key in before.keys}
    new = [key.month for key in keys if (key.month, key.key_id) not in known]
    if new:
        house.record("keys_published", {"months": new})
    if damaged is not None:
        raise damaged
    return new


def announced(house: Deployment) -> tuple[PublishedKey, ...]:
    """Return the keys that were announced last, oldest month first."""
    before = _last(house)
    return () if before is None else before.keys


def _keys(house: Deployment) -> tuple[tuple[PublishedKey, ...], IntegrityError | None]:
    """Return the keys to announce, and what is wrong with one that should be among them."""
    current = month_of(house.now.date())
    latest = month_of((min(house.now, _LAST - AHEAD) + AHEAD).date())
    kept = {month for month in house.keys.months() if is_month(month) and month <= latest}
    keys = []
    damaged = None
    for month in sorted({*kept, current, latest}):
        if house.gate.is_over(month):
            continue
        try:
            made = month in (current, latest)
            found = house.month_keys_for_writing(month) if made else house.keys.load(month)
        except IntegrityError as error:
            damaged = error
            continue
        if found is not None:
            keys.append(_published(found, house.calendar.purges_at(month)))
    return tuple(keys), damaged


def _published(keys: MonthKeys, purge_at: dt.datetime) -> PublishedKey:
    public = X25519PrivateKey.from_private_bytes(keys.batch).public_key().public_bytes_raw()
    return PublishedKey(keys.month, keys.key_id, public, purge_at.replace(microsecond=0))


def _last(house: Deployment) -> Announcement | None:
    """Return the last announcement; None if there is none, or it is of no use any more."""
    public_key = house.agents.public_key()
    content = house.agents.announcement()
    try:
        return None if content is None else wire.read_announcement(content, public_key)
    except (BadInputError, IntegrityError):  # damaged, or the signing key is another: made anew
        return None


def _is_fresh(before: Announcement, now: dt.datetime) -> bool:
    # One that was made later than now was made by a clock that was wrong.
    return dt.timedelta(0) <= now - before.made_at < _REFRESH
