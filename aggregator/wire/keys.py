"""Announced keys: the public halves of month keys, signed by the aggregator.

An announcement is JSON with two texts: `signed`, itself JSON, and `signature`, base64 of an Ed25519
signature over its bytes. Agents know the aggregator's public key from their enrolment, so neither
whoever ends TLS nor whoever carries the file can put a key of their own in.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aggregator.errors import BadInputError, IntegrityError
from aggregator.model.days import instant, is_month, parse_instant

_CONTEXT: Final = b"usage-aggregator keys 1\n"
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
KEY_BYTES: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedKey:
    """The public half of a month's key pair; nothing of the month is taken from `purge_at` on."""

    month: str
    key_id: str
    public_key: bytes
    purge_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """The keys that agents may seal to, as of the instant `made_at`."""

    made_at: dt.datetime
    keys: tuple[PublishedKey, ...]


def announce(keys: Iterable[PublishedKey], made_at: dt.datetime, signing_key: bytes) -> bytes:
    """Return the announcement of `keys`, signed with the aggregator's private Ed25519 key."""
    rows = [
        {
            "month": key.month,
            "key_id": key.key_id,
            "public_key": base64.b64encode(key.public_key).decode(),
            "purge_at": instant(key.purge_at),
        }
        for key in keys
    ]
    signed = json.dumps({"schema_version": 1, "made_at": instant(made_at), "rows": rows})
    key = Ed25519PrivateKey.from_private_bytes(signing_key)
    signature = base64.b64encode(key.sign(_CONTEXT + signed.encode())).decode()
    return json.dumps({"signed": signed, "signature": signature}).encode() + b"\n"


def read_announcement(content: bytes, public_key: bytes) -> Announcement:
    """Return what `content` announces, after its signature was verified with `public_key`.

    BadInputError if it is no announcement, IntegrityError if somebody else signed it.
    """
    try:
        outer = json.loads(content)
        signed = outer["signed"].encode()
        signature = base64.b64decode(outer["signature"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInputError("the answer is no announcement of keys") from None
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _CONTEXT + signed)
    except InvalidSignature:
        raise IntegrityError(
            "the announced keys were not signed by the aggregator that this agent was enrolled at"
        ) from None
    try:
        found = json.loads(signed)
        keys = tuple(_key(row) for row in found["rows"])
        return Announcement(parse_instant(found["made_at"]), keys)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInputError("the announcement of keys has another form") from None


def _key(row: dict[str, Any]) -> PublishedKey:
    public_key = base64.b64decode(row["public_key"], validate=True)
    if not is_month(row["month"]) or not _KEY_ID.fullmatch(row["key_id"]):
        raise ValueError("month or key id")
    if len(public_key) != KEY_BYTES:
        raise binascii.Error("length")
    return PublishedKey(row["month"], row["key_id"], public_key, parse_instant(row["purge_at"]))
