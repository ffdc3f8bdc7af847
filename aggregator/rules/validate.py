"""The strict check of one NDJSON line: the definition of what gets in, and why not.

The order of checks is the order of reasons: size, JSON, record and field set, day, address and
timestamp shapes, the rest (promises CS-6, CV-2, CT-2). `rules.shapes` is a faster way to the same
answer for canonical lines and is held to this one by a property test.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final, NoReturn, cast

from aggregator.model import text
from aggregator.model.days import parse_day
from aggregator.model.reasons import Reason
from aggregator.model.records import (
    MAX_LINE_BYTES,
    MAX_USER_CHARACTERS,
    RESERVED_LOCATIONS,
    SCHEMAS,
    USAGE_COUNTER,
    ConnectionFlags,
    Field,
    JsonType,
    Record,
    Rejection,
    Schema,
    UsageCounter,
)
from aggregator.rules.calendar import DayGate


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What the check needs besides the line: the days that are open and the cap on `bytes`."""

    days: DayGate
    max_bytes: int

    def day_reason(self, value: str) -> Reason | None:
        """Return why the text `value` of a `day` is refused, or None."""
        day = parse_day(value)
        if day is None:
            return Reason.BAD_FORMAT
        return self.days.reason(day)


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number that is no plain integer: its text says nothing we may keep."""

    negative_zero: bool = False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


def _integer(digits: str) -> int | _Number:
    # More digits than the largest total: out of range whatever they are, and never converted.
    if len(digits) > 20:
        return -1
    return _Number(negative_zero=True) if digits == "-0" else int(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=lambda _digits: _Number(),
    parse_int=_integer,
    parse_constant=_refuse_constant,
)


def check_line(line: bytes, gate: Gate) -> Record | Rejection:
    """Return the record that `line` (without its newline) spells, or why it is rejected."""
    if len(line) > MAX_LINE_BYTES:
        return Rejection(Reason.TOO_LARGE)
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except _DuplicateKeyError:
        return Rejection(Reason.DUPLICATE_KEY)
    except (ValueError, RecursionError):
        return Rejection(Reason.NOT_JSON)
    if not isinstance(value, dict):
        return Rejection(Reason.NOT_JSON)
    return _check_object(cast("dict[str, Any]", value), gate)


def _check_object(value: dict[str, Any], gate: Gate) -> Record | Rejection:
    name = value.get("record")
    if "record" not in value:
        return Rejection(Reason.MISSING_FIELD, field="record")
    if not isinstance(name, str):
        return Rejection(Reason.WRONG_TYPE, field="record", json_type=json_type(name))
    schema = SCHEMAS.get(name)
    if schema is None:
        return Rejection(Reason.UNKNOWN_RECORD, field="record", json_type=JsonType.STRING)
    refused = (
        _check_field_set(value, schema)
        or _check_day(value, schema, gate)
        or _check_texts(value, schema)
        or _check_values(value, schema, gate)
    )
    if refused is not None:
        return _with_location(refused, value)
    return _record(value, schema)


def _check_field_set(value: dict[str, Any], schema: Schema) -> Rejection | None:
    if not value.keys() <= schema.names:
        return Rejection(Reason.UNKNOWN_FIELD, schema.name)
    for field in schema.fields:
        if field.required and field.name not in value:
            return Rejection(Reason.MISSING_FIELD, schema.name, field.name)
    return None


def _check_day(value: dict[str, Any], schema: Schema, gate: Gate) -> Rejection | None:
    day = value["day"]
    if not isinstance(day, str):
        return Rejection(Reason.WRONG_TYPE, schema.name, "day", json_type(day))
    reason = gate.day_reason(day)
    return Rejection(reason, schema.name, "day", JsonType.STRING) if reason else None


def _check_texts(value: dict[str, Any], schema: Schema) -> Rejection | None:
    """Refuse addresses and times in any text, whichever field it stands in."""
    for shape, reason in (
        (text.address_like, Reason.ADDRESS_LIKE),
        (text.timestamp_like, Reason.TIMESTAMP_LIKE),
    ):
        for field in schema.fields:
            found = value.get(field.name)
            if field.name != "day" and isinstance(found, str) and shape(found):
                return Rejection(reason, schema.name, field.name, JsonType.STRING)
    return None


def _check_values(value: dict[str, Any], schema: Schema, gate: Gate) -> Rejection | None:
    for field in schema.fields:
        if field.name not in value:
            continue
        found = value[field.name]
        reason = (integer_reason if field.is_integer else text_reason)(found, field, gate)
        if reason is not None:
            return Rejection(reason, schema.name, field.name, json_type(found))
    if schema.name != USAGE_COUNTER and value["successes"] > value["attempts"]:
        return Rejection(Reason.IMPLAUSIBLE, schema.name, "successes", JsonType.INTEGER)
    return None


def integer_reason(value: object, field: Field, gate: Gate) -> Reason | None:
    """Return why `value` is no acceptable integer for `field`, or None."""
    if isinstance(value, _Number) and value.negative_zero:
        return Reason.OUT_OF_RANGE
    if not isinstance(value, int) or isinstance(value, bool):
        return Reason.WRONG_TYPE
    if not 0 <= value <= field.maximum:
        return Reason.OUT_OF_RANGE
    if field.name == "bytes" and value > gate.max_bytes:
        return Reason.IMPLAUSIBLE
    return None


def text_reason(value: object, field: Field, gate: Gate) -> Reason | None:
    """Return why `value` is no acceptable text for `field`, or None; `day` is checked before."""
    del gate
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    if field.pattern is not None and field.pattern.fullmatch(value) is None:
        return field.misfit
    if field.choices is not None and value not in field.choices:
        return field.misfit
    if field.name == "location" and value in RESERVED_LOCATIONS:
        return Reason.BAD_LOCATION
    if field.name == "user" and (
        not 1 <= len(value) <= MAX_USER_CHARACTERS or text.has_forbidden_character(value)
    ):
        return Reason.BAD_FORMAT
    return None


def json_type(value: object) -> JsonType:
    """Return the JSON type of a decoded value."""
    if isinstance(value, bool):
        return JsonType.BOOLEAN
    if isinstance(value, _Number):
        return JsonType.NUMBER
    types = {
        str: JsonType.STRING,
        int: JsonType.INTEGER,
        dict: JsonType.OBJECT,
        list: JsonType.ARRAY,
        type(None): JsonType.NULL,
    }
    return types[type(value)]


def _with_location(refused: Rejection, value: dict[str, Any]) -> Rejection:
    location = value.get("location")
    field = SCHEMAS[USAGE_COUNTER].field("location")
    if not isinstance(location, str) or field.pattern is None:
        return refused
    if field.pattern.fullmatch(location) is None or location in RESERVED_LOCATIONS:
        return refused
    return dataclasses.replace(refused, location=location)


def _record(value: dict[str, Any], schema: Schema) -> Record:
    fields: dict[str, Any] = {field.name: value.get(field.name) for field in schema.fields}
    return UsageCounter(**fields) if schema.name == USAGE_COUNTER else ConnectionFlags(**fields)
