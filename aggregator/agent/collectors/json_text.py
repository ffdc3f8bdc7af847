"""JSON as daemons' tools print it: values one after the other, and names that come twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from aggregator.errors import BadInputError

_SPACE: Final = re.compile(r"\s*")


def json_values(text: str) -> list[Any]:
    """Return the JSON values that follow one another in `text`, numbers as they are written.

    BadInputError if it is cut off or no JSON, or gives one name two plain values.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=str
    )
    values = []
    at = 0
    try:
        while (at := _after_space(text, at)) < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
    except (ValueError, RecursionError):
        raise BadInputError("is cut off, or no JSON") from None
    return values


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return `pairs` as a dictionary that keeps objects of the same name.

    Before 5.5.2 the CHILD SAs of one configuration have one name.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and not isinstance(value, dict):
            raise ValueError
        found[f"{name}\0{len(found)}" if name in found else name] = value
    return found
