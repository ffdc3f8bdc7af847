"""Hostile lines that fail as JSON or by their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from .factory import INTEGER_FIELDS, MAX_BYTES, MAX_INTEGER, Factory, Hostile, dump
from .notations import marker


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
