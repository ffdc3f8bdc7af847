"""The outbox: what was decided to be told, and what became of it, sealed with the month's key.

A month is one file, `outbox/YYYY-MM.notices`, to which events are only ever added. A frame holds
the events of one append: all of them are there, or none. Its additional data is the month, the
key's id and its number, so that a frame that was changed, moved or taken from elsewhere does not
open.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aggregator.errors import IntegrityError, LockedError
from aggregator.stores import atomic, lock
from aggregator.stores.keys import MonthKeys

SUFFIX: Final = ".notices"
_LOCK: Final = ".lock"
_FORMAT: Final = "outbox.1"
_NONCE_BYTES: Final = 12
_ROOM_BYTES: Final = 1 << 16
# A frame's length, and a check of it: a wrong length must not pass for a frame that was torn off.
_HEADER: Final = struct.Struct(">I4s")

Event = Mapping[str, Any]


class Outbox:
    """The sealed notices of a home's months."""

    def __init__(self, folder: Path) -> None:
        """Look after the months in `folder`."""
        self.folder = folder
        # Where the last frame that this process added ends: file, offset, number of the next one.
        self._tail: tuple[int, int, int] | None = None

    def path(self, month: str) -> Path:
        """Return the file of a month."""
        return self.folder / f"{month}{SUFFIX}"

    def months(self) -> list[str]:
        """Return the months that have notices, oldest first."""
        return sorted(path.name[:7] for path in self.folder.glob(f"????-??{SUFFIX}"))

    def files(self, month: str) -> list[Path]:
        """Return the files of a month: one, or none."""
        return [path for path in (self.path(month),) if path.exists()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of a run that sends; LockedError if another one does."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.hold(self.folder / _LOCK))
            except LockedError:
                raise LockedError(
                    "another run is sending notices; try again when it is done"
                ) from None
            yield

    def read(self, keys: MonthKeys) -> list[dict[str, Any]]:
        """Return every event of a month, oldest first, [] if it has none.

        A frame that a crash tore off was never acknowledged, and is left out; IntegrityError if
        anything else does not open.
        """
        try:
            content = self.path(keys.month).read_bytes()
        except FileNotFoundError:
            return []
        events: list[dict[str, Any]] = []
        for _end, frame in _frames(content, keys):
            events += frame
        return events

    def append(self, keys: MonthKeys, events: Sequence[Event], *, create: bool) -> bool:
        """Add `events`, all or none, durably; return False if the month's file is gone.

        It is made only with `create`: a purge that came meanwhile has taken the month along.
        """
        if not events:
            return create or self.path(keys.month).exists()
        path = self.path(keys.month)
        is_new = create and not path.exists()
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            return False
        try:
            # Blocking, but for a moment only: whoever holds it writes one frame.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink == 0 and not create:
                return False
            self._add(descriptor, keys, events)
        finally:
            os.close(descriptor)
        if is_new:
            atomic.sync_folder(self.folder)
        return True

    def check_room(self, month: str) -> None:
        """Raise OSError if there is no room on the disk to note what becomes of mails.

        Without it a full disk would let a mail go out that nothing remembers, again and again.
        """
        descriptor = os.open(self.path(month), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            try:
                atomic.write_at(descriptor, bytes(_ROOM_BYTES), size)
                os.fsync(descriptor)
            finally:
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _add(self, descriptor: int, keys: MonthKeys, events: Sequence[Event]) -> None:
        found = os.fstat(descriptor)
        if self._tail is not None and self._tail[:2] == (found.st_ino, found.st_size):
            end, number = self._tail[1:]
        else:  # the first frame of this process, or another one has added some
            end, number = _end(os.pread(descriptor, found.st_size, 0), keys)
            os.ftruncate(descriptor, end)
        frame = _seal(keys, number, events)
        atomic.write_at(descriptor, frame, end)
        os.fsync(descriptor)
        self._tail = (found.st_ino, end + len(frame), number + 1)


def _end(content: bytes, keys: MonthKeys) -> tuple[int, int]:
    """Return where the last whole frame ends, and how many there are."""
    ends = [end for end, _events in _frames(content, keys, opened=False)]
    return (ends[-1] if ends else 0), len(ends)


def _seal(keys: MonthKeys, number: int, events: Sequence[Event]) -> bytes:
    plain = json.dumps(list(events), ensure_ascii=False, separators=(",", ":")).encode()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(keys.segment).encrypt(nonce, plain, _bound(keys, number))
    return _HEADER.pack(len(sealed), _check(keys, number, len(sealed))) + nonce + sealed


def _frames(
    content: bytes, keys: MonthKeys, *, opened: bool = True
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield where each whole frame ends, and its events if they are to be `opened`."""
    damaged = IntegrityError(f"the outbox of {keys.month} does not open with its month's key")
    cipher = AESGCM(keys.segment)
    offset = number = 0
    while offset + _HEADER.size <= len(content):
        length, check = _HEADER.unpack_from(content, offset)
        start = offset + _HEADER.size + _NONCE_BYTES
        if check != _check(keys, number, length):
            if any(content[offset:]):
                raise damaged
            return  # zeros, which a run that was killed while it looked for room has left
        if start + length > len(content):
            return
        events: list[dict[str, Any]] = []
        if opened:
            nonce = content[start - _NONCE_BYTES : start]
            sealed = content[start : start + length]
            try:
                events = json.loads(cipher.decrypt(nonce, sealed, _bound(keys, number)))
            except (InvalidTag, ValueError):
                raise damaged from None
        offset = start + length
        number += 1
        yield offset, events


def _check(keys: MonthKeys, number: int, length: int) -> bytes:
    text = f"{_FORMAT}\n{keys.key_id}\n{number}\n{length}".encode()
    return hashlib.blake2b(text, digest_size=4).digest()


def _bound(keys: MonthKeys, number: int) -> bytes:
    return f"{_FORMAT}\n{keys.month}\n{keys.key_id}\n{number}".encode()
