"""One writing run at a time; a killed one is no obstacle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.errors import LockedError
from aggregator.stores import lock

_HOLD = """
import sys, time
from pathlib import Path
from aggregator.stores import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_and_kill_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", _HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError) as refused, lock.hold(path):
            pytest.fail("two runs hold one lock")
        assert refused.value.exit_code == 75
        holder.kill()
    with lock.hold(path):
        pass


def test_a_lock_is_freed_by_an_error_and_held_within_one_process_too(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ZeroDivisionError), lock.hold(path):
        raise ZeroDivisionError
    with lock.hold(path), pytest.raises(LockedError), lock.hold(path):
        pytest.fail("two holders")
