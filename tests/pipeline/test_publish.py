"""Which months' keys are announced when, and that only their public halves are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from closed import Run
from support import ALL_IN, START, TinyHome, usage

from aggregator.errors import IntegrityError, RefusedError
from aggregator.model.days import parse_instant
from aggregator.pipeline import publish
from aggregator.stores import custody
from aggregator.wire.keys import Announcement, read_announcement


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


def published(home: TinyHome, now: str) -> list[str]:
    """Publish; return all months that are announced then."""
    with home.open(now) as house:
        publish.publish(house)
        return [key.month for key in publish.announced(house)]


def new(home: TinyHome, now: str) -> list[str]:
    """Publish; return the months that are new."""
    with home.open(now) as house:
        return publish.publish(house)


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
    assert new(home, ALL_IN) == ["2026-10", "2026-11"]
    before = home.files("agents")
    assert new(home, ALL_IN) == []
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


def test_a_clock_that_was_wrong_is_not_believed_for_long(home: TinyHome) -> None:
    published(home, "2026-10-20T00:00:00Z")
    published(home, "2026-10-10T00:00:00Z")
    assert announcement(home).made_at == parse_instant("2026-10-10T00:00:00Z")


def test_another_grace_is_announced_at_once(home: TinyHome) -> None:
    published(home, ALL_IN)
    profile = home.root / "policy" / "profile.toml"
    text = profile.read_text()
    profile.write_text(re.sub(r"(?m)^purge_hours *= *[0-9]+", "purge_hours = 24", text))
    published(home, ALL_IN)
    assert announcement(home).keys[0].purge_at == parse_instant("2026-11-02T00:00:00Z")


def test_keys_that_a_wrong_clock_made_wait_for_their_month(home: TinyHome) -> None:
    with home.open(START) as house:
        house.month_keys_for_writing("2026-12")
    assert published(home, ALL_IN) == ["2026-10", "2026-11"]
    assert published(home, "2026-11-24T00:00:00Z") == ["2026-11", "2026-12"]


def test_a_key_set_that_was_made_anew_is_announced_as_new(home: TinyHome) -> None:
    """A key set lost before anything was sealed with it: agents learn of the next one."""
    published(home, START)
    before = announcement(home).keys[0]
    (home.root / "keys" / "2026-10.key").unlink()
    assert new(home, START) == ["2026-10"]
    assert announcement(home).keys[0].key_id != before.key_id


def test_one_damaged_key_set_keeps_no_other_month_from_its_agents(home: TinyHome) -> None:
    published(home, "2026-10-20T00:00:00Z")
    path = home.root / "keys" / "2026-10.key"
    path.write_bytes(path.read_bytes()[:-1])
    with home.open(ALL_IN) as house, pytest.raises(IntegrityError, match="2026-10 is damaged"):
        publish.publish(house)
    assert [key.month for key in announcement(home).keys] == ["2026-11"]


def test_where_keys_outlive_their_destruction_none_are_made(
    home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CL-2: as for the keys that ingest would make."""
    monkeypatch.setattr(custody, "weakness", lambda _folder: "nfs is not known to overwrite")
    with home.open(START) as house:
        house.config = dataclasses.replace(house.config, rehearsal=False)
        with pytest.raises(RefusedError, match="accept_weak_destruction"):
            publish.publish(house)
    assert home.files("keys") == {}


def test_the_door_can_verify_without_the_private_half(home: TinyHome) -> None:
    published(home, START)
    (home.root / "agents" / "signing.key").unlink()
    agents = home.read(START).agents
    public_key, content = agents.kept_public_key(), agents.announcement()
    assert public_key is not None
    assert content is not None
    assert read_announcement(content, public_key).keys


def test_the_command_prints_what_is_announced(home: TinyHome, run: Run) -> None:
    said = run(home.root, "keys", "publish", "--json", now=ALL_IN)
    assert (said.code, said.err) == (0, "")
    house = home.read(ALL_IN)
    assert said.json["schema_version"] == 1
    rows = {row.pop("month"): row for row in said.json["rows"]}
    assert set(rows) == {"2026-10", "2026-11"}
    for month, row in rows.items():
        keys = house.keys.load(month)
        assert keys is not None
        assert row == {
            "key_id": keys.key_id,
            "purge_at": {"2026-10": "2026-11-03", "2026-11": "2026-12-03"}[month] + "T00:00:00Z",
        }
    before = home.files("agents")
    again = run(home.root, "keys", "publish", now=ALL_IN)
    assert "new" not in again.out
    assert len(again.out.splitlines()) == 2
    assert home.files("agents") == before
    assert len(home.audit("keys_published")) == 1


def test_a_clock_that_turned_back_makes_no_keys_of_a_month_that_is_over(home: TinyHome) -> None:
    """Else they would be missed at a purge that never was: a false alarm, and its receipt."""
    assert published(home, "2026-10-05T00:00:00Z") == ["2026-10"]
    for now in ("1973-04-01T00:00:00Z", "2026-09-26T00:00:00Z", "2026-09-26T01:00:00Z"):
        with home.open(now, confirm=False) as house:
            assert publish.publish(house) == []
            assert [key.month for key in publish.announced(house)] == ["2026-10"]
    assert home.read(START).keys.months() == ["2026-10"]
    assert published(home, "2026-10-05T01:00:00Z") == ["2026-10"]
