"""The format of a home: home.json says it, or config.toml in a home of format 1.

home.json is written last when a home is made, so that it marks a whole one. It says whether the
home is a rehearsal too; config.toml then is settings only, which a configuration management tool
may write.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.stores import atomic

FORMAT: Final = 2
"""The format of the homes that this release makes; it opens every one before it as well."""

REMEDY: Final = 'restore it, or write it anew: {"format": 2, "rehearsal": false}'

_OF_THE_HOME: Final = ("format", "rehearsal")
_NOT_ALONE: Final = (
    "format and rehearsal cannot be taken out of config.toml;"
    " write each on a line of its own at its top, and run it again"
)
_RELEASE: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}[a-z0-9.+-]{0,16}")


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """A line that a migration took out of config.toml: where it was, from 0, and its bytes."""

    at: int
    line: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """What a home says of itself; `made_by` is the release that wrote it, None if nobody knows.

    `taken` are the lines of config.toml that it stands for, kept for the way back.
    """

    format: int
    rehearsal: bool
    made_by: str | None = None
    taken: tuple[Taken, ...] = ()

    def to_json(self) -> bytes:
        """Return the text of home.json."""
        fields: dict[str, Any] = {"format": self.format, "rehearsal": self.rehearsal}
        if self.made_by is not None:
            fields["made_by"] = self.made_by
        if self.taken:
            fields["taken_out"] = [[one.at, one.line.decode()] for one in self.taken]
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def read(path: Path) -> Mark | None:
    """Return what home.json says, None if there is none; ConfigError if it is of no use here."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _mark(json.loads(content), path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path} does not read; {REMEDY}") from None


def _mark(fields: Mapping[str, Any], path: Path) -> Mark:
    found, made_by = fields["format"], fields.get("made_by")
    if type(found) is not int or found < 1:
        raise TypeError("format")
    if not isinstance(made_by, str) or not _RELEASE.fullmatch(made_by):
        made_by = None
    if found > FORMAT:
        raise ConfigError(_newer(path, made_by))
    if type(fields["rehearsal"]) is not bool:
        raise TypeError("rehearsal")
    taken = tuple(Taken(at, line.encode()) for at, line in fields.get("taken_out", ()))
    if not all(type(one.at) is int and one.at >= 0 for one in taken):
        raise TypeError("taken_out")
    return Mark(found, fields["rehearsal"], made_by, taken)


def write(path: Path, mark: Mark) -> None:
    """Replace home.json by `mark`, durably."""
    atomic.write(path, mark.to_json(), mode=0o644)


def of_settings(data: Mapping[str, Any], path: Path) -> Mark | None:
    """Return what the settings `data` of a home of format 1 say, None if they are of no such home.

    ConfigError if they are of no format that this release knows.
    """
    check_known(data, path)
    if data.get("format") != 1:
        return None
    if type(data.get("rehearsal")) is not bool:
        raise ConfigError("config.toml needs rehearsal, true or false; it is missing")
    return Mark(1, data["rehearsal"])


def check_known(data: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError if the settings in `path` name a format that this release does not know."""
    found = data.get("format", FORMAT)
    if type(found) is not int or found < 1:
        raise ConfigError(f"{path} has a format that there is not; take that line out")
    if found > FORMAT:
        raise ConfigError(_newer(path, None))


def check_agrees(mark: Mark, data: Mapping[str, Any]) -> None:
    """Raise ConfigError if the settings `data` of a home say other than its mark."""
    for name, value in (("format", mark.format), ("rehearsal", mark.rehearsal)):
        said = data.get(name, value)
        if type(said) is not type(value) or said != value:
            raise ConfigError(
                f"config.toml has {name}, but home.json, which counts, says"
                f" {json.dumps(value)}; take the line out of config.toml"
            )


def take_out(content: bytes) -> tuple[bytes, tuple[Taken, ...]]:
    """Return config.toml without its lines of `format` and `rehearsal`, and those lines.

    Every other byte stays, comments among them. ConfigError if they are in no line of their own.
    """
    data = _parsed(content)
    lines = content.splitlines(keepends=True)
    found = sorted(_line_of(name, data, lines) for name in _OF_THE_HOME if name in data)
    rest = b"".join(line for at, line in enumerate(lines) if at not in found)
    if _parsed(rest) != _without(data, *_OF_THE_HOME):
        raise ConfigError(_NOT_ALONE)
    return rest, tuple(Taken(at, lines[at]) for at in found)


def put_back(content: bytes, mark: Mark) -> bytes:
    """Return config.toml as a home of format 1 has it: with the lines that were taken out of it.

    They go where they were, or to the top if config.toml was changed so that they cannot.
    """
    rest, _ = take_out(content)
    wanted = {**_parsed(rest), "format": 1, "rehearsal": mark.rehearsal}
    lines = rest.splitlines(keepends=True)
    for one in mark.taken:
        lines.insert(one.at, one.line)
    try:
        if _parsed(b"".join(lines)) == wanted:
            return b"".join(lines)
    except ConfigError:
        pass  # they would stand in the middle of something else
    top = f"format = 1\nrehearsal = {str(mark.rehearsal).lower()}\n"
    return top.encode() + rest


def _line_of(name: str, data: Mapping[str, Any], lines: Sequence[bytes]) -> int:
    """Return the number of the line that alone sets `name`: without it all else is the same."""
    start = re.compile(rb"""[ \t]*(["']?)""" + name.encode() + rb"""\1[ \t]*=""")
    for at, line in enumerate(lines):
        if start.match(line) is None:
            continue
        try:
            if _parsed(b"".join([*lines[:at], *lines[at + 1 :]])) == _without(data, name):
                return at
        except ConfigError:
            continue
    raise ConfigError(_NOT_ALONE)


def _without(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config.toml is not TOML: {error}") from None


def _newer(path: Path, made_by: str | None) -> str:
    release = "a newer release" if made_by is None else f"the newer release {made_by}"
    return (
        f"{path} was made by {release}; upgrade this one,"
        " or go back there with its: aggregator migrate --back"
    )
