"""Agents as VPN servers have them: totals that grow, restarts, networks that are away, replays.

An agent seals what grew since its last report, and keeps the batch until the door has taken it or
the agent's own clock, which is right, says that the month is over.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import random
import tomllib
from collections import Counter
from typing import Final, Protocol

from blackbox.flags import Flags
from blackbox.truth import Reading
from support import usage

from aggregator.pipeline.receive import Refusal, Taken
from aggregator.wire import batch, keys

from .plan import DAY, purge_at

PLACES: Final = {
    "us-nyc-01": ("us-nyc",),
    "us-nyc-02": ("us-nyc",),
    "eu-01": ("de-fra", "nl-ams", "se-sto"),
}
USERS: Final = {"us-nyc": 26, "de-fra": 20, "nl-ams": 9, "se-sto": 8}
ADDRESS: Final = "198.51.100.77"
"""In a record that is refused; nothing of it may be kept (CS-6)."""
HEAVY: Final = "planted-heavy-one@vpn.example"
_REMEMBERED: Final = 12


def accounts(place: str) -> list[str]:
    """Return the accounts that use a location; the first five use all of them."""
    own = [f"planted-{place}-{number:04d}@vpn.example" for number in range(USERS[place] - 5)]
    return [f"planted-roaming-{number:04d}@vpn.example" for number in range(5)] + own


def all_accounts() -> set[str]:
    """Return every account there is."""
    return {HEAVY}.union(*(accounts(place) for place in USERS))


@dataclasses.dataclass(slots=True)
class Report:
    """What one batch says; `name` and `content` are of its present seal, if it has one.

    `kept_at` is when it came to lie in the inbox, in true time.
    """

    agent: str
    day: str
    readings: list[Reading]
    flags: list[Flags]
    junk: list[str]
    name: str = ""
    content: bytes | None = None
    kept_at: dt.datetime | None = None

    @property
    def month(self) -> str:
        """The month that it is sealed to."""
        return self.day[:7]

    def lines(self) -> bytes:
        """Return its records."""
        rows = [usage(*one) for one in self.readings]
        for one in self.flags:
            fields = {name: value for name, value in one._asdict().items() if value is not None}
            rows.append(json.dumps({"record": "connection_flags.1", **fields}))
        return "".join(f"{row}\n" for row in [*rows, *self.junk]).encode()


class Door(Protocol):
    """What the agents need of the aggregator's host."""

    def announcement(self) -> bytes | None:
        """Return the announced keys, None if the door does not answer."""

    def take(self, agent: Agent, report: Report) -> Taken | Refusal | None:
        """Hand a batch over; None if the door does not answer."""


class Agent:
    """One VPN server."""

    def __init__(self, name: str, enrolment: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.places = PLACES[name]
        self.said: Counter[str] = Counter()
        self._old: list[Report] = []
        self._queue: list[Report] = []
        self._away_until: dt.datetime | None = None
        self._usage: dict[tuple[str, str, str], int] = {}
        self._flags: dict[tuple[str, str, str, int, str | None, str | None], list[int]] = {}
        self.take_papers(enrolment)
        self._restart()

    def take_papers(self, enrolment: str) -> None:
        """Take an enrolment, the first or a new one."""
        papers = tomllib.loads(enrolment)
        self.token = papers["token"]
        self.signing_key = base64.b64decode(papers["signing_key"])
        self.door_key = base64.b64decode(papers["door_key"])

    @property
    def unsent(self) -> int:
        """How many batches wait here."""
        return len(self._queue)

    def report(self, day: dt.date) -> None:
        """Use the VPN a little more on `day`, and queue what grew."""
        if self.rng.random() < 0.06:
            self._restart()
        text = day.isoformat()
        self._usage = {key: value for key, value in self._usage.items() if key[0] == text}
        self._flags = {key: value for key, value in self._flags.items() if key[0] == text}
        readings = [one for place in self.places for one in self._use(text, place)]
        found = [one for place in self.places for one in self._connect(text, place)]
        self._queue.append(Report(self.name, text, readings, found, self._junk(text)))

    def send(self, now: dt.datetime, door: Door) -> None:
        """Hand over what waits, in any order; now and then also what was handed over before."""
        if self._away_until is None and self.rng.random() < 0.04:
            self._away_until = now + self.rng.choice((1, 2, 3, 6)) * DAY
        if self._away_until is not None and now < self._away_until:
            return
        self._away_until = None
        over = [one for one in self._queue if purge_at(one.month) <= now]
        self.said["months over before they were sent"] += len(over)
        self._queue = [one for one in self._queue if purge_at(one.month) > now]
        if not self._seal(door):
            return
        for one in self.rng.sample(self._queue, len(self._queue)):
            if one.content is not None and not self._hand_over(one, door):
                return
        if self._old and self.rng.random() < 0.2:
            self._told(door.take(self, self.rng.choice(self._old)), "again")

    def _hand_over(self, report: Report, door: Door) -> bool:
        answer = door.take(self, report)
        self._told(answer, "first")
        if isinstance(answer, Taken):
            self._queue.remove(report)
            self._old.append(report)
            if len(self._old) > _REMEMBERED:
                del self._old[self.rng.randrange(_REMEMBERED)]
        elif answer is not None:  # another key, or another signature: sealed anew next time
            report.content = None
        return answer is not None

    def _told(self, answer: Taken | Refusal | None, how: str) -> None:
        self.said[f"{how}: {answer.value if answer else 'no answer'}"] += 1

    def _seal(self, door: Door) -> bool:
        """Seal what has no seal to a key that is announced; False if the door does not answer."""
        content = door.announcement()
        if content is None:
            return False
        found = {key.month: key for key in keys.read_announcement(content, self.door_key).keys}
        for one in self._queue:
            key = found.get(one.month)
            if one.content is None and key is not None:
                one.content = batch.seal(
                    one.lines(), one.month, self.name, key.key_id, key.public_key, self.signing_key
                )
                one.name = batch.parse(one.content).header.content
        return True

    def _restart(self) -> None:
        """Begin a new process: a new epoch, and totals from zero."""
        self._epoch = f"{self.rng.getrandbits(64):016x}"
        self._usage, self._flags = {}, {}

    def _use(self, day: str, place: str) -> list[Reading]:
        users = self.rng.sample(accounts(place), round(0.7 * USERS[place]))
        if place == "us-nyc" and day[5:] in ("03-11", "03-12", "09-14") and self.name[-1] == "1":
            users.append(HEAVY)
        found = []
        for user in users:
            key = (day, place, user)
            more = int(self.rng.paretovariate(1.2) * 10**6)
            more += 2 * 10**13 if user == HEAVY else 0
            self._usage[key] = self._usage.get(key, 0) + more
            found.append(Reading(day, user, place, self._epoch, self._usage[key]))
        return found

    def _connect(self, day: str, place: str) -> list[Flags]:
        found = []
        for country, asn, weight in (("DE", 3320, 12), ("US", 64500, 6), ("ZZ", 0, 2)):
            app, version = self.rng.choice((("android", "11.4"), ("ios", "9.0.2"), (None, None)))
            key = (day, place, country, asn, app, version)
            total = self._flags.setdefault(key, [0, 0, 0])
            users = self.rng.randint(0, weight)
            total[0] += users
            total[1] += users + self.rng.randint(0, 10_000)  # so that no two cells are alike
            total[2] += users
            found.append(Flags(day, place, self._epoch, country, asn, app, version, *total))
        return found

    def _junk(self, day: str) -> list[str]:
        """Return what a broken server may add: none of it may be kept."""
        if self.rng.random() > 0.03:
            return []
        return [usage(day, ADDRESS, self.places[0]), "{not json", '{"record":"x","planted-key":1}']
