"""A policy profile: every wrong one is named in one line (CS-4, CL-2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import ConfigError
from aggregator.model.fairuse import Rule, RuleKind
from aggregator.model.profile import DEFAULT_PROFILE, parse_profile
from aggregator.model.tables import TABLES

BENELUX = '[regions]\n"region-benelux" = ["nl-ams", "be-bru"]\n'


def changed(*changes: tuple[str, str]) -> str:
    text = DEFAULT_PROFILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def regions(lines: str) -> str:
    return DEFAULT_PROFILE.replace("[regions]", f"[regions]\n{lines}\n")


WRONG = {
    "no TOML": "name = ",
    "empty": "",
    "a number beyond measure": changed(("k = 10 ", f"k = {'9' * 5000} ")),
    "a depth beyond measure": "name = " + "[" * 100_000,
    "unknown setting": changed(("version = 1", "version = 1\nkk = 1")),
    "unknown setting of two lines": changed(("version = 1", 'version = 1\n"a\\nb\\u2028" = 1')),
    "unknown table": DEFAULT_PROFILE + "\n[extra]\n",
    "unknown in release": changed(("k = 10", "kk = 1\nk = 10")),
    "unknown in grace": changed(("day_hours", "hours = 1\nday_hours")),
    "unknown retention": changed(("usage_daily = 0", "usage_daily = 0\nraw = 1")),
    "unknown in fair use": changed(("outweighs_mean", "caps = 1\noutweighs_mean")),
    "release is no table": "name = 'x'\nversion = 1\nrelease = 1",
    "regions is no table": "regions = 1\n" + DEFAULT_PROFILE.partition("[regions]")[0],
    "no name": changed(('name = "default"', "")),
    "name a number": changed(('"default"', "1")),
    "name empty": changed(('"default"', '""')),
    "name of two lines": changed(('"default"', '"a\\nb"')),
    "name long": changed(('"default"', f'"{"x" * 65}"')),
    "version 0": changed(("version = 1", "version = 0")),
    "version text": changed(("version = 1", 'version = "1"')),
    "k missing": changed(("k = 10", "# k = 10")),
    "k float": changed(("k = 10", "k = 10.0")),
    "k true": changed(("k = 10", "k = true")),
    "k 0": changed(("k = 10", "allow_k_below_2 = true\nk = 0")),
    "k 1": changed(("k = 10", "k = 1")),
    "k 1, not allowed": changed(("k = 10", "allow_k_below_2 = false\nk = 1")),
    "flag no boolean": changed(("k = 10", 'allow_k_below_2 = "no"\nk = 10')),
    "flag a number": changed(("k = 10", "allow_k_below_2 = 1\nk = 1")),
    "percent 0": changed(("largest_percent = 50", "largest_percent = 0")),
    "percent 101": changed(("two_largest_percent = 85", "two_largest_percent = 101")),
    "grace negative": changed(("day_hours = 24", "day_hours = -1")),
    "grace long": changed(("purge_hours = 48", f"purge_hours = {24 * 14 + 1}")),
    "retention negative": changed(("apps_daily = 0", "apps_daily = -1")),
    "retention missing": changed(("apps_daily = 0", "")),
    "fair use 0": changed(("outweighs_mean = 1000", "outweighs_mean = 0")),
    "region no list": regions('"r-x" = "nl-ams"'),
    "region of numbers": regions('"r-x" = [1]'),
    "region of lists": regions('"r-x" = [["nl-ams"]]'),
    "region no location": regions('"R X" = ["nl-ams"]'),
    "region of no location": regions('"r-x" = ["NL"]'),
    "region other": regions('"other" = ["nl-ams"]'),
    "region of canary": regions('"r-x" = ["canary"]'),
    "location twice": regions('"r-x" = ["nl-ams", "nl-ams"]'),
    "location in two regions": regions('"r-x" = ["nl-ams"]\n"r-y" = ["nl-ams"]'),
    "region in a region": regions('"r-x" = ["nl-ams"]\n"r-y" = ["r-x"]'),
    "region in itself": regions('"r-x" = ["r-x"]'),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_profile_is_named_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_profile(WRONG[name])
    message = str(caught.value)
    assert "profile" in message or "release.k" in message
    assert message.isprintable()
    assert len(message) < 300


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_profile(text)
    assert len(str(caught.value).splitlines()) == 1


def test_the_default_profile_is_what_design_says() -> None:
    profile = parse_profile(DEFAULT_PROFILE)
    assert (profile.k, profile.largest_percent, profile.two_largest_percent) == (10, 50, 85)
    assert (profile.day_grace_hours, profile.purge_grace_hours) == (24, 48)
    assert profile.fair_use == (Rule("outweighs_mean", RuleKind.OUTWEIGHS_MEAN, 1000),)
    assert profile.retention_months == dict.fromkeys(TABLES, 0)
    assert profile.regions == {}
    assert profile.digest != parse_profile(DEFAULT_PROFILE + "\n").digest


def test_cs4_k_below_two_needs_the_flag() -> None:
    assert parse_profile(changed(("k = 10", "k = 2"))).k == 2
    assert parse_profile(changed(("k = 10", "allow_k_below_2 = true\nk = 1"))).k == 1


def test_graces_may_be_zero_and_regions_are_turned_round() -> None:
    text = changed(("day_hours = 24", "day_hours = 0"), ("purge_hours = 48", "purge_hours = 0"))
    profile = parse_profile(text.replace("[regions]", BENELUX))
    assert (profile.day_grace_hours, profile.purge_grace_hours) == (0, 0)
    assert profile.regions == {"nl-ams": "region-benelux", "be-bru": "region-benelux"}


def test_a_profile_older_than_a_table_keeps_its_rows_for_ever() -> None:
    """CL-5: a home made before must still open; what it always had must still be named."""
    old = changed(("notices_monthly = 0\n", ""), ("apps_daily = 0", "apps_daily = 7"))
    expected = {**dict.fromkeys(TABLES, 0), "apps_daily": 7}
    assert parse_profile(old).retention_months == expected


def test_the_short_form_may_be_left_out() -> None:
    assert parse_profile(changed(("outweighs_mean = 1000", ""))).fair_use == ()


def test_the_rows_that_the_default_profile_shows_are_good_ones() -> None:
    shown = DEFAULT_PROFILE.partition("# [[fair_use.rules]]")
    row = "".join(line.removeprefix("# ") for line in shown[2].splitlines(True)[:6])
    profile = parse_profile(f"{shown[0]}[[fair_use.rules]]{row}\n[regions]\n")
    assert profile.fair_use[1:] == (
        Rule("fifty-terabytes", RuleKind.MONTH_BYTES, 50 * 10**12, (80, 100), ("personal",)),
    )
