"""The closed list of tables that outlive the month, as `schemas/*.table.schema.json` define them.

No column holds a person. `tests/test_schemas.py` holds every line of this list against the
schema files, which are the single source.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OTHER: Final = "other"
UNKNOWN: Final = "unknown"
OTHER_ASN: Final = -1


class Kind(enum.Enum):
    """The type of a column; nullable kinds say so in their name."""

    TEXT = "text"
    DAY = "day"
    MONTH = "month"
    COUNT = "count"
    COUNT_OR_NULL = "count or null"
    FLAG = "flag"
    HISTOGRAM = "histogram"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns in order, and how many of the first are its dimensions.

    Rows of one that is not `additive` may not be added up: its users are distinct ones.
    """

    name: str
    columns: Mapping[str, Kind]
    dimensions: int
    monthly: bool = False
    additive: bool = True


_PERCENTILES: Final = {
    "p50_bytes": Kind.COUNT_OR_NULL,
    "p90_bytes": Kind.COUNT_OR_NULL,
    "p99_bytes": Kind.COUNT_OR_NULL,
}
_OUTCOMES: Final = {"users": Kind.COUNT, "attempts": Kind.COUNT, "successes": Kind.COUNT}

_ALL: Final = (
    Table(
        "usage_daily",
        {
            "day": Kind.DAY,
            "location": Kind.TEXT,
            "users": Kind.COUNT,
            "bytes": Kind.COUNT,
            **_PERCENTILES,
            "histogram": Kind.HISTOGRAM,
        },
        dimensions=2,
    ),
    Table(
        "connections_daily",
        {"day": Kind.DAY, "location": Kind.TEXT, "country": Kind.TEXT, **_OUTCOMES},
        dimensions=3,
    ),
    Table(
        "connections_isp_daily",
        {"day": Kind.DAY, "asn": Kind.COUNT, **_OUTCOMES},
        dimensions=2,
    ),
    Table(
        "apps_daily",
        {"day": Kind.DAY, "app": Kind.TEXT, "version": Kind.TEXT, **_OUTCOMES},
        dimensions=3,
    ),
    Table(
        "usage_monthly",
        {
            "month": Kind.MONTH,
            "location": Kind.TEXT,
            "users": Kind.COUNT,
            "bytes": Kind.COUNT,
            **_PERCENTILES,
            "late_bytes": Kind.COUNT_OR_NULL,
        },
        dimensions=2,
        monthly=True,
        additive=False,
    ),
    Table(
        "notices_monthly",
        {
            "month": Kind.MONTH,
            "rule": Kind.TEXT,
            "percent": Kind.COUNT,
            "audience": Kind.TEXT,
            "notices": Kind.COUNT,
            "sent": Kind.COUNT,
            "delayed": Kind.COUNT,
            "failed": Kind.COUNT,
            "withheld": Kind.COUNT,
            "expired": Kind.COUNT,
        },
        dimensions=4,
        monthly=True,
    ),
    Table(
        "rejections_daily",
        {
            "day": Kind.DAY,
            "location": Kind.TEXT,
            "agent_build": Kind.TEXT,
            "schema": Kind.TEXT,
            "reason": Kind.TEXT,
            "field": Kind.TEXT,
            "json_type": Kind.TEXT,
            "records": Kind.COUNT,
        },
        dimensions=7,
    ),
    Table(
        "closings_daily",
        {
            "day": Kind.DAY,
            "table": Kind.TEXT,
            "cells": Kind.COUNT,
            "folded": Kind.COUNT,
            "users": Kind.COUNT,
            "named_users": Kind.COUNT,
            "withheld": Kind.FLAG,
        },
        dimensions=2,
    ),
)

TABLES: Final[Mapping[str, Table]] = MappingProxyType({table.name: table for table in _ALL})
