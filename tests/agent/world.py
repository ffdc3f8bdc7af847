"""For tests of the service: a simulated world, with its clock, its daemon, its door, and the truth.

Bytes flow all the time, also while the agent sends; what the aggregator may hold is written down
beside it: the truth by day, and what every life of the agent read between its first and last
reading.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from door_stub import LOCATION, Aggregator

from aggregator.agent import timetable, watch
from aggregator.agent.client import Answer, Outcome
from aggregator.agent.collectors import Source
from aggregator.agent.config import Config, DoorSettings, SourceSettings
from aggregator.agent.journal import Journal, Notifier
from aggregator.agent.readings import Capture, Reading, nowhere
from aggregator.agent.resets import from_zero
from aggregator.agent.service import Service
from aggregator.agent.spool import Spool
from aggregator.errors import BadInputError

USERS = ("alice", "bob@example.org", "81723")
KIND = "simulated"
START = dt.datetime(2026, 9, 28, 9, 17, tzinfo=dt.UTC)


def on_tmpfs() -> Iterator[Path]:
    """Yield a folder that is not there yet, on tmpfs, for a fixture."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder) / "spool"


class KilledError(BaseException):
    """The agent was killed here, as by SIGKILL."""


class World:
    """The clock, the daemon's counters, and the truth."""

    def __init__(self, start: dt.datetime, seed: int = 0) -> None:
        """Begin at the instant `start`."""
        self.chance = random.Random(seed)
        self.time = start
        self.seconds = 1000.0
        self.counters = dict.fromkeys(USERS, 10**9)
        self.truth: Counter[tuple[str, str]] = Counter()
        self.lives: list[list[dict[str, int]]] = []
        self.trouble: Callable[[], None] = lambda: None
        self.keyed_by = "user"
        self.traffic = True

    def now(self) -> dt.datetime:
        """Return the instant."""
        return self.time

    def monotonic(self) -> float:
        """Return the seconds since some moment."""
        return self.seconds

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and bytes flow; each piece is in one day."""
        while seconds > 0:
            midnight = dt.datetime.combine(self.time.date(), dt.time(), dt.UTC)
            left = (midnight + dt.timedelta(days=1) - self.time).total_seconds()
            piece = min(seconds, left)
            day = self.time.date().isoformat()
            for user in USERS if self.traffic else ():
                grown = self.chance.randrange(int(piece * 100) + 1)
                self.counters[user] += grown
                self.truth[day, user] += grown
            self.time += dt.timedelta(seconds=piece)
            self.seconds += piece
            seconds -= piece

    def read(self, _now: dt.datetime) -> Capture:
        """Return the counters, as a reader does."""
        self.trouble()
        self.lives[-1].append(dict(self.counters))
        readings = tuple(
            Reading(user, user, (self.keyed_by, user), count)
            for user, count in self.counters.items()
        )
        return Capture(readings, {}, self.keyed_by)

    def close(self) -> None:
        """Nothing is held."""

    def was_read(self, up_to: int = -1) -> Counter[str]:
        """Return the bytes by user that all lives saw between their first and last readings."""
        found: Counter[str] = Counter()
        for life in self.lives:
            if life:
                last = life[up_to] if len(life) >= -up_to else life[0]
                found.update({user: last[user] - life[0][user] for user in USERS})
        return found

    def true_by_user(self) -> Counter[str]:
        """Return the bytes by user that flowed."""
        found: Counter[str] = Counter()
        for (_day, user), count in self.truth.items():
            found[user] += count
        return found


class SimulatedDoor:
    """A door in the same process, whose `mood` is drawn for each request."""

    def __init__(self, world: World, aggregator: Aggregator) -> None:
        """Take batches for `aggregator`."""
        self.world = world
        self.aggregator = aggregator
        self.moods: list[str] = ["up"]
        self.over: set[str] = set()
        self.known: tuple[str, ...] = ()
        self.requests: list[str] = []
        self.times: list[float] = []
        self.slowest = 0.0
        self.largest: int | None = None
        self.retry_after: float | None = None

    def keys(self) -> Answer:
        """Answer with the announcement."""
        return self._in_mood("keys", self._announcement)

    def send(self, batch: bytes) -> Answer:
        """Take a batch."""
        return self._in_mood("batch", lambda: self._take(batch))

    def hurry(self, seconds: float) -> None:
        """Every request is quick from here on."""
        self.slowest = min(self.slowest, seconds / 2)

    def close(self) -> None:
        """Nothing is held."""

    def _in_mood(self, what: str, act: Callable[[], Answer]) -> Answer:
        mood = self.world.chance.choice(self.moods)
        self.requests.append(f"{what} {mood}")
        self.times.append(self.world.seconds)
        self.world.pass_time(self.world.chance.uniform(0, self.slowest))
        if mood == "killed before":
            raise KilledError
        if mood in Outcome.__members__.values():
            return Answer(Outcome(mood), f"the door is {mood}", self.retry_after)
        answer = act()
        if mood == "killed after":
            raise KilledError
        # The door took it, but nobody hears of it.
        return Answer(Outcome.NO_ANSWER, "the answer is lost") if mood == "lost" else answer

    def _announcement(self) -> Answer:
        body = self.aggregator.announcement(*self.known, now=self.world.now())
        return Answer(Outcome.DONE, "", body=body)

    def _take(self, content: bytes) -> Answer:
        if self.largest is not None and len(content) > self.largest:
            return Answer(Outcome.TOO_LARGE, "too large")
        if any(f'"month":"{month}"'.encode() in content for month in self.over):
            return Answer(Outcome.MONTH_OVER, "over")
        self.aggregator.take(content)
        return Answer(Outcome.DONE, "")


class SimulatedSpool(Spool):
    """A spool in a folder, at which the agent may be killed."""

    killed_at: Callable[[], str | None] = staticmethod(lambda: None)

    def add(self, batch: bytes) -> str | None:
        """Keep a batch, unless killed before; be killed after."""
        at = self.killed_at()
        if at == "before":
            raise KilledError
        name = super().add(batch)
        if at == "after":
            raise KilledError
        return name


@dataclasses.dataclass
class Simulation:
    """An agent in a world, restarted where it was killed."""

    world: World
    aggregator: Aggregator
    door: SimulatedDoor
    folder: Path | None
    interval: int = 3600
    spool_class: type[Spool] = Spool
    log: io.StringIO = dataclasses.field(default_factory=io.StringIO)
    status: Path | None = None
    chance: random.Random = dataclasses.field(default_factory=lambda: random.Random(7))
    killed: int = 0
    service: Service = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Start the agent."""
        self.start()

    def config(self) -> Config:
        """Return the configuration of the agent."""
        source = SourceSettings(1, KIND, LOCATION, None, ())
        door = DoorSettings(None, None, None, None, 30)
        where = Path("/nowhere")
        return Config(
            where, where, self.interval, self.folder, self.status, door, None, None, (source,)
        )

    def start(self) -> None:
        """Start the agent, for the first time or anew."""
        self.world.lives.append([])
        self.service = Service(
            self.config(),
            self.aggregator.enrolment,
            self.door,
            self.spool_class(self.folder),
            self.world,
            locate=nowhere,
            faults=list,
            journal=Journal(self.log, prefixed=False),
            notifier=Notifier({}),
            chance=self.chance,
        )

    def run(self, **duration: float) -> None:
        """Let the agent run for some time."""
        until = self.world.seconds + dt.timedelta(**duration).total_seconds()
        while self.world.seconds < until:
            try:
                wait = self.service.step()
            except KilledError:
                self.killed += 1
                self.world.pass_time(self.world.chance.uniform(0, 2 * self.interval))
                self.start()
                continue
            left = until - self.world.seconds
            self.world.pass_time(max(min(wait, left), 0.001))

    def settle(self) -> None:
        """Let a good door have all that waits, while no bytes flow."""
        self.door.moods = ["up"]
        self.door.slowest = 0.0
        self.world.trouble = lambda: None
        self.world.traffic = False
        self.run(seconds=self.interval * 3 + 3600)


def simulated_source(world: World) -> Source:
    """Return the row of `SOURCES` that reads the world."""

    def connect(_settings: Any, _locate: Any) -> World:
        return world

    def parse(_text: str, _locate: Any = nowhere, /) -> Capture:
        raise BadInputError("is never parsed")

    return Source(
        parse, from_zero, counters_return=True, names_accounts=True, settings=tuple, connect=connect
    )


def install(world: World, monkeypatch: pytest.MonkeyPatch, longest_wait: float = 900.0) -> None:
    """Make the world a source; let waits be longer than with a clock that may be set."""
    monkeypatch.setattr(watch, "SOURCES", {KIND: simulated_source(world)})
    monkeypatch.setattr(timetable, "LONGEST_WAIT", longest_wait)


def simulated(
    monkeypatch: pytest.MonkeyPatch, folder: Path | None, seed: int = 0, **other: Any
) -> Simulation:
    """Return an agent in a world of its own; keys are random, everything else by the seed."""
    world = World(other.pop("start", START), seed)
    install(world, monkeypatch)
    aggregator = Aggregator()
    door = SimulatedDoor(world, aggregator)
    return Simulation(world, aggregator, door, folder, chance=random.Random(seed), **other)
