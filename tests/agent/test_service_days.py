"""Days in the life of an agent, simulated: never more than the truth, and nothing read is lost.

The clock, the daemon and the door are simulated; records are sealed, opened and merged for real.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import START, USERS, SimulatedSpool, Simulation, on_tmpfs, simulated

from aggregator.agent.readings import SilentSourceError
from aggregator.errors import BadInputError

_AWAY = ["no_answer", "busy", "lost", "unauthorised"]


@pytest.fixture
def spool() -> Iterator[Path]:
    yield from on_tmpfs()


def assert_never_over(simulation: Simulation, by_day: bool = True) -> None:
    """Nothing that is held exceeds the truth."""
    world, aggregator = simulation.world, simulation.aggregator
    if by_day:
        assert all(count <= world.truth[key] for key, count in aggregator.held().items())
    true = world.true_by_user()
    assert all(aggregator.by_user()[user] <= true[user] for user in USERS)


def test_an_undisturbed_agent_tells_each_day_exactly(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """Over the end of a month: from the first reading on, no byte is in a wrong day."""
    simulation = simulated(monkeypatch, spool)
    simulation.run(days=5, hours=3)
    simulation.settle()
    held, truth = simulation.aggregator.held(), simulation.world.truth
    assert {day for day, _user in held} == {f"2026-09-{day}" for day in (28, 29, 30)} | {
        f"2026-10-0{day}" for day in (1, 2, 3)
    }
    assert held == truth
    assert len(simulation.aggregator.epochs()) == 1
    assert [*spool.glob("*.batch")] == []


@pytest.mark.parametrize("seed", range(6))
def test_outages_and_slow_answers_cost_nothing(
    monkeypatch: pytest.MonkeyPatch, spool: Path, seed: int
) -> None:
    """The door is away at random, loses answers, and takes its time, also around midnight."""
    simulation = simulated(monkeypatch, spool if seed % 2 else None, seed)
    simulation.door.slowest = 29.0
    for _ in range(12):
        chance = simulation.world.chance
        simulation.door.moods = chance.choice([["up"], _AWAY, ["up", *_AWAY]])
        simulation.run(hours=chance.uniform(1, 16))
        assert_never_over(simulation)
    simulation.settle()
    assert simulation.aggregator.held() == simulation.world.truth


@pytest.mark.parametrize("seed", range(8))
def test_cl_4_a_killed_agent_with_a_spool_loses_only_what_it_had_not_read(
    monkeypatch: pytest.MonkeyPatch, spool: Path, seed: int
) -> None:
    """What a life read is held to the byte, and nothing twice, wherever the kill struck."""
    simulation = simulated(monkeypatch, spool, seed)
    simulation.run(minutes=10)
    deadly = ["up", *_AWAY, "killed before", "killed after"]
    for _ in range(10):
        chance = simulation.world.chance
        simulation.door.moods = chance.choice([["up"], _AWAY, deadly, deadly])
        simulation.run(hours=chance.uniform(1, 12))
        assert_never_over(simulation)
    simulation.settle()
    assert simulation.killed > 0
    assert simulation.aggregator.by_user() == simulation.world.was_read()
    assert_never_over(simulation)
    assert len(simulation.aggregator.epochs()) > 1


@pytest.mark.parametrize("seed", range(5))
def test_killed_while_it_spools_it_loses_at_most_the_last_reading_of_a_life(
    monkeypatch: pytest.MonkeyPatch, spool: Path, seed: int
) -> None:
    chance = random.Random(seed)
    at = ["before", "after", *[None] * 12]
    monkeypatch.setattr(SimulatedSpool, "killed_at", staticmethod(lambda: chance.choice(at)))
    simulation = simulated(monkeypatch, spool, seed, spool_class=SimulatedSpool)
    simulation.door.moods = ["up", *_AWAY]
    simulation.run(days=4)
    at = [None]
    simulation.settle()
    assert simulation.killed > 0
    held = simulation.aggregator.by_user()
    most, least = simulation.world.was_read(), simulation.world.was_read(up_to=-2)
    assert all(least[user] <= held[user] <= most[user] for user in USERS)
    assert_never_over(simulation)


@pytest.mark.parametrize("seed", range(3))
def test_killed_without_a_spool_it_loses_what_was_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    simulation = simulated(monkeypatch, None, seed)
    simulation.door.moods = ["up"] * 9 + [*_AWAY, "killed before", "killed after"]
    simulation.run(days=4)
    simulation.settle()
    assert simulation.killed > 0
    held, read = simulation.aggregator.by_user(), simulation.world.was_read()
    assert all(0 < held[user] <= read[user] for user in USERS)
    assert_never_over(simulation)


@pytest.mark.parametrize("seed", range(4))
def test_a_source_that_fails_now_and_then_loses_nothing_and_is_never_zero(
    monkeypatch: pytest.MonkeyPatch, spool: Path, seed: int
) -> None:
    """A missed reading is made up by the next one; only the day may be the later one."""
    simulation = simulated(monkeypatch, spool, seed)
    errors = [BadInputError("gone"), SilentSourceError("old"), RuntimeError("a defect: alice")]

    def trouble() -> None:
        if simulation.world.chance.random() < 0.4:
            raise simulation.world.chance.choice(errors)

    simulation.world.trouble = trouble
    simulation.run(days=4)
    assert_never_over(simulation, by_day=False)
    simulation.settle()
    assert simulation.aggregator.by_user() == simulation.world.was_read()
    assert "alice" not in simulation.log.getvalue()


@pytest.mark.parametrize("seed", range(6))
def test_a_clock_that_jumps_neither_lowers_nor_doubles(
    monkeypatch: pytest.MonkeyPatch, spool: Path, seed: int
) -> None:
    """Back over days that were sent and forgotten, and ahead into months without a key."""
    simulation = simulated(monkeypatch, spool, seed, start=START.replace(day=15))
    world, chance = simulation.world, simulation.world.chance
    before: Counter[tuple[str, str]] = Counter()
    for _ in range(12):
        simulation.run(hours=chance.uniform(0.2, 20))
        jump = chance.choice([-70, -26, -2, -0.01, 0.01, 2, 26, 90 * 24])
        world.time += dt.timedelta(hours=jump)
        simulation.run(hours=chance.uniform(0.2, 9))
        if abs(jump) > 1000:
            world.time -= dt.timedelta(hours=jump)
        held = simulation.aggregator.held()
        assert all(held[key] >= count for key, count in before.items())
        assert_never_over(simulation, by_day=False)
        before = held
    simulation.settle()
    waiting = simulation.service._outbox._waiting
    assert all(day > "2026-11-30" for day in waiting), "only what has no key may wait"
    held = simulation.aggregator.by_user()
    for day in waiting.values():
        for _key, ((count,), record) in day.items():
            held[record.user] += count  # type: ignore[union-attr]  # only usage is simulated
    assert held == world.was_read()


def test_the_daemons_counters_may_take_another_form(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """An update of the daemon: counted from there on, in a new epoch, and nothing twice."""
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=5)
    before = dict(simulation.world.counters)
    simulation.world.keyed_by = "user and interface"
    simulation.run(hours=5)
    simulation.settle()
    assert len(simulation.aggregator.epochs()) == 2
    assert before != simulation.world.counters
    assert_never_over(simulation)
    assert simulation.log.getvalue().count("counters of another form") == 1
    assert simulation.service._watches[0].health.failures == 0


def test_a_restarted_daemon_counts_from_zero(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    simulation = simulated(monkeypatch, spool)
    for _ in range(5):
        simulation.run(hours=7)
        simulation.world.counters = dict.fromkeys(USERS, 0)
        assert_never_over(simulation)
    simulation.settle()
    held, true = simulation.aggregator.by_user(), simulation.world.true_by_user()
    hour = 3600 * 100
    assert all(true[user] - 5 * 1.6 * hour <= held[user] <= true[user] for user in USERS)


def test_memory_holds_no_day_that_is_over_and_acknowledged(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """CL-2: what the aggregator holds is held nowhere else; a wait keeps only what waits."""
    simulation = simulated(monkeypatch, spool)

    def days() -> set[str]:
        outbox, watch = simulation.service._outbox, simulation.service._watches[0]
        totals = {str(day) for day, _account in watch._totals._totals}
        return totals | set(outbox._acknowledged) | set(outbox._waiting)

    simulation.run(days=3)
    assert days() <= {"2026-10-01", "2026-09-30"}
    simulation.run(hours=4)
    assert days() == {"2026-10-01"}
    simulation.door.moods = ["no_answer"]
    simulation.run(days=4)
    assert days() == {f"2026-10-0{day}" for day in range(1, 6)}
    simulation.settle()
    assert days() == {"2026-10-05"}


def test_days_that_are_over_are_sealed_once_however_long_the_door_is_away(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=2)
    simulation.door.moods = ["no_answer"]
    simulation.run(days=3)
    first = {path.name for path in spool.glob("*.batch")}
    assert len(first) == 4
    simulation.run(hours=2)
    assert len(first & {path.name for path in spool.glob("*.batch")}) == 3


def test_cl_2_a_month_that_is_over_is_dropped_even_if_the_door_is_away(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=3)
    simulation.door.moods = ["no_answer"]
    simulation.run(days=4)
    assert min(simulation.service._outbox._waiting) == "2026-09-28"
    simulation.run(hours=24)
    assert min(simulation.service._outbox._waiting) == "2026-10-01"
    assert simulation.log.getvalue().count("2026-09 is over") == 1


def test_a_clock_that_is_ahead_for_an_hour_drops_no_month(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    simulation = simulated(monkeypatch, spool)
    simulation.run(hours=3)
    simulation.door.moods = ["no_answer"]
    simulation.run(hours=3)
    waits = simulation.service._outbox.pending_records
    simulation.world.time += dt.timedelta(days=20)
    simulation.run(hours=1)
    simulation.world.time -= dt.timedelta(days=20)
    simulation.run(hours=1)
    assert simulation.service._outbox.pending_records >= waits
    assert "is over" not in simulation.log.getvalue()
