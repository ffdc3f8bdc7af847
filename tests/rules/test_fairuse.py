"""Fair-use arithmetic against an independent calculation in fractions (CS-9, CT-5)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import ConfigError, IntegrityError
from aggregator.model.fairuse import Rule, RuleKind, excess_from, rules_from
from aggregator.rules import fairuse
from aggregator.rules.fairuse import Crowd, Peak

NOON = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
SPAN = fairuse.span(["2026-10-01", "2026-10-04"], NOON)
MONTH_KINDS = (
    RuleKind.OUTWEIGHS_MEAN,
    RuleKind.OUTWEIGHS_LIGHTEST,
    RuleKind.MONTH_BYTES,
    RuleKind.TIMES_MEDIAN,
)
totals = st.lists(
    st.one_of(
        st.integers(0, 50), st.integers(0, 10**6), st.integers(10**12, 3 * 10**15), st.just(0)
    ),
    max_size=30,
)


def crowd(users: list[int]) -> Crowd:
    pseudonyms = np.arange(1, len(users) + 1, dtype=np.uint64)
    return Crowd(pseudonyms, np.array(users, dtype=np.int64))


def judged(rule: Rule, users: list[int]) -> dict[int, int]:
    """Return pseudonym → step."""
    found = fairuse.judge([rule], crowd(users), {}, SPAN)
    assert len({one.pseudonym for one in found}) == len(found)
    return {one.pseudonym: one.percent for one in found}


def lightest(mine: int, others: list[int]) -> int:
    """Return how many of the lightest others together stay below `mine`, counted one by one."""
    count = total = 0
    for one in sorted(others):
        total += one
        if total >= mine:
            break
        count += 1
    return count


def passes(rule: Rule, percent: int, users: list[int], index: int) -> bool:
    """Say by the words of the rule whether a user passes a step."""
    mine, others = users[index], users[:index] + users[index + 1 :]
    goal = Fraction(rule.threshold * percent, 100)
    if rule.kind is RuleKind.MONTH_BYTES:
        return mine > goal
    if not others:
        return False
    if rule.kind is RuleKind.OUTWEIGHS_MEAN:
        return mine > goal * Fraction(sum(others), len(others))
    if rule.kind is RuleKind.OUTWEIGHS_LIGHTEST:
        return lightest(mine, others) > goal
    median = sorted(users)[(len(users) + 1) // 2 - 1]
    return median > 0 and mine > goal * median


@given(
    users=totals,
    kind=st.sampled_from(MONTH_KINDS),
    threshold=st.one_of(st.integers(1, 40), st.integers(1, 10**15)),
    steps=st.lists(st.integers(1, 100), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_the_same_users_as_by_an_independent_calculation(
    users: list[int], kind: RuleKind, threshold: int, steps: list[int]
) -> None:
    rule = Rule("rule", kind, threshold, tuple(steps))
    expected = {}
    for index in range(len(users)):
        passed = [step for step in steps if passes(rule, step, users, index)]
        if passed:
            expected[index + 1] = max(passed)
    assert judged(rule, users) == expected


@given(totals)
def test_both_estimators_are_what_they_say(users: list[int]) -> None:
    rule = Rule("all", RuleKind.MONTH_BYTES, 1, (1,))
    for one in fairuse.judge([rule], crowd(users), {}, SPAN):
        index = one.pseudonym - 1
        others = users[:index] + users[index + 1 :]
        assert one.bytes == one.month_bytes == users[index]
        assert one.others_bytes == sum(others)
        assert one.users == len(users)
        assert one.outweighs_lightest == lightest(users[index], others)
        if sum(others):
            mean = Fraction(sum(others), len(others))
            assert one.outweighs_mean == pytest.approx(float(users[index] / mean))
        else:
            assert one.outweighs_mean is None


def test_exactly_as_much_as_the_others_is_not_more() -> None:
    rule = Rule("n", RuleKind.OUTWEIGHS_MEAN, 3)
    assert judged(rule, [300, 100, 100, 100]) == {}
    assert judged(rule, [301, 100, 100, 100]) == {1: 100}
    least = Rule("n", RuleKind.OUTWEIGHS_LIGHTEST, 2)
    assert judged(least, [300, 100, 100, 100]) == {}
    assert judged(least, [301, 100, 100, 100]) == {1: 100}


def test_numbers_beyond_floating_point_are_compared_exactly() -> None:
    others = [2**53 + 1] * 2
    rule = Rule("n", RuleKind.OUTWEIGHS_MEAN, 10)
    assert judged(rule, [10 * (2**53 + 1), *others]) == {}
    assert judged(rule, [10 * (2**53 + 1) + 1, *others]) == {1: 100}


def test_nobody_is_compared_with_nobody() -> None:
    for kind in MONTH_KINDS:
        expected = {} if kind.compares else {1: 100}
        assert judged(Rule("n", kind, 2), [10**12]) == expected
    assert judged(Rule("n", RuleKind.MONTH_BYTES, 1), []) == {}


def test_who_moves_something_outweighs_those_who_move_nothing() -> None:
    assert judged(Rule("n", RuleKind.OUTWEIGHS_MEAN, 1000), [1, 0, 0]) == {1: 100}


def test_the_order_is_that_of_rules_then_of_bytes() -> None:
    rules = [Rule("b", RuleKind.MONTH_BYTES, 1), Rule("a", RuleKind.MONTH_BYTES, 2)]
    found = fairuse.judge(rules, crowd([3, 9, 9, 1]), {}, SPAN)
    assert [(one.rule, one.pseudonym) for one in found] == [
        ("b", 2), ("b", 3), ("b", 1), ("a", 2), ("a", 3), ("a", 1),
    ]  # fmt: skip


def test_more_bytes_than_can_be_added_are_an_error_not_a_wrong_number() -> None:
    with pytest.raises(IntegrityError):
        crowd([2**62, 2**62, 2**62])
    with pytest.raises(IntegrityError):
        crowd([2**62, 2**62])


def test_as_many_bytes_as_can_be_added_are_added() -> None:
    assert crowd([2**62, 2**62 - 1]).total == 2**63 - 1


@given(totals, st.integers(0, 40))
def test_a_user_is_found_by_pseudonym(users: list[int], wanted: int) -> None:
    expected = users[wanted - 1] if 1 <= wanted <= len(users) else None
    assert crowd(users).of(wanted) == expected
    assert crowd(users).of(2**64 - 1) is None


def test_a_share_of_a_location_is_judged_on_its_day() -> None:
    rule = Rule("share", RuleKind.LOCATION_SHARE, 50, (80, 100))
    users = crowd([700, 100, 100])
    for moved, percent in ((400, 0), (401, 80), (500, 80), (501, 100)):
        peak = Peak(1, moved, "2026-10-03", "us-nyc", 1000, 12)
        one = fairuse.of_peak(rule, peak, users, SPAN)
        assert (one.percent, one.bytes, one.month_bytes) == (percent, moved, 700)
        assert (one.day, one.location, one.location_bytes) == ("2026-10-03", "us-nyc", 1000)


@pytest.mark.parametrize(
    ("days", "now", "factor"),
    [
        (["2026-10-01"], "2026-10-01T06:00:00", 31),  # a day is the least to go by
        (["2026-10-01"], "2026-10-02T00:00:00", 31),
        (["2026-10-01", "2026-10-10"], "2026-10-11T00:00:00", Fraction(31, 10)),
        (["2026-10-16"], "2026-10-24T00:00:00", 2),  # adopted in the middle of the month
        (["2026-10-01", "2026-10-31"], "2026-11-02T00:00:00", 1),
    ],
)
def test_the_projection_goes_from_the_first_day_with_counters(
    days: list[str], now: str, factor: Fraction
) -> None:
    moment = dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC)
    assert fairuse.span(days, moment).projected(10**9) == int(10**9 * factor)


@given(st.integers(0, 10**15), st.integers(0, 31 * 86_400))
def test_a_projection_is_never_less_than_what_was_moved(moved: int, seconds: int) -> None:
    now = dt.datetime(2026, 10, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    assert fairuse.span(["2026-10-01"], now).projected(moved) >= moved


def test_an_excess_survives_being_written() -> None:
    (one,) = fairuse.judge([Rule("n", RuleKind.MONTH_BYTES, 1)], crowd([5]), {}, SPAN)
    assert excess_from(one.fields()) == one


def test_an_excess_never_prints_its_pseudonym() -> None:
    (one,) = fairuse.judge([Rule("n", RuleKind.MONTH_BYTES, 1)], crowd([5]), {}, SPAN)
    # Long enough not to be in a memory address by chance.
    named = dataclasses.replace(one, pseudonym=0xFEDCBA9876543210)
    for text in (repr(named), str(named), f"{[named]}"):
        assert str(named.pseudonym) not in text
        assert f"{named.pseudonym:x}" not in text


def test_rules_are_rows() -> None:
    found = rules_from(
        {
            "outweighs_mean": 7,
            "rules": [
                {"name": "cap", "kind": "month_bytes", "threshold": 5, "warn_percent": [80, 100]},
                {"name": "day", "kind": "day_bytes", "threshold": 5, "plans": ["home"]},
            ],
        }
    )
    assert found == (
        Rule("outweighs_mean", RuleKind.OUTWEIGHS_MEAN, 7),
        Rule("cap", RuleKind.MONTH_BYTES, 5, (80, 100)),
        Rule("day", RuleKind.DAY_BYTES, 5, (100,), ("home",)),
    )
    assert rules_from({}) == ()


_GOOD = {"name": "cap", "kind": "month_bytes", "threshold": 5}


@pytest.mark.parametrize(
    "section",
    [
        [],
        {"caps": 1},
        {"outweighs_mean": 0},
        {"outweighs_mean": True},
        {"outweighs_mean": "1000"},
        {"rules": {}},
        {"rules": [1]},
        {"rules": [_GOOD, _GOOD]},
        {"outweighs_mean": 5, "rules": [{**_GOOD, "name": "outweighs_mean"}]},
        {"rules": [{**_GOOD, "more": 1}]},
        {"rules": [{**_GOOD, "name": "Not A Name"}]},
        {"rules": [{**_GOOD, "name": 1}]},
        {"rules": [{**_GOOD, "kind": "week_bytes"}]},
        {"rules": [{**_GOOD, "kind": ["month_bytes"]}]},
        {"rules": [{**_GOOD, "threshold": 0}]},
        {"rules": [{**_GOOD, "threshold": 1.5}]},
        {"rules": [{"name": "cap", "kind": "month_bytes"}]},
        {"rules": [{**_GOOD, "kind": "location_share", "threshold": 100}]},
        {"rules": [{**_GOOD, "kind": "times_median", "threshold": 1}]},
        {"rules": [{**_GOOD, "warn_percent": []}]},
        {"rules": [{**_GOOD, "warn_percent": 80}]},
        {"rules": [{**_GOOD, "warn_percent": [100, 80]}]},
        {"rules": [{**_GOOD, "warn_percent": [80, 80]}]},
        {"rules": [{**_GOOD, "warn_percent": [101]}]},
        {"rules": [{**_GOOD, "plans": "home"}]},
        {"rules": [{**_GOOD, "plans": [""]}]},
    ],
)
def test_a_wrong_rule_is_a_configuration_error(section: object) -> None:
    with pytest.raises(ConfigError, match="fair_use"):
        rules_from(section)
