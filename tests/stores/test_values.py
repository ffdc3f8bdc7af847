"""What a value of a setting may be, and how it is written and read as text."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.config_table import SETTINGS, Kind, Setting, find
from aggregator.stores import values

from .settings_made import GOOD, good, unhurried


def setting(path: str) -> Setting:
    found = find(path)
    assert found is not None
    return found


@unhurried
@given(st.sampled_from(SETTINGS), st.data())
def test_a_good_value_comes_back_from_toml_and_from_text(one: Setting, data: st.DataObject) -> None:
    value = data.draw(good(one))
    assert values.fault(one, value) is None
    assert tomllib.loads(f"x = {values.shown(value)}") == {"x": value}
    assert values.read(one, values.as_text(value)) == value


@unhurried
@given(
    st.sampled_from(SETTINGS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_value_is_good_or_told_without_it(one: Setting, value: Any) -> None:
    what = values.fault(one, value)
    assert what is None or ("\n" not in what and what.isprintable())
    if what is None:
        text = values.shown(value)
        assert tomllib.loads(f"x = {text}") == {"x": value}


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("mail.port", [0, 65_536, True, "587", 587.0, None]),
        ("mail.to_user", [0, 1, "true", None]),
        ("mail.security", ["TLS", "", 1, None, []]),
        ("mail.host", ["", "a\nb", "a\x00b", "\udc80", 7]),
        (
            "mail.from",
            ["x", "a@", "@b", "a@b@c.example", "a@b <x>", "A\n<a@b.example>", "a@b .example",
             "A <a@b.example> x", "a@vpn_gw.example", '"A" <a@b.example>', "A <<a@b.example>>"],
        ),
        ("mail.desk", [[], "", ["x"], [["a@b.example"]], "A <a@b.example>", {"a": 1}, "a@-b.se"]),
        ("mail.language", ["e", "english language", "en_GB", "en-", ""]),
        ("mail.password_credential", ["a/b", "..", ".", "", "a b", "x" * 256]),
        ("mail.password_command", [[], "x", [""], ["a\0b"], ["\udc80"], [1], ["x", ""]]),
        ("door.listen", ["8443", ":8443", "x:", "x:65536", "::1:80", "[::1", "[x]:80", "a b:1"]),
        ("watch.metrics_listen", ["0.0.0.0:9109", "[::]:1", "example.net:1", "localhost:1", "1"]),
        (
            "watch.ping_url",
            ["x", "ftp://x.example", "http://x.example", "https://", "https://u:p@x.example",
             "https://x.example/a b", "https://x.example:x/", "https://x.example:0/", "//x.example",
             "https://x.example/ä", "http://127.0.0.1.example.net", "https://[x"],
        ),
        ("schedule.daily", ["off", "0 0 * * mon", "0 0 1 * *", "0 0 * jan *", "OFF"]),
        ("schedule.mail", ["OFF", "0 0 * * 1", "@daily", "0 0\t* * *", ""]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(path: str, wrong: list[Any]) -> None:
    assert [value for value in wrong if values.fault(setting(path), value) is None] == []


def test_a_ping_url_in_the_clear_stays_on_this_machine() -> None:
    for host in ("127.0.0.1:80", "[::1]", "localhost"):
        assert values.ping_url_fault(f"http://{host}/x") is None
    assert "https" in str(values.ping_url_fault("http://10.0.0.1/"))


def test_every_kind_has_values_that_pass() -> None:
    assert set(Kind) - GOOD.keys() == {Kind.WHOLE, Kind.CHOICE}
