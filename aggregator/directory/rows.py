"""From the bytes of a source to rows: CSV with a header, or one JSON object a line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final

from aggregator.directory.entries import COLUMNS, Batch, Row, places, text_row
from aggregator.directory.errors import BrokenError, Trouble

MOST_BYTES: Final = 1_000_000
"""A longer line is malformed."""

READ_BYTES: Final = 1 << 18
_NAMES: Final = frozenset(COLUMNS)


def batches(reads: Iterable[bytes], size: int, *, json_too: bool) -> Iterator[Batch]:
    """Yield the rows of a text that comes in `reads`, up to `size` at once.

    With `json_too` a text that begins with "{" is JSON objects, one a line. BrokenError if it is
    empty, or at the row that cannot be read.
    """
    lines = _lines(reads)
    try:
        first = next(lines, None)
    except BrokenError as error:
        raise _in_row(error, 0) from None
    if first is None:
        raise BrokenError(Trouble.EMPTY)
    if json_too and first.startswith("{"):
        return _objects(itertools.chain([first], lines), size)
    return _table(first, lines, size)


def _in_row(error: BrokenError, number: int) -> BrokenError:
    """Return `error` with the row's number, unless it tells of something else than a row."""
    return BrokenError(error.trouble, number if error.n == "" else error.n)


def _lines(reads: Iterable[bytes]) -> Iterator[str]:
    """Return the lines of a text, with their ends; BrokenError at one that is none."""
    return itertools.chain.from_iterable(
        # Only a line feed ends a line: a field may hold what str.splitlines takes for an end.
        io.StringIO(block, newline="\n")
        for block in _blocks(reads)
    )


def _blocks(reads: Iterable[bytes]) -> Iterator[str]:
    """Yield the text in pieces of whole lines."""
    reads = iter(reads)
    head = b""
    while len(head) < len(codecs.BOM_UTF8) and (read := next(reads, b"")):
        head += read
    rest = bytearray()
    for read in itertools.chain([head.removeprefix(codecs.BOM_UTF8)], reads):
        end = read.rfind(b"\n") + 1
        if end:
            yield from _decoded(bytes(rest) + read[:end])
            rest.clear()
        rest += read[end:]
        if len(rest) > MOST_BYTES:
            raise BrokenError(Trouble.TOO_LONG)
    if rest.endswith((b",", b";")):
        # Cut off, it seems, before a last field that may be a flag; none would be read as unset.
        raise BrokenError(Trouble.MALFORMED)
    if rest:
        yield from _decoded(bytes(rest))


def _decoded(block: bytes) -> Iterator[str]:
    """Yield `block` as text; what stands before a line that is none is yielded too."""
    if block.find(b"\n") > MOST_BYTES:
        raise BrokenError(Trouble.TOO_LONG)
    good = len(block)
    try:
        yield block.decode()
    except UnicodeDecodeError as error:
        good = block.rfind(b"\n", 0, error.start) + 1
    if good < len(block):
        yield block[:good].decode()
        raise BrokenError(Trouble.NOT_TEXT)


def _table(header: str, lines: Iterator[str], size: int) -> Iterator[Batch]:
    delimiter, names = _header(header)
    found = places(names)
    columns = tuple(name for name in COLUMNS if name in found)
    width = len(names)
    # A column that is not there is taken from behind the row's end, where an empty text is put.
    pick = itemgetter(*(found.get(name, width) for name in COLUMNS))
    before = 0
    rows: list[Row] = []
    try:
        for values in csv.reader(lines, delimiter=delimiter, strict=True):
            if len(values) != width:
                if not values:
                    continue
                raise BrokenError(Trouble.MALFORMED)
            values.append("")
            rows.append(pick(values))
            if len(rows) == size:
                yield Batch(columns, rows)
                before += size
                rows = []
    except csv.Error:
        raise BrokenError(Trouble.MALFORMED, before + len(rows) + 1) from None
    except BrokenError as error:
        raise _in_row(error, before + len(rows) + 1) from None
    yield Batch(columns, rows)


def _header(line: str) -> tuple[str, list[str]]:
    """Return what separates the fields, and the names; BrokenError if there is no `account`."""
    found = []
    for delimiter in ",;":
        try:
            names = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if "account" in (name.strip().lower() for name in names):
            found.append((delimiter, names))
    if not found:
        raise BrokenError(Trouble.NO_COLUMN)
    return max(found, key=lambda one: len(one[1]))


def _objects(lines: Iterable[str], size: int) -> Iterator[Batch]:
    before = 0
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    # An object becomes a tuple of its members, an array a list.
    decode = json.JSONDecoder(object_pairs_hook=tuple).decode
    try:
        for line in lines:
            if line.isspace():
                continue
            known = _known(decode(line))
            if not columns:
                columns = tuple(name for name in COLUMNS if name in known)
            rows.append(text_row(map(known.get, COLUMNS)))
            if len(rows) == size:
                yield Batch(columns, rows)
                before += size
                rows = []
    except (ValueError, RecursionError):
        raise BrokenError(Trouble.BAD_OBJECT, before + len(rows) + 1) from None
    except BrokenError as error:
        raise _in_row(error, before + len(rows) + 1) from None
    yield Batch(columns, rows)


def _known(members: Any) -> dict[str, Any]:
    """Return the members of an object, the known ones by their names in COLUMNS.

    ValueError if it is no object or has no account, or for a name twice: one would be lost.
    """
    if not isinstance(members, tuple):
        raise ValueError
    known = dict(members)
    if not known.keys() <= _NAMES:
        known = {}
        for name, value in members:
            column = name if name in _NAMES else name.lower()
            if column in _NAMES and column in known:
                raise ValueError
            known[column] = value
    elif len(known) != len(members):
        raise ValueError
    if "account" not in known:
        raise ValueError
    return known
