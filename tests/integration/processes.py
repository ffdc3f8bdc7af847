"""Programs that tests run: to their end, or in the background with their output in a file."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS: Final = 60.0
"""How long to wait for what takes a second: on a machine that is busy with other things."""

_LOG_TAIL: Final = 3000


def search_path() -> str:
    """Return the PATH for daemons, which lie in sbin."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def wait_for(
    predicate: Callable[[], T | None],
    what: str | Callable[[], str],
    seconds: float = PATIENCE_SECONDS,
) -> T:
    """Return the first true result of `predicate`, asked every 50 ms; else fail and say `what`."""
    deadline = time.monotonic() + seconds
    while not (result := predicate()):
        if time.monotonic() > deadline:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"not after {seconds:g} s: {words}")
        time.sleep(0.05)
    return result


class Process:
    """A daemon or another program in the background; its output goes to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start `command` in a session, and so a process group, of its own."""
        self.log = log
        self._command = command
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
            )

    @property
    def pid(self) -> int:
        """The process id of the program itself: `ip netns exec` turns into it."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def text(self, after: int = 0) -> str:
        """Return its output so far, from the byte `after` on."""
        return self.log.read_bytes()[after:].decode("utf-8", errors="replace")

    def mark(self) -> int:
        """Return how much it has written: the `after` for what comes from now on."""
        return self.log.stat().st_size

    def wait_for_text(
        self, words: str, *, after: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until `words` stand in its output; fail at once if it ends before."""

        def said() -> bool:
            ended = not self.alive
            if words in self.text(after):
                return True
            assert not ended, f"{self} ended before it said {words!r}:\n{self._tail()}"
            return False

        wait_for(said, lambda: f"{words!r} in the output of {self}:\n{self._tail()}", seconds)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.alive:
            self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} runs after {seconds:g} s:\n{self._tail()}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and wait for that; return the exit code."""
        self.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it and its children at once, as a power cut would; may be called twice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __str__(self) -> str:
        return shlex.join(self._command)

    def _tail(self) -> str:
        return self.text()[-_LOG_TAIL:]


def run(command: Sequence[str], *, stdin: str = "", check: bool = True) -> str:
    """Run a program and return its stdout; fail with its words unless it ends well."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, "PATH": search_path()},
    )
    words = f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert not check or done.returncode == 0, words
    return done.stdout
