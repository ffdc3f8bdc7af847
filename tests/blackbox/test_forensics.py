"""The search itself: it finds what is planted in every way, and nothing in random bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .forensics import Finder, key_windows, plant, search


@pytest.mark.parametrize(
    "needle",
    [b"acct-81723-planted", "Zoë Müller 0042".encode(), bytes(range(200, 216))],
    ids=["ascii", "unicode", "key"],
)
def test_every_hiding_place_is_found(tmp_path: Path, needle: bytes) -> None:
    """CL-2, CV-5: a search that finds nothing counts only if it can find."""
    count = plant(tmp_path, needle)
    hits = search(tmp_path, [needle, b"never planted"])
    assert {hit.needle for hit in hits} == {needle}
    assert len({hit.place.partition(" ")[0] for hit in hits}) == count


def test_needles_across_a_boundary_and_in_names_are_found(tmp_path: Path) -> None:
    """CL-2: no blind spot between two pieces of a large file, nor in a file's name."""
    needles = [f"needle-{index:04d}-{index * 7919:08x}" for index in range(300)]
    data = bytearray(random.Random(1).randbytes(3 << 22))
    for index, needle in enumerate(needles):
        at = (1 << 22) - 20 + 37 * index if index < 100 else (2 << 22) + 1000 * index + index
        data[at : at + len(needle)] = needle.encode()
    assert Finder(needles).find(bytes(data)) == {needle.encode() for needle in needles}
    (tmp_path / f"a-{needles[5]}-z").mkdir()
    assert [hit.needle for hit in search(tmp_path, needles)] == [needles[5].encode()]


def test_short_needles_are_refused() -> None:
    """CL-2: what is found by chance proves nothing."""
    with pytest.raises(ValueError, match="by chance"):
        Finder([b"short"])


def test_key_windows_leave_words_and_padding_out() -> None:
    """CL-2: 32 random bytes are seen at each of 17 offsets; names and zeros are not keys."""
    key = random.Random(2).randbytes(32)
    assert len(key_windows(bytes(64) + b'{"month": "2026-10", "kind": "x25519"}')) == 0
    assert len(key_windows(key)) >= 15
    assert len(key_windows(key.hex().encode())) >= 30
