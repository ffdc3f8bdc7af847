"""What the scheduler is tried on: a fast clock, a small disk, agents that report meanwhile."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from batches import FakeAgent
from blackbox.truth import Reading
from support import TinyHome, usage

from aggregator.errors import AggregatorError
from aggregator.model.days import instant
from aggregator.pipeline import publish
from aggregator.pipeline.receive import Receiver, Taken
from aggregator.stores.home import Home
from aggregator.wire import batch

from .processes import run, search_path, wait_for

DISK_MIB: Final = 96
DAY_SECONDS: Final = 12.0
SPEED: Final = 86_400 / DAY_SECONDS
ONE_DAY: Final = dt.timedelta(days=1)
START: Final = dt.datetime(2026, 10, 28, tzinfo=dt.UTC)
GRACE: Final = dt.timedelta(hours=72)
"""Half a minute here: so long a fault may keep an agent from handing over its day in time."""
PURGE_GRACE: Final = dt.timedelta(hours=48)
MARGIN: Final = dt.timedelta(hours=6)
PLACES: Final = ("us-nyc", "de-fra")


class Clock:
    """The rehearsed clock, which runs on whether a scheduler runs or not."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> dt.datetime:
        passed = (time.monotonic() - self._began) * SPEED
        return START + dt.timedelta(seconds=int(passed))


class Disk:
    """A small file system of its own; ext4 in an image, or tmpfs where that is refused."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted_at = folder / "image", folder / "disk"
        self.mounted_at.mkdir()
        self.kind = os.environ.get("SCHEDULE_DISK", "ext4")
        if self.kind == "ext4":
            with self.image.open("wb") as file:
                file.truncate(DISK_MIB << 20)
            run(["mkfs.ext4", "-q", "-F", str(self.image)])
            try:
                self._mount("-o", "loop", str(self.image))
            except AssertionError:
                self.kind = "tmpfs"
        if self.kind == "tmpfs":
            try:
                self._mount("-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs")
            except AssertionError:
                pytest.skip("needs the right to mount: neither a loop device nor a tmpfs is given")

    def _mount(self, *words: str) -> None:
        run(["mount", *words, str(self.mounted_at)])

    def fill(self) -> None:
        """Take the last byte of the room."""
        with (self.mounted_at / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        """Give the room back."""
        (self.mounted_at / "filler").unlink()

    def lock(self) -> None:
        """Make it read-only; nothing may be open for writing."""
        wait_for(self._is_locked, "the disk to be read-only")

    def _is_locked(self) -> bool:
        words = ["mount", "-o", "remount,ro", str(self.mounted_at)]
        path = {**os.environ, "PATH": search_path()}
        return subprocess.run(words, capture_output=True, env=path, check=False).returncode == 0

    def unlock(self) -> None:
        """Make it writable again."""
        run(["mount", "-o", "remount,rw", str(self.mounted_at)])

    def unmount(self) -> None:
        """Let go of it; what it held is in the image."""
        run(["umount", str(self.mounted_at)])


class Fleet:
    """Agents that report each day after its end, as the door takes it; what they saw is kept."""

    def __init__(self, home: Path, clock: Clock, rng: random.Random) -> None:
        self.home, self.clock, self._rng = home, clock, rng
        self.users = [f"planted-account-{one:04d}@vpn.example" for one in range(30)]
        self.agents = {place: FakeAgent.make(f"{place}-01") for place in PLACES}
        self.readings: list[Reading] = []
        self.keys: dict[str, bytes] = {}
        self.said: Counter[str] = Counter()
        self.last_day = START.date()
        self._waiting: dict[tuple[str, str], list[list[Reading]]] = {}
        self._planned_through = START.date() - ONE_DAY
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def enrol(self) -> None:
        """Write the agents into the home's register, and announce keys to them."""
        with TinyHome(self.home).open(instant(START)) as house:
            for place, agent in self.agents.items():
                agent.enrol(house, place)
            publish.publish(house)
        self.receiver = Receiver(Home(self.home))

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what failed in the agents' thread."""
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.1):
                self._look_at_keys()
                self._plan()
                self._hand_over()
        except BaseException as error:
            self._failed.append(error)
            raise

    def _look_at_keys(self) -> None:
        for path in (self.home / "keys").glob("*"):
            with contextlib.suppress(OSError):
                content = path.read_bytes()
                if path.is_file() and any(content):
                    self.keys.setdefault(f"{path.name} {hash(content)}", content)

    def _plan(self) -> None:
        """See what there is to report: a day's totals so far, and those of its end."""
        # Half a day after its end: a job that began before it must not find it too early.
        while self._planned_through + 2.5 * ONE_DAY < self.clock.now().date():
            self._planned_through += ONE_DAY
            if self._planned_through > self.last_day:
                return
            day = self._planned_through.isoformat()
            for place in PLACES:
                epoch = f"{self._rng.getrandbits(64):016x}"
                ends = {user: self._rng.randrange(10**6, 10**7) for user in self.users}
                halves = [
                    [Reading(day, user, place, epoch, end // part) for user, end in ends.items()]
                    for part in (2, 1)
                ]
                self._waiting[day, place] = [*halves, halves[0]]  # the first one comes again

    def _hand_over(self) -> None:
        for (day, place), parts in list(self._waiting.items()):
            midnight = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC) + ONE_DAY
            purge = _month_after(midnight - ONE_DAY) + PURGE_GRACE
            # Not at the last moment: what is handed over while its day is closed comes too late.
            while parts and self.clock.now() < min(midnight + GRACE, purge) - MARGIN:
                if not self._send(day, place, parts[0]):
                    break
                self.readings += parts.pop(0)
            else:
                self.said["days that an agent could not hand over"] += bool(parts)
                del self._waiting[day, place]

    def _send(self, day: str, place: str, readings: list[Reading]) -> bool:
        agent, now = self.agents[place], self.clock.now()
        lines = [usage(*one) for one in readings]
        try:
            house = TinyHome(self.home).read(instant(now))
            keys = {key.month: key for key in publish.announced(house)}
            key = keys[day[:7]]
            content = batch.seal(
                "".join(f"{line}\n" for line in lines).encode(), day[:7], agent.id,
                key.key_id, key.public_key, agent.signing_key,
            )  # fmt: skip
            known = self.receiver.sender(agent.token, now)
            answer = self.receiver.take(known, content, now)  # type: ignore[arg-type] # enrolled
        except (OSError, AggregatorError) as error:
            self.said[f"the door fails: {type(error).__name__}"] += 1
            return False
        self.said[f"the door says {answer.value}"] += 1
        return isinstance(answer, Taken)


def _month_after(moment: dt.datetime) -> dt.datetime:
    return (moment.replace(day=1) + 32 * ONE_DAY).replace(day=1)
