"""Typed reads of a TOML file, setting by setting: every mistake is one line that names its place.

No message quotes a value: an enrolment holds secrets, and a mistyped one may be anything.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from aggregator.errors import ConfigError

_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_MAX_FILE_BYTES: Final = 1 << 20


class Table:
    """One table of a TOML file. `close` refuses the settings that nobody asked for."""

    def __init__(self, data: Mapping[str, Any], file: Path, name: str = "") -> None:
        """Read `data`, the table called `name` in messages, empty for the file's own."""
        self._data = data
        self._file = file
        self._name = name
        self._asked: set[str] = set()

    def text(self, name: str, example: str, default: str | None = None) -> str:
        """Return a text that is not empty; `$CREDENTIALS_DIRECTORY/` in it is expanded."""
        value = self._value(name, default, example)
        if not isinstance(value, str) or not value:
            self.refuse(name, f'must be a text, such as "{example}"')
        return self._expanded(name, value)

    def optional(self, name: str, example: str) -> str | None:
        """Return a text as `text` does, None if it is not set."""
        if name not in self:
            self._asked.add(name)
            return None
        return self.text(name, example)

    def path(self, name: str, example: str) -> Path:
        """Return an absolute path that must be set."""
        path = Path(self.text(name, example))
        if not path.is_absolute():
            self.refuse(name, f"must be an absolute path, such as {example}")
        return path

    def optional_path(self, name: str, example: str) -> Path | None:
        """Return an absolute path, None if it is not set."""
        if name not in self:
            self._asked.add(name)
            return None
        return self.path(name, example)

    def integer(self, name: str, default: int | None, smallest: int, largest: int) -> int:
        """Return a whole number from `smallest` to `largest`."""
        example = smallest if default is None else default
        value = self._value(name, default, str(example))
        if type(value) is not int or not smallest <= value <= largest:
            self.refuse(name, f"must be a whole number from {smallest} to {largest}")
        return value

    def flag(self, name: str, default: bool | None) -> bool:
        """Return true or false."""
        value = self._value(name, default, "true")
        if type(value) is not bool:
            self.refuse(name, "must be true or false")
        return value

    def texts(self, name: str, example: str, default: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return a list of texts, none of them empty; it is empty only if it may be left out."""
        value = self._value(name, default, example)
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, str) and item for item in value
        ):
            self.refuse(name, f"must be a list of texts, such as {example}")
        if not value and default is None:
            self.refuse(name, f"must not be empty; write it like {example}")
        return tuple(self._expanded(name, item) for item in value)

    def key(self, name: str, size: int) -> bytes:
        """Return `size` bytes that are written in base64."""
        return self.decoded(name, self.text(name, "base64"), size)

    def decoded(self, name: str, text: str, size: int) -> bytes:
        """Return the `size` bytes that `text`, the value of a setting, spells in base64."""
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if len(value) != size:
            self.refuse(name, f"must be {size} bytes in base64; enrol the agent again")
        return value

    def table(self, name: str) -> Table:
        """Return a table inside this one, empty if it is not there."""
        value = self._value(name, {}, "")
        if not isinstance(value, dict):
            self.refuse(name, f"must be a table, begun by [{name}]")
        return Table(value, self._file, f"[{name}] ")

    def tables(self, name: str) -> list[Table]:
        """Return the tables of an array of tables, at least one."""
        value = self._value(name, [], "")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.refuse(name, f"must be tables, each begun by [[{name}]]")
        if not value:
            self.refuse(name, f"is missing; describe at least one in [[{name}]]")
        return [
            Table(item, self._file, f"[[{name}]] {number}: ")
            for number, item in enumerate(value, start=1)
        ]

    def close(self) -> None:
        """Raise ConfigError if there is a setting that nobody asked for."""
        for name in self._data:
            if name not in self._asked:
                known = ", ".join(sorted(self._asked))
                self.refuse(_printable(name), f"is no setting here; known are {known}")

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise ConfigError for the setting `name`."""
        raise ConfigError(f"{self._file}: {self._name}{name} {why}")

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def _value(self, name: str, default: Any, example: str) -> Any:
        self._asked.add(name)
        if name in self._data:
            return self._data[name]
        if default is None:
            self.refuse(name, f"is missing; set it, for example to {example}")
        return default

    def _expanded(self, name: str, text: str) -> str:
        for written in (f"${_CREDENTIALS}/", f"${{{_CREDENTIALS}}}/"):
            if written in text:
                folder = os.environ.get(_CREDENTIALS)
                if not folder:
                    self.refuse(name, f"needs ${_CREDENTIALS}, which only systemd sets")
                text = text.replace(written, f"{folder}/")
        return text


def read_toml(path: Path) -> Table:
    """Return the TOML file `path` as a table; ConfigError if it cannot be read or is none."""
    content = read_file(path)
    try:
        return Table(tomllib.loads(content.decode("utf-8")), path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # The message names a line and a column, and sometimes quotes one character.
        place = str(error).rpartition("(")[2].removesuffix(")")
        raise ConfigError(f"{path}: is not TOML; look {place}") from None


def read_file(path: Path) -> bytes:
    """Return the content of a small file; ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{path}: cannot be read: {why}; check its path and owner") from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than 1 MiB; it is not what is expected here")
    return content


def file_signature(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is rewritten or replaced; nothing while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def check_secret(path: Path) -> None:
    """Raise ConfigError if others than the owner and its group may read the file `path`.

    The group is let be: systemd shows its credentials so, and some hosts give a group of its own to
    each service. A file that cannot be looked at is told by whoever opens it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ConfigError(f"{path}: holds a secret, but others may open it; run chmod 600 on it")


def _printable(name: str) -> str:
    """Return the name of a setting, cut short and without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in name[:40])
