"""config.toml as a whole: the checks, the schema for editors and the text of a new one agree."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aggregator.errors import ConfigError
from aggregator.model.config_schema import schema
from aggregator.model.config_table import (
    BY_SECTION,
    SECTIONS,
    SETTINGS,
    Kind,
    Setting,
    find,
)
from aggregator.model.settings import DAILY_JOBS, JOB_NAMES
from aggregator.pipeline import new_settings
from aggregator.stores import config, config_text, overrides, settings, values
from jobs.table import JOBS

from .settings_made import Settings, good, made, spoiled, unhurried

FILE: Final = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.json"
ROOT: Final = Path("/srv/usage")
CORE: Final = {
    "limits": {"link_rate_gbits": 10},
    "keys": {"accept_weak_destruction": False},
}
MAIL: Final = {"host": "localhost", "from": "a@b.example", "desk": "a@b.example"}
VALIDATOR: Final = jsonschema_rs.Draft202012Validator(schema())
MARK: Final = "mark-6604"


def checked(data: Settings, **environment: str) -> config.Config:
    return config.check(data, ROOT, rehearsal=False, environment=environment)


# The schema for editors


def test_the_schema_file_is_what_config_schema_prints() -> None:
    assert FILE.read_text("utf-8") == json.dumps(schema(), ensure_ascii=False, indent=2) + "\n"


def test_the_schema_is_one_and_says_what_everything_is() -> None:
    found = schema()
    assert jsonschema_rs.meta.is_valid(found)
    # taplo takes a relative $id for a broken schema.
    assert "$id" not in found
    assert found["properties"].keys() == {*BY_SECTION, "format", "rehearsal"}
    for section, names in BY_SECTION.items():
        table = found["properties"][section]
        assert table["additionalProperties"] is False
        assert (table["title"], bool(table["description"])) == (section, True)
        assert list(table["properties"]) == list(names)
        for name, setting in names.items():
            one = table["properties"][name]
            assert one["title"] == setting.path
            assert re.fullmatch(r"[A-Z0-9].*[]A-Za-z0-9)]\.", one["description"]), one[
                "description"
            ]
            assert one.get("default") == setting.default


@unhurried
@given(made() | spoiled())
def test_the_schema_and_the_checks_agree(data: Settings) -> None:
    assert VALIDATOR.is_valid(data) == (not settings.mistakes(data))


_PIECES = st.sampled_from(
    [
        "a", "@", "<", ">", " ", ".", "-", "_", "/", ":", "*", ",", "1", "9", "[", "]", "b.example",
        "ä", "\n", "\t", "https://", "127.0.0.1", "mon", "off", "[::1]", "0 0 * * *", "\x7f", '"',
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=6).map("".join)


@unhurried
@given(st.sampled_from(SETTINGS), st.data())
def test_whatever_the_checks_take_is_right_in_an_editor_too(
    setting: Setting, data: st.DataObject
) -> None:
    value = data.draw(_TEXTS | st.lists(_TEXTS, max_size=3) | good(setting))
    assume(values.fault(setting, value) is None)
    shape = schema()["properties"][setting.section]["properties"][setting.name]
    assert jsonschema_rs.is_valid(shape, value)


def test_an_editor_is_told_what_belongs_together() -> None:
    """One case each, so that the agreement is not one about nothing."""
    wrong: list[Settings] = [
        {"mail": {**MAIL, "to_user": True}},
        {"mail": {**MAIL, "username": "u"}},
        {"mail": {**MAIL, "password_env": "P"}},
        {"mail": {**MAIL, "username": "u", "password_env": "P", "password_file": "p"}},
        {"mail": {**MAIL, "host": "mail.example.net", "security": "none"}},
        {"watch": {"alert": ["a@b.example"]}},
        {"watch": {"ping_url": "https://x.example", "ping_url_file": "u"}},
        {"schedule": {"daily": "off"}},
        {"schedule": {"daily": "x"}},
        {"directory": {"kind": "csv"}},
        {"directory": {"kind": "csv", "path": "a.csv", "query": "x"}},
        {"directory": {"kind": "sql", "url_env": "U"}},
        {"directory": {"kind": "http", "url": "u", "url_file": "u"}},
        {"directory": {"kind": "command", "command": []}},
    ]
    right: list[Settings] = [
        {"mail": {**MAIL, "security": "none"}},
        {"mail": MAIL, "watch": {"alert": ["a@b.example"]}},
        {"mail": {**MAIL, "to_user": True}, "directory": {"kind": "csv", "path": "a"}},
        {"directory": {"kind": "http", "url_file": "u", "token_env": "T"}},
        {"schedule": {"doctor": "off"}},
    ]
    for data, good_one in [(one, False) for one in wrong] + [(one, True) for one in right]:
        assert VALIDATOR.is_valid(CORE | data) is good_one, data
        assert (not settings.mistakes(CORE | data)) is good_one, data


# The table


def test_the_jobs_of_schedule_are_the_jobs() -> None:
    assert tuple(job.name for job in JOBS) == JOB_NAMES
    assert {job.name: job.cron for job in JOBS} == {
        name: setting.default for name, setting in BY_SECTION["schedule"].items()
    }
    assert set(JOB_NAMES) > DAILY_JOBS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.path)
def test_every_example_and_default_passes(setting: Setting) -> None:
    assert values.fault(setting, setting.example) is None
    if setting.default is not None:
        assert values.fault(setting, setting.default) is None
    assert find(setting.path) is setting


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    # Else a variable could be of two sections.
    names = [section.name for section in SECTIONS]
    assert not any(one != two and one.startswith(f"{two}_") for one in names for two in names)


# The text of a new config.toml


def test_a_new_config_is_valid_and_says_nothing_else() -> None:
    text = config_text.render({})
    assert tomllib.loads(text) == CORE
    assert not text.startswith("#:")
    assert all(len(line) <= 100 for line in text.splitlines())
    for section in SECTIONS:
        assert f"[{section.name}]" in text


@pytest.mark.parametrize("names", [("door",), ("mail", "watch"), ("schedule",)])
def test_a_new_configs_comments_are_settings_that_pass(names: tuple[str, ...]) -> None:
    """A section whose marks are taken away, all of them, is right."""
    lines, section = [], ""
    for line in config_text.render({}).splitlines():
        header = re.fullmatch(r"(?:# )?\[([a-z]+)\]", line)
        section = header[1] if header else section
        is_setting = header or re.match(r"# [a-z-]\S* = ", line)
        lines.append(line[2:] if section in names and is_setting and line[0] == "#" else line)
    data = tomllib.loads("\n".join(lines))
    assert data.keys() == {"limits", "keys", *names}
    common = {one.path for one in SETTINGS if one.section in names and one.common}
    assert {f"{name}.{one}" for name in names for one in data[name]} == common
    assert settings.mistakes(data) == []


@unhurried
@given(made())
def test_a_new_config_says_exactly_what_it_is_given(data: Settings) -> None:
    whole = {name: table for name, table in data.items() if table}
    assert tomllib.loads(config_text.render(data)) == CORE | whole


@unhurried
@given(made())
def test_what_is_said_by_set_is_read_as_it_was(data: Settings) -> None:
    whole = {name: table for name, table in data.items() if table}
    assert new_settings.read(new_settings.assignments(whole)) == whole


# What stops, and what does not


@unhurried
@given(made())
def test_sound_settings_are_read_with_each_value(data: Settings) -> None:
    assume(not settings.mistakes(data))
    found = checked(data)
    assert found.problems == {}
    assert found.link_rate_gbits == data["limits"]["link_rate_gbits"]
    assert found.schedule == {
        name: " ".join(times.lower().split()) for name, times in data.get("schedule", {}).items()
    }
    assert (found.mail is None) == ("mail" not in data)
    if found.mail is not None:
        assert found.mail.digest_over == data["mail"].get("digest_over", 3)
    assert found.door.min_free_mib == data.get("door", {}).get("min_free_mib", 1024)


@unhurried
@given(spoiled())
def test_only_a_mistake_in_limits_or_keys_stops_everything(data: Settings) -> None:
    """A purge waits for no mail server (CL-2)."""
    told = settings.mistakes(data)
    apart = {section.name for section in SECTIONS if section.apart}
    stops = any(one.section not in apart for one in told)
    if stops:
        with pytest.raises(ConfigError):
            checked(data)
        return
    found = checked(data)
    assert bool(found.problems) == bool(told)
    assert not any("\n" in problem for problem in found.problems.values())
    assert found.mail is None or found.mail_problem is None


def test_mail_and_directory_stop_together_and_nothing_else() -> None:
    found = checked(CORE | {"mail": MAIL, "directory": {"kind": "x"}, "door": {"listen": "x"}})
    assert (found.mail, found.directory) == (None, None)
    for stop in (found.check_mail, found.check_door):
        with pytest.raises(ConfigError):
            stop()
    assert (found.schedule_problem, found.watch_problem) == (None, None)
    assert len(found.problems) == 2


_WRONG = [
    ("limits", "link_rate_gbits", MARK), ("mail", "host", f"{MARK}\n"), ("mail", "from", MARK),
    ("mail", "desk", [MARK]), ("mail", "port", MARK), ("mail", "security", MARK),
    ("mail", "username", f"{MARK}\n"), ("mail", "language", MARK),
    ("mail", "password_command", MARK), ("mail", "password_credential", f"../{MARK}"),
    ("directory", "kind", MARK), ("directory", "url", f"{MARK}\n"), ("door", "listen", MARK),
    ("schedule", "daily", MARK), ("schedule", "daily", f"{MARK} * * * *"),
    ("schedule", "mail", f"0 0 * {MARK} *"), ("watch", "alert", MARK),
    ("watch", "ping_url", f"http://{MARK}.example/"),
    ("watch", "ping_url", f"https://u:{MARK}@x.example/"), ("watch", "metrics_listen", MARK),
]  # fmt: skip


@pytest.mark.parametrize(("section", "name", "value"), _WRONG)
def test_no_value_is_in_what_is_told(section: str, name: str, value: Any) -> None:
    base: Settings = {**CORE, "mail": MAIL, "directory": {"kind": "csv", "path": "a"}}
    data = base | {section: {**base.get(section, {}), name: value}}
    told = [one for one in settings.mistakes(data) if one.setting == f"{section}.{name}"]
    assert told
    assert MARK not in "".join(map(str, told))
    setting = find(f"{section}.{name}")
    assert setting is not None
    # The same from the environment.
    merged = overrides.merge(base, {setting.variable: values.as_text(value)})
    assert MARK not in "".join(map(str, config.mistakes(merged)))
    assert any(one.where == setting.variable for one in config.mistakes(merged))


def test_a_kind_has_an_example_of_everything() -> None:
    assert {setting.kind for setting in SETTINGS} == set(Kind)
