"""Good records to be spoilt, and the cases made of them, from one seed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

NOW: Final = "2026-10-20T22:30:00Z"
INTEGER_FIELDS: Final = ("bytes", "asn", "users", "attempts", "successes")
MAX_INTEGER: Final = 2**53 - 1
MAX_BYTES: Final = 10 * 10**9 // 8 * 86_400  # 10 Gbit/s for a day

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Hostile:
    """A line that must be rejected, for one of `reasons`, leaving no byte of `needles`."""

    label: str
    line: bytes
    reasons: frozenset[str]
    needles: tuple[str, ...] = ()


class Factory:
    """Makes good records to be spoilt, and cases of them, from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"hostile {seed}")

    def usage(self, **changes: Any) -> Record:
        """Return a good usage counter with `changes`."""
        return {
            "record": "usage_counter.1",
            "day": f"2026-10-{self.rng.randint(1, 20):02d}",
            "user": f"acct-{self.rng.randint(0, 99_999)}",
            "location": self.rng.choice(("us-nyc", "de-fra", "nl-ams")),
            "epoch": f"{self.rng.getrandbits(64):016x}",
            "bytes": self.rng.randint(0, 10**9),
            **changes,
        }

    def flags(self, **changes: Any) -> Record:
        """Return good connection flags with `changes`."""
        return {
            "record": "connection_flags.1",
            "day": f"2026-10-{self.rng.randint(1, 20):02d}",
            "location": self.rng.choice(("us-nyc", "de-fra", "nl-ams")),
            "epoch": f"{self.rng.getrandbits(64):016x}",
            "country": "DE",
            "asn": 3320,
            "app": "android",
            "version": "11.4.0",
            "users": 14,
            "attempts": 31,
            "successes": 29,
            **changes,
        }

    def either(self) -> Record:
        """Return a good record of either kind."""
        return self.rng.choice((self.usage, self.flags))()

    def bad(
        self, label: str, record: Record | bytes, *reasons: str, needle: str | None = None
    ) -> Hostile:
        """Return a case: a record or a raw line, the reasons allowed, what may not be left."""
        line = record if isinstance(record, bytes) else dump(record)
        return Hostile(label, line, frozenset(reasons), (needle,) if needle else ())


def dump(record: Record) -> bytes:
    """Write a record as an agent does."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


Kind = Callable[[Factory], Iterator[Hostile]]
