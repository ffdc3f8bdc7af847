"""Month key sets: random, never derived, one block each, gone with the month.

A set holds an X25519 private key (agents seal their batches to its public half), an AES-256 key
(segments are sealed with it) and a key for pseudonyms. Files are `keys/YYYY-MM.*`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from pathlib import Path
from typing import Final

from aggregator.errors import IntegrityError
from aggregator.stores import custody

_MAGIC: Final = b"aggregator month keys 1\n"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class MonthKeys:
    """The secrets of one month; `key_id` is random and public."""

    month: str
    key_id: str
    batch: bytes
    segment: bytes
    pseudonym: bytes


class KeyStore:
    """The key sets of a home's months."""

    def __init__(self, folder: Path) -> None:
        """Look after the sets in `folder`."""
        self.folder = folder

    def path(self, month: str) -> Path:
        """Return the file of a month's set."""
        return self.folder / f"{month}.key"

    def months(self) -> list[str]:
        """Return the months that have any key file, oldest first."""
        return sorted({path.name[:7] for path in self.folder.glob("????-??.*")})

    def files(self, month: str) -> list[Path]:
        """Return every file of a month's set."""
        return sorted(self.folder.glob(f"{month}.*"))

    def load(self, month: str) -> MonthKeys | None:
        """Return the set of `month`, None if there is none; IntegrityError if it is damaged."""
        try:
            block = self.path(month).read_bytes()
        except FileNotFoundError:
            return None
        body, check = block[:-_KEY_BYTES], block[-_KEY_BYTES:]
        if len(block) != custody.BLOCK_BYTES or hashlib.sha256(body).digest() != check:
            raise IntegrityError(f"the key set of {month} is damaged; restore it from its copy")
        start = len(_MAGIC) + _ID_BYTES
        batch, segment, pseudonym = (
            body[start + index * _KEY_BYTES : start + (index + 1) * _KEY_BYTES]
            for index in range(3)
        )
        return MonthKeys(month, body[len(_MAGIC) : start].hex(), batch, segment, pseudonym)

    def create(self, month: str) -> MonthKeys:
        """Make the set of `month`, which must have none."""
        # The whole rest of the block is random, so that no byte of it tells where keys lie.
        filling = custody.BLOCK_BYTES - len(_MAGIC) - _KEY_BYTES
        body = _MAGIC + secrets.token_bytes(filling)
        custody.store(self.path(month), body + hashlib.sha256(body).digest())
        made = self.load(month)
        if made is None:
            raise IntegrityError(f"the key set of {month} vanished while it was made")
        return made

    def destroy(self, month: str) -> int:
        """Destroy every file of a month's set; return how many there were."""
        files = self.files(month)
        for path in files:
            custody.destroy(path)
        return len(files)
