"""The fast way accepts what the strict check accepts, and rejects for the same reasons (CS-6)."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.model.records import MAX_LINE_BYTES, SCHEMAS, Rejection
from aggregator.rules.shapes import Shape, check_chunk, learn
from aggregator.rules.validate import check_line

from .lines import (
    FLAGS,
    USAGE,
    Row,
    assert_equal,
    dump,
    flags,
    gate,
    one_by_one,
    records,
    usage,
)

BOM = b"\xef\xbb\xbf"
ORDERS: list[Row] = [
    USAGE,
    dict(reversed(USAGE.items())),
    {name: USAGE[name] for name in ("user", "record", "bytes", "day", "epoch", "location")},
    FLAGS,
    {name: value for name, value in FLAGS.items() if name not in {"app", "version"}},
    {name: value for name, value in FLAGS.items() if name != "version"},
]
SEPARATORS = [(",", ":"), (", ", ": "), (" ,", " :"), (",\t", ":  ")]


def spell(row: Row, separators: tuple[str, str], *, ascii_only: bool = False) -> bytes:
    return json.dumps(row, separators=separators, ensure_ascii=ascii_only).encode()


SPELLINGS = [
    lambda change, row=row, pair=pair: spell({**row, **change}, pair)
    for row, pair in itertools.product(ORDERS, SEPARATORS)
]


def shapes_for(*spelled: bytes) -> list[Shape]:
    """Return the shapes of good lines, as if learned from earlier chunks."""
    found = []
    for line in spelled:
        record = check_line(line, gate())
        assert not isinstance(record, Rejection)
        shape = learn(line, SCHEMAS[json.loads(line)["record"]])
        assert shape is not None
        found.append(shape)
    return found


KNOWN = shapes_for(*(spell(row, pair) for row in ORDERS[:5] for pair in SEPARATORS[:2]))

HOSTILE = [
    b"", b" ", b"{}", b"null", b",", b"," * 5, b"," * 10, b"\xff\xfe", BOM, BOM + usage(),
    BOM + spell(USAGE, (", ", ": ")), b"\x00", usage() + b"\x00", usage() + b"\r", b"\r",
    usage() + b"\r" + usage(), usage() + usage(), b" " + usage(), usage() + b" ", usage()[:-1],
    usage(user="a,b"), usage(user='a"b'), usage(user="a\\b"), usage(user="a\nb"), usage(user=""),
    usage(user="x" * 128), usage(user="x" * 129), usage(user="é" * 128), usage(user="é" * 129),
    usage(user="1.2.3.4"), usage(user="0X1"), usage(user="13:37"), usage(user="Ā" + "x" * 3),
    usage(user="a\x7f"), usage(user="a\u200b"), usage(user="a b"),
    usage(user="\uff11.\uff12.\uff13.\uff14"),
    usage(user='","bytes":1,"x":"'), usage(user="acct-1}"), usage(user="aa-bb-cc-dd-ee-ff"),
    usage(location="other"), usage(location="US"), usage(location="x00-11-22-33-44-55"),
    usage(location="us-nyc,x"), usage(epoch="9F3C2B7A11D04E55"), usage(day="2026-09-30"),
    usage(day="2026-10-32"), usage(day="2026-12-01"), usage(record="usage_counter.2"),
    usage(record="connection_flags.1"), flags(record="usage_counter.1"), usage(bytes=-1),
    usage(bytes=1.0), usage(bytes=True), usage(bytes="1"), usage(bytes=2**53), usage(bytes=2**64),
    usage(bytes=None), usage(bytes=[1]), flags(successes=32), flags(attempts=2**53),
    flags(asn=2**32),
    flags(country="XX"), flags(app="aabb.ccdd.eeff"), flags(version="1234.5678.9012"),
    flags(version="1.2.3.4"), flags(app=None), usage(ip="x"), flags(user="x"),
    *(usage().replace(b"863109120", bad) for bad in
      (b"-0", b"00", b"01", b"+1", b"1e3", b"0x1f", b" 1", b"1 ", b"", b"9" * 16, b"9" * 17,
       b"9" * 30, "\uff11".encode(), b"1,", b"1}", b"1_0", b"9007199254740991", b"0")),
    usage().replace(b'"user"', b'"day"'), usage().replace(b'"user"', b'"us\\u0065r"'),
    usage()[:-1] + b',"bytes":1}', usage().replace(b'"acct', b"'acct"), usage() + b"}",
    b"{" + usage(), usage().replace(b'"us-nyc"', b'"us-nyc""'), b"#" + usage(), b'"' + usage(),
    usage().replace(b",", b",,", 1), usage().replace(b":", b"::", 1), usage(user="\u2028"),
    usage(user="@").replace(b"@", b"\xed\xa0\x80"), usage(user="@").replace(b"@", b"\xff"),
    usage() + b" " * 8192, b"x" * 8193, usage(user="NULL"), usage(user="null"), usage(user="NaN"),
    flags(app="null"), flags(app="NA"), usage(user="#N/A"),
    usage().replace(b'"user":"', b'"user":'),
]  # fmt: skip

accounts = st.one_of(
    st.integers(0, 10**6).map("acct-{}".format),
    st.sampled_from(
        ["a.b@example.com", "0", "user_12", "t_12", "1.2.3", "1.2.3.4", "Jürgen", "x" * 128]
    ),
    st.text(max_size=6),
)
good = st.builds(
    lambda spelled, user, number, day: spelled(
        {"bytes": number, "user": user, "day": f"2026-10-{day:02d}"}
        if b"usage" in spelled({})
        else {"attempts": number, "day": f"2026-10-{day:02d}"}
    ),
    st.sampled_from(SPELLINGS),
    accounts,
    st.integers(0, 100) | st.integers(0, 2**53),
    st.integers(1, 25),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a good line with a few bytes replaced, taken out, put in or said twice."""
    line = bytearray(draw(good))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(line)))
        end = min(len(line), place + draw(st.integers(0, 3)))
        piece = draw(
            st.sampled_from([b"", b'"', b",", b"\\", b"{", b"}", b":", b" ", b"\r", b"\x00", b"0",
                             b"-", b".", b"x", b"\n", b"\xff", b"\xc3", BOM,
                             bytes(line[place:end]) * 2])
        )  # fmt: skip
        line[place:end] = piece
    return bytes(line)


lines = st.lists(good | mutated() | st.sampled_from(HOSTILE) | st.binary(max_size=30), max_size=25)
endings = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"])


@given(lines, endings, st.booleans(), st.lists(st.sampled_from(KNOWN), max_size=8, unique_by=id))
@settings(max_examples=200)
def test_cs6_both_ways_agree_on_any_mixture(
    mixture: list[bytes], ending: bytes, finished: bool, shapes: list[Shape]
) -> None:
    assert_equal(ending.join(mixture) + ending * finished, shapes)


@pytest.mark.parametrize("line", HOSTILE)
@pytest.mark.parametrize("shapes", [KNOWN, KNOWN[::-1]], ids=["forward", "backward"])
def test_cs6_both_ways_agree_on_each_hostile_line(line: bytes, shapes: list[Shape]) -> None:
    for chunk in (line, line + b"\n" + usage(), usage() + b"\n" + line + b"\n" + flags() + b"\n"):
        assert_equal(chunk, list(shapes))


def many(spelled: bytes, count: int = 300) -> list[bytes]:
    return [spelled.replace(b"acct-81723", f"acct-{number}".encode()) for number in range(count)]


def test_shapes_are_learned_and_carried_over() -> None:
    shapes: list[Shape] = []
    for _ in range(2):
        chunk = b"\n".join([*many(usage()), *many(flags()), *many(spell(USAGE, (", ", ": ")))])
        checked = assert_equal(chunk, shapes)
        assert checked.accepted == 900
    assert len(shapes) == 3


def test_learning_goes_on_behind_rejected_lines_and_stops_at_the_limit() -> None:
    shapes: list[Shape] = []
    for spelled in SPELLINGS:
        assert_equal(b"\n".join([b"x", usage(ip=1), *many(spelled({}))]), shapes)
    assert len(shapes) == 8
    assert_equal(
        b"\n".join(line for spelled in SPELLINGS for line in many(spelled({}), 20)), shapes
    )


def test_learned_shapes_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line is canonical, the strict check is not asked: else the fast way would be none."""
    slow = Counter[str]()

    def count(line: bytes, at: object) -> object:
        slow["lines"] += 1
        return check_line(line, at)  # type: ignore[arg-type]

    shapes = shapes_for(usage(), flags())
    monkeypatch.setattr("aggregator.rules.shapes.check_line", count)
    check_chunk(b"\n".join([*many(usage()), *many(flags())]), gate(), shapes)
    assert slow["lines"] == 0
    check_chunk(b"\n".join([*many(usage()), usage(user="Jürgen")]), gate(), shapes)
    assert slow["lines"] == 1


def test_cs6_a_byte_order_mark_that_a_shape_uncovers_is_no_json() -> None:
    """The column reader drops a BOM at the start of what it is given."""
    spaced = spell(USAGE, (", ", ": "))
    checked = assert_equal(usage() + b"\n" + BOM + spaced, shapes_for(usage(), spaced))
    assert checked.accepted == 1


def test_a_line_of_a_learned_shape_is_not_over_the_size_limit() -> None:
    roomy = spell(USAGE, (",", ":" + " " * 1343))
    assert len(roomy) < MAX_LINE_BYTES < len(roomy) + 118
    chunk = b"\n".join([*many(roomy), roomy.replace(b"acct-81723", b"x" * 128)])
    checked = assert_equal(chunk)
    assert checked.accepted == 300
    assert next(iter(checked.rejections)).reason == "too_large"


@pytest.mark.parametrize("size", [8193, 5_000_000])
def test_very_long_lines(size: int) -> None:
    for line in (b"x" * size, usage(user="x" * size), b"," * size, usage() + b" " * size):
        chunk = b"\n".join([*many(usage(), 30), line, *many(flags(), 30)])
        checked = assert_equal(chunk, shapes_for(usage(), flags()))
        assert checked.accepted == 60


def test_a_chunk_of_many_blocks() -> None:
    """More than one block of the column reader, so that dictionaries and rows have to join."""
    body = [usage(user=f"u{n}", location=f"l{n % 700}-x", bytes=n) for n in range(40_000)]
    body[777::9_001] = [usage(user="1.2.3.4")] * len(body[777::9_001])
    body[888::9_001] = [flags(attempts=40)] * len(body[888::9_001])
    assert_equal(b"\n".join(body))


def test_typed_columns_are_what_ingest_expects() -> None:
    for shapes in ([], shapes_for(usage(), flags())):
        checked = check_chunk(usage() + b"\n" + flags() + b"\n", gate(), shapes)
        assert checked.usage[0].column_names == ["day", "user", "location", "epoch", "bytes"]
        assert str(checked.usage[0].schema.field("user").type) == "binary"
        assert str(checked.usage[0].schema.field("bytes").type) == "int64"
        assert str(checked.flags[0].schema.field("app").type).startswith("dictionary<values=string")


@pytest.mark.parametrize(
    "chunk", [b"", b"\n", b"\r\n\r\n", b" ", b"\r", b"\x00", b"\n" * 1000, BOM]
)
def test_chunks_of_nothing(chunk: bytes) -> None:
    assert_equal(chunk, list(KNOWN))


@given(st.binary(max_size=400), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_never_raise(chunk: bytes, known: bool) -> None:
    assert_equal(chunk, list(KNOWN) if known else [])


def test_the_helper_sees_what_it_compares() -> None:
    accepted, rejected = one_by_one(usage() + b"\n\n" + usage() + b"\r\nx\n" + dump(FLAGS))
    assert (accepted.total(), rejected.total()) == (3, 1)
    assert records(check_chunk(usage(), gate(), [])).total() == 1
