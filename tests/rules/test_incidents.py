"""Incidents: what troubles a home is in, and that each is told as often as it should be."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.runs import Facts, Incident, Known, Run, Trouble
from aggregator.rules import incidents
from aggregator.rules.health_agents import SILENT_AFTER

NOW = dt.datetime(2026, 11, 3, 6, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
FINE = Facts(
    now=NOW,
    watched_since=NOW - 30 * DAY,
    runs=(Run("ingest", NOW - HOUR / 2, 0.2, 0, succeeded_at=NOW - HOUR / 2),),
    overdue_after=(("ingest", HOUR),),
    free_bytes=10**12,
)


def kinds(**changes: object) -> list[Trouble]:
    return [one.trouble for one in incidents.find(dataclasses.replace(FINE, **changes))]


def test_a_home_that_does_well_has_no_trouble() -> None:
    assert incidents.find(FINE) == []


def test_a_purge_is_late_two_hours_after_it_is_due() -> None:
    due = {"purge_month": "2026-10"}
    assert kinds(**due, purge_due_at=NOW - 2 * HOUR) == []
    late = dt.timedelta(seconds=1)
    assert kinds(**due, purge_due_at=NOW - 2 * HOUR - late) == [Trouble.PURGE_LATE]
    assert kinds(**due, purge_due_at=NOW + HOUR) == []


def test_a_purge_that_waits_for_the_clock_names_the_remedy() -> None:
    facts = dataclasses.replace(
        FINE, purge_month="2026-10", purge_due_at=NOW - DAY, purge_waits=True, clock_doubt_since=NOW
    )
    late, clock = incidents.find(facts)
    assert (late.trouble, clock.trouble) == (Trouble.PURGE_LATE, Trouble.CLOCK_IN_DOUBT)
    assert "--confirm-clock" in late.remedy
    assert late.key == "purge_late:2026-10"


def test_a_job_that_fails_is_told_with_its_problem_and_how_often() -> None:
    failed = Run("ingest", NOW, 1.0, 4, "batches refused and removed: 2", None, 3, NOW - HOUR)
    (found,) = incidents.find(dataclasses.replace(FINE, runs=(failed,)))
    assert found.trouble is Trouble.JOB_FAILED
    assert found.since == NOW - HOUR
    assert "3 times in a row (exit 4): batches refused and removed: 2" in found.what


def test_a_job_that_does_not_run_is_overdue_from_its_last_run_or_from_the_first_of_any() -> None:
    old = Run("ingest", NOW - 2 * HOUR, 0.2, 0, succeeded_at=NOW - 2 * HOUR)
    (found,) = incidents.find(dataclasses.replace(FINE, runs=(old,)))
    assert (found.key, found.since) == ("job_overdue:ingest", NOW - HOUR)
    assert kinds(runs=()) == [Trouble.JOB_OVERDUE]
    assert kinds(runs=(), watched_since=NOW - HOUR / 2) == []
    assert kinds(runs=(), overdue_after=()) == []


def test_days_disk_and_settings_are_looked_at() -> None:
    late = {"due_days": ("2026-10-30", "2026-10-31"), "days_lag": 49 * HOUR}
    assert kinds(**late) == [Trouble.DAYS_LATE]
    assert kinds(days_lag=48 * HOUR, due_days=("2026-10-31",)) == []
    assert kinds(free_bytes=10**9 - 1) == [Trouble.LITTLE_DISK]
    assert kinds(free_bytes=None) == []
    wrong = (("door", "x"), ("mail", "y"))
    found = incidents.find(dataclasses.replace(FINE, settings_problems=wrong))
    assert [one.key for one in found] == ["settings:door", "settings:mail"]


def test_silent_agents_are_one_trouble_that_settles_after_an_outage_of_the_door() -> None:
    gone = (NOW - 2 * DAY, NOW - 30 * HOUR, NOW - 3 * DAY)
    (found,) = incidents.find(dataclasses.replace(FINE, silent_since=gone))
    assert found.trouble is Trouble.AGENTS_SILENT
    assert found.since == NOW - 3 * DAY + SILENT_AFTER
    assert (found.what, found.remedy) == (
        "3 agents were not heard for 27 h", "see: aggregator report health"
    )  # fmt: skip
    (one,) = incidents.find(dataclasses.replace(FINE, silent_since=gone[:1]))
    assert (one.key, one.what) == (found.key, "1 agent was not heard for 27 h")
    teller = Teller()
    assert teller.look(NOW, found) == ([], [])
    assert teller.look(NOW + HOUR, found) == ([], [])
    assert teller.look(NOW + 2 * HOUR, found) == (["agents_silent"], [])


def test_a_job_that_is_switched_off_fails_no_more() -> None:
    failed = Run("mail", NOW - HOUR, 0.2, 7, "a line", None, 3, NOW - DAY)
    runs = (*FINE.runs, failed)
    assert kinds(runs=runs) == []
    planned = (*FINE.overdue_after, ("mail", DAY))
    assert kinds(runs=runs, overdue_after=planned) == [Trouble.JOB_FAILED]


def test_a_run_of_a_clock_in_the_future_hides_nothing() -> None:
    later = Run("ingest", NOW + 9000 * DAY, 0.2, 0, succeeded_at=NOW + 9000 * DAY)
    assert kinds(runs=(later,)) == [Trouble.JOB_OVERDUE]


def incident(key: str = "a", settles: dt.timedelta = dt.timedelta(0)) -> Incident:
    return Incident(key, Trouble.JOB_FAILED, NOW, "what", "remedy", settles)


class Teller:
    """Looks every so often, as the jobs do, and keeps what was told."""

    def __init__(self, repeat: dt.timedelta = DAY) -> None:
        self.known: dict[str, Known] = {}
        self.repeat = repeat

    def look(self, now: dt.datetime, *found: Incident) -> tuple[list[str], list[str]]:
        telling = incidents.telling(found, self.known, now, self.repeat)
        self.known = incidents.after_telling(found, self.known, now, telling, self.repeat)
        return [one.key for one in telling.lasting], list(telling.over)


def test_a_trouble_is_told_once_then_every_day_and_its_end_once() -> None:
    teller = Teller()
    assert teller.look(NOW, incident()) == (["a"], [])
    for minutes in range(5, 24 * 60, 5):
        assert teller.look(NOW + dt.timedelta(minutes=minutes), incident()) == ([], [])
    assert teller.look(NOW + DAY, incident()) == (["a"], [])
    assert teller.look(NOW + DAY + HOUR) == ([], ["a"])
    assert teller.look(NOW + DAY + 2 * HOUR) == ([], [])
    assert teller.look(NOW + 3 * DAY, incident()) == (["a"], [])


def test_a_trouble_that_comes_and_goes_is_told_no_oftener() -> None:
    teller, told = Teller(), []
    for number in range(24 * 12):
        found = [incident()] if number % 2 else []
        told.append(teller.look(NOW + number * dt.timedelta(minutes=5), *found))
    assert sum(len(lasting) for lasting, _ in told) == 1
    assert sum(len(over) for _, over in told) == 1


def test_what_settles_by_itself_is_not_told() -> None:
    """After an outage every job is late until its next time."""
    teller, slow = Teller(), incident(settles=HOUR)
    assert teller.look(NOW, slow) == ([], [])
    assert teller.look(NOW + HOUR - dt.timedelta(minutes=5), slow) == ([], [])
    assert teller.look(NOW + HOUR) == ([], [])
    assert teller.known == {}
    assert teller.look(NOW + DAY, slow) == ([], [])
    assert teller.look(NOW + DAY + HOUR, slow) == (["a"], [])


def test_a_clock_that_turned_back_silences_nothing() -> None:
    teller = Teller()
    teller.look(NOW + 400 * DAY, incident())
    assert teller.look(NOW, incident()) == (["a"], [])


@given(
    st.lists(st.tuples(st.integers(0, 3 * 1440), st.sets(st.sampled_from("abc"))), max_size=40),
    st.integers(1, 48),
)
def test_every_end_that_is_told_was_told_as_trouble_and_none_twice(
    looks: list[tuple[int, set[str]]], hours: int
) -> None:
    teller, now, loud = Teller(hours * HOUR), NOW, set[str]()
    last: dict[str, dt.datetime] = {}
    for minutes, found in looks:
        now += dt.timedelta(minutes=minutes)
        lasting, over = teller.look(now, *(incident(key) for key in sorted(found)))
        assert set(lasting) <= found
        assert set(over) <= loud - found
        for key in lasting:
            assert key not in last or now - last[key] >= hours * HOUR
            last[key] = now
        loud = (loud | set(lasting)) - set(over)
        # Whatever lasts now was told within the time of repetition.
        assert all(now - last[key] < hours * HOUR for key in found)
        assert len(teller.known) <= 3


@pytest.mark.parametrize("trouble", list(Trouble))
def test_every_kind_of_trouble_can_be_found(trouble: Trouble) -> None:
    everything = dataclasses.replace(
        FINE,
        runs=(Run("mail", NOW, 1.0, 7, "no", None, 1, NOW),),
        overdue_after=(*FINE.overdue_after, ("mail", DAY)),
        purge_month="2026-10",
        purge_due_at=NOW - DAY,
        clock_doubt_since=NOW,
        due_days=("2026-10-30",),
        days_lag=3 * DAY,
        silent_since=(NOW - 3 * DAY,),
        free_bytes=1,
        settings_problems=(("mail", "x"),),
    )
    found = incidents.find(everything)
    assert trouble in {one.trouble for one in found}
    order = [list(Trouble).index(one.trouble) for one in found]
    assert order == sorted(order)
