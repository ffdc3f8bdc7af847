"""Who is logged in: sessions in memory only, gone with the process, and the key that begins one."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from typing import Final

from aggregator.errors import ConfigError

IDLE_SECONDS: Final = 30 * 60.0
WHOLE_SECONDS: Final = 12 * 3600.0
MOST: Final = 64
LEAST_PASSWORD: Final = 8
MOST_KEY: Final = 1024
"""How many characters a password may have, so that its form stays small."""

_ID_BYTES: Final = 32
# Without letters that look like digits; 20 of 32 kinds are 100 bits.
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOK_ALIKES: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})
_GROUPS, _GROUP = 4, 5


@dataclasses.dataclass(slots=True)
class _Session:
    began: float
    seen: float


class Sessions:
    """The sessions of one dashboard. Instants are seconds of a clock that only goes on.

    One ends after `idle` seconds without a request, after `whole` in any case, and when `most`
    others were used since. Of an id only a hash is kept, so that finding it takes as long whatever
    somebody guessed.
    """

    def __init__(
        self, idle: float = IDLE_SECONDS, whole: float = WHOLE_SECONDS, most: int = MOST
    ) -> None:
        """Begin with nobody."""
        self._idle, self._whole, self._most = idle, whole, most
        self._sessions: dict[bytes, _Session] = {}

    def begin(self, now: float) -> str:
        """Begin a session; return its id of 256 random bits."""
        self._sessions = {name: one for name, one in self._sessions.items() if self._goes(one, now)}
        while len(self._sessions) >= self._most:
            del self._sessions[min(self._sessions, key=lambda name: self._sessions[name].seen)]
        identity = secrets.token_urlsafe(_ID_BYTES)
        self._sessions[_digest(identity)] = _Session(now, now)
        return identity

    def goes_on(self, identity: str | None, now: float) -> bool:
        """Say whether a session has this id, and note that it was used."""
        found = None if identity is None else self._sessions.get(_digest(identity))
        if found is None or not self._goes(found, now):
            self.end(identity)
            return False
        found.seen = now
        return True

    def end(self, identity: str | None) -> None:
        """End a session; it may be over already."""
        if identity is not None:
            self._sessions.pop(_digest(identity), None)

    def _goes(self, one: _Session, now: float) -> bool:
        return now - one.seen < self._idle and now - one.began < self._whole


class Key:
    """What opens the dashboard: the password of the settings, or a code of this start.

    It is kept as a hash under a key of its own, and never shown.
    """

    def __init__(self, text: str, *, is_code: bool) -> None:
        """Take a password or a code; ConfigError for a password that is guessed too soon."""
        if not is_code and not LEAST_PASSWORD <= len(text) <= MOST_KEY:
            raise ConfigError(
                f"the password of [dashboard] must have {LEAST_PASSWORD} to {MOST_KEY} characters;"
                " take another one"
            )
        self.is_code = is_code
        self._salt = secrets.token_bytes(_ID_BYTES)
        self._kept = self._hash(text)

    def opens(self, text: str) -> bool:
        """Say whether `text` is the key, in a time that tells nothing of how far it was right."""
        return hmac.compare_digest(self._hash(text), self._kept)

    def _hash(self, text: str) -> bytes:
        plain = text.upper().translate(_LOOK_ALIKES) if self.is_code else text
        return hashlib.blake2b(plain.encode("utf-8", "replace"), key=self._salt).digest()


def new_code() -> str:
    """Return a code of 100 random bits, such as 7K2QF-9XW4M-… of four groups."""
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def _digest(identity: str) -> bytes:
    return hashlib.sha256(identity.encode("utf-8", "replace")).digest()
