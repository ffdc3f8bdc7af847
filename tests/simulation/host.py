"""The host of a home: its clock, which may be wrong, and its door, which may be killed."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
from collections import Counter
from pathlib import Path
from typing import Final

from pipeline.faults import DeadError, Faults

from aggregator import app
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import enrol
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.receive import Receiver, Refusal, Taken
from aggregator.stores.home import Home

from .fleet import PLACES, Agent, Report
from .ledger import Ledger
from .plan import DAY, TRUSTED, Kind, Plan, Trouble, purge_at, start_of

SETTINGS: Final = """
[schedule]
mail = "4 12 * * mon"
checkpoint = "40 3 * * mon,thu"
doctor = "50 4 * * mon"
"""
APPS_KEPT: Final = 2
"""Months that one of the tables is kept; all others stay for ever."""
PROFILE: Final = DEFAULT_PROFILE.replace("apps_daily = 0", f"apps_daily = {APPS_KEPT}")
URL: Final = "https://door.example"


class Host:
    """One home at true time `now`, its door, and what was seen of it so far.

    `gone` says when each month's keys were destroyed, in true time.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan, self.root, self.folder = plan, folder / "home", folder
        self.now = start_of(plan.first)
        self.trouble: Trouble | None = None
        self.home = Home(self.root)
        self.ledger = Ledger()
        self.seen: Counter[str] = Counter()
        self.gone: dict[str, dt.datetime] = {}
        self._door: contextlib.ExitStack | None = None

    @property
    def clock(self) -> dt.datetime:
        """What the host takes the time to be."""
        wrong = self.trouble is not None and self.trouble.kind is Kind.CLOCK
        return self.now + self.trouble.offset if wrong and self.trouble else self.now

    def dice(self, *about: str) -> random.Random:
        """Return chance that hangs on the seed, the instant and the matter, not on what was."""
        return random.Random(f"{self.plan.seed} {self.now} {about}")

    def is_up(self) -> bool:
        """Whether the host is."""
        return self.trouble is None or self.trouble.kind is not Kind.DOWN

    def jobs_run(self) -> bool:
        """Whether anything starts jobs."""
        return self.is_up() and (self.trouble is None or self.trouble.kind is not Kind.IDLE)

    def is_over(self, month: str) -> bool:
        """Whether `month` is over for the host: purged, or by its clock."""
        return month in self.gone or purge_at(month) <= self.clock

    def may_be_over(self, month: str) -> bool:
        """Whether `month` may be over by now: by true time, or by a clock that is trusted."""
        ahead = dt.timedelta(0)
        if self.trouble is not None and self.trouble.kind is Kind.CLOCK:
            ahead = self.trouble.offset if self.trouble.offset <= TRUSTED else ahead
        return month in self.gone or purge_at(month) <= self.now + ahead

    def create(self) -> list[Agent]:
        """Make the home and enrol its agents."""
        self.folder.mkdir()
        # A live home, not a rehearsal: what runs it is the machine's clock, which is ours.
        app.create(self.home, self.now, rehearsal=False, accept_weak=True, profile=PROFILE)
        with (self.root / "config.toml").open("a") as file:
            file.write(SETTINGS)
        with app.open_to_write(self.home, None, self.now) as house:
            return [self._enrol(house, name) for name in PLACES]

    def _enrol(self, house: Deployment, name: str) -> Agent:
        papers = enrol.new(house, name, PLACES[name], URL)
        enrol.register(house, papers)
        return Agent(name, papers.enrolment, random.Random(f"{name} {self.plan.seed}"))

    def rotate(self, agent: Agent) -> None:
        """Give an agent new credentials; the old ones end three days later."""
        with app.open_to_write(self.home, None, self.clock) as house:
            papers = enrol.rotated(house, agent.name, 3 * DAY, URL)
            enrol.register(house, papers)
        agent.take_papers(papers.enrolment)

    # The door, as the agents see it

    def open_door(self) -> None:
        """Open the door, as its process does at its start."""
        self._door = contextlib.ExitStack()
        self._receiver: Receiver = self._door.enter_context(app.open_door(self.home, None))

    def close_door(self) -> None:
        """End the door's process."""
        if self._door is not None:
            self._door.close()
        self._door = None

    def announcement(self) -> bytes | None:
        """Return what the door announces."""
        found = self._receiver.announcement() if self._door else None
        return found if isinstance(found, bytes) else None

    def take(self, agent: Agent, report: Report) -> Taken | Refusal | None:
        """Hand a batch to the door, which now and then is killed over it."""
        if self._door is None:
            return None
        assert report.content is not None
        known = self._receiver.sender(agent.token, self.clock)
        if isinstance(known, Refusal):
            return known
        dice = self.dice("door", report.agent, report.day)
        dies_at = dice.randint(1, 3) if dice.random() < 0.01 else None
        answer: Taken | Refusal | None = None
        try:
            with Faults(dies_at) if dies_at else contextlib.nullcontext():
                answer = self._receiver.take(known, report.content, self.clock)
        except DeadError:
            self.seen["killed: door"] += 1
            self.close_door()
            self.open_door()
        path = self.root / "inbox" / f"{report.name}.batch"
        if path.exists() and answer is not Taken.KNOWN:
            stamp = self.clock.timestamp()
            os.utime(path, (stamp, stamp))
            self.ledger.keep(report, self.now)
        if isinstance(answer, Taken):
            assert path.exists(), "acknowledged, and not there"
            assert purge_at(report.month) > self.clock, f"a batch of {report.month} was taken"
        if answer is Refusal.MONTH_OVER:
            # By a wrong clock as well: an agent keeps what its own does not say is over.
            assert self.is_over(report.month), f"the door says that {report.month} is over"
        return answer
