"""The scheduler through a month's end on a small disk, while it is killed and its disk fails.

    SCHEDULE_SEED=7 SCHEDULE_DISK=tmpfs pytest -m integration tests/integration/test_schedule.py

The clock is compressed: a day is twelve seconds. Agents report every day of it all the while, by
what the door does; what a full disk or none refuses they keep and send again, as agents do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from blackbox import truth
from blackbox.cli import Home as CommandLine
from blackbox.cli import number
from blackbox.forensics import Finder, key_windows, search
from support import TinyHome
from unattended.schedules import Daemon, jobs_of, kill_all

from aggregator.model.days import instant
from aggregator.model.profile import DEFAULT_PROFILE
from jobs.log import Event

from .processes import wait_for
from .schedule_world import GRACE, ONE_DAY, SPEED, START, Clock, Disk, Fleet

pytestmark = pytest.mark.integration
NEEDS = ("mkfs.ext4", "losetup", "mount", "umount")

SEED = number("SCHEDULE_SEED", 1)
DAYS = number("SCHEDULE_DAYS", 7)
CONTROL: Final = b"control-needle-that-stays"
PATIENCE: Final = 180.0
EVERY: Final = "2"


class Trial:
    """One scheduler after another on the same home, and what was done to them when."""

    def __init__(self, disk: Disk, clock: Clock, log: Path, rng: random.Random) -> None:
        self.disk, self.clock, self.log, self._rng = disk, clock, log, rng
        self.home = disk.mounted_at / "home"
        self.daemons: list[Daemon] = []
        self.history: list[str] = []
        self.start()

    def start(self) -> None:
        """Start a scheduler where the clock is now."""
        now = instant(self.clock.now())
        options = ("--every", EVERY, "--speed", str(SPEED))
        self.daemons.append(Daemon(self.home, *options, now=now, log=self.log))

    @property
    def daemon(self) -> Daemon:
        """The scheduler that runs, or ran last."""
        return self.daemons[-1]

    def say(self, what: str) -> None:
        """Add to the history, which a failure prints."""
        self.history.append(f"{instant(self.clock.now())} {what}")

    def hold(self) -> None:
        """Let some time pass."""
        time.sleep(self._rng.uniform(2, 7))

    def catch_up(self) -> None:
        """Wait until every job that takes turns has begun and ended well from now on."""
        mark = len(self.daemon.ended())
        for job in ("daily", "month-end"):
            self.daemon.wait(
                lambda one=job: one in self.daemon.ended()[mark:], f"{job} to end well"
            )

    # What may happen to them.

    def terminate(self) -> None:
        assert self.daemon.stop() == 0
        assert not jobs_of(self.home)
        self.hold()
        self.start()

    def kill_the_scheduler(self) -> None:
        self.daemon.wait(lambda: jobs_of(self.home), "a job that runs")
        self.daemon.process.kill()  # the job that runs goes on
        self.start()

    def kill_a_job(self) -> None:
        for _ in range(3):
            running = self.daemon.wait(lambda: jobs_of(self.home), "a job that runs")
            time.sleep(self._rng.uniform(0, 0.5))
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def kill_everything(self) -> None:
        kill_all([self.daemon])
        self.hold()
        self.start()

    def fill_the_disk(self) -> None:
        self.disk.fill()
        self.hold()
        assert self.daemon.process.alive
        self.disk.free()

    def start_on_a_read_only_disk(self) -> None:
        assert self.daemon.stop() == 0
        self.disk.lock()
        self.start()
        self.hold()
        self.daemon.wait(lambda: self.daemon.named(Event.JOB_FAILED), "a job that fails")
        self.disk.unlock()

    def suspend(self) -> None:
        everyone = [self.daemon.process.pid, *jobs_of(self.home)]
        for number_ in (signal.SIGSTOP, signal.SIGCONT):
            for pid in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number_)
            self.hold()

    def faults(self) -> list[Callable[[], None]]:
        """Return each fault once, in an order that the seed chooses."""
        every = [
            self.terminate, self.kill_the_scheduler, self.kill_a_job, self.kill_everything,
            self.fill_the_disk, self.start_on_a_read_only_disk, self.suspend,
        ]  # fmt: skip
        self._rng.shuffle(every)
        return every


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Trial, Fleet]]:
    """Make the disk, the home on it, the agents and the first scheduler; end all of it."""
    rng = random.Random(SEED)
    disk = Disk(tmp_path)
    (disk.mounted_at / "control").write_bytes(CONTROL)
    profile = DEFAULT_PROFILE.replace("day_hours = 24", f"day_hours = {GRACE.days * 24}")
    assert profile != DEFAULT_PROFILE
    TinyHome.make(disk.mounted_at / "home", instant(START), profile)
    with (disk.mounted_at / "home" / "config.toml").open("a") as config:
        config.write("[door]\nmin_free_mib = 0\n")
    clock = Clock()
    fleet = Fleet(disk.mounted_at / "home", clock, random.Random(SEED))
    fleet.last_day = START.date() + (DAYS - 1) * ONE_DAY
    fleet.enrol()
    trial = Trial(disk, clock, tmp_path / "log", rng)
    try:
        with fleet:
            yield trial, fleet
    finally:
        kill_all(trial.daemons)
        with contextlib.suppress(AssertionError):
            disk.unmount()


def test_faults(world: tuple[Trial, Fleet]) -> None:
    """CV-5, CL-2: whatever happens, it catches up: nothing is lost, nothing counts twice."""
    trial, fleet = world
    try:
        trial.catch_up()
        for fault in trial.faults():
            trial.say(fault.__name__)
            fault()
            trial.catch_up()
            trial.say("caught up")
            fleet.check()
        finish(trial, fleet)
    except BaseException:
        print(f"SCHEDULE_SEED={SEED}", *trial.history, *fleet.said.items(), sep="\n")
        raise


def finish(trial: Trial, fleet: Fleet) -> None:
    """Wait until every day that was reported is closed; then compare all that is left."""
    end = all_closed_at(fleet)
    wait_for(lambda: trial.clock.now() > end, "the last day's grace to be over", PATIENCE)
    trial.catch_up()
    line = CommandLine(trial.home)
    now = instant(trial.clock.now())
    said: dict[str, Any] = line.run("status", "--json", now=now).expect(0).json
    assert (said["days_due"], said["last_purge_month"], said["last_purge_verified"]) == (
        0, "2026-10", True
    )  # fmt: skip
    assert trial.daemon.stop() == 0
    fleet.check()
    assert not fleet.said["days that an agent could not hand over"]

    tiny = TinyHome(trial.home)
    wanted = truth.usage_daily(fleet.readings).items()
    assert tiny.usage() == {key: (row["users"], row["bytes"]) for key, row in wanted}
    assert len({day for day, _ in tiny.usage()}) == DAYS
    line.run("audit", "verify", now=now).expect(0)
    checks = line.run("doctor", "--json", now=now).expect(6).json["rows"]
    # So small a disk is none to work on.
    assert [one["check"] for one in checks if one["state"] == "fail"] == ["disk"]
    assert [path.name for path in (trial.home / "keys").iterdir()] == ["2026-11.key"]
    assert [path.name for path in (trial.home / "raw").iterdir()] == ["2026-11"]

    windows = set().union(*(key_windows(content) for content in gone(fleet)))
    assert windows
    finder = Finder([*fleet.users, *windows])
    assert finder.find(trial.log.read_bytes()) == set()
    assert search(trial.home, finder) == []
    trial.disk.unmount()
    if trial.disk.kind == "ext4":
        image = trial.disk.image.read_bytes()
        assert CONTROL in image
        assert finder.find(image) == set()


def all_closed_at(fleet: Fleet) -> dt.datetime:
    """Return the instant by which the last day that is reported is closed."""
    return START + (fleet.last_day - START.date()) + ONE_DAY + GRACE + ONE_DAY


def gone(fleet: Fleet) -> list[bytes]:
    """Return every key file of the month that was purged, as it once was."""
    return [content for name, content in fleet.keys.items() if name.startswith("2026-10.key ")]
