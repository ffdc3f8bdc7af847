"""Whether the clock may be trusted with destruction.

Every writing command compares its clock with the last audit entry. More than 48 h ahead opens a
doubt; only the purge waits for it. It ends by confirmation, by 6 h of later entries, or when the
clock turns back to where it came from. A clock that turns back, but not as far, is watched for
another 6 h from where it then is.

A clock behind the last entry destroys nothing either: what seems to be of a day that has not begun
may be of today, so batches that hold such records wait.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from aggregator.model.clock import Clock
from aggregator.rules.calendar import EARLY_TOLERANCE

JUMP: Final = dt.timedelta(hours=48)
SETTLED: Final = dt.timedelta(hours=6)


def observe(clock: Clock, now: dt.datetime, *, confirmed: bool = False) -> Clock:
    """Return the clock's state after an entry at `now`."""
    if confirmed or clock.last_at is None:
        return Clock(now)
    behind = _behind(clock, now)
    if now - clock.last_at > JUMP:
        return Clock(now, now, clock.before_jump or clock.last_at, behind)
    if clock.doubt_since is not None and clock.before_jump is not None:
        settled = now - clock.doubt_since >= SETTLED
        came_back = now < clock.doubt_since and now - clock.before_jump <= JUMP
        if settled or came_back:
            return Clock(now, behind=behind)
        return Clock(now, min(clock.doubt_since, now), clock.before_jump, behind)
    return Clock(now, behind=behind)


def _behind(clock: Clock, now: dt.datetime) -> dt.datetime | None:
    """Return the latest instant that was not doubted, if `now` lies well before it."""
    # One that comes back from a doubted jump is behind nothing of that jump.
    last = clock.before_jump if clock.in_doubt else clock.last_at
    latest = max(filter(None, (last, clock.behind)), default=now)
    return latest if latest - now > EARLY_TOLERANCE else None


def is_behind(clock: Clock, now: dt.datetime) -> bool:
    """Say whether `now` lies before entries of a clock that nobody doubted."""
    return _behind(clock, now) is not None
