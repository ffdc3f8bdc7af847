"""The envelope: what was sealed comes out, and nothing else is ever taken for a batch (CS-7)."""

from __future__ import annotations

import contextlib
import json
import zlib

import pytest
from batches import flipped
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.errors import BadInputError, IntegrityError
from aggregator.wire import batch

MONTH_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
AGENT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
KEY_ID = "0123456789abcdef"
RECORDS = b'{"record":"usage_counter.1","user":"acct-planted-7"}\n' * 3


def sealed(records: bytes = RECORDS, agent: str = "us-nyc-01", month: str = "2026-10") -> bytes:
    public = MONTH_KEY.public_key().public_bytes_raw()
    return batch.seal(records, month, agent, KEY_ID, public, AGENT_KEY.private_bytes_raw())


def opened(content: bytes) -> bytes:
    """Return the records of a batch, after the checks in the order of a door and an ingest."""
    found = batch.parse(content)
    if not found.is_signed_by(AGENT_KEY.public_key().public_bytes_raw()):
        raise IntegrityError("the signature is another's")
    return found.open(MONTH_KEY.private_bytes_raw())


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_what_was_sealed_comes_out(records: bytes) -> None:
    assert opened(sealed(records)) == records


def test_the_header_tells_which_batch_it_is_and_nothing_of_what_is_in_it() -> None:
    content = sealed()
    header = batch.parse(content).header
    assert (header.month, header.key_id, header.agent) == ("2026-10", KEY_ID, "us-nyc-01")
    assert header == batch.read_header(content[: batch.MAX_HEADER_BYTES])
    assert b"planted" not in content
    assert b"usage_counter" not in content
    # The salt: equal records cannot be recognised by their content hash.
    assert batch.parse(sealed()).header.content != header.content


def test_no_bit_can_be_changed() -> None:
    content = sealed()
    for changed in flipped(content):
        with pytest.raises((BadInputError, IntegrityError)):
            opened(changed)


@pytest.mark.parametrize("cut", [0, 1, 40, 150, 230, -1])
def test_a_cut_batch_is_none(cut: int) -> None:
    with pytest.raises((BadInputError, IntegrityError)):
        opened(sealed()[:cut])


def test_headers_and_bodies_cannot_be_exchanged() -> None:
    """A signer cannot pass off another's body as its own: the header is part of the seal."""
    ours, theirs = sealed(), sealed(agent="de-fra-01")
    line, body = ours.split(b"\n", 1)[0] + b"\n", theirs.split(b"\n", 1)[1][64:]
    signature = AGENT_KEY.sign(b"usage-aggregator batch 1\n" + line + body)
    mixed = batch.parse(line + signature + body)
    assert mixed.is_signed_by(AGENT_KEY.public_key().public_bytes_raw())
    with pytest.raises(IntegrityError):
        mixed.open(MONTH_KEY.private_bytes_raw())


def test_another_months_key_opens_nothing() -> None:
    with pytest.raises(IntegrityError):
        batch.parse(sealed()).open(X25519PrivateKey.generate().private_bytes_raw())


def test_another_agents_signature_is_told_apart() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert not batch.parse(sealed()).is_signed_by(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("v", True),
        ("v", "1"),
        ("build", "10.8.0.7"),
        ("month", "2026-13"),
        ("month", 7),
        ("key", "0123456789ABCDEF"),
        ("agent", "10.8.0.7"),
        ("agent", "../../etc/passwd"),
        ("agent", None),
        ("content", "00"),
    ],
)
def test_a_header_of_another_shape_is_refused(field: str, value: object) -> None:
    line, rest = sealed().split(b"\n", 1)
    header = {**json.loads(line), field: value}
    with pytest.raises(BadInputError) as caught:
        batch.parse(json.dumps(header).encode() + b"\n" + rest)
    if isinstance(value, str):
        assert value not in str(caught.value)


def test_a_header_of_other_fields_is_refused() -> None:
    line, rest = sealed().split(b"\n", 1)
    fields = json.loads(line)
    for changed in ({**fields, "ip": "x"}, dict(list(fields.items())[:-1]), [], 7):
        with pytest.raises(BadInputError):
            batch.parse(json.dumps(changed).encode() + b"\n" + rest)


def test_a_bomb_does_not_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_RECORD_BYTES", 1 << 30)
    bomb = sealed(b"0" * 50_000_000)
    monkeypatch.setattr(batch, "MAX_RECORD_BYTES", 1 << 20)
    with pytest.raises(BadInputError):
        opened(bomb)


def test_what_follows_the_gzip_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = zlib.compressobj

    class Longer:
        def __init__(self, *words: int) -> None:
            self.packer = real(*words)

        def compress(self, data: bytes) -> bytes:
            return self.packer.compress(data)

        def flush(self) -> bytes:
            return self.packer.flush() + b"more"

    monkeypatch.setattr(batch.zlib, "compressobj", Longer)
    with pytest.raises(BadInputError):
        opened(sealed())


def test_a_batch_that_no_door_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_BATCH_BYTES", 300)
    with pytest.raises(BadInputError):
        sealed(bytes(range(256)) * 10)


@given(st.binary(max_size=2000) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_batch_or_bad_input(content: bytes) -> None:
    with contextlib.suppress(BadInputError):
        batch.parse(content)
    with contextlib.suppress(BadInputError):
        batch.parse(content + b"\n" + content)
