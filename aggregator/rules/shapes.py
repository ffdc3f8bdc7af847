"""The fast way through the strict check: canonical lines read as comma-separated columns.

Agents write one spelling of a record, so nearly all lines of a chunk are equal but for their
values. A `Shape` is such a spelling, learned from a line that `rules.validate` accepted: the
bytes before and after each value. A line that splits at its commas into exactly the columns of a
shape, with those bytes around values that hold no quote, backslash or control character, is the
same JSON object with other values: no key can be missing, unknown or there twice. Its values are
then checked, once per distinct value where a column repeats itself.

The fast way only ever accepts. Whatever it does not recognise goes through
`validate.check_line`, which alone gives reasons.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aggregator.model import text
from aggregator.model.records import (
    CONNECTION_FLAGS,
    MAX_LINE_BYTES,
    MAX_USER_CHARACTERS,
    SCHEMAS,
    USAGE_COUNTER,
    Field,
    Record,
    Rejection,
    Schema,
    UsageCounter,
)
from aggregator.rules.validate import Gate, check_line, text_reason

_MAX_SHAPES: Final = 8
_LEARNING_TRIES: Final = 32
_WORTH_LEARNING: Final = 256
_UTF8_BOM: Final = b"\xef\xbb\xbf"

# Longer spellings are not worth a shape; so no line of a shape can be over the size limit.
_LONGEST_LEARNED: Final = MAX_LINE_BYTES // 2
_MOST_DIGITS: Final = 16

# Accounts that neither hold nor may hide an address or a time; all others take the slow way.
_NOT_PLAIN: Final = f"[^{text.PLAIN_CHARACTERS}]"

_BLANK: Final = rb"[ \t]*"
_TEXT_PART: Final = re.compile(rb'(%b\{?%b"([a-z_]+)"%b:%b")([^"\\]*)("%b\}?%b)' % ((_BLANK,) * 6))
_INTEGER_PART: Final = re.compile(rb'(%b\{?%b"([a-z_]+)"%b:%b)([0-9]+)(%b\}?%b)' % ((_BLANK,) * 6))


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One column of a shape: the field, and the bytes around its value."""

    name: str
    prefix: bytes
    suffix: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One spelling of one schema's record."""

    schema: Schema
    parts: tuple[Part, ...]


@dataclasses.dataclass(slots=True)
class Checked:
    """What a chunk came to: accepted records as Arrow tables, and a count of rejections.

    Usage tables have day, location, epoch (dictionary), user (binary), bytes (int64); flags
    tables have day, location, epoch, country, app, version (dictionary), and int64 numbers.
    """

    usage: list[pa.Table] = dataclasses.field(default_factory=list)
    flags: list[pa.Table] = dataclasses.field(default_factory=list)
    rejections: Counter[Rejection] = dataclasses.field(default_factory=Counter)

    @property
    def accepted(self) -> int:
        """How many records got in."""
        return sum(table.num_rows for table in (*self.usage, *self.flags))


def learn(line: bytes, schema: Schema) -> Shape | None:
    """Return the shape of `line`, which the strict check accepted, or None if it has none."""
    if len(line) > _LONGEST_LEARNED:
        return None
    pieces = line.split(b",")
    parts = []
    for index, piece in enumerate(pieces):
        match = _TEXT_PART.fullmatch(piece) or _INTEGER_PART.fullmatch(piece)
        if match is None:
            return None
        opens, closes = b"{" in match[1], b"}" in match[4]
        if opens != (index == 0) or closes != (index == len(pieces) - 1):
            return None
        parts.append(Part(match[2].decode(), match[1], match[4]))
    return Shape(schema, tuple(parts))


def check_chunk(chunk: bytes, gate: Gate, shapes: list[Shape]) -> Checked:
    """Check all lines of `chunk`; shapes learned on the way are added to `shapes`."""
    checked = Checked()
    slow: list[bytes] = []
    rest = _set_aside(chunk, slow)
    for shape in shapes:
        rest = _by_shape(rest, shape, gate, checked)
    while rest.count(b"\n", 0, 64 * _WORTH_LEARNING) and len(shapes) < _MAX_SHAPES:
        lines = rest.split(b"\n", _WORTH_LEARNING)
        learned = None if len(lines) <= _WORTH_LEARNING else _learn_any(lines, gate, shapes)
        if learned is None:
            break
        shapes.append(learned)
        rest = _by_shape(rest, learned, gate, checked)
    _check_slowly([*slow, *rest.split(b"\n")], gate, checked)
    return checked


def _set_aside(chunk: bytes, slow: list[bytes]) -> bytes:
    """Move lines that columns could misread to `slow`; return the others."""
    if b"\r" in chunk:
        chunk = chunk.replace(b"\r\n", b"\n")
    strange = b"\r" in chunk or b"\x00" in chunk
    if not strange and (chunk.isascii() or (_UTF8_BOM not in chunk and _is_utf8(chunk))):
        return chunk
    kept: list[bytes] = []
    for line in chunk.split(b"\n"):
        odd = (
            b"\r" in line
            or b"\x00" in line
            or len(line) > MAX_LINE_BYTES
            or line.startswith(_UTF8_BOM)
            or not _is_utf8(line)
        )
        (slow if odd else kept).append(line)
    return b"\n".join(kept)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _learn_any(lines: Sequence[bytes], gate: Gate, shapes: Sequence[Shape]) -> Shape | None:
    for line in lines[:_LEARNING_TRIES]:
        record = check_line(line, gate)
        if isinstance(record, Rejection):
            continue
        name = USAGE_COUNTER if isinstance(record, UsageCounter) else CONNECTION_FLAGS
        shape = learn(line, SCHEMAS[name])
        if shape is not None and shape not in shapes:
            return shape
    return None


def _check_slowly(lines: Iterable[bytes], gate: Gate, checked: Checked) -> None:
    usage: list[Record] = []
    flags: list[Record] = []
    for line in lines:
        if not line:
            continue
        outcome = check_line(line, gate)
        if isinstance(outcome, Rejection):
            checked.rejections[outcome] += 1
        else:
            (usage if isinstance(outcome, UsageCounter) else flags).append(outcome)
    if usage:
        checked.usage.append(_table(usage, SCHEMAS[USAGE_COUNTER]))
    if flags:
        checked.flags.append(_table(flags, SCHEMAS[CONNECTION_FLAGS]))


def _table(records: Sequence[Record], schema: Schema) -> pa.Table:
    columns: dict[str, Any] = {}
    for field in schema.fields:
        values = [getattr(record, field.name) for record in records]
        if field.name == "user":
            columns["user"] = pa.array([value.encode() for value in values], pa.binary())
        elif field.is_integer:
            columns[field.name] = pa.array(values, pa.int64())
        else:
            columns[field.name] = pa.array(values, pa.string()).dictionary_encode()
    return pa.table(columns)


def _by_shape(rest: bytes, shape: Shape, gate: Gate, checked: Checked) -> bytes:
    """Accept the lines of `rest` that have `shape`; return the others, newline-separated."""
    if not rest or rest.isspace():
        return rest
    others: list[bytes] = []
    try:
        table = _columns(rest, shape, others)
    except pa.ArrowInvalid:  # a line longer than a block: the slow way sorts it out
        return rest
    if table.num_rows:
        accepted, refused = _accept(table, shape, gate)
        if accepted.num_rows:
            tables = checked.usage if shape.schema.name == USAGE_COUNTER else checked.flags
            tables.append(accepted)
        others.extend(refused)
    return b"\n".join(others)


def _columns(rest: bytes, shape: Shape, others: list[bytes]) -> pa.Table:
    """Split lines at their commas; lines with another number of columns go to `others`."""

    def set_aside(row: pa.csv.InvalidRow) -> str:
        others.append(row.text.encode())
        return "skip"

    def column_type(part: Part) -> pa.DataType:
        if part.name == "user" or _is_integer(shape, part):
            return pa.binary()
        return pa.dictionary(pa.int32(), pa.string())

    table = pa.csv.read_csv(
        pa.BufferReader(rest),
        read_options=pa.csv.ReadOptions(
            column_names=[part.name for part in shape.parts], block_size=4 << 20
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=",",
            quote_char=False,
            double_quote=False,
            escape_char=False,
            newlines_in_values=False,
            invalid_row_handler=set_aside,
        ),
        convert_options=pa.csv.ConvertOptions(
            check_utf8=False,
            column_types={part.name: column_type(part) for part in shape.parts},
            null_values=[],
            strings_can_be_null=False,
        ),
    )
    return table.unify_dictionaries().combine_chunks()


def _is_integer(shape: Shape, part: Part) -> bool:
    return part.name != "record" and shape.schema.field(part.name).is_integer


def _accept(table: pa.Table, shape: Shape, gate: Gate) -> tuple[pa.Table, list[bytes]]:
    """Return the acceptable rows as typed columns, and the text of all other rows."""
    good = np.ones(table.num_rows, dtype=bool)
    columns: dict[str, Any] = {}
    for part in shape.parts:
        column = table[part.name].chunk(0)
        if part.name == "record":
            good &= _repeated(column, part, lambda value: value == shape.schema.name)[0]
            continue
        field = shape.schema.field(part.name)
        if field.is_integer:
            fits, columns[part.name] = _integers(column, part, field, gate)
        elif field.name == "user":
            fits, columns[part.name] = _users(column, part)
        else:
            fits, columns[part.name] = _repeated(column, part, _text_check(field, gate))
        good &= fits
    if "attempts" in columns:
        good &= np.asarray(columns["successes"]) <= np.asarray(columns["attempts"])
    for field in shape.schema.fields:
        if field.name not in columns:
            columns[field.name] = pa.nulls(table.num_rows, pa.string()).dictionary_encode()
    accepted = pa.table({field.name: columns[field.name] for field in shape.schema.fields})
    if good.all():
        return accepted, []
    refused = table.filter(pa.array(~good))
    texts = [column.cast(pa.binary()).to_pylist() for column in refused.columns]
    return accepted.filter(pa.array(good)), [b",".join(row) for row in zip(*texts, strict=True)]


def _text_check(field: Field, gate: Gate) -> Any:
    if field.name == "day":
        return lambda value: gate.day_reason(value) is None
    return lambda value: (
        text_reason(value, field, gate) is None
        and not text.address_like(value)
        and not text.timestamp_like(value)
    )


def _repeated(column: Any, part: Part, check: Any) -> tuple[Any, Any]:
    """Check a dictionary column once per distinct value; refused values become ""."""
    prefix, suffix = part.prefix.decode(), part.suffix.decode()
    values, fits = [], []
    for spelled in column.dictionary.to_pylist():
        framed = (
            len(spelled) >= len(prefix) + len(suffix)
            and spelled.startswith(prefix)
            and spelled.endswith(suffix)
        )
        value = spelled[len(prefix) : len(spelled) - len(suffix)] if framed else ""
        fits.append(framed and check(value))
        values.append(value if fits[-1] else "")
    good = np.array(fits, dtype=bool)[column.indices.to_numpy()]
    return good, pa.DictionaryArray.from_arrays(column.indices, pa.array(values, pa.string()))


def _unframed(column: Any, part: Part) -> tuple[Any, Any]:
    frame = len(part.prefix) + len(part.suffix)
    framed = pc.and_(
        pc.and_(
            pc.starts_with(column, pattern=part.prefix), pc.ends_with(column, pattern=part.suffix)
        ),
        pc.greater_equal(pc.binary_length(column), frame),
    )
    if not pc.all(framed).as_py():
        # A value shorter than its frame cannot be sliced; its row is refused whatever it is.
        column = pc.if_else(framed, column, pa.scalar(part.prefix + part.suffix, column.type))
    # An open end would overflow inside the library; no acceptable value is longer than a line.
    stop = -len(part.suffix) if part.suffix else MAX_LINE_BYTES
    return framed, pc.binary_slice(column, len(part.prefix), stop)


def _users(column: Any, part: Part) -> tuple[Any, Any]:
    framed, values = _unframed(column, part)
    length = pc.binary_length(values)
    fits = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_USER_CHARACTERS))
    good = pc.and_(framed, fits)
    for pattern, looked_at in ((_NOT_PLAIN, values), (text.SUSPECT, column)):
        if _is_anywhere(pattern, looked_at):
            good = pc.and_not(good, pc.match_substring_regex(values, pattern))
    return good.to_numpy(zero_copy_only=False), values


def _is_anywhere(pattern: str, column: Any) -> bool:
    """Say whether `pattern` may be in a value: one look at all of them, one after the other."""
    everything = column.buffers()[2]
    ends = pa.array([0, everything.size], pa.int64()).buffers()[1]
    joined = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, everything])
    return bool(pc.match_substring_regex(joined, pattern)[0].as_py())


def _integers(column: Any, part: Part, field: Field, gate: Gate) -> tuple[Any, Any]:
    framed, values = _unframed(column, part)
    length = pc.binary_length(values)
    short = pc.and_(framed, pc.less_equal(length, _MOST_DIGITS))
    digits = pc.if_else(short, values, pa.scalar(b"", pa.binary())).cast(pa.string())
    padded = pc.and_(pc.starts_with(digits, pattern="0"), pc.greater(length, 1))
    good = pc.and_not(pc.ascii_is_decimal(digits), padded)
    numbers = pc.if_else(good, digits, "0").cast(pa.int64())
    maximum = min(field.maximum, gate.max_bytes) if field.name == "bytes" else field.maximum
    fits = pc.and_(good, pc.less_equal(numbers, maximum))
    return fits.to_numpy(zero_copy_only=False), numbers
