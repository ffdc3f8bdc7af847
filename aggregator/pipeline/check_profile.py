"""Check a policy profile: its first mistake, with the line that it is on.

Who reads a profile stops at the first mistake and names the setting; the line is found by that.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.model.profile import DEFAULT_PROFILE, parse_profile
from aggregator.stores.toml_lines import Path, lines_of

_PLACE: Final = re.compile(r" \(at line ([0-9]+), column [0-9]+\)")
_UNKNOWN: Final = re.compile(r"unknown setting: '([^']*)'")
_ROW: Final = re.compile(r"fair_use\.rules, row ([0-9]+)")
_OF_A_ROW: Final = re.compile(r"\b(name|kind|threshold|warn_percent|plans)\b")
_DEFAULTS: Final = tomllib.loads(DEFAULT_PROFILE)


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a profile; `line` counts from 1, None where none can be named."""

    setting: str
    line: int | None
    what: str
    remedy: str


def first_mistake(content: bytes) -> Mistake | None:
    """Return the first mistake in a profile's file, None if it has none."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Mistake("", line, "this is not UTF-8 text", "save it as UTF-8")
    try:
        parse_profile(text)
    except ConfigError as error:
        return _told(str(error), text)
    return None


def _told(words: str, text: str) -> Mistake:
    if "is not TOML" in words:
        place = _PLACE.search(words)
        ends = int(place[1]) if place else text.count("\n") + 1
        remedy = "correct this line, or the one before it"
        return Mistake("", ends, _PLACE.sub("", words), remedy)
    lines = lines_of(text)
    path = _path(words, lines)
    starts = (path[:length] for length in range(len(path), 0, -1))
    line = next((lines[start] for start in starts if start in lines), None)
    remedy = "correct it" if path in lines else "add it"
    return Mistake(_dotted(path), line, words, f"{remedy}, as in the profile of a new home")


def _path(words: str, lines: Iterable[Path]) -> Path:
    """Return the setting that the words of an error name, () if they name none."""
    unknown, row = _UNKNOWN.search(words), _ROW.search(words)
    if row:
        name = unknown or _OF_A_ROW.search(words, row.end())
        return ("fair_use", "rules", int(row[1]) - 1, *(name.groups() if name else ()))
    if unknown:
        return tuple(unknown[1].split("."))
    if "names the location" in words:
        return ("regions",)
    known = {_dotted(path): path for path in (*_paths(_DEFAULTS), *lines)}
    found = [one for one in known if re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", words)]
    return known[max(found, key=len)] if found else ()


def _paths(table: dict[str, Any]) -> Iterable[Path]:
    for name, value in table.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _paths(value))


def _dotted(path: Path) -> str:
    """Return a path as words have it, where rows count from 1."""
    return ".".join(str(one + 1) if isinstance(one, int) else one for one in path)
