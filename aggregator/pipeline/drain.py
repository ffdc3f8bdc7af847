"""Drain the inbox: open the batches that wait in it, and take in their records.

A batch leaves the inbox when its rows are sealed and its rejections are counted, so a killed run
is simply run again. One that can never be opened leaves as well, and is counted; one that only
waits for something (its agent's enrolment, its month's key, a clock out of doubt) stays, until its
month is purged.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from aggregator.errors import BadInputError, IntegrityError
from aggregator.model.days import parse_day
from aggregator.model.reasons import Reason
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.ingest import Ingested, by_reason, record
from aggregator.pipeline.intake import Intake
from aggregator.rules.calendar import EARLY_TOLERANCE, DayGate
from aggregator.rules.validate import Gate
from aggregator.stores.agents import Agent
from aggregator.stores.contacts import TakenInFile
from aggregator.stores.keys import MonthKeys
from aggregator.wire import batch
from aggregator.wire.batch import Batch

# Batches that are taken up before their rows are sealed and they leave the inbox.
_AT_ONCE: Final = 20_000
# Records of agents that may send the same are checked together: less work for each batch.
_CHUNK_BYTES: Final = 8 << 20
_DAY: Final = re.compile(rb'"day"\s*:\s*"([0-9]{4}-[0-9]{2}-[0-9]{2})"')


class Refusal(enum.StrEnum):
    """Why a batch was removed unread; nothing else of it is kept."""

    MALFORMED = "malformed"
    MONTH_OVER = "month_over"
    REVOKED = "revoked"
    BAD_SIGNATURE = "bad_signature"
    NOT_OPENED = "not_opened"


class Wait(enum.StrEnum):
    """Why a batch stays in the inbox."""

    UNKNOWN_AGENT = "unknown_agent"
    NO_KEY = "no_key"
    CLOCK = "clock"
    UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Opened:
    """The records of a batch, whose they are, and what that agent may send."""

    agent: str
    records: bytes
    build: str
    gate: Gate


def drain_inbox(house: Deployment) -> Ingested:
    """Take in every batch that waits; return what that came to.

    An inbox in which nothing changes leaves no audit entry.
    """
    opener = _Opener(house)
    run = _Run(house)
    waiting: Counter[str] = Counter()
    paths = house.inbox.paths()
    for number, path in enumerate(paths):
        house.progress("taking in batches", number, len(paths))
        found = opener.open(path)
        if isinstance(found, Wait):
            waiting[found.value] += 1
        else:
            run.take(path, found)
    run.settle(waiting)
    intake = run.intake
    outcome = Ingested(
        files=0,
        accepted=intake.accepted,
        reasons=by_reason(intake),
        days=tuple(sorted(intake.days)),
        batches=run.taken,
        refused=dict(run.refused),
        waiting=dict(waiting),
    )
    if run.taken or run.refused:
        record(house, outcome)
    return outcome


class _Run:
    """One drain: records that are not yet checked, and batches that have not yet left."""

    def __init__(self, house: Deployment) -> None:
        self.house = house
        self.intake = Intake(house)
        self.refused: Counter[str] = Counter()
        self.taken = 0
        self._held: dict[tuple[str, frozenset[str] | None], tuple[Gate, list[_Opened]]] = {}
        self._held_bytes = 0
        self._done: list[Path] = []
        self._notes = TakenInFile(house.home.folder("runs"))
        self._days: dict[str, str | None] = {}
        self._unnoted: Counter[str] = Counter()

    def take(self, path: Path, found: _Opened | Refusal) -> None:
        """Take up one batch; now and then, let go of all that were."""
        self._done.append(path)
        if isinstance(found, Refusal):
            self.refused[found.value] += 1
            self._unnoted[found.value] += 1
        else:
            self.taken += 1
            _gate, held = self._held.setdefault(
                (found.build, found.gate.locations), (found.gate, [])
            )
            held.append(found)
            self._held_bytes += len(found.records)
        sealed = self._check() if self._held_bytes >= _CHUNK_BYTES else False
        if sealed or len(self._done) >= _AT_ONCE:
            self.settle()

    def settle(self, waiting: Mapping[str, int] | None = None) -> None:
        """Make durable what came out of the batches, and only then let go of them.

        Whose they were is noted between the two, so that a killed run, run again, notes it too.
        """
        self._check()
        self.intake.seal()
        self.intake.count_rejections()
        self._notes.add(self.house.now, self._days, self._unnoted, waiting)
        self._days, self._unnoted = {}, Counter()
        self.house.inbox.remove(self._done)
        self._done = []

    def _check(self) -> bool:
        """Check the records held; return whether everything accepted so far was sealed."""
        sealed = False
        for (build, _locations), (gate, held) in self._held.items():
            before = self.intake.accepted
            sealed = self.intake.take(b"\n".join(one.records for one in held), build, gate)
            if self.intake.accepted > before:
                self._note(held)
        self._held = {}
        self._held_bytes = 0
        return sealed

    def _note(self, held: Iterable[_Opened]) -> None:
        """Remember whose records were taken, and the latest day in them."""
        for one in held:
            days = (self._days.get(one.agent), _latest_day(one.records, one.gate.days))
            self._days[one.agent] = max(filter(None, days), default=None)


class _Opener:
    """Opens batches of one run; each agent and each month's keys are looked up once."""

    def __init__(self, house: Deployment) -> None:
        self._house = house
        self._agents: dict[str, Agent | None] = {}
        self._keys: dict[str, MonthKeys | None] = {}
        self._gates: dict[tuple[str, ...], Gate] = {}

    def open(self, path: Path) -> _Opened | Refusal | Wait:
        """Return what is in a batch, or why it is not opened."""
        try:
            came = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
            found = batch.parse(self._house.inbox.read(path))
        except BadInputError:
            return Refusal.MALFORMED
        except (OSError, OverflowError, ValueError):
            return Wait.UNREADABLE
        header = found.header
        if self._house.gate.is_over(header.month):
            # A clock that is in doubt must not remove what was acknowledged; a purge does.
            return Wait.CLOCK if self._house.clock.in_doubt else Refusal.MONTH_OVER
        agent = self._agent(header.agent)
        if agent is None:
            return Wait.UNKNOWN_AGENT
        if agent.revoked_at is not None:
            return Refusal.REVOKED
        # Judged as of when it came: what the door took must not be lost because it waited here.
        if not any(
            found.is_signed_by(key) for key in agent.public_keys(min(self._house.now, came))
        ):
            return Refusal.BAD_SIGNATURE
        return self._opened(found, agent, came)

    def _opened(self, found: Batch, agent: Agent, came: dt.datetime) -> _Opened | Refusal | Wait:
        keys = self._month_keys(found.header.month)
        if keys is None or keys.key_id != found.header.key_id:
            return Wait.NO_KEY
        try:
            records = found.open(keys.batch)
        except (IntegrityError, BadInputError):
            return Refusal.NOT_OPENED
        if self._is_behind(came) and self._seems_early(records):
            return Wait.CLOCK
        return _Opened(agent.id, records, found.header.build, self._gate(agent.locations))

    def _is_behind(self, came: dt.datetime) -> bool:
        """Say whether this run's clock is behind that of the log, or of the batch's coming."""
        house = self._house
        # In a rehearsal files have the machine's time, which is not that of its clock.
        comes_later = not house.config.rehearsal and came - house.now > EARLY_TOLERANCE
        return house.is_behind or comes_later

    def _seems_early(self, records: bytes) -> bool:
        """Say whether a record is of a day that has not begun, as far as this clock knows."""
        gate, texts = self._house.gate, {match[1].decode() for match in _DAY.finditer(records)}
        days = (day for text in texts if (day := parse_day(text)) is not None)
        return any(gate.reason(day) is Reason.TOO_EARLY for day in days)

    def _agent(self, agent: str) -> Agent | None:
        if agent not in self._agents:
            try:
                self._agents[agent] = self._house.agents.load(agent)
            except IntegrityError:  # its batches wait until the register is mended
                self._agents[agent] = None
        return self._agents[agent]

    def _month_keys(self, month: str) -> MonthKeys | None:
        if month not in self._keys:
            try:
                self._keys[month] = self._house.keys.load(month)
            except IntegrityError:  # its batches wait until the key set is restored
                self._keys[month] = None
        return self._keys[month]

    def _gate(self, locations: tuple[str, ...]) -> Gate:
        if locations not in self._gates:
            max_bytes = self._house.config.max_bytes
            self._gates[locations] = Gate(self._house.gate, max_bytes, frozenset(locations))
        return self._gates[locations]


def _latest_day(records: bytes, gate: DayGate) -> str | None:
    """Return the later of the first and the last record's day, as far as it may be taken in.

    Agents send a day a batch, so no other needs to be looked for; one that is refused is not kept.
    """
    ends = (_DAY.search(records), _DAY.match(records, max(0, records.rfind(b'"day"'))))
    days = {day for end in ends if end is not None and (day := parse_day(end[1].decode()))}
    return max((day.isoformat() for day in days if gate.reason(day) is None), default=None)
