"""Which months' keys are announced when, and that only their public halves are."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ALL_IN, START, TinyHome, usage

from aggregator.model.days import parse_instant
from aggregator.pipeline import publish
from aggregator.wire.keys import Announcement, read_announcement


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


def published(home: TinyHome, now: str) -> list[str]:
    with home.open(now) as house:
        return [key.month for key in publish.publish(house)]


def announcement(home: TinyHome) -> Announcement:
    agents = home.read(START).agents
    content = agents.announcement()
    assert content is not None
    return read_announcement(content, agents.public_key())


@pytest.mark.parametrize(
    ("now", "months"),
    [
        ("2026-10-01T00:00:00Z", ["2026-10"]),
        ("2026-10-24T23:59:59Z", ["2026-10"]),
        ("2026-10-25T00:00:00Z", ["2026-10", "2026-11"]),
        ("2026-12-31T12:00:00Z", ["2026-12", "2027-01"]),
        ("2028-02-23T00:00:00Z", ["2028-02", "2028-03"]),
    ],
)
def test_the_next_month_is_announced_a_week_ahead(
    home: TinyHome, now: str, months: list[str]
) -> None:
    assert published(home, now) == months
    assert home.read(START).keys.months() == months


def test_a_month_that_is_over_stays_announced_until_its_purge(home: TinyHome) -> None:
    assert published(home, ALL_IN) == ["2026-10", "2026-11"]
    assert published(home, "2026-11-02T23:59:59Z") == ["2026-10", "2026-11"]
    assert published(home, "2026-11-03T00:00:00Z") == ["2026-11"]


def test_a_month_that_nothing_came_of_gets_no_keys_afterwards(home: TinyHome) -> None:
    assert published(home, "2026-11-01T12:00:00Z") == ["2026-11"]


def test_what_is_announced_opens_batches_and_is_only_the_public_half(home: TinyHome) -> None:
    published(home, ALL_IN)
    house = home.read(ALL_IN)
    keys = house.keys.load("2026-10")
    assert keys is not None
    (october, _november) = announcement(home).keys
    assert (october.month, october.key_id) == ("2026-10", keys.key_id)
    assert october.purge_at == house.calendar.purges_at("2026-10")
    for content in home.files("agents").values():
        for secret in (keys.batch, keys.segment, keys.pseudonym):
            assert secret not in content
            assert secret.hex().encode() not in content


def test_it_is_idempotent_and_renewed_each_day(home: TinyHome) -> None:
    published(home, ALL_IN)
    before = home.files("agents")
    published(home, ALL_IN)
    assert home.files("agents") == before
    published(home, "2026-11-01T23:30:00Z")
    assert announcement(home).made_at == parse_instant("2026-11-01T23:30:00Z")
    assert home.audit("keys_published") == [{"months": ["2026-10", "2026-11"]}]


def test_a_purge_takes_the_keys_and_the_next_announcement_forgets_them(home: TinyHome) -> None:
    published(home, ALL_IN)
    home.ingest([usage()])
    home.purge()
    assert published(home, "2026-11-03T01:00:00Z") == ["2026-11"]
    assert [key.month for key in announcement(home).keys] == ["2026-11"]
    assert "2026-10" not in home.read(START).keys.months()


def test_a_month_of_keys_alone_is_purged_with_a_receipt(home: TinyHome) -> None:
    published(home, ALL_IN)
    (receipt,) = home.purge()
    assert (receipt["month"], receipt["verified"]) == ("2026-10", True)
    assert receipt["destroyed"]["key_sets"] == 1


def test_a_damaged_announcement_is_replaced(home: TinyHome) -> None:
    published(home, ALL_IN)
    (home.root / "agents" / "keys.json").write_bytes(b"{}")
    published(home, ALL_IN)
    assert len(announcement(home).keys) == 2
