"""SIGKILL at any instant, then simply run again: the same truth, one receipt. KILL_ROUNDS=n."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .cli import TIMEOUT, Home, number
from .conftest import ALL_CLOSED, ALL_IN, ALL_PURGED, Deployment, deploy
from .forensics import search
from .months import Shape, make_month
from .test_purge import windows
from .variants import Variant, records_of, write

ROUNDS = number("KILL_ROUNDS", 2)
SHAPE = Shape(users=150, locations=5, days=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return what an undisturbed month leaves."""
    done = deploy(tmp_path_factory.mktemp("undisturbed"), make_month(70, SHAPE))
    done.home.purge(ALL_PURGED).expect(0)
    return done


def kill_until_done(home: Home, rng: random.Random, *words: str | Path, now: str) -> int:
    """Start a command again and again, killed after random delays, until it ends; say how often.

    Each kill comes somewhere within what a whole run takes, learnt from the runs that end.
    """
    kills, longest = 0, 1.5
    while True:
        started = time.monotonic()
        with home.start(*words, "--confirm-clock", now=now) as process:
            delay = rng.uniform(0.05, longest)
            if kills < 4:
                try:
                    process.wait(delay)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
            out, err = process.communicate(timeout=TIMEOUT)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, (out + err)[-2000:]
            return kills
        longest = min(longest, 2 * (time.monotonic() - started) + 1)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_killed_anywhere_the_truth_is_the_same(
    undisturbed: Deployment, tmp_path: Path, round_: int
) -> None:
    """CL-2, CV-5: ingest, roll-up and purge, each killed up to four times."""
    rng = random.Random(f"kill {round_}")
    home = Home(tmp_path / "home").init()
    variant = Variant("kill", files=3, shuffled=True, seed=round_)
    files = write(records_of(undisturbed.month), variant, tmp_path / "files")
    kills = kill_until_done(home, rng, "ingest", *files, now=ALL_IN)
    keys = {name: data for name, data in home.files().items() if name.startswith("keys/2026-10")}
    kills += kill_until_done(home, rng, "rollup", now=ALL_CLOSED)
    kills += kill_until_done(home, rng, "purge", now=ALL_PURGED)
    assert kills
    assert home.table_digests() == undisturbed.home.table_digests()
    assert [path.name for path in home.receipts()] == ["receipt-purge-2026-10.json"]
    assert search(home.path, windows(keys)) == []
    left = [name for name in home.files() if name.startswith(("raw/2026-10", "keys/2026-10"))]
    assert left == []
    home.run("audit", "verify", now=ALL_PURGED).expect(0)
    assert home.purge(ALL_PURGED).expect(0).json["rows"] == []


def _holds_a_lock(pid: int) -> bool:
    return any(str(pid) in line.split() for line in Path("/proc/locks").read_text().splitlines())


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    """CL-2: a second process finds the lock and says so with exit 75; the first is unharmed."""
    records = records_of(make_month(71, Shape(users=60, locations=3, days=6)))
    (file,) = write(records, Variant("one"), tmp_path / "files")
    home = Home(tmp_path / "home").init()
    # A run that reads from a pipe holds the lock for as long as the pipe is open.
    words = ("ingest", "--confirm-clock", "-")
    with home.start(*words, now=ALL_IN, stdin=subprocess.PIPE) as first:
        while not _holds_a_lock(first.pid) and first.poll() is None:
            time.sleep(0.05)
        code = home.run("rollup", "--confirm-clock", now=ALL_IN).code
        first.communicate(file.read_bytes(), timeout=TIMEOUT)
    assert code == 75
    assert first.returncode == 0
    home.rollup(ALL_IN)
