"""Search a folder for what must not be in it: accounts, pseudonyms, key bytes.

A search that finds nothing says something only if it would have found it. So every file is read
as it lies, decoded where text hides in it (hexadecimal, base64, gzip, zstd, Parquet), and sealed
segments are opened wherever their month's keys are still here. Nothing searched for is printed,
kept in a result, or written.
"""

from __future__ import annotations

import binascii
import dataclasses
import enum
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aggregator.errors import IntegrityError
from aggregator.pipeline.deployment import Deployment, Progress, quiet
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import SUFFIX, Segment

WINDOW: Final = 16
"""So many bytes of a secret in a row count as the secret."""

_CHUNK: Final = WINDOW // 2
_NUMBER_BYTES: Final = 8
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"


class What(enum.StrEnum):
    """What was found."""

    NAME = "name"
    PSEUDONYM = "pseudonym"
    SECRET = "secret"  # noqa: S105 - the kind of a finding, not a secret


class Where(enum.StrEnum):
    """In which reading of a file it was found."""

    FILE_NAME = "file name"
    BYTES = "bytes"
    DECODED = "decoded"
    SEGMENT = "segment"
    NOTICES = "notices"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Needles:
    """What to look for; never printed.

    `names` are texts such as accounts, of five characters or more (shorter ones turn up by
    chance); `pseudonyms` are remembered numbers; of a secret any `WINDOW` bytes count.
    """

    names: tuple[str, ...] = ()
    pseudonyms: frozenset[int] = frozenset()
    secrets: tuple[bytes, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Sighting:
    """How many different needles of one kind one reading of one file shows.

    `file` is relative to the folder searched; the name of a file that shows a needle in its name
    is not told.
    """

    file: str
    where: Where
    what: What
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a search read and what it saw.

    `decoded` files were read a second time as Parquet, gzip or zstd; `opened` and `sealed` count
    segments and months of notices with and without keys; `unread` names files that could not be
    decoded or opened.
    `names`, `pseudonyms` and `secrets` count different needles seen anywhere.
    """

    files: int
    bytes: int
    decoded: int
    opened: int
    sealed: int
    names: int
    pseudonyms: int
    secrets: int
    sightings: tuple[Sighting, ...]
    unread: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether everything could be read and nothing was seen."""
        return not self.sightings and not self.unread

    def files_with(self, what: What, *where: Where) -> list[str]:
        """Return the files that show `what`, in the readings named or in any."""
        return sorted(
            {
                sighting.file
                for sighting in self.sightings
                if sighting.what is what and (not where or sighting.where in where)
            }
        )


def search_folder(root: Path, needles: Needles, progress: Progress = quiet) -> Found:
    """Search every file below `root`, name and content."""
    search = _Search(root, needles)
    search.read_files(progress)
    return search.found()


def search_home(house: Deployment, needles: Needles, progress: Progress = quiet) -> Found:
    """Search a home: every file, and all that is sealed whose month's keys are here.

    In segments and notices an account is found by the pseudonym that it has under these keys.
    """
    search = _Search(house.home.root, needles)
    search.read_files(progress)
    for month in house.segments.months():
        search.read_month(house, month)
    for month in house.outbox.months():
        search.read_notices(house, month)
    return search.found()


class _Search:
    """One search under way: the needles in the spelling of bytes, and what was seen so far."""

    def __init__(self, root: Path, needles: Needles) -> None:
        self.root = root
        self.needles = needles
        self.names = {name: _spellings(name) for name in needles.names}
        self.runs = _Runs(min([_NUMBER_BYTES, *(len(name.encode()) for name in needles.names)]))
        self.seen: dict[What, set[object]] = {what: set() for what in What}
        self.sightings: set[Sighting] = set()
        self.unread: list[str] = []
        self.files = self.bytes = self.decoded = self.opened = self.sealed = 0

    def read_files(self, progress: Progress) -> None:
        paths = sorted(path for path in self.root.rglob("*") if path.is_file())
        for number, path in enumerate(paths):
            progress("searching files", number, len(paths))
            name = self._visible_name(path)
            content = path.read_bytes()
            self.files += 1
            self.bytes += len(content)
            self._look(name, Where.BYTES, content)
            try:
                plain = _decoded(content)
            except (OSError, EOFError, zlib.error, pa.ArrowException):
                self.unread.append(name)
                continue
            if plain is not None:
                self.decoded += 1
                self._look(name, Where.DECODED, plain)
        progress("searching files", len(paths), len(paths))

    def read_month(self, house: Deployment, month: str) -> None:
        """Open the segments of `month` if its keys are here; count them as sealed if not."""
        keys = house.keys.load(month)
        if keys is None:
            self.sealed += len(house.segments.files(month))
            return
        for day in house.segments.days(month):
            folder = house.segments.folder / month / day
            for kind in sorted({path.name.partition(".")[0] for path in folder.glob(f"*{SUFFIX}")}):
                try:
                    for segment in house.segments.list(day, kind):
                        self._open(house, keys, segment)
                except IntegrityError:
                    self.unread.append(f"raw/{month}/{day} ({kind})")

    def read_notices(self, house: Deployment, month: str) -> None:
        """Open the notices of `month` if its keys are here; count them as sealed if not."""
        keys = house.keys.load(month)
        if keys is None:
            self.sealed += len(house.outbox.files(month))
            return
        name = house.outbox.path(month).relative_to(self.root).as_posix()
        try:
            events = house.outbox.read(keys)
        except IntegrityError:
            self.unread.append(name)
            return
        self.opened += 1
        self._look(name, Where.NOTICES, json.dumps(events, ensure_ascii=False).encode(), keys)

    def _open(self, house: Deployment, keys: MonthKeys, segment: Segment) -> None:
        content = _as_bytes(house.segments.read(keys, segment))
        self.opened += 1
        name = segment.path.relative_to(self.root).as_posix()
        self._look(name, Where.SEGMENT, content, keys)

    def found(self) -> Found:
        return Found(
            files=self.files,
            bytes=self.bytes,
            decoded=self.decoded,
            opened=self.opened,
            sealed=self.sealed,
            names=len(self.seen[What.NAME]),
            pseudonyms=len(self.seen[What.PSEUDONYM]),
            secrets=len(self.seen[What.SECRET]),
            sightings=tuple(sorted(self.sightings)),
            unread=tuple(self.unread),
        )

    def _visible_name(self, path: Path) -> str:
        """Search a file's own path; return what may be told of it."""
        name = path.relative_to(self.root).as_posix()
        if self._look("(a file's name)", Where.FILE_NAME, name.encode("utf-8", "surrogateescape")):
            return "(not shown)"
        return name

    def _look(self, file: str, where: Where, content: bytes, keys: MonthKeys | None = None) -> bool:
        """Note every needle in one reading of a file; say whether there was any."""
        readings = [content, *self.runs.read(content)]
        numbers: dict[int, object] = {number: number for number in self.needles.pseudonyms}
        if keys is not None:
            numbers |= {pseudonym(name.encode(), keys): name for name in self.needles.names}
        seen: dict[What, set[object]] = {
            What.NAME: {name for name, forms in self.names.items() if _any_in(forms, readings)},
            What.PSEUDONYM: {
                whose
                for number, whose in numbers.items()
                if _any_in(_number_spellings(number), readings)
            },
            What.SECRET: {
                place
                for place, secret in enumerate(self.needles.secrets)
                if any(_shows(reading, secret) for reading in readings)
            },
        }
        for what, which in seen.items():
            self.seen[what] |= which
            if which:
                self.sightings.add(Sighting(file, where, what, len(which)))
        return any(seen.values())


def _spellings(name: str) -> tuple[bytes, ...]:
    return tuple(name.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be"))


def _number_spellings(number: int) -> tuple[bytes, ...]:
    return (
        number.to_bytes(_NUMBER_BYTES, "little"),
        number.to_bytes(_NUMBER_BYTES, "big"),
        str(number).encode(),
        f"{number:016x}".encode(),
    )


def _any_in(forms: Iterable[bytes], readings: Sequence[bytes]) -> bool:
    return any(form in reading for form in forms for reading in readings)


def _shows(content: bytes, secret: bytes) -> bool:
    """Say whether any `WINDOW` bytes of `secret` stand in `content`.

    Wherever such a window starts, it holds a whole chunk of half its length; only where a chunk
    of the secret stands are its neighbours compared.
    """
    starts = range(0, len(secret) - _CHUNK + 1, _CHUNK)
    by_chunk = {secret[start : start + _CHUNK]: start for start in starts}
    chunks = np.sort(np.frombuffer(b"".join(by_chunk), "<u8"))
    for offset in range(min(_CHUNK, len(content) - _CHUNK + 1)) if by_chunk else ():
        count = (len(content) - offset) // _CHUNK
        words = np.frombuffer(content, "<u8", count, offset)
        nearest = np.minimum(chunks.searchsorted(words), len(chunks) - 1)
        for index in np.flatnonzero(chunks[nearest] == words).tolist():
            place = offset + index * _CHUNK
            start = by_chunk[content[place : place + _CHUNK]]
            if _matching(content, place, secret, start) >= WINDOW:
                return True
    return False


def _matching(content: bytes, place: int, secret: bytes, start: int) -> int:
    """Return how many bytes match in a row around `place` and `start`."""
    left = 0
    while left < min(place, start) and content[place - left - 1] == secret[start - left - 1]:
        left += 1
    right, most = 0, min(len(content) - place, len(secret) - start)
    while right < most and content[place + right] == secret[start + right]:
        right += 1
    return left + right


class _Runs:
    """Finds hexadecimal and base64 that is long enough to spell `least` bytes, and reads it."""

    def __init__(self, least: int) -> None:
        self._hex = re.compile(rb"[0-9A-Fa-f]{%d,}" % (2 * least))
        self._base64 = re.compile(rb"[0-9A-Za-z+/_-]{%d,}" % -(-4 * least // 3))

    def read(self, content: bytes) -> list[bytes]:
        """Return what the runs in `content` spell, at every alignment."""
        spelled = []
        for found in set(self._hex.findall(content)):
            for shift in range(2):
                run = found[shift:]
                spelled.append(bytes.fromhex(run[: len(run) // 2 * 2].decode()))
        for found in set(self._base64.findall(content)):
            for shift in range(4):
                run = found[shift:].translate(_URL_SAFE)
                # A rest of one letter spells nothing; two or three need their padding back.
                whole = run[: len(run) - (len(run) % 4 == 1)]
                spelled.append(binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)))
        return [b"\n".join(spelled)] if spelled else []


def _decoded(content: bytes) -> bytes | None:
    """Return what a Parquet, gzip or zstd file holds, or None for any other."""
    if content.startswith(_PARQUET):
        return _as_bytes(pq.read_table(pa.BufferReader(content)))
    if content.startswith(_GZIP):
        return gzip.decompress(content)
    if content.startswith(_ZSTD):
        stream: Any = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
        plain: bytes = stream.read()
        return plain
    return None


def _as_bytes(table: pa.Table) -> bytes:
    """Return a table as an uncompressed Arrow stream: every value stands in it as it is."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(memoryview(sink.getvalue()))
