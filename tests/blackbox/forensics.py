"""Search every file of a home for what must not be there.

A search of raw files misses what compression hides, and one that finds nothing proves nothing
unless it is shown to find: see `plant`, which hides needles in every way that is looked for.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

_WIDTH: Final = 8  # bytes of a spelling that are looked up; no needle is shorter
_CHUNK: Final = 1 << 22
_SMALL: Final = 1 << 16  # below it a plain loop is faster than a vectorised look-up
_UINT64: Final = struct.Struct("<Q")


class Hit(NamedTuple):
    """Where a needle was found."""

    place: str
    needle: bytes


def spellings(needle: bytes) -> set[bytes]:
    """Return every way in which `needle` may lie in a file: as it is, UTF-16, hex, base64."""
    found = {needle, needle.hex().encode(), needle.hex().upper().encode()}
    try:
        text = needle.decode()
    except UnicodeDecodeError:
        pass
    else:
        found |= {text.encode("utf-16-le"), text.encode("utf-16-be")}
        found |= {json.dumps(text)[1:-1].encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            whole = encode(bytes(offset) + needle)
            unknown = (len(needle) + offset) % 3
            end = len(whole) - (4 if unknown else 0)
            found.add(whole[(0, 2, 3)[offset] : end])
    return {spelling for spelling in found if len(spelling) >= _WIDTH}


class Finder:
    """All spellings of many needles, looked for in one pass."""

    def __init__(self, needles: Iterable[str | bytes]) -> None:
        self._spelled: dict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
        for item in set(needles):
            needle = item.encode() if isinstance(item, str) else item
            if len(needle) < _WIDTH:
                raise ValueError(f"a needle of {len(needle)} bytes is found by chance")
            for spelling in spellings(needle):
                self._spelled[spelling[:_WIDTH]].add((spelling, needle))
        starts = (_UINT64.unpack(start)[0] for start in self._spelled)
        self._starts = pa.array(starts, pa.uint64())

    def find(self, data: bytes) -> set[bytes]:
        """Return the needles that `data` holds in any spelling."""
        found: set[bytes] = set()
        for at in self._candidates(data):
            for spelling, needle in self._spelled[data[at : at + _WIDTH]]:
                if data.startswith(spelling, at):
                    found.add(needle)
        return found

    def _candidates(self, data: bytes) -> Iterator[int]:
        """Yield every offset at which a spelling may start: its first eight bytes are there."""
        if len(data) <= _SMALL:
            windows = range(len(data) - _WIDTH + 1)
            yield from (at for at in windows if data[at : at + _WIDTH] in self._spelled)
            return
        for base in range(0, len(data), _CHUNK):
            for start in range(base, base + _WIDTH):
                yield from self._aligned(data, start)

    def _aligned(self, data: bytes, start: int) -> Iterator[int]:
        count = (min(len(data), start + _CHUNK) - start) // _WIDTH
        if count > 0:
            block = pa.py_buffer(data[start : start + count * _WIDTH])
            words = pa.Array.from_buffers(pa.uint64(), count, [None, block])
            there = pc.is_in(words, value_set=self._starts)
            yield from (start + at * _WIDTH for at in pc.indices_nonzero(there).to_pylist())


def search(folder: Path, needles: Iterable[str | bytes] | Finder) -> list[Hit]:
    """Return every hit in the names and the bytes of all files, packed ones unpacked too."""
    finder = needles if isinstance(needles, Finder) else Finder(needles)
    hits = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        views = [("name", name.encode())]
        if path.is_file() and not path.is_symlink():
            views += unpacked(path.read_bytes())
        hits += [
            Hit(f"{name} ({kind})", needle)
            for kind, data in views
            for needle in sorted(finder.find(data))
        ]
    return hits


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield `data` itself, then what it unpacks to if it is of a kind that can be unpacked."""
    yield "raw", data
    if data[:4] == b"PAR1":
        yield "parquet", values(pq.ParquetFile(pa.BufferReader(data)).read())
    elif data[:6] == b"ARROW1":
        yield "arrow", values(pa.ipc.open_file(pa.BufferReader(data)).read_all())
    elif data[:2] == b"\x1f\x8b":
        yield "gzip", zlib.decompressobj(31).decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield "zstd", pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()


def values(table: pa.Table) -> bytes:
    """Return all values and metadata of a table, a value a line, numbers also as eight bytes."""
    lines = [str(table.schema.metadata).encode()]
    for row in table.to_pylist():
        for value in _flat(row):
            lines.append(value if isinstance(value, bytes) else str(value).encode())
            if isinstance(value, int):
                lines.append((value % 2**64).to_bytes(8, "little"))
    return b"\n".join(lines)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def plant(folder: Path, needle: bytes) -> int:
    """Hide `needle` in a file for each way that `search` knows; return how many files."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = [
        b"some bytes before " * at + spelling + b" and after"
        for at, spelling in enumerate(sorted(spellings(needle)))
    ]
    hidden.append(gzip.compress(needle * 3))
    hidden.append(pa.compress(needle * 3, codec="zstd", asbytes=True))
    for index, data in enumerate(hidden):
        (folder / f"planted-{index}.bin").write_bytes(data)
    table = pa.table({"values": [b"something else", needle] * 50})
    pq.write_table(table, folder / "planted.parquet", compression="zstd", write_statistics=False)
    with pa.ipc.new_file(
        folder / "planted.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    return len(hidden) + 2


def key_windows(data: bytes, width: int = 16) -> set[bytes]:
    """Return the windows of a key file that could only have come from it.

    Random bytes: nearly all of a window's bytes differ and some are not text. Text that spells
    a key (hex, base64) has runs that no word or date has; of these, 32 characters at a time.
    """
    found = set()
    for at in range(len(data) - width + 1):
        window = data[at : at + width]
        if len(set(window)) >= width - 4 and not window.isascii():
            found.add(window)
    spelled = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"
    for at in range(len(data) - 2 * width + 1):
        window = data[at : at + 2 * width]
        if len(set(window)) >= 10 and not set(window) - set(spelled):
            found.add(window)
    return found
