"""Notices: decisions that someone is to be told of, and the mails that tell of them (CS-9, CS-10).

A notice is one excess that was decided to be told. A message is one mail about one or more
notices; it has its Message-ID from the moment it is queued, so that a retry is the same mail.
"""

from __future__ import annotations

import dataclasses
import enum

from aggregator.model.fairuse import Excess


class Audience(enum.StrEnum):
    """Whom a message is for; its address is known at sending time only."""

    DESK = "desk"
    USER = "user"


class State(enum.StrEnum):
    """What became of a message, and so of its notices (CS-10)."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    SENT = "sent"
    FAILED = "failed"
    WITHHELD = "withheld"
    EXPIRED = "expired"

    @property
    def waits(self) -> bool:
        """Whether a later run may still send it."""
        return self in (State.QUEUED, State.DEFERRED)


class Withheld(enum.StrEnum):
    """Why a notice is not told, as the directory, the desk or a later notice says."""

    EXEMPT = "exempt"
    OBJECTS = "objects"
    RESTRICTED = "restricted"
    PLAN = "plan"
    NO_ADDRESS = "no_address"
    ACKNOWLEDGED = "acknowledged"
    SUPERSEDED = "superseded"
    SNOOZED = "snoozed"


class Deferral(enum.StrEnum):
    """Why a message could not be sent yet: a closed list, never a server's own words."""

    DIRECTORY = "directory"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    LOGIN = "login"
    CUT = "cut"
    SLOW = "slow"
    REFUSED_FOR_NOW = "refused_for_now"
    SETTINGS = "settings"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Notice:
    """One decision: `reference` is random and tells nothing; `day` is the UTC day of the decision.

    One a user, rule and step, and month. Never printed as it is: it names a pseudonym.
    """

    reference: str
    day: str
    excess: Excess


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One mail: `message_id` without angle brackets; `at` is the UTC instant of its Date."""

    message_id: str
    audience: Audience
    at: str
    references: tuple[str, ...]
