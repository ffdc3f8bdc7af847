"""What tests need to be an agent: keys, an enrolment in a home, and sealed batches."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregator.pipeline.deployment import Deployment
from aggregator.stores.agents import Agent, Credential, token_digest
from aggregator.stores.keys import MonthKeys
from aggregator.wire import batch


@dataclasses.dataclass(frozen=True, slots=True)
class FakeAgent:
    """An agent as its VPN server knows it: its id, its token and its private key."""

    id: str
    token: str
    signing_key: bytes

    @classmethod
    def make(cls, agent: str = "us-nyc-01") -> FakeAgent:
        """Return an agent with new keys."""
        key = Ed25519PrivateKey.generate().private_bytes_raw()
        return cls(agent, f"ua1.{agent}.{'s' * 43}", key)

    def enrol(
        self,
        house: Deployment,
        *locations: str,
        revoked_at: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> None:
        """Write this agent into the register of a home."""
        public = Ed25519PrivateKey.from_private_bytes(self.signing_key).public_key()
        credential = Credential(token_digest(self.token), public.public_bytes_raw(), until)
        places = locations or ("us-nyc",)
        house.agents.save(Agent(self.id, places, house.now, revoked_at, (credential,)))

    def batch(self, lines: Iterable[str], keys: MonthKeys, month: str | None = None) -> bytes:
        """Return a batch of `lines`, sealed to a month's keys."""
        public = X25519PrivateKey.from_private_bytes(keys.batch).public_key().public_bytes_raw()
        records = "".join(f"{line}\n" for line in lines).encode()
        month = month or keys.month
        return batch.seal(records, month, self.id, keys.key_id, public, self.signing_key)


def dropped(root: Path, content: bytes, name: str = "dropped") -> Path:
    """Drop a file into the inbox of the home in `root`, as rsync would."""
    path = root / "inbox" / f"{name}.batch"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def flipped(content: bytes) -> Iterator[bytes]:
    """Yield `content` with one bit flipped, at places all over it."""
    for place in range(0, len(content), max(1, len(content) // 97)):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
