"""On which line a setting is: the reader of lines and tomllib agree on what there is."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.stores.toml_lines import Path, line_of, lines_of

from .settings_made import unhurried

# What may stand to the right of "="; what is in them looks like settings and headers.
_VALUES = st.sampled_from(
    [
        "1", "true", '"x"', "'a = 1'", '"[mail] # no"', '"\\" = [\\\\"', "[1, 2]", "[]",
        "[ # ]\n 1,\n\n 'b]', # x = 1\n]", '"""\n[mail]\nhost = 1\n"""', "'''\na = 2\n\\'''",
        '"""a\\"""b"""', '""""two""""', "'''''two'''''", "{ a = 1, b = [2] }", "1979-05-27",
        '[\n  { a = "]" },\n  { a = """\n]""" },\n]', '"""\\\n   x"""', "0x1f", "-1.5e3",
    ]
)  # fmt: skip
_NOISE = st.sampled_from(["\n", "# a = 1\n", "   # [b]\n", "\t\n", "# ' \" ''' \"\"\"\n"])
_END = st.sampled_from(["\n", "   \n", " # host = 1\n", "\t# ]\n"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """Make a TOML text, and where each of its settings and headers is."""
    text = ""
    found: dict[Path, int] = {}
    tables: list[tuple[str, Path]] = [("", ())]
    rows = draw(st.integers(0, 2))
    tables += [(f"[[ rows ]]{draw(_END)}", ("rows", row)) for row in range(rows)]
    tables += [("[rows.below]\n", ("rows", rows - 1, "below"))] if rows else []
    headers: list[tuple[str, Path]] = [
        ("[a]", ("a",)),
        ('  ["b c".d]', ("b c", "d")),
        ("[ e . 'f' ]", ("e", "f")),
    ]
    for header, path in draw(st.lists(st.sampled_from(headers), unique=True)):
        tables.append((f"{header}{draw(_END)}", path))
    for header, path in tables:
        text += "".join(draw(st.lists(_NOISE, max_size=2)))
        line = text.count("\n") + 1
        for length in range(1, len(path) + 1):
            found.setdefault(path[:length], line)
        text += header
        keys = draw(st.lists(st.sampled_from(["x", "'y z'", '"q\\"r"', "t.u"]), unique=True))
        for key in keys:
            text += "".join(draw(st.lists(_NOISE, max_size=1)))
            line = text.count("\n") + 1
            names: Path = {"'y z'": ("y z",), '"q\\"r"': ('q"r',), "t.u": ("t", "u")}.get(
                key, (key,)
            )
            for length in range(1, len(names) + 1):
                found[*path, *names[:length]] = line
            text += f"{draw(st.sampled_from(['', '  ']))}{key} = {draw(_VALUES)}{draw(_END)}"
    return text, found


def names_in(value: Any, path: Path = ()) -> set[Path]:
    """Return every name in parsed TOML: of tables, and of rows of arrays of tables."""
    found: set[Path] = set()
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for name, child in children:
        found.add((*path, name))
        is_rows = isinstance(child, list) and child and isinstance(child[0], dict)
        if isinstance(child, dict) or is_rows:
            found |= names_in(child, (*path, name))
    return found


@unhurried
@given(documents(), st.booleans())
def test_every_setting_is_found_on_its_line_and_nothing_else(
    document: tuple[str, dict[Path, int]], crlf: bool
) -> None:
    text, expected = document
    text = text.replace("\n", "\r\n") if crlf else text
    assert lines_of(text) == expected
    # And it is what TOML says: only what is inside a value is passed over.
    assert expected.keys() <= names_in(tomllib.loads(text))


@unhurried
@given(st.text(st.sampled_from("ab=[]{}\"'#\n\\. ,1"), max_size=60))
def test_whatever_is_no_toml_is_read_as_well(text: str) -> None:
    found = lines_of(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert {path[0] for path in found} == set(data)


def test_the_first_of_two_lines_counts() -> None:
    assert line_of("[mail]\nport = 1\nport = 2\n", ("mail", "port")) == 2


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("mail", "host"), 3), (("mail", "port"), 2), (("mail",), 2), (("door", "url"), 4),
        (("door", "listen"), 4), (("watch", "alert"), None), ((), None),
    ],
)  # fmt: skip
def test_what_is_missing_is_where_it_would_be(path: Path, line: int | None) -> None:
    assert line_of('# first\n[mail]\nhost = "x"\n[door.url]\n', path) == line


def test_a_tables_own_header_counts_over_those_below_it() -> None:
    assert line_of("[mail.sub]\n[mail]\n", ("mail",)) == 2


def test_a_dotted_name_at_the_top_is_a_setting_of_its_section() -> None:
    assert line_of('mail.host = "x"\n"door" . url = "y"\n', ("door", "url")) == 2
    assert line_of('mail.host = "x"\n', ("mail", "port")) == 1
