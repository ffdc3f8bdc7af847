"""How much the door takes at once, how long it waits, and how often an agent may ask."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

_FULL: Final = 1e-9
"""Less than this is missing only by rounding."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one door; times are seconds.

    A connection of an agent is kept `kept_seconds` between two requests, any other one, and an
    agent's where many are open, `idle_seconds`.
    """

    connections: int = 4096
    backlog: int = 512
    handshake_seconds: float = 10.0
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    request_seconds: float = 120.0
    idle_seconds: float = 5.0
    kept_seconds: float = 600.0
    shutdown_seconds: int = 30
    body_bytes_at_once: int = 256 << 20
    bodies_of_an_agent: int = 16
    linger_seconds: float = 2.0
    linger_bytes: int = 8 << 20
    burst: int = 120
    requests_a_second: float = 2.0


class Rates:
    """How often each agent may ask: a burst, and then so many requests a second."""

    def __init__(self, limits: Limits) -> None:
        """Let every agent begin with a whole burst."""
        self._limits = limits
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, agent: str, now: float) -> int:
        """Count a request at `now` (seconds, monotonic); return the seconds to wait, 0 if none."""
        left, at = self._left.get(agent, (float(self._limits.burst), now))
        left = min(self._limits.burst, left + (now - at) * self._limits.requests_a_second)
        if left + _FULL < 1:
            self._left[agent] = (left, now)
            return math.ceil((1 - left) / self._limits.requests_a_second)
        self._left[agent] = (left - 1, now)
        return 0


class Budget:
    """How many bytes of bodies may be in memory at once."""

    def __init__(self, size: int) -> None:
        """Begin with all of `size` free."""
        self._free = size

    def take(self, size: int) -> bool:
        """Take `size` bytes if so many are free; return whether they were."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Free what was taken."""
        self._free += size
