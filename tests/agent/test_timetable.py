"""When an agent reads and sends: properties of decisions that have no clock of their own."""

from __future__ import annotations

import datetime as dt
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.agent.timetable import CLOSING_SECONDS, LONGEST_WAIT, Timetable

NOON = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)


def steps(
    interval: float, seed: int, hours: float, now: dt.datetime = NOON, request: float = 30
) -> tuple[list[tuple[dt.datetime, dt.date]], list[dt.datetime]]:
    """Return readings, with the day they are charged to, and sendings."""
    table = Timetable.start(interval, request, random.Random(seed), 0.0, now)
    at, reads, sends = 0.0, [], []
    while at < hours * 3600:
        moment = now + dt.timedelta(seconds=at)
        due = table.due(at, moment)
        if due.read is not None:
            reads.append((moment, due.read))
        if due.send:
            sends.append(moment)
        wait = table.wait(at, moment)
        assert 0 <= wait <= LONGEST_WAIT
        assert wait > 0 or due.read or due.send, "never busy for nothing"
        at += max(wait, 0.001)
    return reads, sends


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3600), st.integers(0, 10_000))
def test_readings_keep_their_interval(interval: int, seed: int) -> None:
    reads, sends = steps(interval, seed, hours=interval * 10 / 3600)
    gaps = [(b - a).total_seconds() for (a, _), (b, _) in itertools.pairwise(reads)]
    assert reads[0][0] == NOON, "the baseline is read at once"
    assert 0.45 * interval <= gaps[0] <= 1.55 * interval
    assert all(0.95 * interval - 0.1 <= gap <= 1.05 * interval + 0.1 for gap in gaps[1:])
    assert len(sends) == len(reads) or len(sends) == len(reads) - 1


def test_a_fleet_is_not_in_step() -> None:
    """Neither readings nor sendings of agents that are started together."""
    second_reads = {steps(300, seed, 0.2)[0][1][0] for seed in range(50)}
    second_sends = {steps(300, seed, 0.3)[1][1] for seed in range(50)}
    assert len(second_reads) == len(second_sends) == 50
    assert (max(second_reads) - min(second_reads)).total_seconds() > 200


@settings(deadline=None, max_examples=30)
@given(st.integers(30, 3600), st.integers(0, 10_000), st.floats(0, 2))
def test_every_midnight_has_a_reading_of_the_day_that_ends(
    interval: int, seed: int, start: float
) -> None:
    now = NOON + dt.timedelta(hours=12 - start)
    reads, sends = steps(interval, seed, 3, now)
    midnight = dt.datetime(2026, 10, 6, tzinfo=dt.UTC)
    closing = [moment for moment, day in reads if moment >= midnight and day < midnight.date()]
    if now < midnight:
        assert len(closing) == 1
        assert (closing[0] - midnight).total_seconds() < 0.01
        assert not any(0 <= (midnight - sent).total_seconds() <= 35 for sent in sends)
    assert all(day == moment.date() for moment, day in reads if moment not in closing)


@pytest.mark.parametrize(
    ("late", "charged"), [(0.0, 5), (CLOSING_SECONDS, 5), (CLOSING_SECONDS + 0.1, 6), (9000, 6)]
)
def test_a_late_reading_at_midnight_belongs_to_the_day_that_it_is(
    late: float, charged: int
) -> None:
    table = Timetable.start(300, 30, random.Random(0), 0.0, NOON)
    midnight = NOON + dt.timedelta(hours=12)
    table.due(0.0, NOON)
    due = table.due(12 * 3600 + late, midnight + dt.timedelta(seconds=late))
    assert due.read == dt.date(2026, 10, charged)


@pytest.mark.parametrize("jump", [-400, -24, -1, 24, 48, 4000])
def test_after_a_jump_of_the_clock_a_reading_belongs_to_the_day_that_it_is(jump: int) -> None:
    table = Timetable.start(300, 30, random.Random(0), 0.0, NOON)
    table.due(0.0, NOON)
    there = NOON + dt.timedelta(hours=jump)
    due = table.due(1.0, there)
    assert due.read == (there.date() if there.date() != NOON.date() else None)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_pauses_grow_with_full_jitter_up_to_15_minutes(seed: int) -> None:
    table = Timetable.start(300, 30, random.Random(seed), 0.0, NOON)
    pauses = [table.pause(0.0, 0.0, None) for _ in range(60)]
    assert all(pause <= min(900, 5 * 2 ** (number + 1)) for number, pause in enumerate(pauses))
    assert max(pauses[-40:]) > 500
    table.sent()
    assert table.pause(0.0, 0.0, None) <= 10


@pytest.mark.parametrize(
    ("asked", "least", "expected"), [(60, 0, 60), (0, 1, 1), (10**9, 0, 3600), (10, 300, 300)]
)
def test_retry_after_is_kept_and_bounded(asked: float, least: float, expected: float) -> None:
    table = Timetable.start(300, 30, random.Random(0), 0.0, NOON)
    assert expected <= table.pause(0.0, least, asked) <= expected + 5


def test_nothing_is_sent_while_a_pause_lasts_and_something_right_after() -> None:
    table = Timetable.start(300, 30, random.Random(0), 0.0, NOON)
    pause = table.pause(0.0, 2000.0, None)
    sent = []
    for second in range(3000):
        if table.due(float(second), NOON + dt.timedelta(seconds=second)).send:
            sent.append(second)
    assert sent[0] == pytest.approx(pause, abs=1.1)
