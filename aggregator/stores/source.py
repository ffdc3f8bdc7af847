"""Files of records, read in chunks of whole lines: plain, gzip or zstd, by their first bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, cast

import pyarrow as pa

from aggregator.errors import BadInputError
from aggregator.model.records import MAX_LINE_BYTES

CHUNK_BYTES: Final = 8 << 20
_READ_BYTES: Final = 1 << 16
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"

Progress = Callable[[int], None]


def chunks(name: str, progress: Progress | None = None) -> Iterator[bytes]:
    """Yield the lines of the file `name` ("-": standard input) in chunks of whole lines.

    A chunk ends in a newline, but for the last one of a file without. Memory stays bounded
    whatever the file holds: of a line over the limit only so much is given as shows that it is.
    `progress` is told the bytes read from the file, before decompression. BadInputError where a
    file cannot be read or its compression is broken; what came before stays valid.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
            yield from _whole_lines(_blocks(_decompressed(file), file, progress))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise BadInputError(f"{name}: the compressed data is cut short or damaged") from None
        except IsADirectoryError:
            raise BadInputError(f"{name}: is a folder; name the files in it") from None
        except OSError as error:
            reason = error.strerror or "the compressed data is cut short or damaged"
            raise BadInputError(f"{name}: {reason}") from None


def _decompressed(file: BinaryIO) -> Any:
    """Return what reads the plain bytes of `file`, a buffered one."""
    magic = cast("io.BufferedReader", file).peek(len(_ZSTD))[: len(_ZSTD)]
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)
    if magic == _ZSTD:
        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return file


def _blocks(stream: Any, file: BinaryIO, progress: Progress | None) -> Iterator[bytes]:
    """Yield what `stream` holds in blocks; where it breaks off, what came before and then why."""
    seen = 0
    broken: Exception | None = None
    while broken is None:
        parts, size = [], 0
        try:
            # In small reads: one that meets the damage loses only itself.
            while size < CHUNK_BYTES and (part := stream.read1(min(_READ_BYTES, CHUNK_BYTES))):
                parts.append(part)
                size += len(part)
        except (EOFError, zlib.error, OSError) as error:
            broken = error
        if not parts:
            break
        yield b"".join(parts)
        if progress is not None and file.seekable():
            progress(file.tell() - seen)
            seen = file.tell()
    if broken is not None:
        raise broken


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest, skipping = b"", False
    for read in blocks:
        block = read
        if skipping:
            _, newline, block = read.partition(b"\n")
            skipping = not newline
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
        if len(rest) > MAX_LINE_BYTES:
            # Too long already, whatever follows: give enough to show it, drop up to its end.
            yield rest[: MAX_LINE_BYTES + 1] + b"\n"
            rest, skipping = b"", True
    if rest:
        yield rest
