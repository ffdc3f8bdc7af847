"""Sealed day segments: whole or refused, and no counter readable in them (CV-3, CL-2)."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pyarrow as pa
import pytest

from aggregator.errors import IntegrityError
from aggregator.stores.keys import KeyStore, MonthKeys
from aggregator.stores.segments import RAW_FLAGS, RAW_USAGE, Segment, SegmentStore, split

DAY = "2026-10-05"
PLACE = "us-nyc-planted"


def make_rows(count: int, seed: int = 1) -> pa.Table:
    rng = random.Random(seed)
    return pa.table(
        [
            [PLACE] * count,
            [rng.getrandbits(64) for _ in range(count)],
            [rng.getrandbits(64)] * count,
            [rng.randrange(1 << 53) for _ in range(count)],
        ],
        schema=RAW_USAGE,
    )


@pytest.fixture
def keys(tmp_path: Path) -> MonthKeys:
    return KeyStore(tmp_path / "keys").create("2026-10")


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    return SegmentStore(tmp_path / "raw", "policy-digest")


def seal(
    store: SegmentStore, keys: MonthKeys, table: pa.Table, buckets: int, day: str = DAY
) -> Segment:
    """Write one segment and return it as the store lists it."""
    path = store.write(keys, day, "usage", buckets=split(table, buckets), count=buckets)
    return next(found for found in store.list(day, "usage") if found.path == path)


def sorted_rows(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: row["pseudonym"])


@pytest.mark.parametrize("written", [1, 2, 64])
@pytest.mark.parametrize("of", [1, 2, 4, 8, 16, 32, 64])
def test_the_buckets_of_any_number_are_a_partition_of_the_rows(
    store: SegmentStore, keys: MonthKeys, written: int, of: int
) -> None:
    table = make_rows(400)
    segment = seal(store, keys, table, written)
    assert segment.buckets == written
    parts = [store.read(keys, segment, bucket, of) for bucket in range(of)]
    assert {part.schema for part in parts} == {RAW_USAGE}
    assert sorted_rows(pa.concat_tables(parts)) == sorted_rows(table)
    for bucket, part in enumerate(parts):
        assert all(n * of >> 64 == bucket for n in part["pseudonym"].to_pylist())


def test_a_bucket_holds_the_same_users_whatever_was_written(
    store: SegmentStore, keys: MonthKeys
) -> None:
    """Merging by bucket is only right if each user lies in one bucket of every segment."""
    table = make_rows(300)
    segments = [seal(store, keys, table, count) for count in (1, 4, 64)]
    for bucket in range(8):
        first, *others = (sorted_rows(store.read(keys, one, bucket, 8)) for one in segments)
        assert all(other == first for other in others)


def test_flags_and_empty_tables_go_round(store: SegmentStore, keys: MonthKeys) -> None:
    line = ["us-nyc", 1, "DE", 3320, "android", "11.4.0", 14, 31, 29]
    flags = pa.table([[value] for value in line], schema=RAW_FLAGS)
    path = store.write(keys, DAY, "flags", buckets=[flags], count=1)
    (segment,) = store.list(DAY, "flags")
    assert segment.path == path
    assert store.read(keys, segment).to_pylist() == flags.to_pylist()
    empty = seal(store, keys, RAW_USAGE.empty_table(), 64)
    assert store.read(keys, empty, 3, 8).schema == RAW_USAGE


def test_any_flipped_byte_is_refused(store: SegmentStore, keys: MonthKeys) -> None:
    """CV-5: what verifies at the purge is what was sealed, header, lengths and nonces included."""
    segment = seal(store, keys, make_rows(12), 2)
    whole = segment.path.read_bytes()
    second = whole.index(b"\n") + 21 + struct.unpack(">Q", whole.partition(b"\n")[2][:8])[0]
    exact = {*range(whole.index(b"\n") + 30), *range(second - 20, second + 30), len(whole) - 1}
    for place in sorted(exact | {*range(0, len(whole), 37)}):
        damaged = bytearray(whole)
        damaged[place] ^= 1 + place % 255
        segment.path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            [store.read(keys, segment, bucket, 2) for bucket in range(2)]
    segment.path.write_bytes(whole)
    assert store.read(keys, segment).num_rows == 12


@pytest.mark.parametrize("length", [1 << 31, 1 << 39, (1 << 64) - 1])
def test_a_wild_length_is_refused_without_its_memory(
    store: SegmentStore, keys: MonthKeys, length: int
) -> None:
    segment = seal(store, keys, make_rows(3), 1)
    header, newline, rest = segment.path.read_bytes().partition(b"\n")
    segment.path.write_bytes(header + newline + struct.pack(">Q", length) + rest[8:])
    with pytest.raises(IntegrityError):
        store.read(keys, segment)


def test_a_cut_file_is_refused(store: SegmentStore, keys: MonthKeys) -> None:
    segment = seal(store, keys, make_rows(6), 2)
    whole = segment.path.read_bytes()
    for size in [*range(300), *range(300, len(whole), 23), len(whole) - 1]:
        segment.path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError):
            store.read(keys, segment)


def test_swapped_frames_are_refused(store: SegmentStore, keys: MonthKeys) -> None:
    segment = seal(store, keys, make_rows(40), 2)
    header, newline, body = segment.path.read_bytes().partition(b"\n")
    first = 8 + 12 + struct.unpack(">Q", body[:8])[0]
    segment.path.write_bytes(header + newline + body[first:] + body[:first])
    for bucket in range(2):
        with pytest.raises(IntegrityError):
            store.read(keys, segment, bucket, 2)


def test_a_renamed_or_moved_file_is_refused(store: SegmentStore, keys: MonthKeys) -> None:
    """One day's counters cannot be put in another day's place, nor a late one among closed."""
    segment = seal(store, keys, make_rows(5), 1)
    moved = store.folder / "2026-10" / "2026-10-06" / segment.path.name
    moved.parent.mkdir()
    moved.write_bytes(segment.path.read_bytes())
    with pytest.raises(IntegrityError):
        store.list("2026-10-06", "usage")
    renamed = segment.path.with_name("usage-closed.all.seg")
    segment.path.rename(renamed)
    with pytest.raises(IntegrityError):
        store.list(DAY, "usage-closed")


def test_a_header_rewritten_to_fit_is_refused(store: SegmentStore, keys: MonthKeys) -> None:
    segment = seal(store, keys, make_rows(5), 1)
    other = store.folder / "2026-10" / "2026-10-06" / segment.path.name
    other.parent.mkdir()
    other.write_bytes(segment.path.read_bytes().replace(DAY.encode(), b"2026-10-06", 1))
    (listed,) = store.list("2026-10-06", "usage")
    with pytest.raises(IntegrityError):
        store.read(keys, listed)


def test_other_keys_do_not_open_it(store: SegmentStore, keys: MonthKeys, tmp_path: Path) -> None:
    segment = seal(store, keys, make_rows(5), 1)
    other = KeyStore(tmp_path / "other").create("2026-10")
    with pytest.raises(IntegrityError, match="keys that are no longer here"):
        store.read(other, segment)


def test_nothing_of_the_rows_is_readable_in_the_file(store: SegmentStore, keys: MonthKeys) -> None:
    """CV-3: neither names of places nor pseudonyms nor numbers, in the file or its name."""
    table = make_rows(2000)
    segment = seal(store, keys, table, 64)
    whole = segment.path.read_bytes()
    assert PLACE.encode() not in whole
    assert b"PAR1" not in whole
    assert b"ARROW" not in whole
    for column in ("pseudonym", "bytes", "epoch"):
        for number in table[column].to_pylist()[:500]:
            assert number.to_bytes(8, "little") not in whole
            assert number.to_bytes(8, "big") not in whole
    plain = b"".join(number.to_bytes(8, "little") for number in table["pseudonym"].to_pylist())
    assert table["pseudonym"][0].as_py().to_bytes(8, "little") in plain  # the search can find


def test_no_nonce_is_used_twice(store: SegmentStore, keys: MonthKeys) -> None:
    found = set()
    for _ in range(20):
        body = seal(store, keys, make_rows(2), 4).path.read_bytes().partition(b"\n")[2]
        while body:
            found.add(body[8:20])
            body = body[20 + struct.unpack(">Q", body[:8])[0] :]
    assert len(found) == 80


def test_the_lists_of_months_days_and_segments(store: SegmentStore, keys: MonthKeys) -> None:
    seal(store, keys, make_rows(300), 1)
    seal(store, keys, make_rows(3), 1)
    seal(store, keys, make_rows(3), 1, "2026-10-06")
    assert store.months() == ["2026-10"]
    assert store.days("2026-10") == [DAY, "2026-10-06"]
    assert len(store.files("2026-10")) == 3
    sizes = [segment.size for segment in store.list(DAY, "usage")]
    assert sizes == sorted(sizes)
    store.remove(store.list(DAY, "usage"))
    assert store.days("2026-10") == ["2026-10-06"]
