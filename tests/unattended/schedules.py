"""A scheduler as a process of its own, what it logs, and a home that it has work in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from batches import FakeAgent, dropped
from blackbox.cli import ROOT, environment
from blackbox.truth import Reading, usage_daily
from integration.processes import Process, wait_for
from support import TinyHome, usage

from aggregator.pipeline import publish
from jobs.log import Event

T = TypeVar("T")

NOW: Final = "2026-10-05T12:00:00Z"
"""By then the first three days of October are to be closed."""

DUE_DAYS: Final = ("2026-10-01", "2026-10-02", "2026-10-03")
EPOCH: Final = "9f3c2b7a11d04e55"
USERS: Final = tuple(f"planted-account-{number:04d}" for number in range(40))
ADDRESS: Final = "198.51.100.77"
ORDER: Final = ("ingest", "daily", "checkpoint", "doctor")
"""The jobs that take turns, as the table has them; mail and the purge do not wait for them."""

FEW: Final = {"mail": "off", "checkpoint": "off", "doctor": "off"}


class Daemon:
    """`aggregator schedule` on a home; its log, and that of its jobs, is a file."""

    def __init__(
        self,
        home: Path,
        *options: str,
        now: str | None = NOW,
        log: Path | None = None,
        **env: str,
    ) -> None:
        """Start it; `log` is beside the home unless the test says where."""
        self.home = home
        clock = [] if now is None else ["--now", now]
        words = [sys.executable, "-m", "aggregator", "--home", str(home), *clock, "schedule"]
        paths = {"PYTHONPATH": str(ROOT), "TZ": "America/St_Johns"}
        self.process = Process(
            [*words, "--log", "json", *options],
            log or home.parent / f"{home.name}.log",
            {**environment(), **paths, **env},
        )
        self._mark = self.process.mark()

    def events(self) -> list[dict[str, Any]]:
        """Return what was logged since it was started; every line must be an event."""
        text = self.process.text(self._mark)
        lines = text[: text.rfind("\n") + 1].splitlines()
        found = []
        for line in lines:
            assert line.startswith("{"), f"not an event: {line}"
            found.append(json.loads(line))
            assert Event(found[-1]["event"])
        return found

    def named(self, *events: Event, job: str | None = None) -> list[dict[str, Any]]:
        """Return the events of these names, and of one job if it is named."""
        names = [event.value for event in events]
        return [
            one for one in self.events() if one["event"] in names and job in (None, one.get("job"))
        ]

    def ended(self, job: str | None = None) -> list[str]:
        """Return the jobs that ended well, in order."""
        return [one["job"] for one in self.named(Event.JOB_ENDED, job=job)]

    def wait(self, holds: Callable[[], T | None], what: str) -> T:
        """Wait until something holds, while the scheduler runs."""

        def asked() -> T | None:
            assert self.process.alive, f"it ended before {what}:\n{self.process.text()[-2000:]}"
            return holds()

        return wait_for(asked, lambda: f"{what}:\n{self.process.text()[-2000:]}")

    def wait_for_job(self, job: str, count: int = 1) -> None:
        """Wait until a job has ended well so often."""
        self.wait(lambda: len(self.ended(job)) >= count, f"{job} ended {count} times")

    def wait_for_child(self, job: str, known: set[int] | None = None) -> int:
        """Wait until a process of this job runs that was not `known`; return its id."""
        known = known or set()

        def found() -> int | None:
            here = jobs_of(self.home)
            return next((pid for pid, name in here.items() if name == job and pid not in known), 0)

        found_pid = self.wait(found, f"a process of {job}")
        assert found_pid
        return found_pid

    def stop(self) -> int:
        """End it as systemd does; return the exit code."""
        return self.process.stop()


def jobs_of(home: Path) -> dict[int, str]:
    """Return the processes that run a job of this home, whoever started them: id and job."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = path.read_bytes().decode(errors="replace").split("\0")
            if str(home) in words and "run" in words:
                found[int(path.parent.name)] = words[words.index("run") + 1]
    return found


def kill_all(daemons: list[Daemon]) -> None:
    """End what a test left: schedulers first, since they would start more."""
    for daemon in daemons:
        daemon.process.kill()
    for home in {daemon.home for daemon in daemons}:
        for pid in jobs_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        wait_for(lambda home=home: not jobs_of(home), "the jobs to be gone")


@contextlib.contextmanager
def notify_socket(folder: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Listen as systemd does; yield where, and what returns all that was told so far."""
    path, told = str(folder / "notify"), []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)

        def read() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.append(sock.recv(4096).decode())
            return told

        yield path, read


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """A home with sealed batches in its inbox, and what its tables must say in the end."""

    tiny: TinyHome
    agent: FakeAgent
    readings: tuple[Reading, ...]

    @classmethod
    def make(cls, folder: Path, schedule: dict[str, str] | None = None) -> Work:
        """Make the home: three days of `USERS` to take in, each day a batch."""
        tiny = TinyHome.make(folder / "home", "2026-10-04T00:00:00Z")
        agent = FakeAgent.make()
        with tiny.open("2026-10-04T00:00:00Z") as house:
            publish.publish(house)
            agent.enrol(house, "us-nyc")
            keys = house.month_keys("2026-10")
        readings = tuple(
            Reading(day, user, "us-nyc", EPOCH, 1_000_000 + 1_000 * number + int(day[-2:]))
            for day in DUE_DAYS
            for number, user in enumerate(USERS)
        )
        work = cls(tiny, agent, readings)
        for day in DUE_DAYS:
            rows = [one for one in readings if one.day == day]
            lines = [usage(day, one.user, one.location, one.epoch, one.bytes) for one in rows]
            # A record that is refused: its account would be an address.
            content = agent.batch([*lines, usage(day, ADDRESS)], keys)
            dropped(tiny.root, content, f"of-{day}")
        work.schedule(schedule or {})
        return work

    @property
    def root(self) -> Path:
        """The home's folder."""
        return self.tiny.root

    def schedule(self, times: dict[str, str]) -> None:
        """Write [schedule] as the last section of config.toml, in place of the one before."""
        path = self.root / "config.toml"
        before = path.read_text().partition("\n[schedule]\n")[0]
        rows = [f'{job} = "{cron}"' for job, cron in times.items()]
        path.write_text("\n".join([before, "[schedule]", *rows, ""]))

    def check_tables(self) -> None:
        """Compare the closed days with the plain truth: nothing is lost, nothing counts twice."""
        wanted = {
            key: (row["users"], row["bytes"]) for key, row in usage_daily(self.readings).items()
        }
        assert self.tiny.usage() == wanted
        assert sorted(one["day"] for one in self.tiny.audit("close_day")) == list(DUE_DAYS)
        assert not list((self.root / "inbox").glob("*.batch"))
