"""The same records in other clothes: spacing, key order, escapes, repeats, files, packing."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from .flags import Flags
from .months import Month
from .truth import Reading

Record = dict[str, Any]
Writer = Callable[[Record, random.Random], bytes]


def record_of(item: Reading | Flags) -> Record:
    """Return the record that an agent sends; an absent app or version is absent."""
    name = "usage_counter.1" if isinstance(item, Reading) else "connection_flags.1"
    fields = {key: value for key, value in item._asdict().items() if value is not None}
    return {"record": name, **fields}


def records_of(month: Month) -> list[Record]:
    """Return all records of a month."""
    readings = [record_of(reading) for reading in month.readings]
    return readings + [record_of(flags) for flags in month.flags]


def canonical(record: Record, rng: random.Random) -> bytes:
    """Write a record as the agent does."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def spaced(record: Record, rng: random.Random) -> bytes:
    """Write a record with white space wherever JSON allows it, but for line breaks."""

    def gap() -> str:
        return "".join(rng.choices(" \t", k=rng.randint(0, 2)))

    pairs = (
        f"{gap()}{json.dumps(key)}{gap()}:{gap()}{json.dumps(value)}{gap()}"
        for key, value in record.items()
    )
    return f"{gap()}{{{','.join(pairs)}}}{gap()}{rng.choice(('', chr(13)))}".encode()


def reordered(record: Record, rng: random.Random) -> bytes:
    """Write a record with its keys in another order."""
    keys = rng.sample([*record], len(record))
    return canonical({key: record[key] for key in keys}, rng)


def escaped(record: Record, rng: random.Random) -> bytes:
    """Write a record with some characters of its keys and texts as hexadecimal escapes."""

    def text(value: str) -> str:
        return '"' + "".join(_spell(character, rng) for character in value) + '"'

    pairs = (
        f"{text(key)}:{text(value) if isinstance(value, str) else value}"
        for key, value in record.items()
    )
    return ("{" + ",".join(pairs) + "}").encode()


def _spell(character: str, rng: random.Random) -> str:
    if rng.random() < 0.3 or character in '"\\':
        units = character.encode("utf-16-be").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return character


WRITERS: Final[tuple[Writer, ...]] = (canonical, spaced, reordered, escaped)


def mixed(record: Record, rng: random.Random) -> bytes:
    """Write a record in any of the ways."""
    return rng.choice(WRITERS)(record, rng)


def gzipped(data: bytes) -> bytes:
    """Pack as gzip, in two members, as appending writers leave it."""
    half = len(data) // 2
    return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)


def zstd(data: bytes) -> bytes:
    """Pack as one zstd frame."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".ndjson": bytes,
    ".ndjson.gz": gzipped,
    ".ndjson.zst": zstd,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One way to hand over a month; `again` is the share of its lines that comes twice."""

    name: str
    writer: Writer = canonical
    files: int = 1
    packing: str = ".ndjson"
    shuffled: bool = False
    again: float = 0.0
    seed: int = 0


VARIANTS: Final = (
    Variant("duplicates", again=0.3, shuffled=True),
    Variant("spaced gzip in 3", spaced, files=3, packing=".ndjson.gz"),
    Variant("reordered zstd in 2", reordered, files=2, packing=".ndjson.zst", shuffled=True),
    Variant("escaped in 7", escaped, files=7, shuffled=True, again=0.05),
    Variant("mixed", mixed, shuffled=True),
)


def write(records: Sequence[Record], variant: Variant, folder: Path) -> list[Path]:
    """Write `records` as `variant` asks for, and return the files in the order to hand over."""
    rng = random.Random(f"variant {variant.name} {variant.seed}")
    chosen = list(records) + [record for record in records if rng.random() < variant.again]
    if variant.shuffled:
        rng.shuffle(chosen)
    lines = [variant.writer(record, rng) for record in chosen]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, part in enumerate(_cut(lines, variant.files)):
        path = folder / f"part-{index:03d}{variant.packing}"
        path.write_bytes(PACKINGS[variant.packing](join(part)))
        paths.append(path)
    if variant.shuffled:
        rng.shuffle(paths)
    return paths


def join(lines: Iterable[bytes]) -> bytes:
    """Return `lines` as NDJSON."""
    return b"".join(line + b"\n" for line in lines)


def _cut(lines: Sequence[bytes], parts: int) -> list[Sequence[bytes]]:
    size = -(-len(lines) // parts)
    return [lines[at : at + size] for at in range(0, len(lines), size)]
