"""The jobs of a home at their times, killed now and then, and what each run left."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pipeline.faults import DeadError, Faults

from aggregator import app
from aggregator.errors import AggregatorError, BadInputError, IntegrityError, RefusedError
from aggregator.model import cron
from jobs import runner, times
from jobs.log import Form, Log
from jobs.table import JOBS

from .host import Host
from .plan import DAY, HOUR, Kind, Plan, closes_at, purge_at

_AGAIN: Final = 40
"""Killed runs in a row, after which one is let live."""


class World(Host):
    """A host whose jobs run, and what the world sees after each run."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        super().__init__(folder, plan)
        self.told: set[tuple[str, str]] = set()
        self.steps: dict[str, int] = {}
        self.known_keys: set[str] = set()
        self.by_hand: set[str] = set()
        self.every_run = False
        self.ingests: list[dt.datetime] = []
        self._left_waiting: set[str] = set()
        self._log_path = folder / "log.ndjson"
        self._log_read = 0

    @contextlib.contextmanager
    def living(self) -> Iterator[World]:
        """Make the home, open the door, run every job once."""
        self.agents = self.create()
        crons = times.planned(self.home.load_config().schedule)
        self._times = [(one.job, cron.parse(one.cron)) for one in crons]
        with self._log_path.open("w") as stream:
            self._log, self._stream = Log(Form.JSON, stream=stream), stream
            self.open_door()
            try:
                self.catch_up()
                yield self
            finally:
                self.close_door()

    def change_trouble(self) -> None:
        """Let a trouble begin or end; the jobs catch up as after any start of the host."""
        found = [one for one in self.plan.troubles if one.begins <= self.now < one.ends]
        before, self.trouble = self.trouble, found[0] if found else None
        if before == self.trouble:
            return
        if not self.is_up():
            self.close_door()
        elif self._door is None:
            self.open_door()
        ended = before.kind if before else None
        began = self.trouble.kind if self.trouble else None
        if Kind.CLOCK in (ended, began) or (ended in (Kind.DOWN, Kind.IDLE) and self.jobs_run()):
            # After jobs did not run, somebody may look to the purge first, by hand.
            by_hand = ended is Kind.IDLE and self.dice("first").random() < 0.5
            gone = set(self.gone)
            self.catch_up("month-end" if by_hand else None)
            self.by_hand |= set(self.gone) - gone if by_hand else set()
            if before and before.is_long and self.dice("confirm").random() < 0.5:
                self.run("month-end", confirm=True)

    def due(self) -> list[tuple[int, str]]:
        """Return what cron starts in the hour of the host's clock, without runs that find nothing.

        See `test_quiet_runs_change_nothing` for those that are left out.
        """
        clock = self.clock
        found = [
            (minute, job.name)
            for job, at in self._times
            if clock.hour in at.hours and clock.weekday() in at.weekdays
            for minute in at.minutes
        ]
        if self.every_run:
            return sorted(found)
        return sorted(one for one in found if one[1] != "month-end" or self._purge_waits())

    def _purge_waits(self) -> bool:
        months = {path.name[:7] for path in (self.root / "keys").iterdir()}
        is_near = self.clock.hour == 12 and not 5 < self.clock.day < 25
        return is_near or any(purge_at(one) <= self.clock for one in months)

    def has_work(self, job: str, minute: int) -> bool:
        """Whether a run of `job` finds something: for the one that runs every five minutes."""
        is_rare = job != "ingest" or (self.trouble is not None and minute < 5)
        return is_rare or set(self.ledger.waiting) != self._left_waiting

    def catch_up(self, first: str | None = None) -> None:
        """Run every job once, in the table's order, as a scheduler does at its start."""
        names = [job.name for job in JOBS if job.name != "doctor"]
        for name in sorted(names, key=lambda name: name != first):
            self.run(name)

    def run(self, name: str, *, confirm: bool = False) -> None:
        """Run a job as cron does; one that is killed is run again with all others."""
        if name == "month-end" and self.trouble and self.trouble.kind is Kind.MASKED:
            return
        for _ in range(_AGAIN):
            if self.run_once(name, confirm=confirm, kill=self._is_killed(name)):
                return
            self.seen[f"killed: {name}"] += 1
            self._after_kill()
        assert self.run_once(name, confirm=confirm, kill=False)

    def _after_kill(self) -> None:
        # Whatever comes first after a kill: what waits in the inbox is taken in again.
        self.now += dt.timedelta(seconds=30)
        while not self.run_once("ingest", kill=self._is_killed("ingest")):
            self.now += dt.timedelta(seconds=30)

    def _is_killed(self, job: str) -> bool:
        often = self.trouble is not None and self.trouble.kind is Kind.CRASHES
        return self.dice("killed", job).random() < (0.7 if often else 0.04)

    def run_once(self, name: str, *, kill: bool = False, confirm: bool = False) -> bool:
        """Run a job; return whether it came to its end."""
        job = next(job for job in JOBS if job.name == name)
        access = app.Access(self.home, None, self.clock, confirm_clock=confirm)
        faults = Faults(self.dice(name).randint(1, self.steps.get(name, 40))) if kill else None
        problem: AggregatorError | None = None
        try:
            with faults or contextlib.nullcontext():
                runner.run(job, access, self._log)
        except AggregatorError as error:
            problem = error
        except DeadError:
            pass
        if faults is not None:
            self.steps[name] = max(faults.seen, 10)
        is_dead = faults is not None and faults.dead
        self._observe(name, problem, is_dead=is_dead)
        return not is_dead

    # What the world sees after each run

    def _observe(self, name: str, problem: AggregatorError | None, *, is_dead: bool) -> None:
        self._read_log()
        inbox = {path.stem for path in (self.root / "inbox").glob("*.batch")}
        over = self.ledger.left(inbox, self.is_over)
        for report in over:
            assert self.may_be_over(report.month), f"a batch of {report.month} was removed"
            began, ended = report.kept_at or self.now, purge_at(report.month)
            chance = [one for one in self.ingests if began < one < ended]
            assert not chance, f"a batch of {report.day} was lost: there was an ingest at {chance}"
        self.seen["batches that no job took in in time"] += len(over)
        self._see_closed()
        self._see_gone()
        if is_dead:
            return
        self.seen[name] += 1
        if name in ("ingest", "daily"):
            self._left_waiting = set(self.ledger.waiting)
            if self.trouble is None or self.trouble.kind is not Kind.CLOCK:
                self.ingests.append(self.now)
        if problem is not None:
            self._judge(name, problem, refused=bool(over))
        elif name == "month-end":
            late = [one for one in self.kept() if purge_at(one) <= self.clock]
            assert not late, f"month-end left {late}"
        oldest = min(self.kept())  # the one that is told of; its purge takes the others along
        if purge_at(oldest) + 2 * HOUR < self.clock:
            assert ("purge_late", oldest) in self.told, f"nobody was told of {oldest}"

    def _judge(self, name: str, problem: AggregatorError, *, refused: bool) -> None:
        """Let a job fail only with cause."""
        self.seen[f"failed: {name}"] += 1
        fine = {
            **dict.fromkeys(("ingest", "daily"), isinstance(problem, BadInputError) and refused),
            "month-end": isinstance(problem, RefusedError) and self.plan.may_doubt(self.now),
            "doctor": isinstance(problem, IntegrityError)
            and not self.plan.is_calm(self.now, 3 * DAY),
        }
        if not fine.get(name, False):
            raise AssertionError(f"{name} failed: {problem}") from problem

    def _read_log(self) -> None:
        self._stream.flush()
        with self._log_path.open() as file:
            file.seek(self._log_read)
            for line in file:
                self._see_event(json.loads(line))
            self._log_read = file.tell()

    def _see_event(self, event: dict[str, Any]) -> None:
        assert event["event"] not in ("run_not_recorded", "operator_not_told"), event
        if event["event"] == "incident":
            months = [word for word in event["what"].split() if word[:2].isdigit()]
            self.told.add((event["kind"], months[0] if months else ""))

    def _see_closed(self) -> None:
        for day in sorted(self.ledger.open):
            raw = self.root / "raw" / day[:7] / day
            tables = self.root / "tables" / "closings_daily" / f"month={day[:7]}"
            done = (tables / f"{day}.parquet").exists()
            usage = done or (raw / "usage-closed.all.seg").exists()
            flags = done or (raw / "flags-closed.all.seg").exists()
            if usage or flags:
                assert self.clock >= closes_at(day), f"{day} was closed early"
                self.seen["days that a wrong clock closed"] += self.now < closes_at(day)
                self.ledger.close(day, usage=usage, flags=flags)

    def _see_gone(self) -> None:
        """CL-2: note when a month's keys went, and that it was not before their time."""
        here = {path.name[:7] for path in (self.root / "keys").glob("*.key")}
        for month in sorted(self.known_keys - here):
            assert month not in self.gone, f"the keys of {month} were destroyed twice"
            assert self.may_be_over(month), f"the keys of {month} were destroyed early"
            self.gone[month] = self.now
        self.known_keys = here

    def kept(self) -> list[str]:
        """Return the months of which anything raw is in the home: keys, counters, notices."""
        found: set[str] = set()
        for place, pattern in (("keys", "*"), ("raw", "*"), ("outbox", "????-??*")):
            found |= {path.name[:7] for path in (self.root / place).glob(pattern)}
        return sorted(found | {report.month for report in self.ledger.waiting.values()})
