"""Good records that a careless check would refuse: every one of them must be accepted."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

from .factory import MAX_BYTES, MAX_INTEGER, Factory, Record
from .notations import marker
from .variants import WRITERS, canonical

_NAMES: Final = (
    "Zoë",
    "Łukasz",
    "李雷",
    "Ολυμπία",
    "أحمد",
    "สมชาย",
    "O'Neil",
    "Jürgen Groß",
    "🦊 fox",
    "ñandú",
    "a\u00a0b",
    "e\u0301clair",
    "❤\ufe0f",
    "Ⅷ",
    "½",
    "ß",
    "İstanbul",
    "ﬁ",
    "\U0001d4b3\U0001d4b4",
    "한국",
)
_ODD: Final = (
    "null",
    "true",
    "NaN",
    "-1",
    "{}",
    "[]",
    '"',
    "\\",
    "a,b",
    '{"user":"x"}',
    "user#1",
    "DOMAIN\\user",
    "a/b",
    "realm:user",
    "user:42",
    "+4915112345678",
    "+49 151 1234567",
    "555-123-4567",
    "%",
    "100%",
    "#",
    "'; DROP TABLE raw; --",
    " lead",
    "trail ",
    "a\\u0041",
    "$HOME",
    "=1+1",
    "x" * 128,
    "ü" * 128,
    "😀" * 128,
    "0",
    "00012",
    "1e3",
    "1.0",
    "12.5",
    "v1.2.3",
    "c3d4",
    "beef",
    "cafe-babe",
    "de:ad",
    "a.b.c.d",
    "john.f.kennedy",
    "1-2-3-4-5-6-7",
    "2.0.1",
)


def users(rng: random.Random) -> Iterator[str]:
    """Yield account names of every legitimate kind, most of them unique."""
    mark = marker(rng, 8)
    number = rng.randint(10**7, 10**9)
    yield from (
        f"{mark}@example.com",
        f"{mark}+tag.{number}@sub.example.co.uk",
        f"j.{mark}@EXAMPLE.ORG",
        f"{mark}.12.10.1990@example.com",
        f"{mark}@exämple.de",
        f"{mark}%40x@example.com",
        f"{number}@example.com",
        f"1.2.{mark}@example.com",
        str(number),
        str(rng.getrandbits(32)),
        f"2026100513{number}",
        f"{1_790_000_000 + number}",
        str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        str(uuid.UUID(int=rng.getrandbits(128), version=4)).upper(),
        f"{{{uuid.UUID(int=rng.getrandbits(128), version=1)}}}",
        f"{rng.getrandbits(128):032x}",
        f"{rng.getrandbits(160):040x}",
        mark * 16,
        f"{mark} {rng.choice(_NAMES)}",
        f"{rng.choice(_NAMES)}{mark}",
    )
    yield from _ODD
    yield from _NAMES


def counters(make: Factory) -> Iterator[Record]:
    """Yield good usage counters."""
    for user in users(make.rng):
        yield make.usage(user=user)
    for value in (0, 1, MAX_BYTES, MAX_BYTES - 1, 2**31, 2**32, 2**40):
        yield make.usage(bytes=value)
    for location in ("aa", "a-", "x--y", "other-1", "canary2", "a" * 32, "z9", "us-nyc-12"):
        yield make.usage(location=location)
    for epoch in ("0" * 16, "f" * 16, "1234567890123456", "deadbeefdeadbeef"):
        yield make.usage(epoch=epoch)
    for day in ("2026-10-01", "2026-10-20", "2026-10-21"):  # the last starts in 90 minutes
        yield make.usage(day=day)


def flags(make: Factory) -> Iterator[Record]:
    """Yield good connection flags."""
    changes: tuple[dict[str, Any], ...] = (
        {"country": "ZZ"},
        {"country": "US", "asn": 0},
        {"asn": 2**32 - 1},
        {"users": 0},
        {"attempts": 0, "successes": 0},
        {"attempts": 31, "successes": 31},
        {"users": MAX_INTEGER, "attempts": MAX_INTEGER, "successes": MAX_INTEGER},
        {"version": "0"},
        {"version": "11.4"},
        {"version": "999999999.0.0"},
        {"app": "x"},
        {"app": "Wire-Guard_2.0+b"},
        {"app": "a" * 32},
        {"version": "2026.10.5"},
    )
    for change in changes:
        yield make.flags(**change)
    for absent in (("app",), ("version",), ("app", "version")):
        record = make.flags()
        yield {key: value for key, value in record.items() if key not in absent}


def make_tricky(count: int, seed: int = 1) -> list[tuple[Record, bytes]]:
    """Return `count` good records, each with the line that spells it."""
    make = Factory(seed + 1_000_000)
    rng = make.rng
    found: list[tuple[Record, bytes]] = []
    while len(found) < count:
        for record in (*counters(make), *flags(make)):
            writer = rng.choice((canonical, *WRITERS))
            found.append((record, writer(record, rng)))
        slashed = make.usage(user="a/b/c")
        found.append((slashed, json.dumps(slashed).replace("a/b/c", "a\\/b\\/c").encode()))
    return rng.sample(found, count)
