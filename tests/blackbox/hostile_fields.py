"""Hostile records whose fields, days, texts or shapes are wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .factory import INTEGER_FIELDS, Factory, Hostile, dump
from .notations import ADDRESSES, DISGUISED, TIMES, Maker, marker


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
