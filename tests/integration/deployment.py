"""The aggregator with its door on one machine, the agent on another, as processes.

    INTEGRATION_AGENT=FOLDER INTEGRATION_DOOR=FOLDER pytest -m integration …/test_end_to_end.py

Each may be of another release, whose source is unpacked in the folder named.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import trustme

from aggregator import app
from aggregator.pipeline import raw
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.stores.home import Home

from .net import Client, Namespace, Process, Word, wait_for

AGENT: Final = "us-nyc-01"
LOCATION: Final = "us-nyc"

_ROOT: Final = Path(__file__).parents[2]
_PORT: Final = 8443
_MEMORY: Final = Path("/dev/shm")
_SPOOL: Final = re.compile(r"ua([0-9]+)-spool-.*")
# As long as a test may take.
_MIDNIGHT_SECONDS: Final = 120

_DOOR: Final = """
[door]
listen = "{address}:{port}"
url = "https://{address}:{port}"
certificate = "{folder}/door.pem"
private_key = "{folder}/door.key"
min_free_mib = 0
"""

_AGENT: Final = """\
enrolment = "{folder}/enrolment.toml"
interval_seconds = 1
spool = "{spool}"
status = "{folder}/status.json"
[door]
ca_file = "{folder}/ca.pem"
timeout_seconds = 3
"""


_AGENT_ROOT: Final = os.environ.get("INTEGRATION_AGENT", str(_ROOT))
_DOOR_ROOT: Final = os.environ.get("INTEGRATION_DOOR", str(_ROOT))


def _python(root: str, *words: Word) -> list[Word]:
    # -P: else the folder that it is started in would come first.
    return ["env", f"PYTHONPATH={root}", sys.executable, "-P", "-m", *words]


class Aggregator:
    """A home with the real clock, and its door, on the machine `machine`."""

    def __init__(self, machine: Client, folder: Path) -> None:
        """Make the home below `folder`, with a certificate for the machine's address."""
        self.machine = machine
        self.home = folder / "home"
        self.folder = folder
        self._door: Process | None = None
        self.run("init", "--accept-weak-destruction")
        authority = trustme.CA()
        certificate = authority.issue_cert(machine.address4)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate.private_key_pem.write_to_path(folder / "door.key")
        for number, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(folder / "door.pem", append=number > 0)
        with (self.home / "config.toml").open("a") as config:
            config.write(_DOOR.format(address=machine.address4, port=_PORT, folder=folder))
        self.run("keys", "publish")
        out = folder / "enrolment.toml"
        self.run("agent", "enrol", AGENT, "--location", LOCATION, "--out", out)

    def run(self, *words: Word) -> str:
        """Run a command on the home, which must succeed; return its stdout."""
        return self.machine.run(_python(_DOOR_ROOT, "aggregator", "--home", self.home, *words))

    def ingest(self) -> Any:
        """Take in what the agents handed over; return what the command says."""
        return json.loads(self.run("ingest", "--json"))

    def open_door(self) -> None:
        """Start the door, and wait until it is open."""
        words = _python(_DOOR_ROOT, "aggregator", "--home", self.home, "serve")
        self._door = self.machine.popen(words, log=f"door-{time.monotonic_ns()}.log")
        self._door.wait_for_text("the door is open")

    def kill_door(self) -> None:
        """End the door without a word."""
        assert self._door is not None
        self._door.kill()

    def totals(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return the bytes of each account, from the raw segments: the merge, done anew here.

        The largest of each (epoch, day, account, location), added up; nobody else is in there.
        """
        house = app.open_to_read(Home(self.home), None, dt.datetime.now(dt.UTC))
        total: Counter[str] = Counter()
        for month in house.segments.months():
            keys = house.keys.load(month)
            assert keys is not None
            names = {pseudonym(name.encode(), keys): name for name in accounts}
            largest: defaultdict[tuple[Any, ...], int] = defaultdict(int)
            for day in house.segments.days(month):
                for segment in house.segments.list(day, raw.USAGE):
                    for row in raw.read_bucket(house, keys, [segment]).to_pylist():
                        assert row["location"] == LOCATION
                        key = (row["epoch"], day, names[row["pseudonym"]])
                        largest[key] = max(largest[key], row["bytes"])
            for (_epoch, _day, name), number in largest.items():
                total[name] += number
        return dict(total)


class Agent:
    """The agent on a VPN server."""

    def __init__(
        self, machine: Namespace, aggregator: Aggregator, spool: Path, sources: str
    ) -> None:
        """Configure an agent that is enrolled at `aggregator`.

        `sources` is a part of its configuration, `spool` its folder on tmpfs.
        """
        folder = aggregator.folder
        self.status_file = folder / "status.json"
        self._machine = machine
        self._spool = spool
        self._config = folder / "agent.toml"
        self._config.write_text(_AGENT.format(folder=folder, spool=spool) + sources)
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it has read all its sources once."""
        self.status_file.unlink(missing_ok=True)
        words = _python(_AGENT_ROOT, "aggregator.agent.cli", "run", "--config", self._config)
        self._process = self._machine.popen(words, log=f"agent-{time.monotonic_ns()}.log")
        self.wait_until(lambda: bool(self.rows()), "a reading of all sources")

    def wait_until_read(self) -> None:
        """Wait until readings of all sources that begin after this call are done, and sealed."""
        # One that goes on already when this is called is not counted in before it ends.
        before = min((row["intervals"] for row in self.rows()), default=0)
        self.wait_until(
            lambda: min((row["intervals"] for row in self.rows()), default=0) >= before + 2,
            "two more readings of all sources",
        )

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fail with the agent's words, or at once if it has ended."""

        def met() -> bool:
            assert self.process.alive, f"the agent has ended:\n{self.process.text()}"
            return condition()

        wait_for(met, lambda: f"{what}; the agent says:\n{self.process.text()}")

    def rows(self) -> list[dict[str, Any]]:
        """Return how each source is, once all of them were read well."""
        found = self.status().get("rows", [])
        return found if all(row["state"] == "ok" for row in found) else []

    def status(self) -> dict[str, Any]:
        """Return its status file, empty while there is none."""
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(self.status_file.read_text()))
        return {}

    @property
    def process(self) -> Process:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    def stop(self) -> None:
        """End it in good order: it reads and sends once more."""
        assert self.process.stop() == 0, self.process.text()

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()

    def waiting(self) -> int:
        """Return how many batches wait in the spool."""
        return len(list(self._spool.glob("*.batch")))


def keep_away_from_midnight() -> None:
    """Wait for the next day, if it is near: right before it, an agent sends nothing."""
    now = dt.datetime.now(dt.UTC)
    next_day = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    left = (next_day - now).total_seconds()
    if left < _MIDNIGHT_SECONDS:
        time.sleep(left + 1)


@contextlib.contextmanager
def spool_folder() -> Iterator[Path]:
    """Make a folder on tmpfs, where alone a spool may be."""
    for path in _MEMORY.iterdir():
        found = _SPOOL.fullmatch(path.name)
        if found is not None and not Path("/proc", found[1]).exists():
            shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=f"ua{os.getpid()}-spool-", dir=_MEMORY) as folder:
        yield Path(folder)
