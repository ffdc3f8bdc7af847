"""The spool: sealed batches that outlive a killed agent, and never a reboot (promises CL-4, CS-7).

Without a folder everything stays in memory. A folder must lie on tmpfs or ramfs: nothing on a VPN
server may be persistent, not even sealed. The files hold what a door may hold; nothing in their
names tells of a user, a day or an epoch.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from aggregator.errors import BadInputError, ConfigError
from aggregator.wire.batch import MAX_BATCH_BYTES

MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_SUFFIX: Final = ".batch"
_TEMPORARY: Final = ".part"
_ANNOUNCEMENT: Final = "keys.json"


def file_system(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that `path` lies on, by the text of `mountinfo`.

    `path` is absolute and free of links. The last mount of the longest mount point counts, as
    mounts hide the ones before.
    """
    longest, found = -1, None
    for row in mounts.splitlines():
        fields = row.split(" ")
        if len(fields) < 10 or "-" not in fields[6:]:
            continue
        point = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4])
        inside = path.is_relative_to(point)
        if inside and len(point) >= longest:
            longest, found = len(point), fields[fields.index("-", 6) + 1]
    return found


def check_folder(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Raise ConfigError if `folder`, which may be missing yet, is no place for a spool."""
    real = Path(os.path.realpath(folder))
    try:
        found = file_system(real, mounts.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        found = None
    if found not in MEMORY_FILE_SYSTEMS:
        raise ConfigError(
            f"spool {folder}: lies on {found or 'an unknown file system'}, which is persistent; "
            "name a folder on tmpfs, as under /run, or leave the setting out"
        )


class Spool:
    """A folder of sealed batches, for the agent's user only; or nothing, if there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        """Use `folder`, which `check_folder` found good, and make it if it is missing."""
        self.folder = folder
        self._own: set[str] = set()
        if folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            if found.st_uid != os.geteuid():
                raise ConfigError(f"spool {folder}: belongs to another user; give it its own")
            if stat.S_IMODE(found.st_mode) != 0o700:
                folder.chmod(0o700)
            for path in folder.glob("*" + _TEMPORARY):
                path.unlink(missing_ok=True)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ConfigError(f"spool {folder}: cannot be used: {why}") from None

    def leftovers(self) -> list[str]:
        """Return the names of batches that an earlier process left, oldest first."""
        if self.folder is None:
            return []
        found = [path for path in self.folder.glob("*" + _SUFFIX) if path.name not in self._own]
        return [path.name for path in sorted(found, key=_age)]

    def read(self, name: str) -> bytes | None:
        """Return a batch, None if it is gone or cannot be one."""
        if self.folder is None:
            return None
        try:
            with (self.folder / name).open("rb") as file:
                content = file.read(MAX_BATCH_BYTES + 1)
        except OSError:
            return None
        return content if 0 < len(content) <= MAX_BATCH_BYTES else None

    def add(self, batch: bytes) -> str | None:
        """Keep a batch and return its name; None if there is no folder.

        BadInputError if it cannot be kept: the folder is full, as a rule.
        """
        if self.folder is None:
            return None
        name = f"{secrets.token_hex(8)}{_SUFFIX}"
        self._own.add(name)
        self._write(name, batch)
        return name

    def remove(self, name: str | None) -> None:
        """Remove a batch; it may be gone already."""
        if self.folder is None or name is None:
            return
        self._own.discard(name)
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise BadInputError(f"cannot be cleared: {error.strerror}") from None

    def announcement(self) -> bytes | None:
        """Return the announcement of keys that was kept last, verified by nobody."""
        return self.read(_ANNOUNCEMENT)

    def keep_announcement(self, content: bytes) -> None:
        """Keep an announcement, so that an agent started while the door is away can seal."""
        if self.folder is not None:
            self._write(_ANNOUNCEMENT, content)

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file as a whole; after a reboot there is none, so nothing is synced."""
        assert self.folder is not None
        temporary = self.folder / f"{name}{_TEMPORARY}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, self.folder / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            why = error.strerror or type(error).__name__
            raise BadInputError(f"cannot keep a batch: {why}") from None


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
