"""Variables of the environment in place of settings: AGGREGATOR_MAIL_HOST is mail.host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import ConfigError
from aggregator.model.config_table import PREFIX, SECRETS, SETTINGS, ways
from aggregator.model.settings import Secret
from aggregator.stores import config, overrides, values
from aggregator.stores.overrides import Merged, merge

from .settings_made import Settings, made, spoiled, unhurried

CORE = {"limits": {"link_rate_gbits": 10}, "keys": {"accept_weak_destruction": False}}
MAIL = {"host": "mail.example.net", "from": "a@b.example", "desk": "a@b.example"}
_BY_PATH = {setting.path: setting for setting in SETTINGS}


def variables(data: Settings) -> dict[str, str]:
    """Return the environment that says the same as settings."""
    return {
        _BY_PATH[f"{section}.{name}"].variable: values.as_text(value)
        for section, table in data.items()
        for name, value in table.items()
    }


@unhurried
@given(made(), made())
def test_the_environment_says_all_that_a_file_can(data: Settings, other: Settings) -> None:
    alone = merge({}, variables(data))
    assert alone.data == {section: table for section, table in data.items() if table}
    assert (alone.mistakes, alone.warnings) == ((), ())
    assert set(alone.variables.values()) == set(variables(data))
    # And it counts over the file, whose other settings stay.
    both = merge(other, variables(data))
    for section, table in data.items():
        assert both.data.get(section, {}).items() >= table.items()
    kept = {
        f"{section}.{name}" for section, table in other.items() for name in table
    } - both.variables.keys()
    for path in kept:
        section, _, name = path.partition(".")
        if name in both.data[section]:
            assert both.data[section][name] == other[section][name]
        else:  # another way to give the same secret took its place
            assert any(f"{section}.{way}" in both.variables for way in _others(path))


def _others(path: str) -> list[str]:
    section, _, name = path.partition(".")
    found = [ways(one) for one in SECRETS if one.startswith(f"{section}.")]
    return [way for several in found if name in several for way in several if way != name]


@unhurried
@given(made() | spoiled(), st.dictionaries(st.sampled_from(sorted(_BY_PATH)), st.text(max_size=9)))
def test_any_text_is_a_value_or_a_mistake_and_changes_nothing_else(
    data: Settings, texts: Mapping[str, str]
) -> None:
    before = json.dumps(data)
    merged = merge(data, {_BY_PATH[path].variable: text for path, text in texts.items()})
    assert json.dumps(data) == before
    for setting in map(_BY_PATH.__getitem__, texts):
        if isinstance(merged.data[setting.section], dict):
            value = merged.data[setting.section][setting.name]
            told = [one.setting for one in config.mistakes(merged)]
            assert values.fault(setting, value) is None or setting.path in told


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MAIL_PORT", "465", 465), ("MAIL_PORT", "0x1f", 31), ("MAIL_PORT", "x", "x"),
        ("MAIL_PORT", "", ""), ("MAIL_PORT", "1\nx = 2", "1\nx = 2"), ("MAIL_PORT", '"1"', "1"),
        ("MAIL_TO_USER", "true", True), ("MAIL_TO_USER", "yes", "yes"),
        ("MAIL_HOST", "465", "465"), ("MAIL_HOST", '"x"', '"x"'), ("MAIL_HOST", "true", "true"),
        ("MAIL_DESK", "a@b.example", "a@b.example"),
        ("MAIL_DESK", '["a@b.example", "c@b.example"]', ["a@b.example", "c@b.example"]),
        ("MAIL_DESK", "[", "["), ("MAIL_PASSWORD_COMMAND", '["pass", "show"]', ["pass", "show"]),
        ("MAIL_PASSWORD_COMMAND", "pass show", "pass show"),
        ("SCHEDULE_MONTH_END", "40 * * * *", "40 * * * *"),
        ("KEYS_ACCEPT_WEAK_DESTRUCTION", "1", 1), ("MAIL_PORT", "[" * 5000, "[" * 5000),
    ],
)  # fmt: skip
def test_how_a_variable_reads(variable: str, text: str, value: Any) -> None:
    merged = merge({}, {PREFIX + variable: text})
    ((table,),) = (list(merged.data.values()),)
    assert list(table.values()) == [value]


def test_one_way_to_give_a_secret_takes_the_place_of_any_other() -> None:
    data = CORE | {"mail": {**MAIL, "username": "u", "password_file": "/p"}}
    merged = merge(data, {"AGGREGATOR_MAIL_PASSWORD_CREDENTIAL": "mail.password"})
    found = config.check(
        data, Path("/srv"), rehearsal=False,
        environment={"AGGREGATOR_MAIL_PASSWORD_CREDENTIAL": "mail.password"},
    )  # fmt: skip
    assert found.mail is not None
    assert found.mail.password == Secret(credential="mail.password")
    assert "password_file" not in merged.data["mail"]
    # But both in the environment are one too many.
    both = {
        "AGGREGATOR_MAIL_PASSWORD_CREDENTIAL": "p", "AGGREGATOR_MAIL_PASSWORD_FILE": "/p",
    }  # fmt: skip
    (told,) = config.mistakes(merge(data, both))
    assert "twice" in told.what
    assert told.where in both


@pytest.mark.parametrize(
    ("variable", "section", "near"),
    [
        ("MAIL_HOTS", "mail", "AGGREGATOR_MAIL_HOST"),
        ("MAIL_PASSWORD", "mail", "AGGREGATOR_MAIL_PASSWORD_"),
        ("DOOR_SERVICE_PORT_HTTPS_XYZ", "door", "unset it"),
        ("LIMITS_LINK_RATE", "limits", "AGGREGATOR_LIMITS_LINK_RATE_GBITS"),
    ],
)
def test_a_variable_of_no_setting_is_a_mistake_of_its_section(
    variable: str, section: str, near: str
) -> None:
    (told,) = merge({}, {PREFIX + variable: "x"}).mistakes
    assert (told.section, told.where) == (section, PREFIX + variable)
    assert near in told.remedy


def test_a_variable_of_no_section_is_a_warning_and_stops_nothing() -> None:
    environment = {f"{PREFIX}{name}": "x" for name in ("FOO", "HOME", "LOG", "MAILHOST")}
    environment |= {"OTHER": "x", "_AGGREGATOR_COMPLETE": "bash_source"}
    merged = merge(CORE, environment)
    assert [one.where for one in merged.warnings] == ["AGGREGATOR_FOO", "AGGREGATOR_MAILHOST"]
    assert merged.warnings[1].remedy == "did you mean AGGREGATOR_MAIL_HOST?"
    assert merged.mistakes == ()
    assert config.check(CORE, Path("/srv"), rehearsal=False, environment=environment)


def test_a_variable_that_holds_a_secret_may_have_any_name() -> None:
    names = ("AGGREGATOR_MAIL_PASSWORD", "AGGREGATOR_SECRET")
    data = {"mail": {"password_env": names[0]}, "watch": {"ping_url_env": names[1]}}
    merged = merge(data, dict.fromkeys(names, "x"))
    assert (merged.mistakes, merged.warnings) == ((), ())
    assert merged.data == data


def test_what_a_home_is_cannot_be_overridden() -> None:
    """Else --now could reach real data, which destroys them."""
    for name in ("AGGREGATOR_REHEARSAL", "AGGREGATOR_FORMAT"):
        with pytest.raises(ConfigError, match="cannot be overridden"):
            config.check(CORE, Path("/srv"), rehearsal=False, environment={name: "true"})


def test_a_mistake_in_a_variable_is_told_of_the_variable() -> None:
    environment = {"AGGREGATOR_LIMITS_LINK_RATE_GBITS": "mark-6604"}
    with pytest.raises(ConfigError) as caught:
        config.check(CORE, Path("/srv"), rehearsal=False, environment=environment)
    assert str(caught.value).startswith("AGGREGATOR_LIMITS_LINK_RATE_GBITS: ")
    assert "mark-6604" not in str(caught.value)


def test_a_section_that_is_no_table_stays_a_mistake() -> None:
    merged: Merged = merge({"mail": 7}, {"AGGREGATOR_MAIL_HOST": "x"})
    assert merged.data == {"mail": 7}
    assert overrides.merge({}, {}).data == {}
