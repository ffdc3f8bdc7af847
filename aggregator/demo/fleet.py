"""A made-up fleet of VPN servers, the same in every run, that knows what the tables must say.

Servers report running totals several times a day, restart, repeat themselves, and now and then
send what no aggregator may keep. Whatever is delivered is counted here as well, so that a
published number can be compared with the truth.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from aggregator.demo import junk

SEED: Final = 20261001
ACCOUNTS: Final = 3000
REPORTS_A_DAY: Final = 4
FIRST_DAY: Final = dt.date(2026, 9, 24)
LAST_DAY: Final = dt.date(2026, 11, 2)
# Their last day of use is in the month whose purge is shown.
PLANTED: Final = (
    "acct-9041736",
    "planted.mailbox-7@mail.example",
    "55830174926613",
    "konto-äöü-7130",
    "reseller/44/device-2",
)
HEAVY: Final = f"acct-{ACCOUNTS:05d}"
"""The one account that moves as much as dozens of others."""
PLANTED_UNTIL: Final = dt.date(2026, 10, 31)

# What a user of an average day moves, in bytes; the spread makes a few move very much.
_MEDIAN_BYTES: Final = 320_000_000
_SPREAD: Final = 1.25
_HEAVY_BYTES: Final = 44_000_000_000
_WEEKEND: Final = 1.3
_REPEATED, _REPLAYED, _RESTARTED, _ELSEWHERE = 0.02, 0.01, 0.03, 0.07
_BROKEN_RELEASE: Final = dt.date(2026, 10, 12)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One VPN location: its share of the accounts, and how many servers it has."""

    name: str
    weight: int
    servers: int = 1


PLACES: Final = (
    Place("us-nyc", 520, 3),
    Place("de-fra", 480, 3),
    Place("nl-ams", 430, 2),
    Place("gb-lon", 390, 2),
    Place("us-lax", 330, 2),
    Place("fr-par", 260, 2),
    Place("jp-tyo", 200),
    Place("sg-sin", 150),
    Place("se-sto", 130),
    Place("za-jnb", 80),  # one account moves more than half of its bytes
    Place("is-rey", 9),  # too few for a cell of their own
    Place("mt-mla", 7),
)
_HEAVY_PLACE: Final = PLACES[9]
_LARGE_PLACES: Final = 8

# country, autonomous system, share of the connections
_ORIGINS: Final = (
    ("DE", 3320, 18), ("US", 7922, 22), ("GB", 2856, 14), ("FR", 3215, 11), ("NL", 1136, 9),
    ("JP", 2516, 8), ("BR", 26599, 7), ("IN", 55836, 7), ("LI", 20634, 1), ("ZZ", 0, 3),
)  # fmt: skip
# app, version, share; the share of the version before a release moves over to it
_APPS: Final = (
    ("android", "11.4.0", 38), ("ios", "6.2.1", 30), ("windows", "4.9.0", 22), (None, None, 10),
)  # fmt: skip
_BROKEN: Final = ("android", "11.4.1")

Truth = Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """What all servers deliver for one day: NDJSON, and the truth about it.

    `truth` has the bytes of each account by location; `accepted` and `rejected` say what must
    become of the lines, `repeats` how many of the accepted ones say nothing new.
    """

    day: dt.date
    lines: Sequence[str]
    accepted: int
    repeats: int
    rejected: Mapping[str, int]
    truth: Truth


class Fleet:
    """The fleet: call `deliveries` once for all days, in order."""

    def __init__(self, seed: int = SEED) -> None:
        """Make accounts, servers and their habits from `seed`."""
        self._random = random.Random(seed)
        self._epochs = {
            (place.name, server): self._epoch()
            for place in PLACES
            for server in range(place.servers)
        }
        self._accounts = [f"acct-{number:05d}" for number in range(ACCOUNTS - len(PLANTED) - 1)]
        weights = [place.weight for place in PLACES]
        self._homes = self._random.choices(PLACES, weights, k=len(self._accounts))
        self._scale = [
            self._random.lognormvariate(0, _SPREAD) * _MEDIAN_BYTES for _ in self._accounts
        ]
        self._diligence = [0.35 + 0.6 * self._random.random() for _ in self._accounts]
        self._yesterday: list[str] = []
        self.restarts = 0

    def deliveries(self) -> Iterator[Delivery]:
        """Yield what is delivered for each day, oldest first."""
        for number in range((LAST_DAY - FIRST_DAY).days + 1):
            yield self._delivery(FIRST_DAY + dt.timedelta(days=number))

    def _delivery(self, day: dt.date) -> Delivery:
        truth: dict[str, dict[str, int]] = {place.name: {} for place in PLACES}
        restarting = {
            place.name for place in PLACES if self._random.random() < _RESTARTED * place.servers
        }
        self.restarts += len(restarting)
        before = dict(self._epochs)
        for name in sorted(restarting):
            self._epochs[name, 0] = self._epoch()
        lines: list[str] = []
        for account, place, total in self._use(day):
            lines += self._reports(day, account, place, total, before)
            truth[place.name][account] = truth[place.name].get(account, 0) + total
        for place in PLACES:
            lines += self._flags(day, place, len(truth[place.name]))
        once = len(lines)
        lines += self._random.sample(lines, int(once * _REPEATED))
        lines += self._random.sample(self._yesterday, int(len(self._yesterday) * _REPLAYED))
        self._yesterday = lines[:once]
        rejected: Counter[str] = Counter()
        accepted = len(lines)
        for reason, line in junk.lines(day, self._random):
            rejected[reason] += 1
            lines.append(line)
        self._random.shuffle(lines)
        return Delivery(day, lines, accepted, accepted - once, rejected, truth)

    def _use(self, day: dt.date) -> Iterator[tuple[str, Place, int]]:
        """Yield who used which location on `day`, and the bytes of it."""
        chance = self._random.random
        factor = _WEEKEND if day.weekday() >= 5 else 1.0
        for account, home, scale, diligence in zip(
            self._accounts, self._homes, self._scale, self._diligence, strict=True
        ):
            if chance() < diligence:
                total = int(scale * factor * (0.3 + 1.4 * chance())) + 1
                yield account, home, total
                elsewhere = PLACES[int(chance() * _LARGE_PLACES)]
                if chance() < _ELSEWHERE and elsewhere is not home:
                    yield account, elsewhere, int(total * chance()) + 1
        yield HEAVY, _HEAVY_PLACE, int(_HEAVY_BYTES * (0.8 + 0.4 * chance()))
        for number, account in enumerate(PLANTED):
            if day <= PLANTED_UNTIL and chance() < 0.9:
                yield account, PLACES[number], int(_MEDIAN_BYTES * (0.5 + chance()))

    def _reports(
        self, day: dt.date, account: str, place: Place, total: int,
        before: Mapping[tuple[str, int], str],
    ) -> Iterator[str]:  # fmt: skip
        """Yield the day's running totals of one account; after a restart they begin again at 0."""
        server = int(self._random.random() * place.servers)
        old, new = before[place.name, server], self._epochs[place.name, server]
        start = int(self._random.random() * REPORTS_A_DAY)
        parts = REPORTS_A_DAY - start
        epoch, since = old, 0
        user = json.dumps(account, ensure_ascii=False)
        for part in range(1, parts + 1):
            so_far = total * part // parts
            if epoch != new and start + part > REPORTS_A_DAY // 2:
                epoch, since = new, total * (part - 1) // parts
            yield (
                f'{{"record":"usage_counter.1","day":"{day}","user":{user},'
                f'"location":"{place.name}","epoch":"{epoch}","bytes":{so_far - since}}}'
            )

    def _flags(self, day: dt.date, place: Place, users: int) -> Iterator[str]:
        """Yield the day's connection flags of one location: as many users as its counters have."""
        epoch = self._epochs[place.name, 0]
        for country, asn, origin_share in _ORIGINS:
            for app, version, app_share in _apps(day):
                share = users * origin_share * app_share / 10_000
                count = int(share + self._random.random())
                if not count:
                    continue
                attempts = int(count * (1.6 + self._random.random())) + 1
                loss = 0.28 if (app, version) == _BROKEN else 0.02
                loss += 0.05 * (country == "BR")
                successes = max(count, attempts - int(attempts * loss + self._random.random()))
                named = "" if app is None else f'"app":"{app}","version":"{version}",'
                yield (
                    f'{{"record":"connection_flags.1","day":"{day}","location":"{place.name}",'
                    f'"epoch":"{epoch}","country":"{country}","asn":{asn},{named}'
                    f'"users":{count},"attempts":{attempts},"successes":{successes}}}'
                )

    def _epoch(self) -> str:
        return f"{self._random.getrandbits(64):016x}"


def _apps(day: dt.date) -> Iterator[tuple[str | None, str | None, float]]:
    """Yield the apps of `day` with their shares, while a release replaces the one before it."""
    adopted = min(max((day - _BROKEN_RELEASE).days, 0) * 0.08, 0.8)
    for app, version, share in _APPS:
        if app == _BROKEN[0] and adopted:
            yield *_BROKEN, share * adopted
            yield app, version, share * (1 - adopted)
        else:
            yield app, version, share
