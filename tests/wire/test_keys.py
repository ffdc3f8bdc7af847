"""Announced keys: agents seal to what the aggregator signed, and to nothing else."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import BadInputError, IntegrityError
from aggregator.wire.keys import Announcement, PublishedKey, announce, read_announcement

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NOW = dt.datetime(2026, 10, 25, 3, 4, 5, tzinfo=dt.UTC)
KEYS = tuple(
    PublishedKey(month, f"{number:016x}", bytes([number] * 32), NOW + dt.timedelta(days=number))
    for number, month in enumerate(("2026-10", "2026-11"))
)


def announcement() -> bytes:
    return announce(KEYS, NOW, KEY.private_bytes_raw())


def test_what_was_announced_is_read() -> None:
    assert read_announcement(announcement(), PUBLIC) == Announcement(NOW, KEYS)


def test_another_aggregators_announcement_is_refused() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(IntegrityError):
        read_announcement(announce(KEYS, NOW, other.private_bytes_raw()), PUBLIC)


def test_no_word_of_it_can_be_changed() -> None:
    outer = json.loads(announcement())
    for old, new in (("2026-11", "2026-12"), ("public_key", "public-key"), ("Z", "z")):
        changed = {**outer, "signed": outer["signed"].replace(old, new)}
        with pytest.raises(IntegrityError):
            read_announcement(json.dumps(changed).encode(), PUBLIC)


@pytest.mark.parametrize(
    "rows",
    [
        [{}],
        [7],
        {"month": "2026-10"},
        [{"month": "2026-10", "key_id": "0" * 16, "public_key": "AAAA", "purge_at": "x"}],
        [{"month": "2026-1", "key_id": "0" * 16, "public_key": "A" * 43 + "=", "purge_at": "x"}],
    ],
)
def test_a_signed_announcement_of_another_form_is_refused(rows: object) -> None:
    signed = json.dumps({"schema_version": 1, "made_at": "2026-10-25T03:04:05Z", "rows": rows})
    signature = KEY.sign(b"usage-aggregator keys 1\n" + signed.encode())
    outer = {"signed": signed, "signature": base64.b64encode(signature).decode()}
    with pytest.raises(BadInputError):
        read_announcement(json.dumps(outer).encode(), PUBLIC)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_bad_input(content: bytes) -> None:
    with contextlib.suppress(BadInputError):
        read_announcement(content, PUBLIC)
        pytest.fail("nobody signed this")
