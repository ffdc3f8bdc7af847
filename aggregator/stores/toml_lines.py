"""On which line of a TOML file each setting is; tomllib, which reads the values, does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

Path = tuple[str | int, ...]
"""The names that lead to a setting; an array of tables adds the number of its row, from 0."""

_BARE: Final = r"[A-Za-z0-9_-]+"
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'"
_KEY: Final = re.compile(rf"[ \t]*({_BARE}|{_QUOTED})[ \t]*(\.?)")
_HEADER: Final = re.compile(r"[ \t]*(\[\[?)")
# What is stepped over inside a value, longest first; brackets are counted.
_TOKEN: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|'
    + r"'''.*?'{3,5}|"
    + _QUOTED
    + r"|#[^\n]*|[\[\]{}\n]|[^\"'#\[\]{}\n]+|.",
    re.DOTALL,
)
_DEEPER: Final = {"[": 1, "{": 1, "]": -1, "}": -1}


def lines_of(text: str) -> Mapping[Path, int]:
    """Return the line of each setting and table in `text`, from 1; the first, if twice.

    A table without a header is where the first of its settings is.
    Of a text that is not TOML it returns what looks like settings. Inside inline tables nothing is
    looked for: they have the line of their own name.
    """
    found: dict[Path, int] = {}
    implied: dict[Path, int] = {}
    rows: dict[Path, int] = {}
    table: Path = ()
    for start, line in _statements(text):
        header = _HEADER.match(text, start)
        names = _names(text, header.end() if header else start)
        if not names:
            continue
        if header is None:
            path = (*table, *names)
        else:
            path = table = _table(names, header[1] == "[[", rows)
        found.setdefault(path, line)
        for length in range(1, len(path)):
            implied.setdefault(path[:length], line)
    return implied | found


def line_of(text: str, path: Path) -> int | None:
    """Return the line of the setting `path`, or of the closest table that it would be in."""
    found = lines_of(text)
    for length in range(len(path), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return None


def _table(names: Path, is_row: bool, rows: dict[Path, int]) -> Path:
    """Return the path of a header: names of arrays of tables are those of their last row."""
    path: Path = ()
    for at, name in enumerate(names):
        path = (*path, name)
        if is_row and at == len(names) - 1:
            rows[path] = rows.get(path, -1) + 1
        if path in rows:
            path = (*path, rows[path])
    return path


def _names(text: str, at: int) -> Path:
    """Return the dotted key that begins at `at`, () if there is none."""
    names: list[str] = []
    while match := _KEY.match(text, at):
        names.append(_plain(match[1]))
        at = match.end()
        if not match[2]:
            return tuple(names)
    return ()


def _plain(key: str) -> str:
    """Return a key without its quotes; an escape in it is left as it is, but for quote marks."""
    if key[0] not in "\"'":
        return key
    return key[1:-1].replace('\\"', '"') if key[0] == '"' else key[1:-1]


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each statement begins, and on which line: those lines that no value goes over."""
    at, line, depth = 0, 1, 0
    yield 0, 1
    while match := _TOKEN.match(text, at):
        piece, at = match[0], match.end()
        line += piece.count("\n")
        # The brackets of a header close on their own line as well.
        depth = max(0, depth + _DEEPER.get(piece, 0))
        if piece == "\n" and not depth:
            yield at, line
