"""The audit log: one JSON line an entry, each naming the SHA-256 of the line before it.

Entries hold counts, periods and digests, never a person. A line torn by a crash was never
acknowledged; the next entry replaces it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import IntegrityError
from aggregator.model.clock import Clock
from aggregator.model.days import instant, parse_instant
from aggregator.stores import atomic

GENESIS: Final = "0" * 64
_TAIL_BYTES: Final = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: its number from 1, its instant, what happened, and details."""

    number: int
    at: str
    kind: str
    detail: Mapping[str, Any]
    previous: str
    digest: str
    clock: Clock


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: the number and the SHA-256 of its last line, 0 and GENESIS if empty."""

    number: int
    digest: str


class AuditLog:
    """The hash-chained log of one home."""

    def __init__(self, folder: Path) -> None:
        """Look after `log.ndjson` in `folder`."""
        self.path = folder / "log.ndjson"

    def entries(self) -> Iterator[Entry]:
        """Yield every whole entry, oldest first; IntegrityError where the chain breaks."""
        if not self.path.exists():
            return
        previous, number = GENESIS, 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return  # torn: the process died while writing it
                entry = _parse(line, number + 1)
                if entry.number != number + 1 or entry.previous != previous:
                    raise IntegrityError(f"the audit log is broken at entry {number + 1}")
                previous, number = entry.digest, entry.number
                yield entry

    def last(self) -> Entry | None:
        """Return the last whole entry; IntegrityError if it does not read as one."""
        line = self._last_line()
        return _parse(line, None) if line else None

    def head(self) -> Head:
        """Return the number and the digest of the last whole line, be it an entry or damaged.

        What is written after a damaged line names it too, so that the damage stays in its place
        and the log goes on.
        """
        line = self._last_line()
        if not line:
            return Head(0, GENESIS)
        try:
            return Head(_parse(line, None).number, _digest(line))
        except IntegrityError:
            with self.path.open("rb") as file:
                return Head(sum(1 for one in file if one.endswith(b"\n")), _digest(line))

    def _last_line(self) -> bytes:
        """Return the last whole line, reading only the end of the log; b"" if there is none."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return b""
        lines = tail[: tail.rfind(b"\n") + 1].splitlines(keepends=True)
        return lines[-1] if lines else b""

    def append(self, at: dt.datetime, clock: Clock, kind: str, detail: Mapping[str, Any]) -> Entry:
        """Add an entry at the instant `at`, durably, and return it."""
        head = self.head()
        fields: dict[str, Any] = {
            "n": head.number + 1,
            "at": instant(at),
            "kind": kind,
            "detail": detail,
        }
        if clock.doubt_since and clock.before_jump:
            fields["clock"] = {
                "doubt_since": instant(clock.doubt_since),
                "before_jump": instant(clock.before_jump),
            }
        if clock.behind:
            fields["clock_behind"] = instant(clock.behind)
        fields["previous"] = head.digest
        line = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        atomic.make_folder(self.path.parent)
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            atomic.write_at(descriptor, line, self._cut_torn_line(descriptor))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            atomic.sync_folder(self.path.parent)
        return _parse(line, None)

    @staticmethod
    def _cut_torn_line(descriptor: int) -> int:
        """Cut what follows the last newline; return the offset at which to write."""
        size = os.fstat(descriptor).st_size
        start = max(0, size - _TAIL_BYTES)
        end = start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1
        if end < size:
            os.ftruncate(descriptor, end)
        return end


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _parse(line: bytes, number: int | None) -> Entry:
    try:
        fields = json.loads(line)
        doubt = fields.get("clock") or {}
        clock = Clock(
            parse_instant(fields["at"]),
            parse_instant(doubt["doubt_since"]) if doubt else None,
            parse_instant(doubt["before_jump"]) if doubt else None,
            parse_instant(fields["clock_behind"]) if "clock_behind" in fields else None,
        )
        return Entry(
            fields["n"],
            fields["at"],
            fields["kind"],
            fields["detail"],
            fields["previous"],
            _digest(line),
            clock,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        where = "at its end" if number is None else f"at entry {number}"
        raise IntegrityError(f"the audit log is broken {where}") from None
