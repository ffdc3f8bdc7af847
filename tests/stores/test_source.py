"""Files are read in whole lines whatever they hold, in bounded memory."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from aggregator.errors import BadInputError
from aggregator.model.records import MAX_LINE_BYTES
from aggregator.stores import source

LINES = b"".join(b'{"number":%d}\n' % number for number in range(20_000))

# The kernel's VmHWM, as ru_maxrss is handed down by the process that starts this one.
_MEASURE = """
import sys
from aggregator.stores import source
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
for _ in source.chunks(sys.argv[1]):
    break
before = peak()
total = sum(len(chunk) for chunk in source.chunks(sys.argv[2]))
print(total, (peak() - before) // 1024)
"""


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


def read(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return b"".join(source.chunks(str(path)))


def measured(tmp_path: Path, data: bytes) -> tuple[int, int]:
    """Return how many bytes came of `data`, and by how many MB the reader grew."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(zstd(LINES))
    large.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, small, large], check=True, capture_output=True
    )
    total, grown = done.stdout.split()
    return int(total), int(grown)


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        gzip.compress(LINES),
        gzip.compress(LINES[:99]) + gzip.compress(LINES[99:]),
        gzip.compress(LINES) + bytes(512),
        zstd(LINES),
        zstd(LINES[:99]) + zstd(LINES[99:]),
    ],
    ids=["plain", "gzip", "gzip members", "gzip padded", "zstd", "zstd frames"],
)
def test_plain_gzip_and_zstd_are_told_by_their_first_bytes(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path / "no-suffix", data) == LINES


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(LINES)[:-4],
        gzip.compress(LINES)[:40],
        gzip.compress(LINES) + b"garbage",
        gzip.compress(LINES)[:-5] + b"\xff" + gzip.compress(LINES)[-4:],
        b"\x1f\x8b",
        zstd(LINES)[:-3],
        (zstd(LINES) * 2)[:-3],
        zstd(LINES)[:4],
        zstd(LINES)[:6] + bytes(20),
        zstd(LINES) + b"garbage",
    ],
    ids=range(10),  # the bytes hold the time, and xdist wants the same names everywhere
)
def test_cut_or_damaged_compression_is_told_in_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInputError, match="cut short or damaged") as told:
        read(tmp_path / "file", data)
    assert told.value.exit_code == 4
    assert "\n" not in str(told.value)


def test_what_came_before_the_damage_is_given(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(LINES) + gzip.compress(LINES)[:30])
    seen = []
    with pytest.raises(BadInputError):
        seen.extend(source.chunks(str(path)))
    assert LINES.startswith(b"".join(seen))


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is a folder"):
        list(source.chunks(str(tmp_path)))
    with pytest.raises(BadInputError, match="No such file"):
        list(source.chunks(str(tmp_path / "absent")))


def test_an_empty_file_has_no_line(tmp_path: Path) -> None:
    assert read(tmp_path / "file", b"") == b""


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO(zstd(LINES))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))  # type: ignore[type-var]
    assert b"".join(source.chunks("-")) == LINES


def test_chunks_end_with_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", 100)
    path = tmp_path / "file"
    path.write_bytes(LINES + b"last without newline")
    *chunks, last = source.chunks(str(path))
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert b"".join(chunks) == LINES
    assert last == b"last without newline"


@pytest.mark.parametrize("size", [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 70_000])
@pytest.mark.parametrize("block", [100, 8191, 8193, 1 << 20])
def test_a_long_line_is_one_line_and_its_neighbours_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, block: int
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", block)
    long = b"x" * size
    lines = read(tmp_path / "file", b"before\n" + long + b"\nafter\n" + long).split(b"\n")
    assert [line[:1] for line in lines if line] == [b"b", b"x", b"a", b"x"]
    if size <= MAX_LINE_BYTES:
        assert lines[1] == long
    else:
        assert len(lines[1]) > MAX_LINE_BYTES


def test_progress_adds_up_to_the_files_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(zstd(LINES * 50))
    told: list[int] = []
    for _ in source.chunks(str(path), told.append):
        pass
    assert sum(told) == path.stat().st_size


def test_a_bomb_of_zeros_takes_bounded_memory(tmp_path: Path) -> None:
    """6 kB of zstd that are 200 MB of zeros: one line, over the limit."""
    total, grown = measured(tmp_path, zstd(bytes(200_000_000)))
    assert total == MAX_LINE_BYTES + 2
    assert grown < 100


def test_one_line_of_50_mb_takes_bounded_memory(tmp_path: Path) -> None:
    total, grown = measured(tmp_path, b'{"' + b"x" * 50_000_000)
    assert total == MAX_LINE_BYTES + 2
    assert grown < 60
