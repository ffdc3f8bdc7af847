"""The strict check of one NDJSON line: the definition of what gets in, and why not.

The order of checks is the order of reasons: size, JSON, record and field set, day, address and
timestamp shapes, the rest (promises CS-6, CV-2, CT-2). `rules.shapes` is a faster way to the same
answer for canonical lines and is held to this one by a property test.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

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

_KNOWN_DAYS: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What the check needs besides the line: the days that are open and the cap on `bytes`.

    `locations` are those that the sender may report; None for any.
    """

    days: DayGate
    max_bytes: int
    locations: frozenset[str] | None = None
    _known: dict[str, Reason | None] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def day_reason(self, value: str) -> Reason | None:
        """Return why the text `value` of a `day` is refused, or None; a day is judged once."""
        if value in self._known:
            return self._known[value]
        day = parse_day(value)
        if day is None:
            return Reason.BAD_FORMAT
        if len(self._known) >= _KNOWN_DAYS:
            self._known.clear()
        self._known[value] = self.days.reason(day)
        return self._known[value]


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


def _integer(digits: str) -> int:
    # Out of range whatever they are, and so never converted: more digits than the largest total
    # has, and a zero with a sign.
    return -1 if len(digits) > 20 or digits == "-0" else int(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_BLANKS: Final = " \t\n\r"
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant
)
_LENIENT_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
_JSON_TYPES: Final[Mapping[type, JsonType]] = MappingProxyType(
    {
        bool: JsonType.BOOLEAN,
        dict: JsonType.OBJECT,
        float: JsonType.NUMBER,
        int: JsonType.INTEGER,
        list: JsonType.ARRAY,
        str: JsonType.STRING,
        type(None): JsonType.NULL,
    }
)
_ALL_NAMES: Final = frozenset[str]().union(*(schema.names for schema in SCHEMAS.values()))
_LOCATION: Final = SCHEMAS[USAGE_COUNTER].field("location")

# Why a record is rejected: the reason, the field, and the JSON type of what it holds.
_Why = tuple[Reason, str, JsonType]


def check_line(line: bytes, gate: Gate) -> Record | Rejection:
    """Return the record that `line` (without its newline) spells, or why it is rejected."""
    if len(line) > MAX_LINE_BYTES:
        return Rejection(Reason.TOO_LARGE)
    try:
        value = _decoded(line, _DECODER)
    except _DuplicateKeyError:
        return Rejection(Reason.DUPLICATE_KEY if _is_object(line) else Reason.NOT_JSON)
    except (ValueError, RecursionError):
        return Rejection(Reason.NOT_JSON)
    return _check_object(value, gate) if isinstance(value, dict) else Rejection(Reason.NOT_JSON)


def _decoded(line: bytes, decoder: json.JSONDecoder) -> Any:
    document = line.decode("utf-8").strip(_BLANKS)
    value, end = decoder.raw_decode(document)
    if end != len(document):
        raise ValueError("something stands after the JSON")
    return value


def _is_object(line: bytes) -> bool:
    """Say whether `line` is one JSON object, keys twice or not."""
    try:
        return isinstance(_decoded(line, _LENIENT_DECODER), dict)
    except (ValueError, RecursionError):
        return False


def _check_object(value: dict[str, Any], gate: Gate) -> Record | Rejection:
    if "record" not in value:
        if not value.keys() <= _ALL_NAMES:
            return Rejection(Reason.UNKNOWN_FIELD)
        return Rejection(Reason.MISSING_FIELD, field="record")
    name = value["record"]
    if not isinstance(name, str):
        return Rejection(Reason.WRONG_TYPE, field="record", json_type=json_type(name))
    schema = SCHEMAS.get(name)
    if schema is None:
        return Rejection(Reason.UNKNOWN_RECORD, field="record", json_type=JsonType.STRING)
    why = (
        _check_field_set(value, schema)
        or _check_day(value, gate)
        or _check_texts(value, schema)
        or _check_values(value, schema, gate)
    )
    if why is not None:
        return Rejection(why[0], name, why[1], why[2], _location(value))
    return _record(value, schema)


def _check_field_set(value: dict[str, Any], schema: Schema) -> _Why | None:
    if value.keys() == schema.names:
        return None
    if not value.keys() <= schema.names:
        return Reason.UNKNOWN_FIELD, "unknown", JsonType.NONE
    for field in schema.fields:
        if field.name not in value and field.required:
            return Reason.MISSING_FIELD, field.name, JsonType.NONE
    return None


def _check_day(value: dict[str, Any], gate: Gate) -> _Why | None:
    day = value["day"]
    if not isinstance(day, str):
        return Reason.WRONG_TYPE, "day", json_type(day)
    reason = gate.day_reason(day)
    return None if reason is None else (reason, "day", JsonType.STRING)


def _check_texts(value: dict[str, Any], schema: Schema) -> _Why | None:
    """Refuse addresses and times in any text, whichever field it stands in."""
    # No notation has "=" in it, so that one look at all texts together is enough for most records.
    if text.is_harmless("=".join([found for found in value.values() if isinstance(found, str)])):
        return None
    for shape, reason in (
        (text.address_like, Reason.ADDRESS_LIKE),
        (text.timestamp_like, Reason.TIMESTAMP_LIKE),
    ):
        for field in schema.fields:
            found = value.get(field.name)
            if isinstance(found, str) and field.name != "day" and shape(found):
                return reason, field.name, JsonType.STRING
    return None


def _check_values(value: dict[str, Any], schema: Schema, gate: Gate) -> _Why | None:
    for field in schema.fields:
        name = field.name
        if name == "day" or name not in value:
            continue
        found = value[name]
        if field.is_integer:
            reason = integer_reason(found, field, gate)
        else:
            reason = text_reason(found, field, gate)
        if reason is not None:
            return reason, name, json_type(found)
    if schema.name != USAGE_COUNTER and value["successes"] > value["attempts"]:
        return Reason.IMPLAUSIBLE, "successes", JsonType.INTEGER
    return None


def integer_reason(value: object, field: Field, gate: Gate) -> Reason | None:
    """Return why `value` is no acceptable integer for `field`, or None."""
    if type(value) is not int:  # isinstance would take a boolean for one
        return Reason.WRONG_TYPE
    if not 0 <= value <= field.maximum:
        return Reason.OUT_OF_RANGE
    if value > gate.max_bytes and field.name == "bytes":
        return Reason.IMPLAUSIBLE
    return None


def text_reason(value: object, field: Field, gate: Gate | None = None) -> Reason | None:
    """Return why `value` is no acceptable text for `field`, or None; `day` is checked before.

    Without a gate any location is taken that is written like one.
    """
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    if field.pattern is not None:
        if field.pattern.fullmatch(value) is None:
            return field.misfit
        if field.choices is not None and value not in field.choices:
            return field.misfit
        if field.name != "location":
            return None
        locations = None if gate is None else gate.locations
        closed = value in RESERVED_LOCATIONS or (locations is not None and value not in locations)
        return field.misfit if closed else None
    if not 1 <= len(value) <= MAX_USER_CHARACTERS or text.has_forbidden_character(value):
        return Reason.BAD_FORMAT
    return None


def json_type(value: object) -> JsonType:
    """Return the JSON type of a decoded value."""
    return _JSON_TYPES[type(value)]


def _location(value: dict[str, Any]) -> str:
    """Return the location of a rejected record if that is in order, or "unknown"."""
    found = value.get("location")
    if not isinstance(found, str) or text_reason(found, _LOCATION):
        return "unknown"
    return "unknown" if text.address_like(found) or text.timestamp_like(found) else found


def _record(value: dict[str, Any], schema: Schema) -> Record:
    del value["record"]  # what is left is, name for name, what the record has
    if schema.name == USAGE_COUNTER:
        return UsageCounter(**value)
    return ConnectionFlags(**{"app": None, "version": None, **value})
