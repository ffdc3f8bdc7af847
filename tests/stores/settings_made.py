"""Settings made up for tests: sound ones, and what spoils them so that any reader sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import hypothesis
from hypothesis import strategies as st

from aggregator.model.config_table import (
    BY_SECTION,
    DIRECTORY_NEEDS,
    SECRETS,
    Kind,
    Setting,
    find,
    of_directory,
    ways,
)
from aggregator.model.settings import DAILY_JOBS, OFF, DirectoryKind

Settings = dict[str, Any]

unhurried = hypothesis.settings(deadline=None)
"""For a property that may take its time on a busy machine."""

# What passes, by kind; whole numbers and choices go by their setting.
GOOD: Final[Mapping[Kind, list[Any]]] = {
    Kind.TEXT: ["x", "mail.example.net", "localhost", "127.0.0.1", "::1", "a b", "ä€", '"', "\\"],
    Kind.PATH: ["a.pem", "/etc/aggregator/x", "ä \"' #"],
    Kind.FLAG: [True, False],
    Kind.MAILBOX: ["a@b.example", "A b <a@b.example>", "ä@b <a@b.example>", "<a@ö.example>"],
    Kind.ADDRESSES: ["a@b.example", ["a@b.example"], ["a@b.example", "c@ö.example"]],
    Kind.LANGUAGE: ["en", "pt-BR", "zh-Hant-TW"],
    Kind.LISTEN: ["0.0.0.0:8443", "[::]:1", "door.example.net:0", "localhost:65535"],
    Kind.LOOPBACK: ["127.0.0.1:9109", "[::1]:80", "127.9.8.7:1"],
    Kind.URL: ["https://x.example/{job}", "HTTPS://x.example", "http://[::1]:80/a"],
    Kind.CREDENTIAL: ["mail.password", "a@b", "_"],
    Kind.WORDS: [["x"], ["/bin/x", "-a", 'b "c" \\ \n\t\x7f\x01 ä'], ["a" * 100]],
    Kind.TIMES: ["5 * * * *", "2-57/5 * * * *", "  0   0 1 jan *  ", "0 4 * * MON,wed"],
}
EVERY_DAY: Final = ["5 * * * *", "0 0-5,9 * * *", " */7 12 1-31 * * "]
# Of a wrong type, or out of every range. What is no more than a bad text is not among them.
JUNK: Final = [-1, 1 << 40, 1.5, [], [1], ["", ""], {}, {"a": 1}, "", "@", True, [[]]]


def good(setting: Setting) -> st.SearchStrategy[Any]:
    """Return values that the setting may have."""
    if setting.kind is Kind.WHOLE:
        return st.sampled_from([setting.least, setting.most]) | st.integers(
            setting.least, setting.most
        )
    if setting.kind is Kind.CHOICE:
        return st.sampled_from([str(one) for one in setting.choices])
    if setting.kind is Kind.TIMES and setting.name in DAILY_JOBS:
        return st.sampled_from(EVERY_DAY)
    if setting.kind is Kind.TIMES:
        return st.sampled_from([OFF, *GOOD[Kind.TIMES]])
    return st.sampled_from(GOOD[setting.kind])


@st.composite
def made(draw: st.DrawFn) -> Settings:
    """Make settings in which every section is sound by itself."""
    found: Settings = {}
    for section, settings in BY_SECTION.items():
        needed = [one.name for one in settings.values() if one.needed]
        if section not in ("limits", "keys") and not draw(st.booleans()):
            continue
        names = {*needed, *draw(st.lists(st.sampled_from(sorted(settings)), max_size=5))}
        table = {name: draw(good(settings[name])) for name in sorted(names)}
        if section == "directory":
            table = draw(_directory(table))
        found[section] = draw(_one_way(section, table))
    return found


@st.composite
def _directory(draw: st.DrawFn, table: Settings) -> Settings:
    kind = DirectoryKind(table["kind"])
    fitting = {name: value for name, value in table.items() if name in of_directory(kind)}
    for name in DIRECTORY_NEEDS[kind]:
        several = ways(f"directory.{name}")
        if not fitting.keys() & set(several):
            way = draw(st.sampled_from(several))
            fitting[way] = draw(good(BY_SECTION["directory"][way]))
    return fitting


@st.composite
def _one_way(draw: st.DrawFn, section: str, table: Settings) -> Settings:
    """Give each secret in one way at the most, and a password to whoever has a name."""
    for secret in SECRETS:
        given_by = [name for name in ways(secret) if secret.startswith(section + ".")]
        for name in [name for name in given_by if name in table][1:]:
            del table[name]
    if section == "mail":
        password = [name for name in ways("mail.password") if name in table]
        if password:
            table["username"] = "u"
        elif "username" in table:
            table[draw(st.sampled_from(["password_file", "password_env"]))] = "p"
    return table


@st.composite
def spoiled(draw: st.DrawFn) -> Settings:
    """Make settings of which something is missing, too much, or of the wrong type."""
    found = draw(made())
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(sorted(BY_SECTION)))
        table = found.get(section)
        how = draw(st.sampled_from(["junk", "add", "drop", "unknown", "section", "no section"]))
        if how == "no section":
            found.pop(section, None)
        elif how == "section":
            found[draw(st.sampled_from([section, "other"]))] = draw(st.sampled_from([7, "x", []]))
        elif isinstance(table, dict):
            name = draw(st.sampled_from(sorted(BY_SECTION[section])))
            setting = find(f"{section}.{name}")
            assert setting is not None
            if how == "junk":
                table[name] = draw(st.sampled_from(JUNK))
            elif how == "add":
                table[name] = draw(good(setting))
            elif how == "drop":
                table.pop(name, None)
            else:
                table[draw(st.sampled_from(["hots", "", "a.b", "ä"]))] = 1
    return found
