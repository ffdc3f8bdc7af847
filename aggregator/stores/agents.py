"""The agents that may report: one file each, with what their requests and batches are checked by.

Of a token only its SHA-256 is kept, of a signing key only the public half. A file is replaced as a
whole, so the register needs no lock: the door reads it while agents are enrolled. The door reads
everything here but `signing.key`.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.errors import IntegrityError
from aggregator.model.days import instant, parse_instant
from aggregator.stores import atomic
from aggregator.stores.watched import Watched
from aggregator.wire.batch import AGENT_ID

_SUFFIX: Final = ".agent.json"
_SIGNING_KEY: Final = "signing.key"
_PUBLIC_KEY: Final = "signing.pub"
_ANNOUNCEMENT: Final = "keys.json"
KEY_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"ua1\.({AGENT_ID.pattern})\.[A-Za-z0-9_-]{{43}}")


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """One token and one signing key of an agent; good until `until`, None for no end."""

    token_sha256: str = dataclasses.field(repr=False)
    public_key: bytes = dataclasses.field(repr=False)
    until: dt.datetime | None

    def is_good(self, now: dt.datetime) -> bool:
        """Say whether it is not yet replaced at `now`."""
        return self.until is None or now < self.until


@dataclasses.dataclass(frozen=True, slots=True)
class Agent:
    """One agent: the locations that it may report, and how it shows who it is."""

    id: str
    locations: tuple[str, ...]
    enrolled_at: dt.datetime
    revoked_at: dt.datetime | None
    credentials: tuple[Credential, ...]

    def has_token(self, token: str, now: dt.datetime) -> bool:
        """Say whether `token` is this agent's at `now`; takes the same time for any token."""
        given = hashlib.sha256(token.encode()).hexdigest()
        good = [one for one in self.credentials if one.is_good(now)]
        return any([secrets.compare_digest(given, one.token_sha256) for one in good])  # noqa: C419 - a generator would stop at the first match

    def public_keys(self, now: dt.datetime) -> list[bytes]:
        """Return the Ed25519 keys with which its batches may be signed at `now`."""
        return [one.public_key for one in self.credentials if one.is_good(now)]


class AgentStore:
    """The register of agents, the aggregator's own signing key, and the keys it announced."""

    def __init__(self, folder: Path) -> None:
        """Look after the register in `folder`."""
        self.folder = folder

    def path(self, agent: str) -> Path:
        """Return the file of one agent; IntegrityError where no agent can have such an id."""
        if AGENT_ID.fullmatch(agent) is None:
            raise IntegrityError("no agent can have this id")
        return self.folder / f"{agent}{_SUFFIX}"

    def ids(self) -> list[str]:
        """Return the ids of all agents ever enrolled, by name."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self.folder.glob("*" + _SUFFIX))

    def load(self, agent: str) -> Agent | None:
        """Return an agent, None if there is none; IntegrityError if its file is damaged."""
        if AGENT_ID.fullmatch(agent) is None:
            return None
        try:
            data = json.loads(self.path(agent).read_bytes())
            return _agent(data)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"agents/{agent}{_SUFFIX} is damaged; restore it, or enrol the agent again"
            ) from None

    def save(self, agent: Agent) -> None:
        """Write an agent, new or changed."""
        data = {
            "schema_version": 1,
            "agent": agent.id,
            "locations": list(agent.locations),
            "enrolled_at": instant(agent.enrolled_at),
            "revoked_at": agent.revoked_at and instant(agent.revoked_at),
            "credentials": [
                {
                    "token_sha256": one.token_sha256,
                    "public_key": base64.b64encode(one.public_key).decode(),
                    "until": one.until and instant(one.until),
                }
                for one in agent.credentials
            ],
        }
        atomic.write(self.path(agent.id), json.dumps(data, indent=1).encode() + b"\n")

    def signing_key(self) -> bytes:
        """Return the aggregator's private Ed25519 key, made when first asked for.

        It signs announced keys. Agents know its public half from their enrolment, so it stays the
        same; it opens nothing, and may be in a backup.
        """
        path = self.folder / _SIGNING_KEY
        if not path.exists():
            atomic.write(path, Ed25519PrivateKey.generate().private_bytes_raw())
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise IntegrityError(f"{path} is damaged; restore it: agents trust no other")
        return key

    def public_key(self) -> bytes:
        """Return the public half of the signing key, and keep it where the door can read it."""
        key = Ed25519PrivateKey.from_private_bytes(self.signing_key())
        public = key.public_key().public_bytes_raw()
        if self.kept_public_key() != public:
            atomic.write(self.folder / _PUBLIC_KEY, public)
        return public

    def kept_public_key(self) -> bytes | None:
        """Return the public half without a look at the private one, None if it is not there."""
        try:
            return (self.folder / _PUBLIC_KEY).read_bytes()
        except FileNotFoundError:
            return None

    @property
    def announcement_path(self) -> Path:
        """The file of the announcement."""
        return self.folder / _ANNOUNCEMENT

    def announcement(self) -> bytes | None:
        """Return what was announced last, None if nothing was."""
        try:
            return self.announcement_path.read_bytes()
        except FileNotFoundError:
            return None

    def announce(self, content: bytes) -> None:
        """Replace the announcement."""
        atomic.write(self.announcement_path, content)


class KnownAgents:
    """The register for somebody who asks at every request: a file is read again when it changed.

    A revocation counts from the next request on.
    """

    def __init__(self, store: AgentStore) -> None:
        """Look things up in `store`."""
        self._store = store
        self._known: dict[str, Watched[Agent | None]] = {}

    def load(self, agent: str) -> Agent | None:
        """Return an agent as `AgentStore.load` does."""
        if agent not in self._known:
            # Whoever makes ids up must not fill the memory.
            if self._store.load(agent) is None:
                return None
            path = self._store.path(agent)
            self._known[agent] = Watched(path, lambda: self._store.load(agent))
        return self._known[agent].get()


def new_token(agent: str) -> str:
    """Return a new token, which names its agent so that it can be looked up."""
    return f"ua1.{agent}.{secrets.token_urlsafe(32)}"


def agent_of(token: str) -> str | None:
    """Return the id of the agent that `token` names, None if it is not written like a token."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def token_digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _agent(data: dict[str, Any]) -> Agent:
    credentials = tuple(
        Credential(
            one["token_sha256"],
            base64.b64decode(one["public_key"], validate=True),
            parse_instant(one["until"]) if one["until"] else None,
        )
        for one in data["credentials"]
    )
    if any(len(one.public_key) != KEY_BYTES for one in credentials):
        raise ValueError("key")
    revoked_at = parse_instant(data["revoked_at"]) if data["revoked_at"] else None
    locations = tuple(data["locations"])
    enrolled_at = parse_instant(data["enrolled_at"])
    return Agent(data["agent"], locations, enrolled_at, revoked_at, credentials)
