"""What a smaller number than before means: one rule a kind of counter, named in `SOURCES`.

A rule takes the values that one counter key had before and has now, and returns the bytes counted
in between, never negative. A key has one value as a rule; where a daemon gives nothing to tell two
sessions apart, it has several. A new key has no values before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

ResetRule = Callable[[Sequence[int], Sequence[int]], int]


def from_zero(before: Sequence[int], now: Sequence[int]) -> int:
    """Count a smaller value as restarted from 0: WireGuard and OpenVPN, both measured.

    A counter that passed its old value again before this reading is not seen as restarted, so the
    result may be too small, but is never too large. With several values under one key, as many of
    the largest old ones as fit below the new ones are taken to go on: again the smallest result.
    """
    going_on = old_bytes = 0
    for old in sorted(before, reverse=True):
        if sum(value >= old for value in now) > going_on:
            going_on += 1
            old_bytes += old
    return sum(now) - old_bytes


def from_saved(before: Sequence[int], now: Sequence[int]) -> int:
    """Count a smaller value as nothing, and go on from it: SoftEther, measured.

    Its counters are saved with its configuration every few minutes. After a crash they fall back
    to what was saved last, not to 0, so that a value taken as new traffic would be charged twice
    (55 884 496 bytes fell to 54 838 252). What was counted after that save is lost, and so is what
    passes before the next reading: the result may be too small, but is never too large.
    """
    return max(0, sum(now) - sum(before))
