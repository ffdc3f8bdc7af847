"""The agent's service: what each answer of the door leads to, what is told, and how it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from door_stub import AGENT, LOCATION, Aggregator
from world import START, USERS, SimulatedDoor, Simulation, on_tmpfs, simulated

from aggregator.agent import outbox
from aggregator.agent.client import Outcome
from aggregator.agent.collectors import Source
from aggregator.agent.config import AccountsSettings, SourceSettings
from aggregator.agent.journal import Journal, Level, Notifier, unexpected, write_status
from aggregator.agent.outgoing import fault, line
from aggregator.agent.readings import Drop, SilentSourceError
from aggregator.agent.spool import Spool
from aggregator.errors import BadInputError
from aggregator.model.records import ConnectionFlags, UsageCounter
from aggregator.wire import batch
from aggregator.wire.keys import PublishedKey

OCTOBER = START.replace(month=10, day=5)


@pytest.fixture
def spool() -> Iterator[Path]:
    yield from on_tmpfs()


def running(monkeypatch: pytest.MonkeyPatch, folder: Path | None, **other: Any) -> Simulation:
    """Return an agent that has sent already, in the middle of a month."""
    simulation = simulated(monkeypatch, folder, start=OCTOBER, **other)
    simulation.run(hours=3)
    assert simulation.aggregator.held()
    simulation.door.requests.clear()
    return simulation


def log(simulation: Simulation) -> list[str]:
    """Return the lines that were told, and forget them."""
    lines = simulation.log.getvalue().splitlines()
    simulation.log.seek(0)
    simulation.log.truncate()
    return lines


# -- answers ----------------------------------------------------------------------------------


def test_what_was_acknowledged_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    simulation.world.traffic = False
    simulation.run(hours=2)
    sent = len(simulation.aggregator.batches)
    simulation.run(hours=6)
    assert len(simulation.aggregator.batches) == sent


def test_only_records_that_grew_are_sent(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = running(monkeypatch, spool)
    simulation.world.traffic = False
    simulation.run(hours=2)
    simulation.aggregator.received.clear()
    simulation.world.counters["alice"] += 5
    simulation.run(hours=2)
    assert [record["user"] for record in simulation.aggregator.received] == ["alice"]


@pytest.mark.parametrize("outcome", ["unauthorised", "forbidden", "malformed"])
def test_a_refusal_keeps_everything_is_told_once_and_waits_five_minutes(
    monkeypatch: pytest.MonkeyPatch, spool: Path, outcome: str
) -> None:
    simulation = running(monkeypatch, spool, interval=60)
    log(simulation)
    simulation.door.moods = [outcome]
    simulation.door.times.clear()
    simulation.run(hours=2)
    pauses = [after - before for before, after in itertools.pairwise(simulation.door.times)]
    assert len(pauses) > 5
    assert min(pauses) >= 5 * 60
    assert log(simulation) == [f"the door is {outcome}"]
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth
    assert log(simulation) == ["the door takes batches again"]


def test_retry_after_is_honoured_up_to_an_hour(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool, interval=60)
    simulation.door.moods, simulation.door.retry_after = ["busy"], 1200.0
    simulation.run(minutes=55)
    assert len(simulation.door.requests) == 3
    simulation.door.requests.clear()
    simulation.door.retry_after = 10.0**8
    simulation.run(minutes=10)
    simulation.door.requests.clear()
    simulation.run(hours=3, minutes=20)
    assert len(simulation.door.requests) == 3


def test_no_answer_is_tried_again_soon_at_first_and_at_least_every_15_minutes(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    at: list[float] = []
    requests = simulation.door.requests
    while simulation.world.seconds < 1000 + 24 * 3600:
        before = len(requests)
        simulation.run(seconds=30)
        if len(requests) > before:
            at.append(simulation.world.seconds)
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert max(pauses) <= 15 * 60 + 60
    assert max(pauses[:3]) <= 90
    assert sum(pauses[-20:]) / 20 > 3 * 60


def test_410_drops_the_month_and_its_files(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=3)
    simulation.door.moods = ["no_answer"]
    simulation.run(days=3)
    log(simulation)
    simulation.door.moods, simulation.door.over = ["up"], {"2026-09"}
    simulation.run(hours=3)
    said = log(simulation)
    assert sum("2026-09 is over at the aggregator" in line for line in said) == 1
    assert [*spool.glob("*.batch")] == []
    october = {key: n for key, n in simulation.world.truth.items() if key[0] >= "2026-10"}
    simulation.settle()
    held = {key: n for key, n in simulation.aggregator.held().items() if key[0] >= "2026-10"}
    assert held.keys() == october.keys()
    assert not any("2026-09" in line for line in log(simulation))
    assert simulation.aggregator.by_user() != simulation.world.true_by_user()


def test_410_for_the_month_that_it_is_here_drops_nothing(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """One of the two clocks is wrong: nothing is destroyed, and it is told."""
    simulation = running(monkeypatch, spool)
    simulation.door.over = {"2026-10"}
    simulation.run(hours=5)
    assert sum("compare both clocks" in line for line in log(simulation)) >= 1
    simulation.door.over = set()
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth


def test_409_fetches_keys_and_seals_anew_at_once(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """The aggregator was set up anew: batches to the old key are sealed to the new one."""
    simulation = running(monkeypatch, spool)
    old, new = simulation.aggregator, Aggregator()
    new.signing_key, new.agent_key = old.signing_key, old.agent_key

    def take(content: bytes) -> Any:
        if batch.parse(content).header.key_id != new.key_id("2026-10"):
            return simulation.door._in_mood("409", lambda: _answer(Outcome.KEY_UNKNOWN))
        new.take(content)
        return _answer(Outcome.DONE)

    monkeypatch.setattr(simulation.door, "send", take)
    simulation.door.aggregator = new
    simulation.run(hours=1)
    assert [request for request in simulation.door.requests if "409" in request] == ["409 up"]
    assert set(new.by_user()) == set(USERS)


def _answer(outcome: Outcome) -> Any:
    from aggregator.agent.client import Answer

    return Answer(outcome, f"the door is {outcome}")


def test_409_for_good_keeps_the_records_and_does_not_hammer(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool, interval=60)
    monkeypatch.setattr(
        simulation.door,
        "send",
        lambda _batch: simulation.door._in_mood("batch", lambda: _answer(Outcome.KEY_UNKNOWN)),
    )
    simulation.run(hours=1)
    assert len(simulation.door.requests) <= 2 * 13
    assert simulation.service._outbox.pending_records == len(USERS)


def test_413_halves_the_batches_until_they_fit(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    monkeypatch.setattr("world.USERS", tuple(f"account-{n:03d}" for n in range(200)))
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    simulation.door.largest = 700
    simulation.run(hours=3)
    assert len(simulation.aggregator.batches) > 8
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth
    assert max(map(len, simulation.aggregator.batches)) <= 700
    assert [*spool.glob("*.batch")] == []


def test_a_single_record_that_is_too_large_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    simulation.door.largest = 10
    simulation.run(hours=4)
    assert len(simulation.door.requests) < 40
    simulation.door.largest = None
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth


def test_a_refused_batch_of_an_earlier_start_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """FreeRADIUS PR 5835: signed with a key that was rotated since, it must not stop the queue."""
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    simulation.run(minutes=5)
    (spool / "0123456789abcdef.batch").write_bytes(b"refused for ever")
    simulation.start()
    send = simulation.door.send
    asked = []

    def refuses(content: bytes) -> Any:
        if content == b"refused for ever":
            asked.append(simulation.world.seconds)
            return _answer(Outcome.FORBIDDEN)
        return send(content)

    monkeypatch.setattr(simulation.door, "send", refuses)
    simulation.run(hours=10)
    simulation.world.traffic = False
    simulation.run(hours=2)
    assert 2 <= len(asked) <= 12
    assert simulation.service._outbox.pending_records == 0
    monkeypatch.setattr(simulation.door, "send", lambda _batch: _answer(Outcome.MONTH_OVER))
    simulation.run(hours=3)
    assert [*spool.glob("*.batch")] == []


def test_leftovers_of_a_killed_agent_go_first(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=2)
    (left,) = spool.glob("*.batch")
    content = left.read_bytes()
    simulation.start()
    simulation.door.moods = ["up"]
    simulation.aggregator.batches.clear()
    simulation.run(minutes=2)
    assert simulation.aggregator.batches == [content]
    assert not left.exists()


def test_a_door_with_a_wrong_clock_destroys_no_leftover(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=2)
    (left,) = spool.glob("*.batch")
    simulation.start()
    simulation.door.moods, simulation.door.over = ["up"], {"2026-10"}
    simulation.run(minutes=10)
    assert left.exists()
    assert any("compare both clocks" in line for line in log(simulation))


def test_cl_2_a_leftover_does_not_outlive_its_month_while_the_door_is_away(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=3)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=3)
    left = {path.name for path in spool.glob("*.batch")}
    assert left
    simulation.start()
    simulation.run(days=5)
    assert not left & {path.name for path in spool.glob("*.batch")}


def test_an_announcement_brought_into_the_spool_is_taken_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """Without a door, files are carried both ways."""
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=1)
    kept = (spool / "keys.json").read_bytes()
    (spool / "keys.json").unlink()
    simulation.start()
    simulation.run(hours=1)
    before = len([*spool.glob("*.batch")])
    (spool / "keys.json").write_bytes(kept)
    simulation.run(hours=1)
    assert len([*spool.glob("*.batch")]) > before


def test_a_restart_while_the_door_is_away_can_seal(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """The announcement waits in the spool; without one, totals wait in memory."""
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.start()
    simulation.run(hours=3)
    assert len([*spool.glob("*.batch")]) == 1
    (spool / "keys.json").write_bytes(b"{}")
    log(simulation)
    simulation.start()
    assert log(simulation) == ["the announcement in the spool is of no use"]
    simulation.run(hours=3)
    assert len([*spool.glob("*.batch")]) == 1
    simulation.settle()
    assert simulation.aggregator.by_user() == simulation.world.was_read()


def test_a_month_without_a_key_waits_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.door.known = ("2026-09",)
    simulation.run(days=4)
    assert {day for day, _user in simulation.aggregator.held()} == {
        f"2026-09-{day}" for day in (28, 29, 30)
    }
    told = "no key is announced for 2026-10: its totals wait"
    assert log(simulation).count(told) == 1
    simulation.door.known = ()
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth


def test_keys_of_somebody_else_are_not_taken(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    """Whoever ends TLS cannot put a key of their own in."""
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    good = simulation.door._announcement
    stranger = SimulatedDoor(simulation.world, Aggregator())
    monkeypatch.setattr(simulation.door, "_announcement", stranger._announcement)
    simulation.run(hours=4)
    said = log(simulation)
    assert sum("not signed by the aggregator" in line for line in said) >= 1
    assert simulation.aggregator.batches == []
    assert [*spool.glob("*")] == []
    monkeypatch.setattr(simulation.door, "_announcement", good)
    simulation.settle()
    assert simulation.aggregator.by_user() == simulation.world.was_read()


def test_keys_are_asked_for_every_hour_with_users_or_without(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool, start=START.replace(day=20), interval=300)
    simulation.door.known = ("2026-09",)

    def asked(**duration: float) -> int:
        simulation.door.requests.clear()
        simulation.run(**duration)
        return simulation.door.requests.count("keys up")

    assert 60 <= asked(days=3) <= 72

    def nothing_to_read() -> None:
        raise BadInputError("cannot be read")

    simulation.world.trouble = nothing_to_read
    simulation.run(hours=2)
    assert 40 <= asked(days=2) <= 48


# -- sources ----------------------------------------------------------------------------------


def test_a_source_tells_each_change_of_its_state_once(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    world = simulation.world
    assert log(simulation) == [f"source 1 (simulated, {LOCATION}): is read"]

    def fails(error: Exception) -> None:
        def trouble() -> None:
            raise error

        world.trouble = trouble
        simulation.run(hours=4)

    fails(BadInputError("cannot be read: No such file"))
    fails(SilentSourceError("was not written for an hour"))
    health = simulation.service._watches[0].health
    assert (health.state, health.intervals, health.failures) == ("silent", 4, 8)
    fails(ValueError("alice 203.0.113.9"))
    world.trouble = lambda: None
    simulation.run(hours=4)
    name = f"source 1 (simulated, {LOCATION})"
    said = log(simulation)
    assert said[0] == f"{name}: unreadable: cannot be read: No such file"
    assert said[1] == f"{name}: silent: was not written for an hour"
    assert said[2].startswith(f"{name}: unreadable: unexpected ValueError at ")
    assert said[3] == f"{name}: is read"
    assert len(said) == 4


def test_a_source_that_is_away_at_start_begins_with_a_baseline(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    row = simulation.service._watches[0]._row
    monkeypatch.setattr(simulation.service._watches[0], "_row", _unopened(row, 3))
    simulation.run(hours=8)
    simulation.settle()
    assert simulation.aggregator.by_user() == simulation.world.was_read()
    assert 0 < simulation.aggregator.by_user()["alice"] < simulation.world.true_by_user()["alice"]


def _unopened(row: Source, times: int) -> Source:
    """Return a row whose reader cannot be opened a few times."""
    left = [None] * times

    def connect(settings: Any, locate: Any) -> Any:
        if left:
            left.pop()
            raise BadInputError("nobody listens")
        return row.connect(settings, locate)

    return Source(row.parse, row.reset, True, True, row.settings, connect)


def test_two_sources_have_two_epochs(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    config = simulation.config()
    twice = (*config.sources, SourceSettings(2, "simulated", LOCATION, None, "other"))
    monkeypatch.setattr(
        Simulation, "config", lambda _self: _replaced(config, sources=twice), raising=True
    )
    simulation.start()
    simulation.run(hours=3)
    assert len(simulation.aggregator.epochs()) == 2


def _replaced(config: Any, **fields: Any) -> Any:
    import dataclasses

    return dataclasses.replace(config, **fields)


def test_cs_6_a_record_that_no_door_takes_is_dropped_and_counted_once() -> None:
    kept = outbox.Outbox(Spool(None), frozenset({LOCATION}), lambda records, key: records)
    good = UsageCounter("2026-10-05", "alice", LOCATION, "0" * 16, 1)
    bad = [
        UsageCounter("2026-10-05", "10.0.0.1", LOCATION, "0" * 16, 1),
        UsageCounter("2026-10-05", "at 13:37", LOCATION, "0" * 16, 1),
        UsageCounter("2026-10-05", "", LOCATION, "0" * 16, 1),
        UsageCounter("2026-10-05", "alice", "de-fra", "0" * 16, 1),
        UsageCounter("2026-10-05", "alice", LOCATION, "A" * 16, 1),
        UsageCounter("2026-02-31", "alice", LOCATION, "0" * 16, 1),
        UsageCounter("2026-10-05", "alice", LOCATION, "0" * 16, 2**53),
        UsageCounter("2026-10-05", "carol", LOCATION, "0" * 16, -1),
    ]
    kept.put([good, *bad])
    kept.put([good, *bad])
    assert kept.pending_records == 1
    assert dict(kept.rejected) == {
        "address_like": 1,
        "timestamp_like": 1,
        "bad_format": 3,
        "bad_location": 1,
        "out_of_range": 2,
    }


def used(count: int, day: str = "2026-10-05") -> UsageCounter:
    """Return a record."""
    return UsageCounter(day, "alice", LOCATION, "0" * 16, count)


def test_what_grew_after_it_was_sealed_goes_on_waiting() -> None:
    key = PublishedKey("2026-10", "0" * 16, b"", OCTOBER)
    kept = outbox.Outbox(Spool(None), frozenset({LOCATION}), lambda records, _key: records)
    kept.put([used(1)])
    kept.seal(lambda _month: key)
    sealed = kept.next(0.0, set())
    assert sealed is not None
    kept.put([used(2)])
    kept.acknowledge(sealed)
    assert kept.pending_records == 1
    kept.put([used(1)])
    kept.seal(lambda _month: key)
    again = kept.next(0.0, set())
    assert again is not None
    assert kept.content(again) == f"{line(used(2))}\n".encode()


def test_an_earlier_starts_batches_go_first_and_then_day_by_day(spool: Path) -> None:
    earlier = Spool(spool).add(b"earlier")
    key = PublishedKey("2026-10", "0" * 16, b"", OCTOBER)
    kept = outbox.Outbox(Spool(spool), frozenset({LOCATION}), lambda records, _key: records)
    kept.put([used(1, "2026-10-07"), used(1, "2026-10-06")])
    kept.seal(lambda _month: key)
    tried: set[outbox.Sealed] = set()
    order = []
    while sealed := kept.next(0.0, tried):
        tried.add(sealed)
        order.append(sealed.day or sealed.name)
    assert order == [earlier, "2026-10-06", "2026-10-07"]


FLAGS = ConnectionFlags("2026-10-05", LOCATION, "0" * 16, "DE", 3320, "android", "11.4", 1, 2, 2)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"app": None, "version": None}, None),
        ({"country": "ZZ", "asn": 0}, None),
        ({"country": "QQ"}, "bad_format"),
        ({"asn": 2**32}, "out_of_range"),
        ({"app": "10.0.0.1"}, "bad_format"),
        ({"app": "a10.0.0.1"}, "bad_format"),
        ({"version": "1.2.3.4"}, "bad_format"),
        ({"users": -1}, "out_of_range"),
        ({"successes": 3}, "implausible"),
        ({"users": True}, "out_of_range"),
    ],
)
def test_cs_1_flags_are_checked_too(changed: dict[str, Any], reason: str | None) -> None:
    assert fault(_replaced(FLAGS, **changed), {LOCATION}) == reason


def test_large_days_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    monkeypatch.setattr(outbox, "MAX_RECORDS", 2)
    simulation = running(monkeypatch, spool)
    simulation.settle()
    assert max(_records(simulation, content) for content in simulation.aggregator.batches) == 2
    assert simulation.aggregator.held() == simulation.world.truth


def _records(simulation: Simulation, content: bytes) -> int:
    opened = batch.parse(content)
    key = simulation.aggregator.month_keys[opened.header.month]
    return opened.open(key.private_bytes_raw()).count(b"\n")


def test_a_batch_too_large_for_any_door_is_halved_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    monkeypatch.setattr(batch, "MAX_RECORD_BYTES", 200)
    simulation = running(monkeypatch, spool)
    simulation.settle()
    assert max(_records(simulation, content) for content in simulation.aggregator.batches) == 1
    assert simulation.aggregator.held() == simulation.world.truth


# -- spool, status, ending ---------------------------------------------------------------------


def test_cl_4_a_full_spool_is_told_once_and_memory_goes_on(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    log(simulation)
    real = os.open

    def full(path: Any, flags: int, *mode: int, **folder: Any) -> int:
        if str(path).startswith(str(spool)) and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *mode, **folder)

    monkeypatch.setattr(os, "open", full)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=5)
    told = [line for line in log(simulation) if line.startswith("spool: ")]
    assert told == ["spool: cannot keep a batch: No space left on device; memory goes on"]
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth


def test_the_spool_holds_nothing_that_can_be_read(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """CS-7: seized, the server tells of nobody."""
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(days=2)
    assert spool.stat().st_mode & 0o777 == 0o700
    for path in spool.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        found = path.name.encode() + path.read_bytes()
        # The announcement of keys says when it was made; that is nobody's day.
        days = [] if path.name == "keys.json" else ["2026-10-0"]
        secrets = [*USERS, *simulation.aggregator.epochs(), *days]
        assert not any(word.encode() in found for word in secrets)
    assert len([*spool.glob("*.batch")]) == 3, "a positive control: there is something to seize"


def test_stop_reads_and_sends_once_more(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = running(monkeypatch, spool)
    simulation.world.pass_time(600)
    simulation.service.stop(contextlib.nullcontext)  # type: ignore[arg-type]  # takes any value
    assert simulation.aggregator.held() == simulation.world.truth
    simulation.service.close()


@pytest.mark.parametrize("with_spool", [True, False])
def test_stop_without_a_door_leaves_it_in_the_spool(
    monkeypatch: pytest.MonkeyPatch, spool: Path, with_spool: bool
) -> None:
    simulation = running(monkeypatch, spool if with_spool else None)
    simulation.door.moods = ["no_answer"]
    simulation.world.pass_time(600)
    log(simulation)
    simulation.service.stop(contextlib.nullcontext)  # type: ignore[arg-type]  # takes any value
    expected = "wait in the spool" if with_spool else "are lost: there is no spool"
    assert expected in log(simulation)[-1]
    assert simulation.door.requests.count("batch no_answer") == 1
    simulation.start()
    simulation.settle()
    held = simulation.aggregator.held() == simulation.world.truth
    assert held is with_spool


def test_stop_without_a_key_does_not_claim_that_the_spool_has_it(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=1)
    log(simulation)
    simulation.service.stop(contextlib.nullcontext)  # type: ignore[arg-type]  # takes any value
    assert [*spool.glob("*.batch")] == []
    assert "are lost: no key" in log(simulation)[-1]


def test_reload_takes_a_new_token_and_seals_with_the_new_key(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=2)
    simulation.aggregator.agent_key = Ed25519PrivateKey.generate()
    simulation.door.moods = ["up"]
    simulation.service.reload(simulation.config(), simulation.aggregator.enrolment, simulation.door)
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth
    assert "took maps, certificates and the enrolment anew" in log(simulation)


def test_reload_reads_the_map_again_and_keeps_the_old_if_it_is_broken(
    monkeypatch: pytest.MonkeyPatch, spool: Path, tmp_path: Path
) -> None:
    file = tmp_path / "map.csv"
    file.write_text("alice,a-1\n", encoding="utf-8")
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    (source,) = simulation.config().sources
    mapped = _replaced(source, accounts=AccountsSettings(file, ()))
    config = _replaced(simulation.config(), sources=(mapped,))
    enrolment = simulation.aggregator.enrolment
    simulation.service.reload(config, enrolment, simulation.door)
    simulation.run(hours=3)
    assert set(simulation.aggregator.by_user()) == {"a-1"}
    file.write_text("alice,a-1,x\n", encoding="utf-8")
    simulation.service.reload(config, enrolment, simulation.door)
    simulation.run(hours=2)
    assert sum("the one before stays in use" in line for line in log(simulation)) == 1
    assert simulation.service._watches[0].health.dropped == {Drop.UNMAPPED: 2}


def test_reload_with_other_sources_asks_for_a_restart(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool)
    other = SourceSettings(1, "simulated", LOCATION, None, "another")
    config = _replaced(simulation.config(), sources=(other,))
    log(simulation)
    simulation.service.reload(config, simulation.aggregator.enrolment, simulation.door)
    assert "the sources changed: restart the agent for them" in log(simulation)


def test_the_status_file_tells_states_and_counts_and_nobody(
    monkeypatch: pytest.MonkeyPatch, spool: Path, tmp_path: Path
) -> None:
    status = tmp_path / "status.json"
    simulation = running(monkeypatch, spool, status=status)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=2)
    text = status.read_text(encoding="ascii")
    assert not any(word in text for word in [*USERS, *simulation.aggregator.epochs(), AGENT])
    assert json.loads(text) == {
        "schema_version": 1,
        "rows": [
            {
                "source": 1,
                "kind": "simulated",
                "location": LOCATION,
                "state": "ok",
                "intervals": 5,
                "failures": 0,
                "readings": 3,
                "dropped": {},
            }
        ],
        "last_outcome": "no_answer",
        "pending_records": 3,
        "pending_batches": 1,
        "rejected": {},
        "spool": "folder",
        "spool_full": False,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_status_file_that_cannot_be_written_is_told_once(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = running(monkeypatch, spool, status=Path("/nowhere/status.json"))
    simulation.run(hours=3)
    assert sum("status /nowhere/status.json" in line for line in log(simulation)) == 1


def test_systemd_is_told_through_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).tell(READY="1", STATUS="fine")
        assert listening.recv(100) == b"READY=1\nSTATUS=fine"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"aggregator-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).tell(WATCHDOG="1")
        assert listening.recv(100) == b"WATCHDOG=1"
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell(READY="1")
    Notifier({"NOTIFY_SOCKET": "vsock:2:1"}).tell(READY="1")
    Notifier({}).tell(READY="1")


def test_lines_have_their_level_in_front_where_the_journal_reads_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    Journal().say(Level.WARNING, "words")
    monkeypatch.setenv("INVOCATION_ID", "x")
    Journal().say(Level.WARNING, "words")
    assert capsys.readouterr().err == "words\n<4>words\n"


def test_an_unexpected_error_is_its_kind_and_place() -> None:
    try:
        write_status(Path("/x"), {"alice": object()})
    except TypeError as error:
        said = unexpected(error)
    assert said.startswith("unexpected TypeError at aggregator.agent.journal:")
    assert "alice" not in said


def test_dropped_readings_are_counted_in_the_health(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool, start=OCTOBER)
    read = simulation.world.read
    monkeypatch.setattr(
        simulation.world,
        "read",
        lambda now: _replaced(read(now), dropped={Drop.UNMAPPED: 2, Drop.REPEATED: 0}),
    )
    simulation.run(hours=1)
    assert simulation.service._watches[0].health.dropped == {Drop.UNMAPPED: 2}


def test_a_late_wake_up_charges_the_day_that_it_is(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """A machine that slept over midnight: the bytes go to the day of the reading, none is lost."""
    simulation = simulated(monkeypatch, spool, start=dt.datetime(2026, 10, 5, 20, tzinfo=dt.UTC))
    simulation.run(hours=1)
    simulation.world.pass_time(6 * 3600)
    simulation.settle()
    held, truth = simulation.aggregator.held(), simulation.world.truth
    assert simulation.aggregator.by_user() == simulation.world.true_by_user()
    for user in USERS:
        assert held["2026-10-05", user] < truth["2026-10-05", user]
