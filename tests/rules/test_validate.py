"""The strict check: the order of reasons, every reason, and that nothing rejected is kept.

Promises CS-6, CV-2, CT-2: a closed schema, and of what is refused only the reason.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.reasons import Reason
from aggregator.model.records import SCHEMAS, ConnectionFlags, JsonType, Rejection, UsageCounter
from aggregator.rules.validate import check_line

from .lines import FLAGS, MAX_BYTES, USAGE, Row, dump, flags, gate, usage

SCHEMA_NAMES = {"unknown", *SCHEMAS}
FIELD_NAMES = {"unknown", *(name for schema in SCHEMAS.values() for name in schema.names)}
LOCATION = "us-nyc"


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def rejected(line: bytes) -> Rejection:
    outcome = check_line(line, gate())
    assert isinstance(outcome, Rejection), outcome
    return outcome


def raw(row: Row, name: str, spelled: str) -> bytes:
    """Return `row` with the bytes `spelled` as the value of `name`."""
    return dump({**row, name: "@@"}).replace(b'"@@"', spelled.encode())


@pytest.mark.parametrize(
    "line",
    [
        usage(),
        usage(bytes=0),
        usage(bytes=MAX_BYTES),
        usage(user="é" * 128),
        usage(user="john.smith@example.com"),
        usage(day="2026-10-01"),
        usage(day="2026-10-21"),
        b" \t" + usage() + b" \r",
        json.dumps(USAGE, indent=None, separators=(" , ", " : ")).encode(),
        json.dumps({**USAGE, "user": "田中"}).encode(),
        dump(dict(reversed(USAGE.items()))),
        usage().replace(b'"user"', b'"us\\u0065r"'),
        usage() + b" " * (8192 - len(usage())),
    ],
)
def test_good_usage(line: bytes) -> None:
    record = check_line(line, gate())
    assert isinstance(record, UsageCounter)
    assert dataclasses.asdict(record) == without(json.loads(line), "record")


@pytest.mark.parametrize(
    "row",
    [
        FLAGS,
        without(FLAGS, "app"),
        without(FLAGS, "version"),
        without(FLAGS, "app", "version"),
        {**FLAGS, "asn": 0, "country": "ZZ"},
        {**FLAGS, "asn": 2**32 - 1, "country": "XK"},
        {**FLAGS, "attempts": 29, "users": 2**53 - 1},
        {**FLAGS, "version": "11"},
    ],
)
def test_good_flags(row: Row) -> None:
    record = check_line(dump(row), gate())
    assert isinstance(record, ConnectionFlags)
    assert dataclasses.asdict(record) == {"app": None, "version": None, **without(row, "record")}


NOT_JSON = [
    b"{", b"}", b"null", b"17", b'"x"', b"[]", b"[{}]", b"NaN", b" ", b"\x00", b"{,}", b"\xff",
    usage()[:-1], usage() + b"x", usage() + usage(), usage()[:-1] + b",}", b"[" + usage() + b"]",
    b"\xef\xbb\xbf" + usage(), usage(user="@").replace(b"@", b"\xff"),
    usage(user="@").replace(b"@", b"\xc0\xaf"), usage(user="@").replace(b"@", b"\xed\xa0\x80"),
    usage(user="@").replace(b"@", b"\x01"), usage(user="@").replace(b"@", b"\t"),
    usage(user="@").replace(b"@", b"\\x41"), usage().replace(b'"', b"'"), usage() + b"\x0c",
    b"\xc2\xa0" + usage(), usage().decode().encode("utf-16-le"), b"[" * 4000 + b"]" * 4000,
    b'[{"a":1,"a":2}]', usage()[:-1] + b',"x":{"a":1,"a":2},', b"[" * 8192,
    *(raw(USAGE, "bytes", bad) for bad in
      ("NaN", "Infinity", "-Infinity", "+1", "01", "-01", "0x1", ".5", "5.", "1_0", "1e", "-",
       "--1")),
]  # fmt: skip


@pytest.mark.parametrize("line", NOT_JSON)
def test_cs6_what_is_no_json_object(line: bytes) -> None:
    assert rejected(line) == Rejection(Reason.NOT_JSON)


@pytest.mark.parametrize(
    "line",
    [
        usage()[:-1] + b',"bytes":1}',
        usage()[:-1] + b',"by\\u0074es":1}',
        b'{"\\u0072ecord":"usage_counter.1",' + usage()[1:],
        b'{"a":1,"a":1}',
        raw(FLAGS, "asn", '{"a":1,"a":1}'),
        flags()[:-1] + b',"x":[{"a":1,"\\u0061":[]}]}',
    ],
)
def test_cs6_a_key_twice(line: bytes) -> None:
    assert rejected(line) == Rejection(Reason.DUPLICATE_KEY)


@pytest.mark.parametrize("name", [field.name for field in SCHEMAS["connection_flags.1"].fields])
def test_every_required_field_is_missed(name: str) -> None:
    if name in {"app", "version"}:
        return
    expected = Rejection(
        Reason.MISSING_FIELD, "connection_flags.1", name,
        location="unknown" if name == "location" else LOCATION,
    )  # fmt: skip
    assert rejected(dump(without(FLAGS, name))) == expected
    both = rejected(dump({**without(FLAGS, name), "ip": "1.2.3.4"}))
    assert (both.reason, both.field) == (Reason.UNKNOWN_FIELD, "unknown")


TYPES = {
    "17": JsonType.INTEGER, "1.0": JsonType.NUMBER, "1e3": JsonType.NUMBER, "-1.5": JsonType.NUMBER,
    "1e400": JsonType.NUMBER, "true": JsonType.BOOLEAN, "false": JsonType.BOOLEAN,
    "null": JsonType.NULL, "[]": JsonType.ARRAY, "{}": JsonType.OBJECT, '"17"': JsonType.STRING,
    "0.0": JsonType.NUMBER, "-0.0": JsonType.NUMBER, "-0e0": JsonType.NUMBER,
    "9" * 4500: JsonType.INTEGER,
}  # fmt: skip


@pytest.mark.parametrize("row", [USAGE, FLAGS], ids=["usage", "flags"])
@pytest.mark.parametrize("spelled", TYPES, ids=lambda spelled: spelled[:8])
def test_every_field_refuses_every_other_type(row: Row, spelled: str) -> None:
    for name, good in row.items():
        kind = TYPES[spelled]
        if kind is (JsonType.INTEGER if isinstance(good, int) else JsonType.STRING):
            continue
        schema = "unknown" if name == "record" else row["record"]
        location = "unknown" if name in {"record", "location"} else LOCATION
        expected = Rejection(Reason.WRONG_TYPE, schema, name, kind, location)
        assert rejected(raw(row, name, spelled)) == expected


@pytest.mark.parametrize("name", ["bytes", "asn", "users", "attempts", "successes"])
@pytest.mark.parametrize(
    "spelled", ["-1", "-0", str(2**53), str(2**63), str(2**64), "9" * 4500, "-" + "9" * 4500]
)
def test_every_number_has_its_range(name: str, spelled: str) -> None:
    row = USAGE if name == "bytes" else FLAGS
    expected = Rejection(Reason.OUT_OF_RANGE, row["record"], name, JsonType.INTEGER, LOCATION)
    assert rejected(raw(row, name, spelled)) == expected


@pytest.mark.parametrize(
    ("line", "reason", "name"),
    [
        (b"x" * 8193, "too_large", "unknown"),
        (usage(user="x" * 8192), "too_large", "unknown"),
        (b"{}", "missing_field", "record"),
        (dump(without(USAGE, "record")), "missing_field", "record"),
        (dump({**without(USAGE, "record"), "ip": 1}), "unknown_field", "unknown"),
        (usage(record="usage_counter.2", ip=1), "unknown_record", "record"),
        (usage(record="1.2.3.4"), "unknown_record", "record"),
        (usage(ip=1), "unknown_field", "unknown"),
        (usage(app="android"), "unknown_field", "unknown"),
        (usage(**{"": 1}), "unknown_field", "unknown"),
        (flags(user="x"), "unknown_field", "unknown"),
        *((usage(day=day), "bad_format", "day") for day in
          ("2026-02-30", "2026-1-5", "2026-10-05T13:37:00Z", "", "1.2.3.4", "0000-01-01",
           "2026-10-05\n", "\uff12\uff10\uff12\uff16-10-05", "20261005", "2026-W41-1")),
        *((usage(day=day), "too_early", "day") for day in ("2026-10-22", "9999-12-31")),
        *((flags(day=day), "day_purged", "day") for day in ("2026-09-30", "0001-01-01")),
        *((usage(user=user), "address_like", "user") for user in ("1.2.3.4", "a0x1", "::1")),
        (usage(user="joe 13:37"), "timestamp_like", "user"),
        (usage(location="x00-11-22-33-44-55"), "address_like", "location"),
        (usage(location="fra-7pm"), "timestamp_like", "location"),
        (usage(epoch="1.2.3.4"), "address_like", "epoch"),
        (flags(country="1.2.3.4"), "address_like", "country"),
        (flags(asn="1.2.3.4"), "address_like", "asn"),
        (flags(app="aabb.ccdd.eeff"), "address_like", "app"),
        (flags(version="1.2.3.4"), "address_like", "version"),
        (flags(version="1234.5678.9012"), "address_like", "version"),
        *((flags(location=bad), "bad_location", "location") for bad in
          ("", "a", "a" * 33, "US", "1a", "other", "canary", "us nyc", "us-nyc\n", "us-n\u0443c")),
        *((usage(epoch=bad), "bad_format", "epoch") for bad in
          ("", "9f3c2b7a11d04e5", "9f3c2b7a11d04e555", "9F3C2B7A11D04E55", "9f3c2b7a11d04e5\n")),
        *((flags(country=bad), "bad_format", "country") for bad in ("", "de", "XX", "DEU", "DE\n")),
        *((flags(app=bad), "bad_format", "app") for bad in ("", "1a", "a b", "a" * 33, "äpp")),
        *((flags(version=bad), "bad_format", "version") for bad in ("", "v1", "1.", "1..2", "1\n")),
        *((usage(user=bad), "bad_format", "user") for bad in
          ("", "x" * 129, "a\nb", "a\x7f", "a\u200b", "a\u2028b", "a\u2029b", "a\u0085")),
        (raw(USAGE, "user", '"a\\ud800"'), "bad_format", "user"),
        (usage(bytes=MAX_BYTES + 1), "implausible", "bytes"),
        (flags(successes=32), "implausible", "successes"),
        (flags(asn=2**32), "out_of_range", "asn"),
    ],
)  # fmt: skip
def test_cs6_every_reason(line: bytes, reason: str, name: str) -> None:
    outcome = rejected(line)
    assert (outcome.reason.value, outcome.field) == (reason, name)


def test_every_reason_of_the_check_comes_in_order() -> None:
    """A record that breaks every rule loses its faults in the order of DESIGN, one by one."""
    row: dict[str, Any] = {
        "record": "usage_counter.2", "day": "2026-9-1", "user": "1.2.3.4", "location": "13:37",
        "epoch": "X", "bytes": -1, "ip": "x",
    }  # fmt: skip
    line = b" " * 8192 + b'{"x":1,' + dump(row)[1:-1] + b',"x":2'
    seen = [rejected(line).reason]
    line = line.strip()
    seen += [rejected(line).reason, rejected(line + b"}").reason, rejected(dump(row)).reason]
    for change in (
        {"record": "usage_counter.1"}, {"ip": None}, {"epoch": "X"}, {"day": "2026-09-01"},
        {"day": "2026-10-30"}, {"day": "2026-10-05"}, {"user": "\n"}, {"location": "US"},
        {"user": "joe"}, {"location": "us-nyc"}, {"epoch": "0" * 16}, {"bytes": 2**53 - 1},
    ):  # fmt: skip
        row.update(change)
        if change == {"ip": None}:
            del row["ip"], row["epoch"]
        seen.append(rejected(dump(row)).reason)
    assert seen == [
        "too_large", "not_json", "duplicate_key", "unknown_record", "unknown_field",
        "missing_field", "bad_format", "day_purged", "too_early", "address_like",
        "timestamp_like", "bad_format", "bad_location", "bad_format", "out_of_range", "implausible",
    ]  # fmt: skip


def test_fields_are_checked_in_the_order_of_the_schema() -> None:
    assert rejected(usage(user="", location="US", epoch="", bytes=-1)).field == "user"
    assert rejected(usage(location="US", epoch="", bytes=-1)).field == "location"
    assert rejected(usage(epoch="", bytes=-1)).field == "epoch"
    assert rejected(usage(user="13:37", epoch="1.2.3.4")).reason is Reason.ADDRESS_LIKE


@pytest.mark.parametrize("bad", ["x00-11-22-33-44-55", "fra-7pm", "US", "other", "a" * 33])
def test_cs6_no_location_is_kept_that_may_not_be(bad: str) -> None:
    assert rejected(usage(location=bad)).location == "unknown"
    assert rejected(usage(location=bad, ip=1)).location == "unknown"
    assert rejected(usage(ip=1)).location == LOCATION


def test_a_day_is_judged_by_its_own_gate() -> None:
    early, late = gate(), gate()
    late = dataclasses.replace(late, days=dataclasses.replace(late.days, purged_through="2026-10"))
    for _ in range(2):
        assert isinstance(check_line(usage(), early), UsageCounter)
        assert check_line(usage(), late).reason is Reason.DAY_PURGED  # type: ignore[union-attr]


def test_many_different_days_do_not_fill_the_memory() -> None:
    at = gate()
    for number in range(3000):
        check_line(usage(day=f"{1000 + number}-01-01"), at)
        check_line(usage(day=f"acct-{number}"), at)
    assert len(at._known) <= 1024
    assert not any(day.startswith("acct") for day in at._known)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
spoilt = st.builds(
    lambda row, change, gone: dump_any(without({**row, **change}, *gone)),
    st.sampled_from([USAGE, FLAGS]),
    st.dictionaries(
        st.sampled_from(sorted(FIELD_NAMES)) | st.text(max_size=8), json_values, max_size=3
    ),
    st.sets(st.sampled_from(sorted(FIELD_NAMES)), max_size=1),
)


def dump_any(row: Row) -> bytes:
    return json.dumps(row).encode()


@given(st.binary(max_size=200) | spoilt)
def test_cs6_nothing_of_a_rejected_value_is_kept_and_nothing_raises(line: bytes) -> None:
    outcome = check_line(line, gate())
    if not isinstance(outcome, Rejection):
        assert json.loads(line)["record"] in SCHEMAS
        return
    assert outcome.reason in set(Reason)
    assert outcome.schema in SCHEMA_NAMES
    assert outcome.field in FIELD_NAMES
    assert outcome.json_type in set(JsonType)
    if outcome.location != "unknown":
        assert isinstance(check_line(usage(location=outcome.location), gate()), UsageCounter)
        assert json.loads(line)["location"] == outcome.location
