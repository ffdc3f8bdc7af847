"""Receive a batch: who sends it, is it his, is its month open, is there room; then keep it.

This is what the door decides, without HTTP. It opens nothing: it has no key that could, so the
locations inside are checked when the batch is taken in.
"""

from __future__ import annotations

import datetime as dt
import enum
import errno
import re
import shutil
import threading
from pathlib import Path
from typing import Final

from aggregator.errors import BadInputError, IntegrityError
from aggregator.model.profile import Profile
from aggregator.rules.calendar import Calendar, DayGate
from aggregator.stores import atomic
from aggregator.stores.agents import Agent, AgentStore, KnownAgents, agent_of
from aggregator.stores.contacts import Contacts
from aggregator.stores.home import Home
from aggregator.stores.inbox import SUFFIX, Inbox
from aggregator.stores.receipts import ReceiptStore
from aggregator.stores.watched import Watched
from aggregator.wire import batch, keys
from aggregator.wire.batch import Batch

_LOCKS: Final = 64
_PART: Final = SUFFIX + atomic.TEMPORARY_SUFFIX
_OWN_PART: Final = re.compile(rf"[0-9a-f]{{64}}{re.escape(_PART)}")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MIB: Final = 1 << 20


class Refusal(enum.StrEnum):
    """Why nothing was taken."""

    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a code word, not a token
    REVOKED = "revoked"
    MALFORMED = "malformed"
    OTHER_AGENT = "other_agent"
    MONTH_OVER = "month_over"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    DISK_LOW = "disk_low"
    NOTHING_ANNOUNCED = "nothing_announced"


class Taken(enum.StrEnum):
    """What became of a batch that was taken: it is kept now, or it was waiting already."""

    ACCEPTED = "accepted"
    KNOWN = "known"


class Receiver:
    """Takes batches into the inbox of one home; may be asked from several threads.

    Every file is looked at as it is now, so that no change needs a restart. What is damaged is
    raised as the error of the store that found it.
    """

    def __init__(self, home: Home) -> None:
        """Receive for `home`."""
        config = home.load_config()
        self.inbox = Inbox(home.folder("inbox"))
        self._min_free = config.door.min_free_mib * _MIB
        store = AgentStore(home.folder("agents"))
        self._agents = KnownAgents(store)
        self._announced = Watched(store.announcement_path, lambda: _announced(store))
        self._profile: Watched[Profile] = Watched(home.profile_path, home.load_profile)
        receipts = ReceiptStore(home.folder("audit"))
        self._purged = Watched(receipts.folder, receipts.purged_through)
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._contacts = Contacts(self.inbox.folder)

    def sender(self, token: str, now: dt.datetime) -> Agent | Refusal:
        """Return the agent whose token this is at `now`, or why it is nobody's.

        That one that may send was heard is noted, and nothing else of the request.
        """
        name = agent_of(token)
        agent = None if name is None else self._agents.load(name)
        if agent is None or not agent.has_token(token, now):
            return Refusal.UNKNOWN_TOKEN
        if agent.revoked_at is not None:
            return Refusal.REVOKED
        self._contacts.hear(agent.id, now)
        return agent

    def take(self, agent: Agent, content: bytes, now: dt.datetime) -> Taken | Refusal:
        """Keep one batch of `agent`, durably, or say why not."""
        try:
            found = batch.parse(content)
        except BadInputError:
            return Refusal.MALFORMED
        refusal = self._refusal(agent, found, now)
        if refusal is not None:
            return refusal
        if self.free_bytes() < self._min_free:
            return Refusal.DISK_LOW
        return self._keep(found.header.content, content)

    def announcement(self) -> bytes | Refusal:
        """Return the signed announcement of keys."""
        content, _keys = self._announced.get()
        return content if content is not None else Refusal.NOTHING_ANNOUNCED

    def trouble(self) -> Refusal | None:
        """Return what would keep every batch out, or None."""
        if self._announced.get()[0] is None:
            return Refusal.NOTHING_ANNOUNCED
        return Refusal.DISK_LOW if self.free_bytes() < self._min_free else None

    def free_bytes(self) -> int:
        """Return how much room there is on the disk of the inbox."""
        return shutil.disk_usage(self.inbox.folder).free

    def _refusal(self, agent: Agent, found: Batch, now: dt.datetime) -> Refusal | None:
        header = found.header
        if header.agent != agent.id:
            return Refusal.OTHER_AGENT
        if self._gate(now).is_over(header.month):
            return Refusal.MONTH_OVER
        if (header.month, header.key_id) not in self._announced.get()[1]:
            return Refusal.UNKNOWN_KEY
        if not any(found.is_signed_by(key) for key in agent.public_keys(now)):
            return Refusal.BAD_SIGNATURE
        return None

    def _gate(self, now: dt.datetime) -> DayGate:
        profile = self._profile.get()
        calendar = Calendar(
            dt.timedelta(hours=profile.day_grace_hours),
            dt.timedelta(hours=profile.purge_grace_hours),
        )
        return DayGate(calendar, now, self._purged.get())

    def _keep(self, name: str, content: bytes) -> Taken | Refusal:
        # One write at a time under one name: two of the same batch would share their `.part`.
        with self._locks[int(name[:4], 16) % _LOCKS]:
            try:
                added = self.inbox.add(name, content)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return Refusal.DISK_LOW
                raise
        return Taken.ACCEPTED if added else Taken.KNOWN


def sweep(inbox: Path) -> int:
    """Remove what killed writes of a door left in `inbox`; return how many files.

    Files of other senders, which have other names, are theirs.
    """
    found = [path for path in inbox.glob(f"*{_PART}") if _OWN_PART.fullmatch(path.name)]
    for path in found:
        atomic.remove(path)
    # What a killed door had named but not yet synced counts as kept from here on.
    atomic.sync_folder(inbox)
    return len(found)


def _announced(store: AgentStore) -> tuple[bytes | None, frozenset[tuple[str, str]]]:
    """Return the announcement and the keys in it: month and id."""
    content = store.announcement()
    if content is None:
        return None, frozenset()
    public_key = store.kept_public_key()
    if public_key is None:
        raise IntegrityError("agents/signing.pub is missing; run: aggregator keys publish")
    found = keys.read_announcement(content, public_key)
    return content, frozenset((key.month, key.key_id) for key in found.keys)
