"""The closed list of reasons for which a record is rejected."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why a record was rejected; nothing else of a rejected record is ever kept."""

    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    DUPLICATE_KEY = "duplicate_key"
    UNKNOWN_RECORD = "unknown_record"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    ADDRESS_LIKE = "address_like"
    TIMESTAMP_LIKE = "timestamp_like"
    BAD_LOCATION = "bad_location"
    BAD_FORMAT = "bad_format"
    IMPLAUSIBLE = "implausible"
    TOO_EARLY = "too_early"
    DAY_PURGED = "day_purged"
    NO_CONSENT = "no_consent"
    FORBIDDEN_BY_POLICY = "forbidden_by_policy"
