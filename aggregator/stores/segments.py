"""Sealed day segments: the raw counters of a month, unreadable without its keys.

A segment is one file: a clear header line (format, month, day, name, key id, policy digest,
number of buckets), then one frame a user bucket: an Arrow stream, sealed with
AES-256-GCM whose additional data is the header and the bucket. Large days are written in
buckets of pseudonyms, so that a reader needs only one bucket's memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aggregator.errors import IntegrityError
from aggregator.stores import atomic
from aggregator.stores.keys import MonthKeys

SUFFIX: Final = ".seg"
MAX_BUCKETS: Final = 64
_FORMAT: Final = "segment.1"
_NONCE_BYTES: Final = 12
_LENGTH: Final = struct.Struct(">Q")
# Columns whose values hardly repeat; all others are written as dictionaries.
_UNREPEATED: Final = frozenset({"pseudonym", "bytes", "users", "attempts", "successes"})

RAW_USAGE: Final = pa.schema(
    [
        ("location", pa.string()),
        ("pseudonym", pa.uint64()),
        ("epoch", pa.uint64()),
        ("bytes", pa.int64()),
    ]
)
RAW_FLAGS: Final = pa.schema(
    [
        ("location", pa.string()),
        ("epoch", pa.uint64()),
        ("country", pa.string()),
        ("asn", pa.int64()),
        ("app", pa.string()),
        ("version", pa.string()),
        ("users", pa.int64()),
        ("attempts", pa.int64()),
        ("successes", pa.int64()),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One segment file: `kind` is the part of its name before the first dot."""

    path: Path
    day: str
    kind: str
    buckets: int
    size: int


class SegmentStore:
    """The sealed segments below `raw/`, by month and day."""

    def __init__(self, folder: Path, policy: str) -> None:
        """Look after the segments below `folder`; `policy` is the digest sealed into new ones."""
        self.folder = folder
        self.policy = policy

    def months(self) -> list[str]:
        """Return the months that have a folder, oldest first."""
        return sorted(path.name for path in self.folder.glob("????-??") if path.is_dir())

    def days(self, month: str) -> list[str]:
        """Return the days of `month` that have a segment, oldest first."""
        return sorted({path.parent.name for path in self.files(month)})

    def files(self, month: str) -> list[Path]:
        """Return every segment file of `month`."""
        return sorted((self.folder / month).glob(f"*/*{SUFFIX}"))

    def list(self, day: str, kind: str) -> list[Segment]:
        """Return the segments of one kind of `day`, smallest file first."""
        folder = self.folder / day[:7] / day
        found = []
        for path in folder.glob(f"{kind}.*{SUFFIX}"):
            with path.open("rb") as file:
                header = _read_header(file, path)
            found.append(Segment(path, day, kind, header["buckets"], path.stat().st_size))
        return sorted(found, key=lambda segment: (segment.size, segment.path.name))

    def write(
        self,
        keys: MonthKeys,
        day: str,
        kind: str,
        *,
        buckets: Iterable[pa.Table],
        count: int,
        name: str | None = None,
    ) -> Path:
        """Seal one table a bucket, `count` of them in order, as a new segment; return its file.

        With `name` the segment replaces one of the same name; otherwise its name is random.
        """
        label = secrets.token_hex(8) if name is None else name
        path = self.folder / day[:7] / day / f"{kind}.{label}{SUFFIX}"
        header = _header(path, keys, self.policy, count)
        cipher = AESGCM(keys.segment)

        def frames() -> Iterator[bytes]:
            yield header
            for bucket, table in enumerate(buckets):
                nonce = secrets.token_bytes(_NONCE_BYTES)
                sealed = cipher.encrypt(nonce, _encode(table), header + _LENGTH.pack(bucket))
                yield _LENGTH.pack(len(sealed)) + nonce + sealed

        atomic.write(path, frames())
        return path

    def read(self, keys: MonthKeys, segment: Segment, bucket: int = 0, of: int = 1) -> pa.Table:
        """Unseal the rows of `segment` that lie in one bucket `of` so many (a power of two)."""
        with segment.path.open("rb") as file:
            header = _read_header(file, segment.path)
            if header["key_id"] != keys.key_id:
                raise IntegrityError(
                    f"a segment of {segment.day} is sealed with keys that are no longer here"
                )
            wanted = _frames_of(bucket, of, header["buckets"])
            tables = [_unseal(file, segment.path, keys, header, index) for index in wanted]
        table = pa.concat_tables(tables)
        if of > header["buckets"]:
            shift = 64 - (of.bit_length() - 1)
            mask = pc.equal(pc.shift_right(table["pseudonym"], pa.scalar(shift, pa.uint64())),
                            pa.scalar(bucket, pa.uint64()))  # fmt: skip
            table = table.filter(mask)
        return table

    def remove(self, segments: Iterable[Segment]) -> None:
        """Remove segments that another one has taken up."""
        for segment in segments:
            atomic.remove(segment.path)


def split(table: pa.Table, buckets: int, wanted: range | None = None) -> Iterator[pa.Table]:
    """Yield the rows of `table` in so many buckets of pseudonyms (a power of two), in order.

    `wanted` are the only buckets of which `table` has rows; all, if it is not given.
    """
    if buckets == 1:
        yield table
        return
    shift = pa.scalar(64 - (buckets.bit_length() - 1), pa.uint64())
    numbers = pc.shift_right(table["pseudonym"], shift)
    for bucket in range(buckets) if wanted is None else wanted:
        yield table.filter(pc.equal(numbers, pa.scalar(bucket, pa.uint64())))


def _frames_of(bucket: int, of: int, written: int) -> range:
    """Return which of `written` frames hold one bucket `of` so many."""
    if of >= written:
        index = bucket * written // of
        return range(index, index + 1)
    share = written // of
    return range(bucket * share, (bucket + 1) * share)


def _header(path: Path, keys: MonthKeys, policy: str, buckets: int) -> bytes:
    fields = {
        "format": _FORMAT,
        "month": keys.month,
        "day": path.parent.name,
        "name": path.name,
        "key_id": keys.key_id,
        "policy": policy,
        "buckets": buckets,
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    line = file.readline(2048)
    try:
        header = json.loads(line)
        wrong = header["format"] != _FORMAT or header["name"] != path.name
        wrong = wrong or header["day"] != path.parent.name
        wrong = wrong or not 1 <= header["buckets"] <= MAX_BUCKETS
        wrong = wrong or not isinstance(header["key_id"], str)
    except (ValueError, KeyError, TypeError):
        wrong = True
    if wrong or not line.endswith(b"\n"):
        raise IntegrityError(f"a segment of {path.parent.name} has a damaged header")
    header["length"] = len(line)
    return dict(header)


def _unseal(
    file: BinaryIO, path: Path, keys: MonthKeys, header: dict[str, Any], index: int
) -> pa.Table:
    file.seek(0)
    clear = file.read(header["length"])
    damaged = IntegrityError(f"a segment of {path.parent.name} does not open with its month's key")
    for _ in range(index):
        file.seek(_NONCE_BYTES + _frame_length(file, damaged), 1)
    length = _frame_length(file, damaged)
    nonce, sealed = file.read(_NONCE_BYTES), file.read(length)
    if len(sealed) != length:
        raise damaged
    try:
        plain = AESGCM(keys.segment).decrypt(nonce, sealed, clear + _LENGTH.pack(index))
    except (InvalidTag, ValueError):
        raise damaged from None
    return _decode(plain)


def _frame_length(file: BinaryIO, damaged: IntegrityError) -> int:
    raw = file.read(_LENGTH.size)
    if len(raw) != _LENGTH.size:
        raise damaged
    length: int = _LENGTH.unpack(raw)[0]
    if length > os.fstat(file.fileno()).st_size - file.tell():
        raise damaged
    return length


def _encode(table: pa.Table) -> bytes:
    """Return `table` as an Arrow stream: smaller and faster here than Parquet, no statistics."""
    for index, field in enumerate(table.schema):
        if field.name not in _UNREPEATED:
            column = table[field.name].combine_chunks().dictionary_encode()
            table = table.set_column(index, field.name, column)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(memoryview(sink.getvalue()))


def _decode(plain: bytes) -> pa.Table:
    """Return the table of an Arrow stream, its columns without dictionaries."""
    table = pa.ipc.open_stream(plain).read_all()
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table[field.name].cast(field.type.value_type)
            table = table.set_column(index, field.name, column)
    return table
