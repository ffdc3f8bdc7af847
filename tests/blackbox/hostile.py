"""Hostile records by the thousand, each with the reasons that DESIGN's order of checks allows.

The clock is `NOW`: October is open, September is past its purge instant, and tomorrow starts in
an hour and a half. Where a record breaks two rules and DESIGN names no order, any of the reasons
that apply is right.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from .notations import ADDRESSES, DISGUISED, TIMES, Maker, marker

NOW: Final = "2026-10-20T22:30:00Z"
INTEGER_FIELDS: Final = ("bytes", "asn", "users", "attempts", "successes")
MAX_INTEGER: Final = 2**53 - 1
MAX_BYTES: Final = 10 * 10**9 // 8 * 86_400  # 10 Gbit/s for a day

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Hostile:
    """A line that must be rejected, for one of `reasons`, leaving no byte of `needles`."""

    label: str
    line: bytes
    reasons: frozenset[str]
    needles: tuple[str, ...] = ()


class Factory:
    """Makes good records to be spoilt, and cases of them, from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"hostile {seed}")

    def usage(self, **changes: Any) -> Record:
        """Return a good usage counter with `changes`."""
        return {
            "record": "usage_counter.1",
            "day": f"2026-10-{self.rng.randint(1, 20):02d}",
            "user": f"acct-{self.rng.randint(0, 99_999)}",
            "location": self.rng.choice(("us-nyc", "de-fra", "nl-ams")),
            "epoch": f"{self.rng.getrandbits(64):016x}",
            "bytes": self.rng.randint(0, 10**9),
            **changes,
        }

    def flags(self, **changes: Any) -> Record:
        """Return good connection flags with `changes`."""
        return {
            "record": "connection_flags.1",
            "day": f"2026-10-{self.rng.randint(1, 20):02d}",
            "location": self.rng.choice(("us-nyc", "de-fra", "nl-ams")),
            "epoch": f"{self.rng.getrandbits(64):016x}",
            "country": "DE",
            "asn": 3320,
            "app": "android",
            "version": "11.4.0",
            "users": 14,
            "attempts": 31,
            "successes": 29,
            **changes,
        }

    def either(self) -> Record:
        """Return a good record of either kind."""
        return self.rng.choice((self.usage, self.flags))()

    def bad(
        self, label: str, record: Record | bytes, *reasons: str, needle: str | None = None
    ) -> Hostile:
        """Return a case: a record or a raw line, the reasons allowed, what may not be left."""
        line = record if isinstance(record, bytes) else dump(record)
        return Hostile(label, line, frozenset(reasons), (needle,) if needle else ())


def dump(record: Record) -> bytes:
    """Write a record as an agent does."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


Kind = Callable[[Factory], Iterator[Hostile]]


def size(make: Factory) -> Iterator[Hostile]:
    """Too large: before anything else is looked at, well-formed or not."""
    for label, length in (("20 kB", 20_000), ("200 kB", 200_000)):
        mark = marker(make.rng)
        yield make.bad(
            f"size {label}", make.usage(user=mark * (length // 14)), "too_large", needle=mark
        )
        mark = marker(make.rng)
        yield make.bad(
            f"size {label} no JSON", (mark * (length // 14)).encode(), "too_large", needle=mark
        )
    mark = marker(make.rng)
    padded = dump(make.usage(user=mark)).replace(b",", b"," + b" " * 20_000, 1)
    yield make.bad("size padded", padded, "too_large", needle=mark)


def not_json(make: Factory) -> Iterator[Hostile]:
    """Not one JSON object in UTF-8."""
    for label in _mutants(dump(make.usage(user="@")), b"@"):
        mark = marker(make.rng)
        line = _mutants(dump(make.usage(user=mark)), mark.encode())[label]
        yield make.bad(f"json {label}", line, "not_json", needle=mark)
    mark = marker(make.rng)
    yield make.bad("json text", json.dumps(mark).encode(), "not_json", needle=mark)
    for scalar in (b"null", b"true", b"17", b"{", b"}", b"[]", b'"', b"NaN"):
        yield make.bad(f"json scalar {scalar.decode()}", scalar, "not_json")
    yield make.bad("json nested arrays", b"[" * 4000 + b"]" * 4000, "not_json")


def _mutants(line: bytes, mark: bytes) -> dict[str, bytes]:
    return {
        "truncated": line[:-1],
        "truncated in text": line[: line.index(mark) + len(mark)],
        "array": b"[" + line + b"]",
        "concatenated": line + line,
        "two with a space": line + b" " + line,
        "trailing comma": line[:-1] + b",}",
        "garbage after": line + b" x",
        "comment": line[:-1] + b"/* no */}",
        "BOM": b"\xef\xbb\xbf" + line,
        "single quotes": line.replace(b'"', b"'"),
        "bare key": line.replace(b'"user"', b"user"),
        "raw control": line.replace(mark, mark + b"\x01"),
        "raw tab": line.replace(mark, mark + b"\t"),
        "raw nul": line.replace(mark, mark + b"\x00"),
        "nul after": line + b"\x00",
        "no-break space": b"\xc2\xa0" + line,
        "form feed": line + b"\x0c",
        "utf-16": line.decode().encode("utf-16-le"),
        "bad escape": line.replace(mark, mark + b"\\x41"),
        "short escape": line.replace(mark, mark + b"\\u12"),
        "missing colon": line.replace(b'"user":', b'"user"'),
        **{name: line.replace(mark, mark + junk) for name, junk in _BAD_UTF8.items()},
    }


_BAD_UTF8: Final = {
    "utf-8 lone byte": b"\xff",
    "utf-8 latin-1": "é".encode("latin-1"),
    "utf-8 overlong": b"\xc0\xaf",
    "utf-8 surrogate": b"\xed\xa0\x80",
    "utf-8 beyond": b"\xf4\x90\x80\x80",
    "utf-8 cut": b"\xe2\x82",
}


def bad_numbers(make: Factory) -> Iterator[Hostile]:
    """Numbers that are no JSON, no integer, or none that is allowed."""
    digits = str(make.rng.randint(10**14, 10**15))
    spelled = {
        "not_json": (
            "NaN",
            "Infinity",
            "-Infinity",
            "+17",
            "017",
            "0x11",
            ".5",
            "5.",
            "1_000",
            "1e",
            "--1",
            "-",
        ),
        "wrong_type": (
            "1.0",
            "1e3",
            "0.0",
            "1E+2",
            "12.5",
            "-1.5",
            "1e400",
            "true",
            "false",
            "null",
            "[]",
            "{}",
            "[17]",
            '{"n":17}',
            '"12"',
            '""',
            '"1e3"',
            f'"{digits}"',
            f"{digits}.0",
            f'["{digits}"]',
        ),
        "out_of_range": (
            "-1",
            "-9007199254740993",
            "9007199254740992",
            "9223372036854775808",
            "18446744073709551616",
            "1" + "0" * 40,
            f"-{digits}",
            f"{digits}" * 2,
        ),
    }
    field = make.rng.choice(INTEGER_FIELDS)
    record = make.usage(bytes=0) if field == "bytes" else make.flags()
    for reason, texts in spelled.items():
        for text in texts:
            line = dump({**record, field: "@@"}).replace(b'"@@"', text.encode())
            yield make.bad(
                f"number {text[:12]} in {field}",
                line,
                reason,
                needle=digits if digits in text else None,
            )
    for label, big in (
        ("deep array", b"[" * 2000 + b"]" * 2000),
        ("deep object", b'{"a":' * 900 + b"1" + b"}" * 900),
    ):
        line = dump({**record, field: "@@"}).replace(b'"@@"', big)
        yield make.bad(f"number {label}", line, "wrong_type", "not_json")


def implausible(make: Factory) -> Iterator[Hostile]:
    """Numbers in range that cannot be; the asn has a range of its own."""
    over = make.rng.randint(MAX_BYTES + 1, MAX_INTEGER)
    yield make.bad("over the link", make.usage(bytes=over), "implausible", needle=str(over))
    yield make.bad("just over the link", make.usage(bytes=MAX_BYTES + 1), "implausible")
    yield make.bad("at the top", make.usage(bytes=MAX_INTEGER), "implausible")
    yield make.bad(
        "more successes", make.flags(attempts=3, successes=4), "implausible", "out_of_range"
    )
    yield make.bad("asn over 32 bits", make.flags(asn=2**32), "out_of_range")


def duplicate_key(make: Factory) -> Iterator[Hostile]:
    """A key twice, whatever its values and however it is spelled."""
    for key, again in (
        ("bytes", '"bytes":1'),
        ("bytes", '"by\\u0074es":1'),
        ("user", '"user":"{}"'),
        ("user", '"\\u0075ser":"{}"'),
        ("record", '"record":"usage_counter.1"'),
        ("day", '"d\\u0061\\u0079":"2026-10-05"'),
    ):
        mark = marker(make.rng)
        line = dump(make.usage(user=mark))
        second = again.format(mark).encode()
        yield make.bad(
            f"twice {key} {again[:8]}",
            line[:-1] + b"," + second + b"}",
            "duplicate_key",
            needle=mark,
        )
        yield make.bad(
            f"twice first {key} {again[:8]}",
            b"{" + second + b"," + line[1:],
            "duplicate_key",
            needle=mark,
        )
    line = dump(make.flags())
    yield make.bad("twice in flags", line[:-1] + b',"asn":3320}', "duplicate_key")
    mark = marker(make.rng)
    unknown = f',"{mark}":1,"{mark}":2}}'.encode()
    yield make.bad(
        "twice unknown", line[:-1] + unknown, "duplicate_key", "unknown_field", needle=mark
    )
    yield make.bad(
        "twice inside", line.replace(b"3320", b'{"a":1,"a":2}'), "duplicate_key", "wrong_type"
    )


def field_set(make: Factory) -> Iterator[Hostile]:
    """Unknown records, unknown fields, missing fields, texts of another type."""
    mark = marker(make.rng)
    for name in (
        f"usage_{mark}.1",
        "usage_counter.2",
        "usage_counter",
        "Usage_counter.1",
        "",
        "usage_counter.1 ",
        "usage_total.1",
        "diagnostics.1",
        "app_activations.1",
    ):
        yield make.bad(
            f"record {name[:9]}", make.usage(record=name, user=mark), "unknown_record", needle=mark
        )
    for value in (1, None, ["usage_counter.1"], True):
        yield make.bad("record type", make.usage(record=value), "unknown_record", "wrong_type")
    record = make.either()
    del record["record"]
    yield make.bad("record missing", record, "missing_field", "unknown_record")
    yield make.bad("empty object", b"{}", "missing_field", "unknown_record")
    for key in (
        "ip",
        "src_ip",
        "timestamp",
        "session_start",
        "Bytes",
        "bytes ",
        "",
        "direction",
        "destination",
        "198.51.100.77",
        marker(make.rng),
    ):
        mark = marker(make.rng)
        needle = key if len(key) > 12 else mark
        yield make.bad(
            f"unknown {key[:9]}", {**make.either(), key: mark}, "unknown_field", needle=needle
        )
    yield make.bad(
        "unknown address",
        {**make.either(), "peer": "198.51.100.78:443"},
        "unknown_field",
        needle="198.51.100.78",
    )
    yield make.bad("user in flags", make.flags(user=mark), "unknown_field", needle=mark)
    yield make.bad("app in usage", make.usage(app="android"), "unknown_field")
    for record in (make.usage(), make.flags()):
        for key in sorted(set(record) - {"record", "app", "version"}):
            lesser = {name: value for name, value in record.items() if name != key}
            yield make.bad(f"missing {key}", lesser, "missing_field")
            both = {**lesser, marker(make.rng): 1}
            yield make.bad(f"missing {key} and unknown", both, "unknown_field")
        for key in sorted(set(record) - {"record", *INTEGER_FIELDS}):
            values: tuple[Any, ...] = (17, None, True, 1.5, [mark], {"a": mark})
            for value in values:
                yield make.bad(
                    f"type of {key}",
                    {**record, key: value},
                    "wrong_type",
                    needle=mark if isinstance(value, list | dict) else None,
                )


def days(make: Factory) -> Iterator[Hostile]:
    """Days that are none, too late or too early; before shapes of other fields."""
    for text in (
        "2026-02-30",
        "2026-13-01",
        "2026-00-10",
        "2026-10-32",
        "2026-1-5",
        "20261005",
        "05.10.2026",
        "2026/10/05",
        "2026-10-05\n",
        " 2026-10-05",
        "2026-10",
        "",
        "\uff12\uff10\uff12\uff16-10-05",
        "2026-10-05Z",
        "2026-W41-1",
        "0000-01-01",
        "-2026-10-05",
        "2026-278",
        "tomorrow",
        "2027-02-29",
    ):
        yield make.bad(f"day {text!r}", {**make.either(), "day": text}, "bad_format")
    for text in ("2026-10-05T13:37:00Z", "2026-10-05T13", "2026-10-05 13:37"):
        yield make.bad(
            f"day {text}", {**make.either(), "day": text}, "bad_format", "timestamp_like"
        )
    mark = marker(make.rng)
    yield make.bad("day word", {**make.either(), "day": mark}, "bad_format", needle=mark)
    yield make.bad(
        "day address",
        {**make.either(), "day": "198.51.100.79"},
        "bad_format",
        "address_like",
        needle="198.51.100.79",
    )
    for text in ("2026-10-22", "2026-11-01", "2027-01-01", "9999-12-31"):
        yield make.bad(f"early {text}", {**make.either(), "day": text}, "too_early")
    for text in (
        "2026-09-30",
        "2026-09-01",
        "2026-08-31",
        "2020-02-29",
        "1970-01-01",
        "0001-01-01",
    ):
        yield make.bad(f"purged {text}", {**make.either(), "day": text}, "day_purged")
        both = make.usage(day=text, user="joe@198.51.100.80")
        yield make.bad("purged and address", both, "day_purged", needle="198.51.100.80")


def locations(make: Factory) -> Iterator[Hostile]:
    """Texts that are no location of a VPN."""
    mark = marker(make.rng)
    for text in (
        "US-NYC",
        "1abc",
        "a",
        "a" * 33,
        "us_nyc",
        "other",
        "canary",
        "us nyc",
        "",
        "us-nyc\n",
        " us-nyc",
        "us-n\u0443c",
        "-us",
        "us.nyc",
        "Us-nyc",
        f"{mark}!",
        f"{mark.upper()}",
    ):
        yield make.bad(
            f"location {text[:8]!r}",
            {**make.either(), "location": text},
            "bad_location",
            needle=text if len(text) == 14 else None,
        )


def formats(make: Factory) -> Iterator[Hostile]:
    """Right type, wrong shape."""
    mark = marker(make.rng)
    good = f"{make.rng.getrandbits(64):016x}"
    for text in (
        good[1:],
        good + "0",
        good[1:] + "g",
        "",
        good[:15] + "F",
        good + "\n",
        mark,
        good[:15] + "٣",
    ):
        yield make.bad(
            f"epoch {len(text)}",
            {**make.either(), "epoch": text},
            "bad_format",
            needle=mark if mark in text else None,
        )
    for field, texts in {
        "country": ("de", "DEU", "XX", "", "D", "D1", "ÄÖ", "DE\n", "ZZZ", mark),
        "app": ("", "my app", "a" * 33, "app\n", "äpp", mark + "!", "11android"),
        "version": ("", "v1.2", "1..2", "1.2.", "1.2.3-beta", ".1", "1.2.x", mark, "1,2", "1.2\n"),
    }.items():
        for text in texts:
            yield make.bad(
                f"{field} {text[:6]!r}",
                make.flags(**{field: text}),
                "bad_format",
                needle=mark if mark in text else None,
            )
    for text in ("", mark * 10, "x" * 129):
        yield make.bad(
            f"user {len(text)} long",
            make.usage(user=text),
            "bad_format",
            "out_of_range",
            needle=mark if mark in text else None,
        )
    for escape in (
        "\\u0000",
        "\\u0007",
        "\\n",
        "\\t",
        "\\u007f",
        "\\u0085",
        "\\u200b",
        "\\u202e",
        "\\u2028",
        "\\u2029",
        "\\ufeff",
        "\\u00ad",
        "\\u2066",
        "\\udb40\\udc41",
    ):
        mark = marker(make.rng)
        line = dump(make.usage(user=mark)).replace(mark.encode(), f"{mark}{escape}x".encode())
        yield make.bad(f"user {escape}", line, "bad_format", needle=mark)
    for escape in ("\\ud800", "\\udc00", "\\udc00\\ud800"):
        line = dump(make.usage(user=mark)).replace(mark.encode(), f"{mark}{escape}x".encode())
        yield make.bad(f"user lone {escape}", line, "bad_format", "not_json", needle=mark)
    for raw in ("\u200b", "\u2028", "\u202e", "\ufeff", "\u0085"):
        yield make.bad(
            f"user raw {ord(raw):x}", make.usage(user=f"{mark}{raw}x"), "bad_format", needle=mark
        )


def shapes(make: Factory) -> Iterator[Hostile]:
    """Addresses in any notation and times of day, in any text field, bare or in a longer word."""
    for reason, table in (("address_like", {**ADDRESSES, **DISGUISED}), ("timestamp_like", TIMES)):
        for label, notation in table.items():
            yield from _in_fields(make, f"{reason} {label}", notation, reason)
    for text in (f"us-{_hyphened(make.rng)}", _hyphened(make.rng)):
        yield make.bad(
            "address_like mac in location",
            {**make.either(), "location": text},
            "address_like",
            needle=text,
        )
    dotted = "aabb.ccdd.eeff"
    yield make.bad("address_like mac in app", make.flags(app=dotted), "address_like", needle=dotted)
    both = make.usage(user="198.51.100.81", bytes=1.5)
    yield make.bad("address and type", both, "address_like", needle="198.51.100.81")
    both = make.usage(user="198.51.100.81", bytes=-5)
    yield make.bad("address and range", both, "address_like", needle="198.51.100.81")


def _hyphened(rng: random.Random) -> str:
    return "-".join(f"a{rng.randint(0, 15):x}" for _ in range(6))


def _in_fields(make: Factory, label: str, notation: Maker, reason: str) -> Iterator[Hostile]:
    for field in ("user", "user", "location", "epoch", "country", "app", "version"):
        text = notation(make.rng)
        record = make.usage() if field == "user" else make.flags()
        yield make.bad(f"{label} in {field}", {**record, field: text}, reason, needle=_long(text))
    mark, text = marker(make.rng), notation(make.rng)
    for glued in (f"{mark}{text}", f"{mark} {text}", f"{text}-{mark}", f"<{text}>{mark}"):
        yield make.bad(f"{label} beside a word", make.usage(user=glued), reason, needle=mark)
    escaped = "".join(f"\\u{ord(character):04x}" for character in text)
    line = dump(make.usage(user="@@")).replace(b"@@", escaped.encode())
    yield make.bad(f"{label} escaped", line, reason, needle=_long(text))


def _long(text: str) -> str | None:
    return text if len(text.encode()) >= 12 else None


KINDS: Final[tuple[Kind, ...]] = (
    size,
    not_json,
    bad_numbers,
    implausible,
    duplicate_key,
    field_set,
    days,
    locations,
    formats,
    shapes,
)


def make_hostile(count: int, seed: int = 1) -> list[Hostile]:
    """Return `count` hostile lines, every kind of them again and again with new values."""
    make = Factory(seed)
    cases: list[Hostile] = []
    while len(cases) < count:
        for kind in KINDS:
            cases += kind(make)
    return make.rng.sample(cases, count) if len(cases) > count else cases
