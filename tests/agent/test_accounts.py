"""The operator's map from the daemon's names to accounts."""

from __future__ import annotations

import pytest

from aggregator.agent.accounts import name_accounts, parse_accounts
from aggregator.agent.readings import Capture, Drop, Reading
from aggregator.errors import BadInputError


@pytest.mark.parametrize(
    "text",
    [
        "k1,alice\nk2,bob\n",
        "key,account\nk1,alice\nk2,bob\n",
        "\ufeffkey,account\r\nk1, alice\r\n\r\nk2,bob",
        '"k1","alice"\n k2 ,bob\n',
    ],
)
def test_two_columns(text: str) -> None:
    assert parse_accounts(text) == {"k1": "alice", "k2": "bob"}


def test_several_keys_of_one_account() -> None:
    assert parse_accounts("k1,alice\nk2,alice\n") == {"k1": "alice", "k2": "alice"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("k1,alice\nsecret\n", 2),
        ("k1,alice,secret\n", 1),
        ("k1,alice\nk1,secret\n", 2),
        ('k1,alice\nk2,"' + "secret" * 40_000 + '"\n', 2),
    ],
)
def test_a_wrong_line_is_named_but_not_shown(text: str, line: int) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_accounts(text)
    assert f"line {line} " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_cs_6_an_account_no_record_may_carry_is_counted_by_its_reason() -> None:
    accounts = parse_accounts("k1,203.0.113.9\nk2,at 13:37\nk3,\nk4,alice\n")
    readings = tuple(Reading(f"k{at}", None, at, at) for at in range(1, 7))
    named = name_accounts(Capture(readings, {Drop.UNREADABLE: 1}, "test"), accounts)
    assert [reading.account for reading in named.readings] == [None] * 3 + ["alice"] + [None] * 2
    assert named.dropped == {
        Drop.UNREADABLE: 1,
        Drop.ADDRESS_LIKE: 1,
        Drop.TIMESTAMP_LIKE: 1,
        Drop.BAD_FORMAT: 1,
        Drop.UNMAPPED: 2,
    }
