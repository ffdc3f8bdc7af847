"""A home with its stores opened: what every stage works on."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from aggregator.errors import IntegrityError, RefusedError
from aggregator.model.clock import Clock
from aggregator.model.profile import Profile
from aggregator.rules.calendar import Calendar, DayGate
from aggregator.stores import custody
from aggregator.stores.agents import AgentStore
from aggregator.stores.audit import AuditLog
from aggregator.stores.config import Config
from aggregator.stores.home import Home
from aggregator.stores.inbox import Inbox
from aggregator.stores.keys import KeyStore, MonthKeys
from aggregator.stores.outbox import Outbox
from aggregator.stores.receipts import ReceiptStore
from aggregator.stores.segments import SegmentStore
from aggregator.stores.tables import TableStore

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report progress to nobody."""


@dataclasses.dataclass(slots=True)
class Deployment:
    """One home, opened at the instant `now`; `clock` is what the audit log says of it.

    `is_behind` says that the log has later entries, so that `now` may be too early.
    """

    home: Home
    config: Config
    profile: Profile
    agents: AgentStore
    inbox: Inbox
    outbox: Outbox
    keys: KeyStore
    segments: SegmentStore
    tables: TableStore
    audit: AuditLog
    receipts: ReceiptStore
    now: dt.datetime
    clock: Clock
    is_behind: bool = False
    progress: Progress = quiet

    @property
    def calendar(self) -> Calendar:
        """The instants that follow from the profile's graces."""
        return Calendar(
            dt.timedelta(hours=self.profile.day_grace_hours),
            dt.timedelta(hours=self.profile.purge_grace_hours),
        )

    @property
    def gate(self) -> DayGate:
        """Which days may enter now."""
        return DayGate(self.calendar, self.now, self.receipts.purged_through())

    def record(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Add an audit entry at `now`."""
        self.audit.append(self.now, self.clock, kind, detail)

    def month_keys(self, month: str) -> MonthKeys:
        """Return the keys of `month`, which has segments sealed with them."""
        keys = self.keys.load(month)
        if keys is None:
            raise IntegrityError(
                f"the key set of {month} is missing, but raw/{month} is sealed with it;"
                f" restore keys/{month}.key, or remove raw/{month} to go on without its open days"
            )
        return keys

    def month_keys_for_writing(self, month: str) -> MonthKeys:
        """Return the keys of `month`, made now if nothing of it was ever sealed.

        RefusedError where they could not be destroyed again, as in a home that was moved.
        """
        if self.keys.load(month) is None and not self.segments.files(month):
            weakness = custody.weakness(self.keys.folder)
            if weakness and not (self.config.rehearsal or self.config.accept_weak_destruction):
                raise RefusedError(
                    f"new keys could outlive their destruction: {weakness}; move keys/, or set"
                    " accept_weak_destruction in config.toml"
                )
            return self.keys.create(month)
        return self.month_keys(month)
