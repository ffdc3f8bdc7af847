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
        """Return the last whole entry, reading only the end of the log."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return None
        lines = tail[: tail.rfind(b"\n") + 1].splitlines(keepends=True)
        return _parse(lines[-1], None) if lines else None

    def append(self, at: dt.datetime, clock: Clock, kind: str, detail: Mapping[str, Any]) -> Entry:
        """Add an entry at the instant `at`, durably, and return it."""
        last = self.last()
        fields: dict[str, Any] = {
            "n": last.number + 1 if last else 1,
            "at": instant(at),
            "kind": kind,
            "detail": detail,
        }
        if clock.doubt_since and clock.before_jump:
            fields["clock"] = {
                "doubt_since": instant(clock.doubt_since),
                "before_jump": instant(clock.before_jump),
            }
        fields["previous"] = last.digest if last else GENESIS
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


def _parse(line: bytes, number: int | None) -> Entry:
    try:
        fields = json.loads(line)
        doubt = fields.get("clock") or {}
        clock = Clock(
            parse_instant(fields["at"]),
            parse_instant(doubt["doubt_since"]) if doubt else None,
            parse_instant(doubt["before_jump"]) if doubt else None,
        )
        return Entry(
            fields["n"],
            fields["at"],
            fields["kind"],
            fields["detail"],
            fields["previous"],
            hashlib.sha256(line.rstrip(b"\n")).hexdigest(),
            clock,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        where = "at its end" if number is None else f"at entry {number}"
        raise IntegrityError(f"the audit log is broken {where}") from None
