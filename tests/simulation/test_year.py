"""A simulated year: agents report every day while hosts, clocks and runs let the home down.

    SIMULATION_SEED=7 SIMULATION_YEAR=2027 pytest -m integration tests/simulation

The clock is injected: nothing waits. Jobs run in this process as `aggregator run` runs them, at
the times of their cron lines; a killed one dies at a durable step, as kill -9 would leave it.
Syncing is left out, since no power is cut here: it changes nothing that a process can see.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .checks import Searcher, check_day, check_end, check_month, check_receipt
from .plan import DAY, HOUR, Plan, from_environment, start_of
from .world import World

_REPORTS = {0: 18, 15: 43}
"""At which minute of which hour agents report; the first is of the day before."""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in a zone with summer time, half an hour off the others; and no waiting for disks."""
    monkeypatch.setenv("TZ", "America/St_Johns")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.slow
def test_a_quarter_with_a_leap_day(tmp_path: Path) -> None:
    """CL-2, CV-5, CS-2, CT-3: tables equal the truth, and no raw counter outlives its time."""
    # Of this seed: a week's outage over February's end, a clock 40 days ahead at March's, one ten
    # years ahead, one five days behind, crashes at a purge, and jobs that do not run for days.
    _simulate(tmp_path, Plan.of(2708, dt.date(2028, 1, 1), 91))


@pytest.mark.integration
def test_a_year(tmp_path: Path) -> None:
    """CL-2, CV-5, CS-2, CT-3: the same for a year, or what SIMULATION_* ask for."""
    _simulate(tmp_path, from_environment())


def test_quiet_runs_change_nothing(tmp_path: Path) -> None:
    """What the simulation leaves out: runs of a table's hour in which there is nothing to do."""
    world = World(tmp_path / "world", Plan(1, dt.date(2028, 1, 1), 1, ()))
    with world.living():
        world.now += 3 * HOUR
        before = _files(world.root)
        world.every_run = True
        runs = world.due()
        for minute, job in runs:
            world.now = start_of(world.plan.first) + 3 * HOUR + dt.timedelta(minutes=minute)
            assert world.run_once(job)
        after = _files(world.root)
    assert [job for _, job in runs].count("ingest") == 12
    assert after == before


def _files(root: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "runs"
    }


def _simulate(folder: Path, plan: Plan) -> None:
    world = World(folder / "world", plan)
    try:
        with world.living():
            _live(world)
    except BaseException as error:
        begin = f"SIMULATION_SEED={plan.seed} SIMULATION_YEAR={plan.first.year}"
        begin += f" SIMULATION_DAYS={plan.days}"
        error.add_note(f"{begin}: true time {world.now}, the host's clock {world.clock}")
        error.add_note(f"trouble: {world.trouble}; seen: {dict(world.seen)}")
        raise
    print(f"\nseed {plan.seed}, {plan.days} days: {dict(sorted(world.seen.items()))}")
    for agent in world.agents:
        print(f"{agent.name}: {dict(sorted(agent.said.items()))}")


def _live(world: World) -> None:
    searcher = Searcher(world, world.folder.parent / "inodes")
    checked: set[str] = set()
    hour = start_of(world.plan.first)
    while hour < start_of(world.plan.first) + (world.plan.days + 4) * DAY:
        _hour(world, hour)
        hour += HOUR
        if hour.hour:
            continue
        world.now = hour - dt.timedelta(seconds=1)
        check_day(world)
        searcher.remember_keys()
        for month in sorted(set(world.gone) - checked):
            wrong = check_month(world, month)
            assert not wrong, "\n".join(wrong[:20])
            check_receipt(world, month)
            searcher.check_overwritten(month)
            searcher.search()
            checked.add(month)
    searcher.search(everything=True)
    check_end(world)


def _hour(world: World, hour: dt.datetime) -> None:
    """Live one hour of true time: troubles begin and end, agents report, jobs run."""
    world.now = hour
    world.change_trouble()
    acts: list[tuple[int, str]] = world.due() if world.jobs_run() else []
    if hour.hour in _REPORTS:
        acts = sorted([*acts, (_REPORTS[hour.hour], "agents")])
    for minute, act in acts:
        world.now = max(world.now, hour + dt.timedelta(minutes=minute))
        world.change_trouble()
        if act == "agents":
            _agents(world, hour)
        elif world.jobs_run() and world.has_work(act, minute):
            world.run(act)


def _agents(world: World, hour: dt.datetime) -> None:
    day = hour.date() - DAY if hour.hour == 0 else hour.date()
    plan = world.plan
    for agent in world.agents:
        if plan.first <= day < plan.first + plan.days * DAY:
            agent.report(day)
        agent.send(world.now, world)
        if hour.day == 20 and hour.hour == 15 and hour.month % 3 == 0 and world.is_up():
            world.rotate(agent)
