"""The records that agents send, field by field, as `schemas/*.schema.json` define them.

The schema files are the single source; `tests/test_schemas.py` holds every line of this table
against them. Here the fields have the order in which they are checked and reported.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aggregator.model.countries import COUNTRIES
from aggregator.model.reasons import Reason

MAX_LINE_BYTES: Final = 8192
MAX_INTEGER: Final = 2**53 - 1
MAX_USER_CHARACTERS: Final = 128
RESERVED_LOCATIONS: Final = frozenset({"other", "canary"})

USAGE_COUNTER: Final = "usage_counter.1"
CONNECTION_FLAGS: Final = "connection_flags.1"


class JsonType(enum.StrEnum):
    """The JSON type of a rejected value: all that is kept of it besides the field's name."""

    OBJECT = "object"
    ARRAY = "array"
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    NULL = "null"
    NONE = "none"


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: a text that matches `pattern`, or an integer 0 … `maximum`."""

    name: str
    is_integer: bool = False
    pattern: re.Pattern[str] | None = None
    maximum: int = MAX_INTEGER
    required: bool = True
    misfit: Reason = Reason.BAD_FORMAT
    choices: frozenset[str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """One kind of record: its name and its fields besides `record`."""

    name: str
    fields: tuple[Field, ...]
    names: frozenset[str] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Note the names of all fields, `record` among them."""
        names = frozenset({"record", *(field.name for field in self.fields)})
        object.__setattr__(self, "names", names)

    def field(self, name: str) -> Field:
        """Return the field called `name`, which must be one of this schema's."""
        return next(field for field in self.fields if field.name == name)


DAY: Final = Field("day", pattern=re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"))
_LOCATION: Final = Field(
    "location", pattern=re.compile(r"[a-z][a-z0-9-]{1,31}"), misfit=Reason.BAD_LOCATION
)
_EPOCH: Final = Field("epoch", pattern=re.compile(r"[0-9a-f]{16}"))

SCHEMAS: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        USAGE_COUNTER: Schema(
            USAGE_COUNTER,
            (DAY, Field("user"), _LOCATION, _EPOCH, Field("bytes", is_integer=True)),
        ),
        CONNECTION_FLAGS: Schema(
            CONNECTION_FLAGS,
            (
                DAY,
                _LOCATION,
                _EPOCH,
                Field("country", pattern=re.compile(r"[A-Z]{2}"), choices=COUNTRIES),
                Field("asn", is_integer=True, maximum=2**32 - 1),
                Field("app", pattern=re.compile(r"[A-Za-z][A-Za-z0-9._+-]{0,31}"), required=False),
                Field(
                    "version",
                    pattern=re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}"),
                    required=False,
                ),
                Field("users", is_integer=True),
                Field("attempts", is_integer=True),
                Field("successes", is_integer=True),
            ),
        ),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class UsageCounter:
    """The running total of one account on one server process for one UTC day (CS-2)."""

    day: str
    user: str
    location: str
    epoch: str
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionFlags:
    """Attempts and successes at a location, by origin and app, without a user (CS-1)."""

    day: str
    location: str
    epoch: str
    country: str
    asn: int
    app: str | None
    version: str | None
    users: int
    attempts: int
    successes: int


Record = UsageCounter | ConnectionFlags


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """What is kept of a rejected record; every field is from a closed list.

    `location` is the record's own only if its shape is valid; ingest keeps it only where an
    accepted record named the same location, so that no free text gets in through it.
    """

    reason: Reason
    schema: str = "unknown"
    field: str = "unknown"
    json_type: JsonType = JsonType.NONE
    location: str = "unknown"
