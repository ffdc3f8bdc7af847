"""Health: which verdict an agent, a location, a day gets, and in which order they are read."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.runs import Run
from aggregator.rules import health, health_agents
from aggregator.rules.health import Check, Closing, Finding, Late, State
from aggregator.rules.health_agents import AGENT_CHECKS, SILENT_AFTER, Contact, Counted, Fleet

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
TODAY = "2026-10-05"
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
LONG_AGO = NOW - 30 * DAY
SECOND = dt.timedelta(seconds=1)


def contact(agent: str = "us-nyc-01", place: str = "us-nyc", **changes: object) -> Contact:
    """Return an agent that does well."""
    well = Contact(agent, (place,), LONG_AGO, NOW - HOUR, NOW - HOUR, TODAY)
    return dataclasses.replace(well, **changes)


def fleet(*contacts: Contact) -> Fleet:
    return Fleet(contacts, LONG_AGO, LONG_AGO)


def checks(*contacts: Contact) -> list[tuple[str, str, State]]:
    found = health_agents.agents(fleet(*contacts), NOW)
    return [(one.check, one.subject, one.state) for one in found]


WELL = contact("se-sto-01", "se-sto")


def test_an_agent_that_is_heard_and_sends_does_well() -> None:
    assert checks(WELL) == [(Check.HEARD, "se-sto-01", State.OK)]


def test_an_agent_is_silent_after_the_time_in_which_an_idle_one_asks_for_keys() -> None:
    """Once a day, plus an interval and half of one at the longest; contacts are to the hour."""
    longest = dt.timedelta(hours=24 + 1.5) + HOUR
    assert longest < SILENT_AFTER
    seen = contact(heard_at=NOW - SILENT_AFTER)
    assert checks(WELL, seen)[-1][0] is Check.HEARD
    (_, found) = health_agents.agents(fleet(WELL, contact(heard_at=NOW - 2 * DAY)), NOW)
    assert (found.check, found.state, found.since) == (Check.SILENT, State.PROBLEM, "2026-10-03")
    assert found.what == "not heard for 2 days (us-nyc)"
    late = contact(heard_at=NOW - SILENT_AFTER - SECOND)
    assert checks(WELL, late)[-1][0] is Check.SILENT


def test_what_is_dropped_as_files_knows_no_door_and_is_seen_by_its_records() -> None:
    assert checks(WELL, contact(heard_at=None))[-1][0] is Check.HEARD
    gone = contact(heard_at=None, taken_at=NOW - 2 * DAY)
    assert checks(WELL, gone)[-1][0] is Check.SILENT
    # Records that waited in the inbox do not make one heard that the door misses.
    assert checks(WELL, contact(heard_at=NOW - 3 * DAY))[-1][0] is Check.SILENT


def test_an_agent_that_was_never_heard_is_told_once_it_could_have_been() -> None:
    new = contact(heard_at=None, taken_at=None, day=None)
    assert checks(WELL, new)[-1] == (Check.NEVER_HEARD, "us-nyc-01", State.WARNING)
    young = dataclasses.replace(new, enrolled_at=NOW - DAY)
    assert checks(WELL, young)[-1] == (Check.NEW, "us-nyc-01", State.OK)
    # Nothing is known of the time before contacts were noted.
    just_now = Fleet((WELL, new), NOW - HOUR, NOW - HOUR)
    assert [one.check for one in health_agents.agents(just_now, NOW)][-1] is Check.NEW


def test_an_agent_without_records_is_told_where_others_send() -> None:
    idle = contact(taken_at=NOW - 49 * HOUR, day="2026-10-03")
    assert checks(WELL, idle)[-1] == (Check.NO_RECORDS, "us-nyc-01", State.WARNING)
    assert checks(idle)[-1][0] is Check.HEARD
    resting = contact("de-fra-01", taken_at=NOW - 50 * HOUR)
    assert [one[0] for one in checks(idle, resting)] == [Check.HEARD, Check.HEARD]
    assert checks(WELL, contact(taken_at=NOW - 48 * HOUR))[-1][0] is Check.HEARD
    none_yet = contact(taken_at=None, day=None)
    assert checks(WELL, none_yet)[-1][0] is Check.NO_RECORDS
    newly = dataclasses.replace(none_yet, enrolled_at=NOW - DAY)
    assert checks(WELL, newly)[-1][0] is Check.HEARD
    unnoted = Fleet((WELL, none_yet), LONG_AGO, NOW - DAY)
    assert [one.check for one in health_agents.agents(unnoted, NOW)][-1] is Check.HEARD


def test_an_agent_whose_records_are_of_old_days_is_told() -> None:
    assert checks(contact(day="2026-10-02"))[-1][0] is Check.OLD_RECORDS
    assert checks(contact(day="2026-10-03"))[-1][0] is Check.HEARD


def test_where_nobody_is_heard_it_is_the_door() -> None:
    gone = [contact(f"a-{n}", heard_at=NOW - (2 + n) * DAY) for n in range(3)]
    found = list(health_agents.agents(fleet(*gone), NOW))
    assert (found[0].check, found[0].state, found[0].since) == (
        Check.DOOR, State.PROBLEM, "2026-10-03"
    )  # fmt: skip
    assert found[0].what == "none of 3 agents is heard"
    assert [one.check for one in found[1:]] == [Check.SILENT] * 3
    assert checks(WELL, *gone)[0][0] is Check.HEARD
    unnoted = list(health_agents.agents(Fleet((WELL, *gone)), NOW))
    assert (unnoted[0].check, unnoted[0].state) == (Check.DOOR, State.WARNING)
    assert list(health_agents.agents(Fleet(()), NOW)) == []


MOMENTS = st.none() | st.integers(-100, 100).map(lambda hours: NOW + hours * HOUR)
CONTACTS = st.builds(
    Contact,
    st.integers(0, 99).map(lambda n: f"a-{n}"),
    st.just(("us-nyc",)),
    st.integers(0, 100).map(lambda hours: NOW - hours * HOUR),
    MOMENTS,
    MOMENTS,
    st.none() | st.sampled_from(["2026-10-01", TODAY]),
)


@given(st.lists(CONTACTS, unique_by=lambda one: one.agent, max_size=6), MOMENTS, MOMENTS)
def test_every_agent_has_one_verdict_and_who_is_heard_lately_is_not_silent(
    contacts: list[Contact], heard_since: dt.datetime | None, taken_since: dt.datetime | None
) -> None:
    found = list(health_agents.agents(Fleet(tuple(contacts), heard_since, taken_since), NOW))
    of_agents = [one for one in found if one.check in AGENT_CHECKS]
    assert sorted(one.subject for one in of_agents) == sorted(one.agent for one in contacts)
    verdicts = {one.subject: one.check for one in of_agents}
    for one in contacts:
        if one.heard_at and NOW - one.heard_at <= SILENT_AFTER:
            assert verdicts[one.agent] not in (Check.SILENT, Check.NEVER_HEARD)


def test_a_note_of_a_wrong_clock_says_nothing() -> None:
    ahead = NOW + 3 * HOUR
    assert health_agents.believed(ahead, NOW, rehearsal=False) is None
    assert health_agents.believed(ahead, NOW, rehearsal=True) == NOW
    for moment in (None, NOW + 2 * HOUR, LONG_AGO):
        assert health_agents.believed(moment, NOW, rehearsal=False) == moment


def frozen(
    *contacts: Contact,
    connected: tuple[str, ...] = ("us-nyc",),
    counted: tuple[str, ...] = (),
    before: str | None = "2026-10-02",
) -> list[Finding]:
    known = {"us-nyc": before} if before else {}
    found = Counted("2026-10-03", connected, counted, known)
    return list(health_agents.frozen(found, fleet(*contacts), NOW))


def test_counters_are_frozen_where_connections_succeed_and_nothing_moves_any_more() -> None:
    (found,) = frozen(WELL)
    assert (found.subject, found.state, found.since) == ("us-nyc", State.PROBLEM, "2026-10-02")
    assert "us-nyc-01" in frozen(contact())[0].remedy
    for fine in (
        frozen(contact(), counted=("us-nyc",)),
        frozen(contact(), connected=()),
        frozen(contact(), before=None),  # a place that never counted, such as one just opened
    ):
        assert [(one.check, one.state) for one in fine] == [(Check.FROZEN, State.OK)]


def test_a_location_whose_agents_are_all_silent_is_not_told_twice() -> None:
    gone = contact(heard_at=NOW - 3 * DAY)
    assert frozen(WELL, gone)[0].state is State.OK
    other = contact("us-nyc-02")
    (found,) = frozen(WELL, gone, other)
    assert found.state is State.PROBLEM
    assert "us-nyc-02" in found.remedy
    assert "us-nyc-01" not in found.remedy


def test_batches_that_wait_are_told_by_the_reason() -> None:
    found = list(health.inbox(9, {"no_key": 2, "unknown_agent": 1, "brand_new": 1}, {}, TODAY))
    assert [(one.subject, one.state) for one in found if one.check is Check.WAITING] == [
        ("brand_new", State.WARNING), ("no_key", State.PROBLEM), ("unknown_agent", State.WARNING),
        ("", State.OK),
    ]  # fmt: skip
    assert found[1].what == "2 batches in the inbox: the key that they are sealed to is not here"
    assert found[3].what == "5 batches wait for the next ingest"
    # What waited was purged since the last drain.
    (waiting, refused) = health.inbox(0, {"no_key": 2}, {}, TODAY)
    assert (waiting.state, refused.state) == (State.OK, State.OK)


def test_refused_batches_are_told_for_a_week() -> None:
    refused = {"2026-09-20": {"malformed": 9}, "2026-10-01": {"revoked": 1},
               "2026-10-04": {"revoked": 2, "malformed": 1}}  # fmt: skip
    found = [one for one in health.inbox(0, {}, refused, TODAY) if one.check is Check.REFUSED]
    assert [(one.subject, one.since) for one in found] == [
        ("malformed", "2026-10-04"), ("revoked", "2026-10-01")
    ]  # fmt: skip
    assert found[1].what == "3 batches refused and removed, the last on 2026-10-04: revoked"


def rejected(**by_day: int) -> list[tuple[State, str]]:
    days = {f"2026-{name[1:3]}-{name[3:]}": {"bad_format": n} for name, n in by_day.items()}
    return [(one.state, one.what) for one in health.rejections(days, TODAY)]


def test_rejections_are_told_where_they_are_more_than_is_usual() -> None:
    usual = {f"d09{number}": 70 for number in range(28, 31)} | {"d1001": 70, "d1002": 70}
    usual |= {"d1003": 70, "d1004": 70}
    assert rejected(**usual, d1005=140)[0][0] is State.OK
    state, what = rejected(**usual, d1005=141)[0]
    assert state is State.WARNING
    assert what == "141 records rejected on 2026-10-05, usually 70 a day: bad format"
    # Days without any count as none.
    assert rejected(d1001=70, d1004=20)[0][0] is State.OK
    assert rejected(d1001=70, d1004=21)[0][0] is State.WARNING
    assert rejected(d1004=10)[0][0] is State.WARNING
    assert rejected(d1004=9)[0][0] is State.OK
    assert rejected(d1003=10**6) == [(State.OK, "no record was rejected since 2026-10-03")]
    assert rejected() == [(State.OK, "no record was ever rejected")]


def test_late_bytes_are_told_by_the_worst_month_and_not_where_they_may_not_be() -> None:
    rows = [
        Late("2026-08", "us-nyc", 1000, 50), Late("2026-09", "us-nyc", 1000, 20),
        Late("2026-09", "de-fra", 1000, 9), Late("2026-09", "nl-ams", 1000, None),
        Late("2026-09", "se-sto", 10, 9), Late("2026-09", "is-rkv", 0, 0),
    ]  # fmt: skip
    found = list(health.late_bytes(rows))
    assert [(one.subject, one.since) for one in found] == [
        ("se-sto", "2026-09-01"), ("us-nyc", "2026-08-01")
    ]  # fmt: skip
    assert found[1].what == "5.0 % of its bytes in 2026-08 came after their day was closed"
    (fine,) = health.late_bytes(rows[2:4])
    assert (fine.state, fine.what) == (
        State.OK, "below 1 % of any location's bytes; 1 row may not be told"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "state"),
    [(0, State.OK), (24, State.OK), (25, State.WARNING), (48, State.WARNING), (49, State.PROBLEM)],
)
def test_lag_is_a_warning_after_a_day_and_a_problem_after_two(hours: int, state: State) -> None:
    found = health.lag(("2026-10-02", "2026-10-03"), hours * HOUR)
    assert (found.state, found.since) == (state, "2026-10-02")
    assert health.lag((), 0 * HOUR).what == "no day is due"


def test_a_day_for_which_nothing_came_is_missed() -> None:
    found = health.closed("2026-10-01", "2026-10-03", ())
    assert (found.state, found.since) == (State.WARNING, "2026-10-02")
    assert health.closed("2026-10-01", "2026-10-03", ("2026-10-02",)).state is State.OK
    assert health.closed("2026-10-03", "2026-10-03", ()).state is State.OK
    assert health.closed(None, "2026-10-03", ()).state is State.OK


def test_withheld_days_and_few_named_users_are_told_by_table() -> None:
    closings = [
        Closing("2026-10-01", "usage_daily", 100, 50, False),
        Closing("2026-10-02", "usage_daily", 0, 0, True),
        Closing("2026-10-02", "apps_daily", 100, 49, False),
    ]
    found = [(one.check, one.subject, one.state) for one in health.released(closings)]
    assert found == [
        (Check.NAMED, "apps_daily", State.WARNING),
        (Check.WITHHELD, "usage_daily", State.WARNING),
        (Check.NAMED, "usage_daily", State.OK),
    ]
    assert [one.check for one in health.released([])] == [Check.WITHHELD]


def test_jobs_that_failed_are_told_unless_they_are_switched_off() -> None:
    failed = Run("mail", NOW, 1.0, 7, "the server is away", None, 3, NOW - DAY)
    well = Run("ingest", NOW, 1.0, 0, succeeded_at=NOW)
    (found,) = health.jobs([well, failed], ())
    assert (found.subject, found.state, found.since) == ("mail", State.PROBLEM, "2026-10-04")
    assert found.what == "failed, 3 times in a row (exit 7): the server is away"
    (fine,) = health.jobs([well, failed], {"mail"})
    assert fine.state is State.OK


FINDINGS = st.builds(
    Finding,
    st.sampled_from([*Check, "little_disk"]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(State),
    st.none() | st.sampled_from(["2026-10-01", "2026-10-02"]),
    st.just("what"),
)


@given(st.lists(FINDINGS))
def test_the_worst_comes_first_and_nothing_is_lost(findings: list[Finding]) -> None:
    found = health.ordered(findings)
    places = [list(State).index(one.state) for one in found]
    assert places == sorted(places)
    assert sorted(map(repr, found)) == sorted(map(repr, findings))
    assert health.ordered(reversed(findings)) == found or len(set(findings)) < len(findings)
