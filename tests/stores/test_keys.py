"""Month key sets: random, whole or refused, and gone without a rest (CL-2, CV-5)."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from aggregator.errors import IntegrityError
from aggregator.stores import custody
from aggregator.stores.keys import KeyStore

MONTH = "2026-10"


def test_what_is_made_is_what_is_loaded_and_no_two_are_alike(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    assert store.load(MONTH) is None
    made = store.create(MONTH)
    assert store.load(MONTH) == made
    other = store.create("2026-11")
    parts = [made.batch, made.segment, made.pseudonym, other.batch, other.segment, other.pseudonym]
    assert len({*parts}) == 6
    assert {len(part) for part in parts} == {32}
    assert made.key_id != other.key_id
    assert store.months() == [MONTH, "2026-11"]
    with pytest.raises(FileExistsError):
        store.create(MONTH)
    assert store.load(MONTH) == made


def test_a_key_set_shows_no_secret_when_printed(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path).create(MONTH)
    for part in (keys.batch, keys.segment, keys.pseudonym):
        assert repr(part)[2:10] not in repr(keys)
        assert part.hex() not in repr(keys)


def test_the_block_tells_nothing_but_its_kind(tmp_path: Path) -> None:
    """Random to its end: no byte tells where in it the keys lie."""
    store = KeyStore(tmp_path)
    store.create(MONTH)
    block = store.path(MONTH).read_bytes()
    assert len(block) == custody.BLOCK_BYTES
    rest = block.partition(b"\n")[2]
    assert len(zlib.compress(rest, 9)) >= len(rest)
    assert store.path(MONTH).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [0, 31, 4064, 4095, 4097])
def test_a_short_or_long_file_is_refused(tmp_path: Path, cut: int) -> None:
    store = KeyStore(tmp_path)
    store.create(MONTH)
    block = store.path(MONTH).read_bytes()
    store.path(MONTH).write_bytes((block + b"x")[:cut])
    with pytest.raises(IntegrityError, match="2026-10 is damaged"):
        store.load(MONTH)


@pytest.mark.parametrize("place", [0, 24, 40, 100, 2000, 4063, 4064, 4095])
def test_any_damaged_byte_is_refused(tmp_path: Path, place: int) -> None:
    store = KeyStore(tmp_path)
    store.create(MONTH)
    block = bytearray(store.path(MONTH).read_bytes())
    block[place] ^= 1
    store.path(MONTH).write_bytes(block)
    with pytest.raises(IntegrityError):
        store.load(MONTH)


@pytest.mark.parametrize("left", [b"", b"half", bytes(4096)])
def test_what_a_killed_creation_left_is_no_key_set_and_no_obstacle(
    tmp_path: Path, left: bytes
) -> None:
    store = KeyStore(tmp_path)
    (tmp_path / f"{MONTH}.new").write_bytes(left)
    assert store.load(MONTH) is None
    made = store.create(MONTH)
    assert store.load(MONTH) == made


def test_destruction_takes_every_file_of_the_month_and_no_other(tmp_path: Path) -> None:
    """CV-5: also a half-made set and a copy that an editor left."""
    store = KeyStore(tmp_path)
    store.create(MONTH)
    other = store.create("2026-11")
    for suffix in ("new", "key~", "share.1"):
        (tmp_path / f"{MONTH}.{suffix}").write_bytes(b"secret")
    assert store.destroy(MONTH) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11.key"]
    assert store.load("2026-11") == other
    assert store.destroy(MONTH) == 0
