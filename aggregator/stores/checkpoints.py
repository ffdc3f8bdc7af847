"""Checkpoints of the audit log: one JSON line each, of where the log ended at an instant.

The chain alone cannot tell that its end was cut off, or that all of it was written anew; a
checkpoint can, best one that is kept off the host. A line torn by a crash was never acknowledged.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import IntegrityError
from aggregator.model.days import parse_instant
from aggregator.stores import atomic

NAME: Final = "audit_checkpoint.1"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = ("checkpoint", "at", "number", "digest", "receipts", "receipts_digest")


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the log ended at the instant `at`: its last entry, and the receipts it had recorded.

    `digest` is the SHA-256 of entry `number`'s line, `receipts_digest` that over the `receipts`.
    """

    at: str
    number: int
    digest: str
    receipts: int
    receipts_digest: str

    def fields(self) -> Mapping[str, Any]:
        """Return it as the JSON Schema has it."""
        return {"checkpoint": NAME, **dataclasses.asdict(self)}

    def line(self) -> bytes:
        """Return its line."""
        return json.dumps(self.fields(), separators=(",", ":")).encode() + b"\n"


class CheckpointFile:
    """A file of checkpoints, oldest first: the home's own, or a copy elsewhere."""

    def __init__(self, path: Path) -> None:
        """Look after `path`, which may be missing."""
        self.path = path

    def read(self) -> list[Checkpoint]:
        """Return every checkpoint, oldest first; IntegrityError if a whole line is none."""
        return [
            _parsed(line, number)
            for number, line in enumerate(self._whole().splitlines(keepends=True), 1)
        ]

    def append(self, checkpoint: Checkpoint) -> bool:
        """Add a checkpoint durably, unless it is the last already; return whether it was added.

        IntegrityError if the file holds anything else than checkpoints.
        """
        there = self.read()
        if there and there[-1] == checkpoint:
            return False
        is_new = not self.path.exists()
        end = len(self._whole())
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if end < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, end)  # a torn line
            atomic.write_at(descriptor, checkpoint.line(), end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            atomic.sync_folder(self.path.parent)
        return True

    def _whole(self) -> bytes:
        """Return the whole lines; what follows them was torn, if it begins like a checkpoint."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        whole = content[: content.rfind(b"\n") + 1]
        begins = f'{{"checkpoint":"{NAME}"'.encode()
        torn = content[len(whole) :]
        if not begins.startswith(torn[: len(begins)]):
            raise IntegrityError(f"{self.path.name} holds something else than checkpoints")
        return whole


def _parsed(line: bytes, number: int) -> Checkpoint:
    try:
        fields = json.loads(line)
        if tuple(fields) != _FIELDS or fields.pop("checkpoint") != NAME:
            raise ValueError("fields")
        found = Checkpoint(**fields)
        parse_instant(found.at)
        digests = (found.digest, found.receipts_digest)
        if not all(_DIGEST.fullmatch(one) for one in digests):
            raise ValueError("digests")
        if type(found.number) is not int or type(found.receipts) is not int:
            raise TypeError("numbers")
        if found.number < 1 or found.receipts < 0:
            raise ValueError("numbers")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"line {number} is no checkpoint") from None
    return found
