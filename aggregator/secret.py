"""A secret, read from where the settings say it is; it is never written, told or kept.

Both the stores and the directory of accounts read secrets, and neither knows the other; each turns
what goes wrong here into an error of its own.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from aggregator.model.settings import Secret

COMMAND_SECONDS: Final = 30.0
MOST_BYTES: Final = 1 << 16
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_LOOK_SECONDS: Final = 0.01


class Fault(enum.StrEnum):
    """What can be wrong with a secret: the words say it after the name of its setting."""

    MISSING = "names a file that is not there"
    UNREADABLE = "names a file that cannot be read"
    EMPTY = "gives nothing"
    UNSET = "names a variable that is not set"
    NO_CREDENTIALS = "needs a credential, which only systemd hands over (LoadCredential)"
    NOT_HANDED_OVER = "names a credential that systemd does not hand over"
    NOT_RUN = "names a command that cannot be run"
    FAILED = "names a command that fails"
    TOO_SLOW = "names a command that does not end in 30 s"
    TOO_LONG = "gives more than 64 KiB"
    NO_TEXT = "gives no UTF-8 text"


class SecretError(Exception):
    """A secret cannot be had: by which way it was to come (such as `_file`), and why."""

    def __init__(self, way: str, fault: Fault) -> None:
        super().__init__(fault.name)
        self.way = way
        self.fault = fault


def read(secret: Secret, environment: Mapping[str, str] | None = None) -> str:
    """Return the secret, without one newline at its end; of a command the first line only.

    `environment` is the process's own unless another is given. SecretError, which holds nothing of
    the secret, if there is none.
    """
    environment = os.environ if environment is None else environment
    if secret.command:
        way, content = "_command", _printed("_command", secret.command)
        content = content.partition(b"\n")[0]
    elif secret.variable is not None:
        way = "_env"
        if secret.variable not in environment:
            raise SecretError(way, Fault.UNSET)
        content = os.fsencode(environment[secret.variable])
    else:
        way = "_credential" if secret.file is None else "_file"
        content = _content(way, path(secret, environment))
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretError(way, Fault.NO_TEXT) from None
    if not text:
        raise SecretError(way, Fault.EMPTY)
    return text


def path(secret: Secret, environment: Mapping[str, str]) -> Path:
    """Return where a secret of a file or a credential lies; SecretError if systemd gave none."""
    if secret.file is not None:
        return Path(secret.file)
    folder = environment.get(CREDENTIALS, "")
    if not folder:
        raise SecretError("_credential", Fault.NO_CREDENTIALS)
    return Path(folder, secret.credential or "")


def _content(way: str, where: Path) -> bytes:
    missing = Fault.MISSING if way == "_file" else Fault.NOT_HANDED_OVER
    try:
        with where.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise SecretError(way, missing) from None
    except (OSError, ValueError):
        raise SecretError(way, Fault.UNREADABLE) from None
    if len(content) > MOST_BYTES:
        raise SecretError(way, Fault.TOO_LONG)
    return content


def _printed(way: str, command: tuple[str, ...]) -> bytes:
    """Return what `command` prints; it and what it started are ended whatever becomes of it."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Its words may hold the secret.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError):
        raise SecretError(way, Fault.NOT_RUN) from None
    assert process.stdout is not None
    deadline = time.monotonic() + COMMAND_SECONDS
    try:
        content = b"".join(_reads(way, process.stdout.fileno(), deadline))
        _check_status(way, process, deadline)
    finally:
        # Not reaped yet, so that the number is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
    return content


def _reads(way: str, output: int, deadline: float) -> Iterator[bytes]:
    ready, size = select.poll(), 0
    ready.register(output, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise SecretError(way, Fault.TOO_SLOW)
        read_now = os.read(output, MOST_BYTES)
        if not read_now:
            return
        size += len(read_now)
        if size > MOST_BYTES:
            raise SecretError(way, Fault.TOO_LONG)
        yield read_now


def _check_status(way: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Wait for the command's end, without reaping it; SecretError if its status is not 0."""
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (ended := os.waitid(os.P_PID, process.pid, look)) is None:
        if time.monotonic() > deadline:
            raise SecretError(way, Fault.TOO_SLOW)
        time.sleep(_LOOK_SECONDS)
    if ended.si_code != os.CLD_EXITED or ended.si_status != 0:
        raise SecretError(way, Fault.FAILED)
