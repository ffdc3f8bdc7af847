"""A command of the operator, run without a shell; it and what it started end with the look-up."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import Final

from aggregator.directory import rows
from aggregator.directory.entries import Batch
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.directory.secrets import needed
from aggregator.directory.watch import Watch
from aggregator.model.settings import DirectorySettings

# How often it is looked whether anybody still waits: also a process that left the command's group,
# and so cannot be ended, may hold the pipe open.
_LOOK_SECONDS: Final = 0.1
_EXIT_SECONDS: Final = 0.01


def batches(settings: DirectorySettings, watch: Watch, size: int) -> Generator[Batch]:
    """Yield the rows that `command` writes to its standard output, as CSV or JSON objects.

    It has done all of it only where it closed its output and ended with status 0.
    """
    needed("".join(settings.command[:1]), "command")
    process = _start(settings.command)
    assert process.stdout is not None
    try:
        reads = _reads(process.stdout.fileno(), watch)
        yield from rows.batches(reads, size, json_too=True)
        _check_status(process, watch)
    finally:
        # Whatever the command started and left behind, before its number may be another's.
        _kill(process)
        process.stdout.close()
        process.wait()


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Its words may name anybody.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise BrokenError(Trouble.NOT_FOUND) from None
    except (OSError, ValueError):
        raise BrokenError(Trouble.NOT_RUN) from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command's whole group; it is not reaped yet, so that the number is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reads(output: int, watch: Watch) -> Iterator[bytes]:
    ready = select.poll()
    ready.register(output, select.POLLIN)
    while not watch.over:
        if ready.poll(_LOOK_SECONDS * 1000):
            read = os.read(output, rows.READ_BYTES)
            if not read:
                return
            yield read
    raise BrokenError(Trouble.CUT)


def _check_status(process: subprocess.Popen[bytes], watch: Watch) -> None:
    """Wait for the command's end, without reaping it; BrokenError if its status is not 0."""
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (ended := os.waitid(os.P_PID, process.pid, look)) is None:
        if watch.over:
            raise BrokenError(Trouble.CUT)
        watch.pause(_EXIT_SECONDS)
    status = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
    if status:
        raise BrokenError(Trouble.EXIT_STATUS, status)
