"""What a running agent tells: lines on stderr, its health as a file, its state to systemd.

Nothing here ever holds an account, a key, an address or a time.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

_STATUS_MODE: Final = 0o644


class Level(enum.IntEnum):
    """How much a line matters, as syslog numbers it."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Journal:
    """One line an event; with its level in front where the journal reads it."""

    def __init__(self, stream: TextIO | None = None, prefixed: bool | None = None) -> None:
        """Write to `stream`, stderr by default; `prefixed` by default where systemd started us."""
        self._stream = stream
        if prefixed is None:
            prefixed = bool({"INVOCATION_ID", "JOURNAL_STREAM"} & os.environ.keys())
        self._prefixed = prefixed

    def say(self, level: Level, words: str) -> None:
        """Write one line; a reader that left is no reason to stop."""
        prefix = f"<{int(level)}>" if self._prefixed else ""
        with contextlib.suppress(OSError, ValueError):
            print(f"{prefix}{words}", file=self._stream or sys.stderr, flush=True)


class Notifier:
    """Tells systemd how the service is, where systemd asks for it (`NOTIFY_SOCKET`)."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Look in `environ` for where to tell."""
        self._path = environ.get("NOTIFY_SOCKET", "")

    def tell(self, **fields: str) -> None:
        """Send fields, such as `READY="1"`; nothing if nobody asks, or nobody listens."""
        if not self._path.startswith(("/", "@")):
            return
        address = self._path.replace("@", "\0", 1) if self._path[0] == "@" else self._path
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), address)


def write_status(path: Path, status: Mapping[str, Any]) -> str | None:
    """Replace the status file as a whole; return what went wrong, or None."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _STATUS_MODE)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(status) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        return f"status {path}: cannot be written: {error.strerror or type(error).__name__}"
    return None


def unexpected(error: BaseException) -> str:
    """Return the kind and the place of an error nobody expected; its message may hold values."""
    frames = list(traceback.walk_tb(error.__traceback__))
    names = [(str(frame.f_globals.get("__name__")), line) for frame, line in frames]
    own = [name for name in names if name[0].startswith("aggregator.")] or names
    return "unexpected {} at {}:{}".format(type(error).__name__, *own[-1])
