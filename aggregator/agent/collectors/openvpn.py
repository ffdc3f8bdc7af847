"""OpenVPN: a server's status from its file or its management interface, and the ends of sessions.

The number is payload of the outer UDP or TCP connection, both directions, the control channel
included (about 4 kB for a fresh session). It is cumulative for one session: a float or a TLS rekey
do not reset it; every reconnect is a new session (measured with OpenVPN 2.6.14, without DCO).
The account is the common name; a server that checks passwords instead of certificates needs
`username-as-common-name`.

What a session moved after its last reading is told by `aggregator.agent.openvpn_hook` alone, where
that is set up.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import time
from pathlib import Path
from typing import Final

from aggregator.agent.collectors.openvpn_ends import SessionEnds
from aggregator.agent.collectors.openvpn_management import Address, fetch_status, parse_address
from aggregator.agent.collectors.openvpn_socket import HookSocket
from aggregator.agent.collectors.openvpn_status import Status, parse, parse_status
from aggregator.agent.openvpn_hook import send_hook
from aggregator.agent.readings import Capture, Locate, SilentSourceError
from aggregator.errors import BadInputError, ConfigError

__all__ = ["OpenVPNReader", "Settings", "connect", "parse", "send_hook"]

# The server writes a status line by line, within milliseconds.
_READS: Final = 10
_PAUSE_SECONDS: Final = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One server: its `status` file, or its `management` interface, not both.

    `management` is the path of a Unix socket or 127.0.0.1:port. A status file older than
    `stale_after_seconds` is refused: it must be well above the interval in the server's `status`
    line, and above 10 s, which is how often a server without clients writes at most.
    `hook_socket` is made for the `client-disconnect` program; the server's user must be able to
    write to it, by its group (`hook_group`) and `hook_mode` (octal).
    """

    status: str = ""
    management: str = ""
    management_password_file: str = ""
    stale_after_seconds: int = 180
    timeout_seconds: int = 10
    hook_socket: str = ""
    hook_mode: str = "0660"
    hook_group: str = ""


class OpenVPNReader:
    """Reads the status of one server, and takes in what its hook told."""

    def __init__(
        self,
        settings: Settings,
        locate: Locate,
        management: Address | None,
        hook: HookSocket | None,
    ) -> None:
        """Read from `management` if it is given, else from the file that `settings` names."""
        self._settings = settings
        self._locate = locate
        self._management = management
        self._hook = hook
        self._ends = SessionEnds()

    def read(self, now: dt.datetime) -> Capture:
        """Return the sessions and connections of the server.

        BadInputError if they cannot be read; SilentSourceError if the status file is old: it
        stays on disk when the server stops. What the hook told meanwhile waits for a status.
        """
        if self._management is None:
            status = self._from_file(now)
        else:
            password_file = self._settings.management_password_file
            timeout_seconds = self._settings.timeout_seconds
            text = fetch_status(self._management, password_file, timeout_seconds)
            status = parse_status(text, self._locate)
        if self._hook is None:
            return status.capture
        if status.written is None or not status.has_client_ids:
            raise BadInputError("does not tell sessions apart; hook_socket needs status-version 3")
        # In this order: the server calls the hook before it writes a status without the session.
        return self._ends.merged(status, *self._hook.take())

    def close(self) -> None:
        """Stop listening to the hook; nothing else is held between two reads."""
        if self._hook is not None:
            self._hook.close()

    def _from_file(self, now: dt.datetime) -> Status:
        status, modified = _read_file(Path(self._settings.status), self._locate)
        # The server's own clock may run on after the machine's was set back; the file's does not.
        written = modified if status.written is None else min(modified, status.written)
        if now.timestamp() - written > self._settings.stale_after_seconds:
            raise SilentSourceError(
                f"the status file is older than {self._settings.stale_after_seconds} s: has the "
                "server stopped, or is the interval in its `status` line longer?"
            )
        return status


def _read_file(path: Path, locate: Locate) -> tuple[Status, float]:
    """Return the status in a file, and when that was modified (seconds since 1970).

    The server overwrites it in place. What is cut off, or differs when it is read once more, is
    just being written, and is read again.
    """
    before = None
    fault = BadInputError("is rewritten all the time; make the interval of `status` longer")
    for _ in range(_READS):
        content, modified = _content(path)
        if content == before:
            try:
                text = content.decode("utf-8", errors="surrogateescape")
                return parse_status(text, locate), modified
            except BadInputError as error:
                fault = error
        before = content
        time.sleep(_PAUSE_SECONDS)
    raise fault


def _content(path: Path) -> tuple[bytes, float]:
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise BadInputError(f"the status file cannot be read: {error.strerror}") from None


def connect(settings: Settings, locate: Locate) -> OpenVPNReader:
    """Return a reader of one server; ConfigError if the settings do not say how."""
    if bool(settings.status) == bool(settings.management):
        raise ConfigError("an OpenVPN source needs either status or management, and not both")
    management = parse_address(settings.management) if settings.management else None
    hook = None
    if settings.hook_socket:
        hook = HookSocket(settings.hook_socket, settings.hook_mode, settings.hook_group)
    return OpenVPNReader(settings, locate, management, hook)
