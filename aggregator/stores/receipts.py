"""Receipts: what was destroyed, when, and on what grounds; exactly one a month.

While a purge is under way its receipt-to-be lies beside, as an intent: from the moment it is
written nothing of the month is read any more, and a killed purge goes on from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aggregator.errors import IntegrityError
from aggregator.stores import atomic


class ReceiptStore:
    """The purge receipts and intents in `audit/`."""

    def __init__(self, folder: Path) -> None:
        """Look after the receipts in `folder`."""
        self.folder = folder

    def path(self, month: str) -> Path:
        """Return the file of a month's receipt."""
        return self.folder / f"receipt-purge-{month}.json"

    def intent_path(self, month: str) -> Path:
        """Return the file of a month's intent."""
        return self.folder / f"intent-purge-{month}.json"

    def months(self) -> list[str]:
        """Return the months that have a receipt, oldest first."""
        return sorted(path.stem[-7:] for path in self.folder.glob("receipt-purge-????-??.json"))

    def intents(self) -> list[str]:
        """Return the months whose purge was begun and not finished, oldest first."""
        return sorted(path.stem[-7:] for path in self.folder.glob("intent-purge-????-??.json"))

    def purged_through(self) -> str:
        """Return the last month that was purged or is being purged, "" before any."""
        return max([*self.months(), *self.intents()], default="")

    def read(self, month: str) -> dict[str, Any]:
        """Return a month's receipt, which must be there."""
        return _load(self.path(month))

    def read_intent(self, month: str) -> dict[str, Any] | None:
        """Return a month's intent, None if there is none."""
        path = self.intent_path(month)
        return _load(path) if path.exists() else None

    def write_intent(self, month: str, intent: Mapping[str, Any]) -> None:
        """Write a month's intent."""
        atomic.write(self.intent_path(month), _dump(intent), mode=0o644)

    def write(self, month: str, receipt: Mapping[str, Any]) -> None:
        """Write a month's receipt, then let go of its intent."""
        if not self.path(month).exists():
            atomic.write(self.path(month), _dump(receipt), mode=0o644)
        atomic.remove(self.intent_path(month))

    def digest(self, month: str) -> str:
        """Return the SHA-256 of a month's receipt file."""
        return hashlib.sha256(self.path(month).read_bytes()).hexdigest()


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise IntegrityError(f"{path.name} does not read as a receipt") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{path.name} does not read as a receipt")
    return value
