"""Where numbers lie in a picture, and which of them are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_STEPS = (1, 2, 5, 10)
_NOTHING: Final = 1e-300
"""Below it there is no room for five numbers that differ."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers (1, 2, 5 times a power of ten) from at most `low` to at least `high`.

    There are two at the least, and about `most`.
    """
    if not high - low > _NOTHING:
        high = low + (abs(low) if abs(low) > _NOTHING else 1.0)
    raw = (high - low) / max(1, most - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(one * unit for one in _STEPS if one * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places near the `wanted`, `gap` apart where that fits between `low` and `high`."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    places = [0.0] * len(wanted)
    at = low - gap
    for index in order:
        at = places[index] = max(wanted[index], at + gap, low)
    ceiling = high + gap
    for index in reversed(order):
        ceiling = places[index] = min(places[index], ceiling - gap)
    return places


def sparse(count: int, most: int) -> list[int]:
    """Return at most `most` numbers below `count`, evenly apart, the first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
