"""The inbox: what is taken in, what is refused, what waits, and what dies with its month."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batches import FakeAgent, dropped, flipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ALL_IN, ALL_PURGED, TinyHome, crowd, flags, month, usage

import aggregator
from aggregator import app
from aggregator.errors import BadInputError
from aggregator.model.days import parse_instant
from aggregator.pipeline.drain import drain_inbox
from aggregator.pipeline.ingest import Ingested
from aggregator.stores.home import Home
from aggregator.stores.keys import MonthKeys
from aggregator.wire import batch

PLACES = ("us-nyc", "de-fra", "is-rkv")


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


@pytest.fixture
def agent(home: TinyHome) -> FakeAgent:
    """Return an agent that may report all three places."""
    agent = FakeAgent.make()
    with home.open(ALL_IN) as house:
        agent.enrol(house, *PLACES)
    return agent


def keys_of(home: TinyHome, month: str = "2026-10") -> MonthKeys:
    with home.open(ALL_IN) as house:
        return house.month_keys_for_writing(month)


def drain(home: TinyHome, now: str = ALL_IN) -> Ingested:
    with home.open(now) as house:
        return drain_inbox(house)


def test_batches_give_the_same_tables_as_the_same_lines_in_files(
    home: TinyHome, agent: FakeAgent, tmp_path: Path
) -> None:
    lines = month()
    keys = keys_of(home)
    for part in range(7):
        dropped(home.root, agent.batch(lines[part::7], keys), f"part-{part}")
    drained = drain(home)
    assert (drained.batches, drained.rejected, drained.refused) == (7, 0, {})
    assert drained.accepted == len(lines)
    assert not list((home.root / "inbox").iterdir())
    plain = TinyHome.make(tmp_path / "plain" / "home")
    plain.ingest(lines)
    for each in (home, plain):
        each.rollup()
    assert home.tables() == plain.tables()


def test_a_replay_changes_nothing(home: TinyHome, agent: FakeAgent) -> None:
    lines = crowd("2026-10-05", range(30))
    content = agent.batch(lines, keys_of(home))
    dropped(home.root, content)
    drain(home)
    before = home.files("raw")
    dropped(home.root, content, "again")
    assert drain(home).accepted == 30
    home.rollup()
    assert home.usage()["2026-10-05", "us-nyc"][0] == 30
    assert before


def test_an_agent_may_only_report_its_own_locations(home: TinyHome) -> None:
    agent = FakeAgent.make("de-fra-07")
    with home.open(ALL_IN) as house:
        agent.enrol(house, "de-fra")
    lines = [*crowd("2026-10-05", range(600), "us-nyc"), *crowd("2026-10-05", range(5), "de-fra")]
    dropped(home.root, agent.batch([*lines, flags(location="us-nyc")], keys_of(home)))
    drained = drain(home)
    assert (drained.accepted, drained.reasons) == (5, {"bad_location": 601})
    rows = home.rows("rejections_daily")
    assert {(row["location"], row["agent_build"], row["field"]) for row in rows} == {
        ("unknown", aggregator.__version__, "location")
    }


def test_nothing_of_a_rejected_value_is_kept_from_a_batch(home: TinyHome, agent: FakeAgent) -> None:
    """CS-6: a signed agent is checked like anybody else."""
    bad = [usage(user="198.51.100.77"), usage(user="x" * 200), '{"marker-7f3a":1}', "marker-7f3a"]
    dropped(home.root, agent.batch([usage(), *bad], keys_of(home)))
    drained = drain(home)
    assert (drained.accepted, drained.rejected) == (1, 4)
    for content in home.files().values():
        assert b"marker-7f3a" not in content
        assert b"198.51.100.77" not in content


def test_refused_batches_are_removed_and_counted(home: TinyHome, agent: FakeAgent) -> None:
    keys = keys_of(home)
    good = agent.batch([usage()], keys)
    forger = FakeAgent(agent.id, agent.token, FakeAgent.make().signing_key)
    gone = FakeAgent.make("gone-01")
    with home.open(ALL_IN) as house:
        gone.enrol(house, revoked_at=parse_instant(ALL_IN))
    wrong = MonthKeys(keys.month, keys.key_id, bytes(range(32)), keys.segment, keys.pseudonym)
    dropped(home.root, b"no batch", "1")
    dropped(home.root, good[:-9], "2")
    dropped(home.root, forger.batch([usage()], keys), "3")
    dropped(home.root, gone.batch([usage()], keys), "4")
    dropped(home.root, agent.batch([usage("2026-09-01")], keys, "2026-08"), "5")
    dropped(home.root, agent.batch([usage()], wrong), "6")
    dropped(home.root, good, "7")
    drained = drain(home)
    assert drained.refused == {
        "malformed": 1,
        "bad_signature": 2,
        "revoked": 1,
        "month_over": 1,
        "not_opened": 1,
    }
    assert (drained.accepted, drained.batches) == (1, 1)
    assert not list((home.root / "inbox").iterdir())
    assert home.audit("ingest")[-1]["refused"] == drained.refused


def test_what_came_before_a_credential_ended_is_taken_in_after_it(home: TinyHome) -> None:
    """The door acknowledged it: the end of a rotation's overlap must not lose it."""
    agent = FakeAgent.make()
    ends = parse_instant("2026-10-31T20:00:00Z")
    with home.open(ALL_IN) as house:
        agent.enrol(house, until=ends)
    keys = keys_of(home)
    before = dropped(home.root, agent.batch([usage()], keys), "before")
    after = dropped(home.root, agent.batch([usage()], keys), "after")
    os.utime(before, (ends.timestamp() - 60,) * 2)
    os.utime(after, (ends.timestamp() + 60,) * 2)
    drained = drain(home)
    assert (drained.accepted, drained.refused) == (1, {"bad_signature": 1})


def test_a_changed_bit_anywhere_is_refused(home: TinyHome, agent: FakeAgent) -> None:
    content = agent.batch(crowd("2026-10-05", range(20)), keys_of(home))
    changed = list(flipped(content))
    for number, each in enumerate(changed):
        dropped(home.root, each, str(number))
    drained = drain(home)
    assert drained.accepted == 0
    assert sum(drained.refused.values()) + sum(drained.waiting.values()) == len(changed)


def test_what_only_waits_stays_until_it_can_be_taken_in(home: TinyHome, agent: FakeAgent) -> None:
    keys = keys_of(home)
    late = FakeAgent.make("late-01")
    dropped(home.root, late.batch([usage()], keys))
    other = MonthKeys("2026-10", "0" * 16, keys.batch, keys.segment, keys.pseudonym)
    dropped(home.root, agent.batch([usage()], other), "other-key")
    before = len(home.audit())
    assert drain(home).waiting == {"unknown_agent": 1, "no_key": 1}
    assert drain(home).waiting == {"unknown_agent": 1, "no_key": 1}
    assert len(home.audit()) <= before + 2  # the clock's entries, none of ingest
    assert not home.audit("ingest")
    with home.open(ALL_IN) as house:
        late.enrol(house)
    drained = drain(home)
    assert (drained.batches, drained.waiting) == (1, {"no_key": 1})


def test_a_bomb_is_refused_and_the_next_batch_taken(
    home: TinyHome, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(home)
    monkeypatch.setattr(batch, "MAX_RECORD_BYTES", 10**9)
    bomb = agent.batch(["0" * 100_000_000], keys)
    monkeypatch.undo()
    assert len(bomb) < 200_000
    dropped(home.root, bomb, "0")
    dropped(home.root, agent.batch([usage()], keys), "1")
    drained = drain(home)
    assert (drained.refused, drained.accepted) == ({"not_opened": 1}, 1)


def test_a_clock_in_doubt_removes_nothing_that_was_acknowledged(
    home: TinyHome, agent: FakeAgent
) -> None:
    dropped(home.root, agent.batch([usage()], keys_of(home)))
    with home.open("2026-12-05T00:00:00Z", confirm=False) as house:
        assert drain_inbox(house).waiting == {"clock": 1}
    assert drain(home).accepted == 1


def test_a_huge_file_is_not_read_whole(
    home: TinyHome, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(home)
    huge = dropped(home.root, b"", "0")
    os.truncate(huge, 1 << 40)
    dropped(home.root, agent.batch([usage()], keys), "1")
    drained = drain(home)
    assert (drained.refused, drained.accepted) == ({"malformed": 1}, 1)


def test_a_batch_of_very_many_lines_is_refused(
    home: TinyHome, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes would else keep ingest, and every other run, busy for a minute."""
    dropped(home.root, agent.batch(["{}"] * (batch.MAX_RECORDS + 1), keys_of(home)))
    assert drain(home).refused == {"not_opened": 1}


def test_a_file_that_cannot_be_read_holds_up_neither_drain_nor_purge(
    home: TinyHome, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(home)
    closed = dropped(home.root, b"", "0")
    dropped(home.root, agent.batch([usage()], keys), "1")
    opened = Path.open

    def open_others(path: Path, *words: Any, **named: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return opened(path, *words, **named)

    monkeypatch.setattr(Path, "open", open_others)
    drained = drain(home)
    assert (drained.waiting, drained.accepted) == ({"unreadable": 1}, 1)
    (receipt,) = home.purge()
    assert receipt["verified"]
    assert not home.files("keys")


def test_a_month_takes_its_waiting_batches_with_it(home: TinyHome, agent: FakeAgent) -> None:
    """CL-2, CV-5: nothing that waits outlives its month, and the receipt counts it."""
    keys = keys_of(home)
    home.ingest(crowd("2026-10-05", range(30)))
    dropped(home.root, FakeAgent.make("late-01").batch([usage()], keys), "below/deep")
    next_month = keys_of(home, "2026-11")
    kept = dropped(home.root, FakeAgent.make("late-01").batch([usage()], next_month), "kept")
    (receipt,) = home.purge()
    assert receipt["destroyed"]["batches"] == 1
    assert [path.name for path in (home.root / "inbox").rglob("*.batch")] == [kept.name]
    dropped(home.root, agent.batch([usage()], keys))
    assert drain(home, ALL_PURGED).refused == {"month_over": 1}


@pytest.mark.parametrize("step", range(8))
def test_a_drain_killed_at_any_step_is_simply_run_again(
    home: TinyHome, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A run may die at each rename and each removal; nothing is lost or counted twice."""
    lines = crowd("2026-10-05", range(40))
    keys = keys_of(home)
    for part in range(4):
        dropped(home.root, agent.batch(lines[part::4], keys), f"part-{part}")
    left = step

    def dying(doing: Callable[..., None]) -> Callable[..., None]:
        def do(*args: object, **named: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            doing(*args, **named)

        return do

    with monkeypatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        drain(home)
    assert (left < 0) == (step < 6)
    drain(home)
    assert not list((home.root / "inbox").rglob("*.batch"))
    home.rollup()
    truth = sum(1000 + n for n in range(40))
    assert home.usage()["2026-10-05", "us-nyc"] == (40, truth)


class KilledError(BaseException):
    """The process ends here."""


@given(content=st.binary(max_size=400))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_batch_or_bad_input(content: bytes) -> None:
    with contextlib.suppress(BadInputError):
        assert batch.parse(content).header.agent


def test_a_clock_that_turned_back_throws_away_nothing_that_was_acknowledged(
    home: TinyHome, agent: FakeAgent
) -> None:
    """Its day seems not to have begun; the agent has let go of it, so it waits."""
    keys = keys_of(home)
    dropped(home.root, agent.batch(crowd("2026-10-10", range(20)), keys), "of-today")
    with home.open("2026-10-10T12:00:00Z") as house:
        house.record("checkpoint", {})
    for minute in (10, 15, 20):  # what is taken in meanwhile leaves entries at the wrong time
        dropped(home.root, agent.batch(crowd("2026-10-05", range(20)), keys), "before")
        with home.open(f"2026-10-05T12:{minute}:00Z", confirm=False) as house:
            drained = drain_inbox(house)
        assert (drained.accepted, drained.rejected, drained.waiting) == (20, 0, {"clock": 1})
    with home.open("2026-10-10T12:05:00Z", confirm=False) as house:
        drained = drain_inbox(house)
    assert (drained.accepted, drained.rejected, drained.waiting) == (20, 0, {})


def test_a_clock_that_is_said_to_be_right_rejects_what_is_early(
    home: TinyHome, agent: FakeAgent
) -> None:
    dropped(home.root, agent.batch(crowd("2026-10-10", range(20)), keys_of(home)))
    with home.open("2026-10-10T12:00:00Z") as house:
        house.record("checkpoint", {})
    confirmed = len(home.audit("clock_confirmed"))
    drained = drain(home, "2026-10-05T12:00:00Z")
    assert drained.reasons == {"too_early": 20}
    assert len(home.audit("clock_confirmed")) == confirmed + 1


def test_a_live_home_sees_by_a_batch_that_its_clock_is_behind(tmp_path: Path) -> None:
    """As after a start without a battery, where the log has nothing to compare with."""
    right, back = (parse_instant(one) for one in ("2026-10-10T12:00:00Z", "2026-10-05T12:00:00Z"))
    live, agent = Home(tmp_path / "live"), FakeAgent.make()
    app.create(live, back, rehearsal=False, accept_weak=True)
    with app.open_to_write(live, None, back) as house:
        agent.enrol(house, "us-nyc")
        keys = house.month_keys_for_writing("2026-10")
    path = dropped(live.root, agent.batch(crowd("2026-10-10", range(20)), keys))
    os.utime(path, (right.timestamp(), right.timestamp()))
    with app.open_to_write(live, None, back) as house:
        assert drain_inbox(house).waiting == {"clock": 1}
    with app.open_to_write(live, None, right) as house:
        assert drain_inbox(house).accepted == 20
