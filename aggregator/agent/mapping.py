"""The operator's account map, kept up to date: from a file when it changes, or from a command.

It stays in the memory of this server. A map that cannot be read leaves the one before in use; what
is told of it is the line number, never the line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aggregator.agent.accounts import AccountMap, name_accounts, parse_accounts
from aggregator.agent.config import AccountsSettings
from aggregator.agent.readings import Capture
from aggregator.agent.settings import file_signature
from aggregator.errors import BadInputError

COMMAND_SECONDS: Final = 3600.0
"""A command is run again after an hour."""
UNKNOWN_SECONDS: Final = 300.0
"""It is run again earlier, but not before, when a name is not in the map."""
_COMMAND_TIMEOUT: Final = 30
_MAX_MAP_BYTES: Final = 256 << 20

Say = Callable[[str], None]


class AccountBook:
    """One source's map; `name` gives a capture its accounts."""

    def __init__(self, settings: AccountsSettings, say: Say) -> None:
        """Read the map that `settings` names when it is first needed; tell troubles to `say`."""
        self._settings = settings
        self._say = say
        self._map: AccountMap = MappingProxyType({})
        self._signature: tuple[int, ...] | None = None
        self._ran_at: float | None = None
        self._unknown = False

    def forget_age(self) -> None:
        """Read the map anew at the next capture, whatever its age."""
        self._signature = self._ran_at = None

    def name(self, capture: Capture, monotonic: float) -> Capture:
        """Return `capture` with its accounts, after the map was brought up to date."""
        self._refresh(monotonic)
        if self._settings.command and not self._unknown:
            self._unknown = any(reading.name not in self._map for reading in capture.readings)
        return name_accounts(capture, self._map)

    def _refresh(self, monotonic: float) -> None:
        try:
            text = self._changed_file() if self._settings.file else self._output(monotonic)
            if text is not None:
                self._map = parse_accounts(text)
        except BadInputError as error:
            kept = "the one before stays in use" if self._map else "there is none yet"
            self._say(f"the map of accounts {error}; {kept}")

    def _changed_file(self) -> str | None:
        path = self._settings.file
        assert path is not None
        signature = file_signature(path)
        if signature == self._signature:
            return None
        self._signature = signature
        return _decoded(_content(path))

    def _output(self, monotonic: float) -> str | None:
        """Return what the command prints if it is due: no shell, and a time limit."""
        if self._ran_at is not None:
            age = monotonic - self._ran_at
            if age < (UNKNOWN_SECONDS if self._unknown else COMMAND_SECONDS):
                return None
        self._ran_at, self._unknown = monotonic, False
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
                self._settings.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadInputError(f"cannot be made: {type(error).__name__} at its command") from None
        if done.returncode:
            raise BadInputError(f"cannot be made: its command ended with {done.returncode}")
        return _decoded(done.stdout)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_MAP_BYTES)
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror or type(error).__name__}") from None


def _decoded(content: bytes) -> str:
    """Return the text; what is no UTF-8 becomes surrogates, which no account may hold."""
    return content.decode("utf-8", errors="surrogateescape")
