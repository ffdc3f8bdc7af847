"""Memory does not grow with the number of rows, only with what is held at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from support import ALL_CLOSED, ALL_IN, TinyHome

ROOT = Path(__file__).resolve().parents[2]
# What one run may take, interpreter and libraries (about 150 MB) included.
BOUND_MB = 700

# The kernel's VmHWM, as ru_maxrss is handed down by the process that starts this one.
_PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))
"""
_RUN = f"""
import sys
from aggregator.cli.main import main
{_PEAK}
code = main(sys.argv[1:])
print(code, peak(), file=sys.stderr)
"""
_HOLD = f"""
{_PEAK}
before = peak()
held = bytearray(50 << 20)
held[::4096] = b"x" * len(held[::4096])
print(before, peak())
"""


def _rows(path: Path, count: int, days: int = 20) -> Path:
    rng = random.Random(count)
    epochs = {f"l{number:02d}-x": f"{rng.getrandbits(64):016x}" for number in range(40)}
    places = list(epochs)
    with path.open("w") as file:
        for number in range(count):
            place = places[number % 40]
            file.write(
                f'{{"record":"usage_counter.1","day":"2026-10-{1 + number % days:02d}",'
                f'"user":"acct-{rng.randrange(1_000_000)}","location":"{place}",'
                f'"epoch":"{epochs[place]}","bytes":{rng.randrange(10**10)}}}\n'
            )
    return path


def _megabytes(home: TinyHome, *words: str | Path, now: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "--home", home.root, *words, "--now", now, "--confirm-clock"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    code, peak = done.stderr.split()[-2:]
    assert code == b"0"
    return int(peak)


@pytest.mark.slow
def test_ingest_and_rollup_take_bounded_memory(tmp_path: Path) -> None:
    peaks = {}
    for millions in (1, 2, 3):
        home = TinyHome.make(tmp_path / f"home-{millions}")
        rows = _rows(tmp_path / "rows", millions * 1_000_000)
        peaks[millions] = (
            _megabytes(home, "ingest", rows, now=ALL_IN),
            _megabytes(home, "rollup", now=ALL_CLOSED),
        )
    print(peaks)
    assert max(map(max, peaks.values())) < BOUND_MB, peaks
    assert peaks[3][0] < peaks[2][0] + 60, peaks
    assert peaks[3][1] < peaks[1][1] + 200, peaks


def test_the_measure_sees_what_is_held_and_nothing_of_its_parent() -> None:
    """A bound proves something only if it could be passed, and by the measured process alone."""
    large = bytearray(200 << 20)
    large[::4096] = b"x" * len(large[::4096])
    done = subprocess.run([sys.executable, "-c", _HOLD], check=True, capture_output=True)
    before, after = map(int, done.stdout.split())
    assert before < 100
    assert before + 45 <= after < before + 60
