"""Made-up months, from a seed alone: a fleet, restarts, growing totals, heavy tails."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Iterator
from typing import Final

from .flags import Flags
from .truth import Cell, Reading

_PLACES: Final = (
    "us-nyc",
    "us-lax",
    "de-fra",
    "nl-ams",
    "gb-lon",
    "fr-par",
    "jp-tyo",
    "sg-sin",
    "se-sto",
    "ch-zrh",
    "br-sao",
    "za-jnb",
    "au-syd",
    "is-rkv",
)
_COUNTRIES: Final = ("US", "DE", "GB", "FR", "NL", "BR", "IN", "JP", "ZZ", "SE", "MX", "ZA")
_APPS: Final = (
    ("android", "11.4.0"),
    ("ios", "11.4"),
    ("windows", "9.0.2"),
    ("linux", None),
    (None, None),
    ("android", "11.3.9"),
    ("router", "2"),
)
_CAP: Final = 100 * 10**12


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How big a made-up month is."""

    users: int = 150
    locations: int = 6
    first: dt.date = dt.date(2026, 10, 1)
    days: int = 8


@dataclasses.dataclass(slots=True)
class Month:
    """Readings and flags, and what the generator meant by them, day → location → user → bytes."""

    shape: Shape
    readings: list[Reading]
    flags: list[Flags]
    meant: dict[str, dict[str, Cell]]

    @property
    def users(self) -> set[str]:
        """Every account named in it."""
        return {reading.user for reading in self.readings}


def make_month(seed: int, shape: Shape | None = None) -> Month:
    """Return the month of `seed`; the same seed gives the same month everywhere."""
    rng = random.Random(f"month {seed}")
    shape = shape or Shape(
        users=rng.randint(150, 400), locations=rng.randint(3, 14), days=rng.randint(5, 9)
    )
    month = Month(shape, [], [], {})
    users = [_account(rng, index) for index in range(shape.users)]
    weights = [1 / (rank + 1) ** 1.3 for rank in range(shape.locations)]
    servers = {place: _Servers(rng) for place in _PLACES[: shape.locations]}
    for offset in range(shape.days):
        day = (shape.first + dt.timedelta(days=offset)).isoformat()
        here = {place: server.epochs_of_day() for place, server in servers.items()}
        for user in users:
            if rng.random() < 0.7:
                for place in sorted(set(rng.choices([*here], weights, k=rng.randint(1, 3)))):
                    _use(rng, month, (day, user, place), here[place])
        for place, weight in zip(here, weights, strict=True):
            month.flags += _connect(rng, day, place, here[place], weight)
    rng.shuffle(month.readings)
    rng.shuffle(month.flags)
    return month


def _account(rng: random.Random, index: int) -> str:
    return rng.choice(
        (
            f"acct-{index:05d}",
            f"{index + 81_723_000}",
            f"user.{index}@example.net",
            f"Zoë Müller {index:04d}",
            f"{rng.getrandbits(32):08x}-{rng.getrandbits(16):04x}-4{index:03d}-8000-{index:012d}",
        )
    )


class _Servers:
    """The servers of one location; each restarts now and then, and then has a new epoch."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._running = [_epoch(rng) for _ in range(rng.choice((1, 1, 2)))]

    def epochs_of_day(self) -> list[str]:
        """Return every epoch that lives on the next day."""
        seen = list(self._running)
        for index in range(len(self._running)):
            while self._rng.random() < 0.2:
                self._running[index] = _epoch(self._rng)
                seen.append(self._running[index])
        return seen


def _epoch(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def _use(rng: random.Random, month: Month, key: tuple[str, str, str], epochs: list[str]) -> None:
    """Add a user's day at a location: one or two epochs, one to four growing totals in each."""
    day, user, place = key
    total = 0
    for epoch in rng.sample(epochs, min(len(epochs), rng.choice((1, 1, 2)))):
        final = min(int(rng.paretovariate(0.9) * 20_000_000 * rng.random()) + 1, _CAP)
        steps = sorted(rng.randint(0, final) for _ in range(rng.randint(0, 3)))
        month.readings += [Reading(day, user, place, epoch, value) for value in (*steps, final)]
        total += final
    month.meant.setdefault(day, {}).setdefault(place, {})[user] = total


def _connect(
    rng: random.Random, day: str, place: str, epochs: list[str], weight: float
) -> Iterator[Flags]:
    """Yield the flags of one location and day, growing over its reports."""
    for _ in range(rng.randint(4, 18)):
        rank = min(int(rng.paretovariate(0.8)) - 1, len(_COUNTRIES) - 1)
        app, version = rng.choice(_APPS)
        asn = rng.choice((0, 3320, 64500 + rank, 64500 + 10 * rank + rng.randint(0, 3)))
        for epoch in rng.sample(epochs, rng.randint(1, len(epochs))):
            users = attempts = successes = 0
            for _ in range(rng.randint(1, 3)):
                users += int(rng.random() * 14 * (0.2 + weight))
                good = users + rng.randint(0, 5)
                attempts, successes = max(attempts, good + rng.randint(0, 4)), max(successes, good)
                yield Flags(
                    day,
                    place,
                    epoch,
                    _COUNTRIES[rank],
                    asn,
                    app,
                    version,
                    users,
                    attempts,
                    successes,
                )
