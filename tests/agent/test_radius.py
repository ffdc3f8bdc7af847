"""RADIUS sessions: each is worth its largest number, once, however it is told (CS-2).

Addresses end in the parser (CS-1, CS-6).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors import Source
from aggregator.agent.collectors.radius import Sessions
from aggregator.agent.collectors.radius_records import EVERY_NAS, Event, Meaning, Said
from aggregator.agent.readings import Drop, Origin, nowhere
from aggregator.agent.resets import from_zero
from aggregator.agent.totals import RunningTotals

START, STOP, INTERIM, ON, OFF = 1, 2, 3, 7, 8
GIB = 2**30
WORD = 2**32
T = 1_000_000
DAY_SECONDS = 86_400


def event(
    status: int,
    at: float,
    received: int | None = None,
    sent: int | None = None,
    *,
    session: str = "0001",
    user: str = "alice",
    nas: str = "nas-a",
    delay: int = 0,
    elapsed: int | None = None,
    high: int | None = None,
    station: str = "",
    wrapping: Iterable[str] = (),
    locate: Any = nowhere,
) -> Event | Drop | None:
    """Return what a NAS said at `at`, and what arrived `delay` later; `high` is both Gigawords."""
    numbers = {
        "Acct-Status-Type": status,
        "Acct-Delay-Time": delay or None,
        "Acct-Input-Octets": received,
        "Acct-Output-Octets": sent,
        "Acct-Input-Gigawords": high,
        "Acct-Output-Gigawords": high,
        "Acct-Session-Time": elapsed,
    }
    texts = {
        "NAS-Identifier": nas,
        "Acct-Session-Id": session,
        "User-Name": user,
        "Calling-Station-Id": station,
    }
    said = Said(texts, {name: value for name, value in numbers.items() if value is not None})
    return Meaning(locate, frozenset(wrapping)).event(said, at + delay)


def played(*events: Event | Drop | None, since: float | None = None) -> Sessions:
    """Return the sessions after these events, in this order of arrival."""
    sessions = Sessions(since)
    for found in events:
        sessions.take(found, T)
    return sessions


def counts(sessions: Sessions) -> list[int]:
    """Return the bytes of every session, smallest first."""
    return sorted(reading.bytes for reading in sessions.capture().readings)


def test_sessions_of_one_user_add_up() -> None:
    sessions = played(
        event(START, T),
        event(INTERIM, T + 60, 100, 10),
        event(START, T + 60, session="0002"),
        event(INTERIM, T + 90, 5, 6, session="0002"),
        event(STOP, T + 120, 150, 20),
    )
    assert counts(sessions) == [11, 170]
    assert {reading.name for reading in sessions.capture().readings} == {"alice"}


def test_gigawords_are_the_upper_half_of_the_number() -> None:
    assert counts(played(event(INTERIM, T, 5, 7, high=2))) == [4 * WORD + 12]


def test_gigawords_that_come_once_the_first_4_gib_are_full_are_no_fall() -> None:
    found = [event(INTERIM, T, WORD - 1), event(INTERIM, T + 60, 704, high=1)]
    assert counts(played(*found)) == [WORD + 704]


def test_a_number_that_no_record_may_carry_is_dropped() -> None:
    sessions = played(event(INTERIM, T, 1, 1, high=2**21))
    assert sessions.capture().dropped == {Drop.UNREADABLE: 1}


def test_an_interim_without_start_opens_a_session() -> None:
    sessions = played(event(INTERIM, T, 777, 888))
    capture = sessions.capture()
    assert [reading.bytes for reading in capture.readings] == [1665]
    assert [connection.established for connection in capture.connections] == [True]


@pytest.mark.parametrize("delay", [0, 3, 90])
def test_a_stop_that_is_sent_again_counts_once(delay: int) -> None:
    stop = event(STOP, T + 100, 500, 600)
    again = event(STOP, T + 100, 500, 600, delay=delay)
    assert counts(played(event(START, T), stop, again, stop)) == [1100]


@pytest.mark.parametrize(("elapsed", "later"), [(3, 2), (3, 5), (3, 600), (0, 1), (0, 600)])
def test_a_stop_that_is_sent_again_long_after_its_session_time_counts_once(
    elapsed: int, later: int
) -> None:
    """Its session time, taken from when the copy came, begins after the Stop."""
    stop = {"received": 600, "sent": 400, "elapsed": elapsed}
    sessions = played(
        event(START, T),
        event(STOP, T + elapsed, **stop),
        event(STOP, T + elapsed + later, **stop),
    )
    assert counts(sessions) == [1000]


def test_reordered_interims_are_worth_the_largest() -> None:
    interims = [event(INTERIM, T + 60 * n, 100 * n, n, delay=9) for n in range(1, 5)]
    for order in itertools.permutations(interims):
        assert counts(played(event(START, T), *order)) == [404]


def test_a_copy_that_came_late_and_does_not_say_so_is_known_by_its_session_time() -> None:
    sessions = played(
        event(INTERIM, T + 600, 100, 0, elapsed=600),
        event(INTERIM, T + 1200, 300, 0, elapsed=1200),
        event(INTERIM, T + 1201, 100, 0, elapsed=600),
        event(INTERIM, T + 1800, 400, 0, elapsed=1800),
    )
    assert counts(sessions) == [400]


def test_packetfence_2113_a_late_interim_does_not_open_a_session_again() -> None:
    sessions = played(event(START, T), event(STOP, T + 100, 500, 600))
    sessions.capture()
    for late in (event(INTERIM, T + 60, 300, 300, delay=70), event(INTERIM, T + 130, 300, 300)):
        sessions.take(late, T)
    capture = sessions.capture()
    assert [reading.bytes for reading in capture.readings] == [1100]
    assert not capture.connections
    assert not sessions.any_open()


@pytest.mark.parametrize("octets", [(None, None), (0, 0)])
def test_freeradius_1460_a_stop_without_octets_does_not_zero_a_session(
    octets: tuple[int | None, int | None],
) -> None:
    sessions = played(event(INTERIM, T, 500, 600), event(STOP, T + 60, *octets))
    assert counts(sessions) == [1100]
    assert not sessions.any_open()


def test_a_late_interim_completes_a_session_that_stopped_without_octets() -> None:
    sessions = played(
        event(INTERIM, T, 500, 600),
        event(STOP, T + 60),
        event(INTERIM, T + 50, 700, 800, delay=20),
    )
    assert counts(sessions) == [1500]


def test_one_missing_number_is_as_before() -> None:
    assert counts(played(event(INTERIM, T, 500, 600), event(INTERIM, T + 60, 700))) == [1300]


def test_a_smaller_number_is_a_new_session_under_the_same_id() -> None:
    sessions = played(event(INTERIM, T, 500, 600), event(INTERIM, T + 60, 5, 6))
    capture = sessions.capture()
    assert sorted(reading.bytes for reading in capture.readings) == [11, 1100]
    assert len({reading.counter for reading in capture.readings}) == 2
    assert counts(played(event(INTERIM, T, 500, 6), event(INTERIM, T + 60, 5, 60))) == [65, 506]


def test_vnstat_40_a_fall_is_a_wrap_only_where_it_was_declared() -> None:
    before, after = (4 * GIB - 1000, 50), (704, 60)

    def with_nas(nas: str, wrapping: tuple[str, ...]) -> list[int]:
        return counts(
            played(
                *(
                    event(INTERIM, T + 60 * n, *number, nas=nas, wrapping=wrapping)
                    for n, number in enumerate((before, after))
                )
            )
        )

    assert with_nas("nas-a", ()) == [764, 4 * GIB - 950]
    assert with_nas("nas-a", ("nas-a",)) == [4 * GIB + 764]
    assert with_nas("nas-a", (EVERY_NAS,)) == [4 * GIB + 764]
    assert with_nas("nas-b", ("nas-a",)) == [764, 4 * GIB - 950]


def test_several_wraps_add_up_and_old_numbers_change_nothing() -> None:
    numbers = [3 * GIB, GIB, 2 * GIB, GIB // 2]
    wrapped = [
        event(INTERIM, T + 60 * n, value, 0, wrapping=(EVERY_NAS,), elapsed=60 * n)
        for n, value in enumerate(numbers)
    ]
    echoes = [
        event(INTERIM, T, 3 * GIB, 0, wrapping=(EVERY_NAS,), delay=400),
        event(INTERIM, T + 300, 3 * GIB, 0, wrapping=(EVERY_NAS,), elapsed=0),
        event(STOP, T + 400, 0, 0, wrapping=(EVERY_NAS,)),
    ]
    assert counts(played(*wrapped, *echoes)) == [8 * GIB + GIB // 2]


def test_a_declared_nas_that_sends_gigawords_after_all_does_not_wrap() -> None:
    first = event(INTERIM, T, 100, 0, high=1, wrapping=(EVERY_NAS,))
    assert counts(played(first, event(INTERIM, T + 9, 50, 0, wrapping=(EVERY_NAS,)))) == [
        50,
        2 * WORD + 100,
    ]


def test_after_a_start_a_smaller_number_is_no_wrap() -> None:
    found = [
        event(INTERIM, T, 500, 0, wrapping=(EVERY_NAS,)),
        event(START, T + 30, wrapping=(EVERY_NAS,)),
        event(INTERIM, T + 60, 50, 0, wrapping=(EVERY_NAS,)),
    ]
    assert counts(played(*found)) == [50, 500]


@pytest.mark.parametrize("restart", [ON, OFF])
def test_a_restart_of_the_nas_ends_its_sessions_and_no_others(restart: int) -> None:
    sessions = played(
        event(INTERIM, T, 500, 0),
        event(INTERIM, T, 500, 0, nas="nas-b"),
        event(restart, T + 10, session="0", user=""),
        event(START, T + 20),
        event(INTERIM, T + 30, 900, 0),
        event(INTERIM, T + 30, 900, 0, nas="nas-b"),
    )
    assert counts(sessions) == [500, 900, 900]


def test_a_restart_in_the_same_second_is_told_by_the_order_of_arrival() -> None:
    sessions = played(
        event(INTERIM, T, 500, 0),
        event(ON, T),
        event(INTERIM, T, 700, 0),
    )
    assert counts(sessions) == [500, 700]


def test_a_delayed_copy_from_before_the_restart_counts_nothing() -> None:
    copy = event(STOP, T + 5, 500, 0, delay=60)
    sessions = played(
        event(STOP, T + 5, 500, 0),
        event(ON, T + 10),
        copy,
        event(START, T + 40),
        copy,
        event(INTERIM, T + 50, 20, 0),
        copy,
    )
    assert counts(sessions) == [20, 500]


def test_a_delay_that_was_rounded_down_does_not_move_a_copy_behind_the_restart() -> None:
    stop, old = event(STOP, T + 5, 500, 0), event(INTERIM, T + 7.9, 300, 0, delay=60)
    copy = event(STOP, T + 7.9, 500, 0, delay=60)
    restart, start = event(ON, T + 7), event(START, T + 7.5)
    assert counts(played(stop, restart, old, copy)) == [500]
    assert counts(played(stop, restart, start, old, copy)) == [0, 500]


def test_a_copy_that_does_not_say_so_counts_nothing_after_the_restart() -> None:
    assert counts(played(event(STOP, T, 500, 0), event(ON, T + 5), event(STOP, T + 9, 500, 0))) == [
        500
    ]


def test_a_copy_of_the_restart_ends_nothing_that_began_after_it() -> None:
    sessions = played(
        event(ON, T), event(START, T + 0.5), event(ON, T + 0.9, delay=5), event(INTERIM, T + 60, 5)
    )
    assert counts(sessions) == [5]


def test_a_stop_of_an_older_session_does_not_end_the_one_that_goes_on() -> None:
    sessions = played(
        event(INTERIM, T + 60, 6, elapsed=50),
        event(STOP, T + 5, delay=60),
        event(INTERIM, T + 50, 5, elapsed=40, delay=30),
    )
    assert counts(sessions) == [6]
    assert sessions.any_open()


def test_a_start_in_the_second_of_the_stop_begins_a_new_session() -> None:
    found = [event(STOP, T, 500, 0), event(START, T), event(INTERIM, T + 60, 600, 0)]
    assert counts(played(*found)) == [500, 600]


def test_a_restart_that_is_told_late_or_twice_ends_only_what_was_before() -> None:
    sessions = played(
        event(INTERIM, T, 500, 0, session="0009"),
        event(START, T + 20),
        event(INTERIM, T + 30, 100, 0),
        event(ON, T + 10, delay=25),
        event(ON, T + 10, delay=31),
        event(INTERIM, T + 60, 200, 0),
    )
    capture = sessions.capture()
    assert sorted(reading.bytes for reading in capture.readings) == [200, 500]
    assert sessions.any_open()


@pytest.mark.parametrize(
    ("stops", "elapsed", "counted"),
    [(101, 101, 510), (110, 110, 510), (101, None, 510), (110, None, 500)],
)
def test_a_nas_that_stops_its_sessions_after_accounting_off_counts_them_once(
    stops: int, elapsed: int | None, counted: int
) -> None:
    """Without a session time the end of it is lost: it might be that of a later session."""
    sessions = played(
        event(START, T),
        event(INTERIM, T + 60, 500, 0, elapsed=None if elapsed is None else 60),
        event(OFF, T + 100),
        event(STOP, T + stops, 510, 0, elapsed=elapsed),
    )
    assert counts(sessions) == [counted]


def test_a_session_that_goes_on_after_the_restart_of_another_daemon_counts_once() -> None:
    sessions = played(
        event(INTERIM, T + 60, 500, 0, elapsed=60),
        event(ON, T + 100),
        event(INTERIM, T + 120, 600, 0, elapsed=120),
        event(STOP, T + 180, 700, 0, elapsed=180),
    )
    assert counts(sessions) == [700]


def test_a_session_of_before_the_restart_that_was_not_known_does_not_go_on() -> None:
    sessions = played(
        event(ON, T + 100),
        event(INTERIM, T + 60, 500, 0, delay=60),
        event(INTERIM, T + 120, 600, 0),
    )
    assert counts(sessions) == [500, 600]


def test_a_restart_of_a_nas_without_a_name_may_be_that_of_any_other() -> None:
    sessions = played(
        event(INTERIM, T, 500, 0, nas=""),
        event(ON, T + 10, nas=""),
        event(INTERIM, T + 60, 600, 0, nas=""),
    )
    assert counts(sessions) == [600]


def test_a_start_after_the_stop_begins_a_new_session() -> None:
    sessions = played(
        event(START, T),
        event(STOP, T + 60, 500, 0),
        event(START, T + 100),
        event(INTERIM, T + 160, 600, 0),
    )
    assert counts(sessions) == [500, 600]


def test_a_session_that_began_before_the_agent_counts_from_then_on() -> None:
    """Its history was charged by the agent that ran before (3x-ui#5456)."""
    before = [
        event(INTERIM, T + 60, 5000, 0, session="no-time"),
        event(INTERIM, T + 60, 5000, 0, session="older", elapsed=600),
        event(STOP, T + 60, 5000, 0, session="delayed", elapsed=1, delay=90),
        event(INTERIM, T + 60, 500, 0, session="younger", elapsed=30),
        event(START, T + 60, session="new"),
    ]
    sessions = played(*before, since=T)
    assert counts(sessions) == [0, 0, 0, 500, 5000]
    for session in ("no-time", "older", "new"):
        sessions.take(event(INTERIM, T + 120, 5100, 0, session=session), T)
    assert counts(sessions) == [100, 100, 500, 5000, 5100]


def test_after_a_restart_of_its_nas_every_session_is_new() -> None:
    found = [event(ON, T + 10), event(INTERIM, T + 60, 500, 0)]
    assert counts(played(*found, since=T)) == [500]


def test_a_session_is_forgotten_a_day_after_its_end_and_then_counts_nothing_again() -> None:
    sessions = played(event(START, T), event(STOP, T + 60, 500, 0), since=T)
    sessions.forget(T + DAY_SECONDS)
    assert counts(sessions) == [500]
    sessions.forget(T + DAY_SECONDS + 1)
    assert counts(sessions) == []
    sessions.take(event(STOP, T + 60, 500, 0, delay=2 * DAY_SECONDS), T + 2 * DAY_SECONDS)
    sessions.take(event(STOP, T + 60, 500, 0, elapsed=60), T + 2 * DAY_SECONDS)
    assert counts(sessions) == [0]


def test_eduvpn_a_session_without_end_is_forgotten_too() -> None:
    sessions = played(event(INTERIM, T, 500, 0))
    sessions.forget(T + 39 * DAY_SECONDS)
    assert counts(sessions) == [500]
    sessions.forget(T + 41 * DAY_SECONDS)
    assert counts(sessions) == []
    assert not sessions.any_open()


def test_beyond_the_limit_the_oldest_are_forgotten_ended_ones_first_and_nothing_twice() -> None:
    sessions = Sessions(since=T, limit=20)
    truth = 0
    for number in range(100):
        name = f"s{number}"
        for found in (
            event(START, T + number, session=name),
            event(INTERIM, T + number, 10, 0, session=name),
            event(STOP, T + number, 10, 0, session=name) if number % 2 else None,
        ):
            sessions.take(found, T + number)
        truth += 10
        shown = [reading.bytes for reading in sessions.capture().readings]
        assert len(shown) <= 20
        assert max(shown) == 10
    for number in range(100):
        found = event(INTERIM, T + number, 10, 0, session=f"s{number}", delay=200)
        sessions.take(found, T + 200)
    assert sum(counts(sessions)) <= 200


def test_an_id_that_is_used_again_and_again_does_not_grow_for_ever() -> None:
    sessions = Sessions()
    for number in range(100):
        sessions.take(event(START, T + 10 * number), T)
        sessions.take(event(STOP, T + 10 * number + 5, 10, 0), T)
    assert len(counts(sessions)) == 32
    sessions.take(event(STOP, T + 5, 10_000, 0, delay=5000), T)
    capture = sessions.capture()
    assert {reading.bytes for reading in capture.readings} == {10}
    assert capture.dropped == {Drop.REPEATED: 1}


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("203.0.113.77", Drop.ADDRESS_LIKE),
        ("bob 13:37", Drop.TIMESTAMP_LIKE),
        ("", Drop.BAD_FORMAT),
        ("a\nAcct-Input-Octets = 999", Drop.BAD_FORMAT),
        ("x" * 129, Drop.BAD_FORMAT),
    ],
)
def test_cs_6_an_account_no_record_may_carry_is_dropped_and_counted(
    user: str, reason: Drop
) -> None:
    sessions = played(event(INTERIM, T, 1, 1, user=user), event(INTERIM, T, 5, 6))
    capture = sessions.capture()
    assert [reading.bytes for reading in capture.readings] == [11]
    assert capture.dropped == {reason: 1}


@pytest.mark.parametrize("status", range(9, 16))
def test_tunnels_and_failures_are_no_sessions(status: int) -> None:
    assert event(status, T, 5, 6) is None


@pytest.mark.parametrize(
    ("station", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:4500", "198.51.100.7"),
        ("10.77.1.2[4500]", "10.77.1.2"),
        ("fd77:2::2[4500]", "fd77:2::2"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:4500", "2001:db8::7"),
        ("00-11-22-33-44-55", None),
        ("00:11:22:33:44:55", None),
        ("+49301234567", None),
        ("", None),
        ("[", None),
    ],
)
def test_cs_1_the_address_of_the_user_becomes_an_origin(station: str, address: str | None) -> None:
    asked = []

    def locate(text: str) -> Origin:
        asked.append(text)
        return Origin("DE", 3320)

    found = event(START, T, station=station, locate=locate)
    assert asked == ([] if address is None else [address])
    (connection,) = played(found).capture().connections
    assert connection.origin == (Origin() if address is None else Origin("DE", 3320))
    assert (connection.name, connection.account, connection.established) == ("alice", "alice", True)


def test_an_origin_that_is_told_later_is_taken() -> None:
    later = event(INTERIM, T + 60, station="198.51.100.7", locate=lambda _text: Origin("DE", 1))
    (connection,) = played(event(START, T), later).capture().connections
    assert connection.origin == Origin("DE", 1)


def test_every_session_is_one_connection_and_one_that_ended_is_shown_once_more() -> None:
    sessions = played(event(START, T), event(START, T, session="0002"))
    first = {connection.key for connection in sessions.capture().connections}
    sessions.take(event(STOP, T + 60, 5, 6), T)
    sessions.take(event(START, T + 50, session="0003"), T)
    sessions.take(event(STOP, T + 55, session="0003"), T)
    second = {connection.key for connection in sessions.capture().connections}
    third = {connection.key for connection in sessions.capture().connections}
    assert len(first) == 2
    assert len(second) == 3
    assert first < second
    assert len(third) == 1
    assert third < first


def test_cs_7_nothing_shows_a_user_a_session_or_an_address() -> None:
    found = event(INTERIM, T, 1, 2, station="198.51.100.7", nas="10.77.0.1", session="secret-1")
    sessions = played(found)
    capture = sessions.capture()
    shown = repr([found, sessions, capture, Said({"User-Name": "alice"})])
    shown += repr([reading.counter for reading in capture.readings])
    for word in ("alice", "secret-1", "198.51", "10.77"):
        assert word not in shown
    kept = repr([dataclasses.asdict(reading) for reading in capture.readings])
    assert not any(word in kept for word in ("secret-1", "198.51", "10.77"))


@dataclasses.dataclass
class Told:
    """One event as it happened, and what it says."""

    at: int
    status: int
    session: int
    received: int | None = None
    elapsed: int | None = None

    def event(self, arrived: int) -> Event | Drop | None:
        """Return it as it arrives."""
        return event(
            self.status,
            self.at,
            self.received,
            None if self.received is None else 0,
            session=str(self.session),
            delay=arrived - self.at,
            elapsed=self.elapsed,
        )


@st.composite
def histories(draw: st.DrawFn, *steps: str) -> tuple[list[Told], int]:
    """Draw what one NAS did with three session ids, and the bytes that truly passed.

    Whether it sends Start, Stop, octets in a Stop and session times is drawn, too. `steps` are
    further ones: in "lost" a session ends, and nothing says so.
    """
    has_starts, has_stops, stop_has_octets, has_times = (draw(st.booleans()) for _time in range(4))
    told: list[Told] = []
    open_sessions: dict[int, tuple[int, int]] = {}
    truth = 0
    for number in range(draw(st.integers(1, 14))):
        at = T + 10 * number
        session = draw(st.integers(0, 2))
        step = draw(st.sampled_from(["use", "use", "use", "stop", "on", *steps]))
        if step == "lost":
            open_sessions.pop(session, None)
            continue
        if step == "on":
            told.append(Told(at, draw(st.sampled_from([ON, OFF])), 9))
            open_sessions = {}
            continue
        begins = session not in open_sessions
        since, count = open_sessions.get(session, (at, 0))
        if begins and has_starts:
            told.append(Told(at, START, session))
            open_sessions[session] = (at, 0)
            continue
        grown = draw(st.integers(1, 300))
        truth += grown
        elapsed = at - since if has_times else None
        stops = step == "stop" and has_stops
        octets = count + grown
        if stops and not stop_has_octets:
            told.append(Told(at, INTERIM, session, octets, elapsed))
            told.append(Told(at + 5, STOP, session))
        else:
            told.append(Told(at, STOP if stops else INTERIM, session, octets, elapsed))
        open_sessions[session] = (since, octets)
        if stops:
            del open_sessions[session]
    return told, truth


SOURCE = Source(
    parse=None,  # type: ignore[arg-type] # only its reset rule is used here
    reset=from_zero,
    counters_return=False,
    names_accounts=True,
    settings=object,
    connect=None,  # type: ignore[arg-type] # as above
)


@given(histories("lost"), st.randoms(use_true_random=False))
def test_cs_2_whatever_the_order_and_the_copies_no_more_than_the_truth_is_charged(
    history: tuple[list[Told], int], source: random.Random
) -> None:
    told, truth = history
    arriving = [thing for thing in told for _copy in range(source.choice([0, 1, 1, 2, 3]))]
    source.shuffle(arriving)
    sessions = Sessions(since=T - 1)
    day = dt.date(2026, 10, 5)
    totals = RunningTotals(SOURCE).after(sessions.capture(), day)
    before: dict[object, int] = {}
    for number, thing in enumerate(arriving):
        sessions.take(thing.event(T + 1000 + number), T)
        capture = sessions.capture()
        now = {reading.counter: reading.bytes for reading in capture.readings}
        assert len(now) == len(capture.readings)
        assert all(now[counter] >= count for counter, count in before.items())
        assert sum(now.values()) <= truth
        totals = totals.after(capture, day)
        before = now
    assert sum(record.bytes for record in totals.records("us-nyc", "0" * 16)) <= truth


@given(histories())
def test_cs_2_in_order_with_starts_and_stops_every_byte_is_counted(
    history: tuple[list[Told], int],
) -> None:
    told, truth = history
    whole = any(thing.status == START for thing in told) or all(
        thing.status in {ON, OFF} for thing in told
    )
    sessions = Sessions()
    for thing in told:
        sessions.take(thing.event(thing.at), T)
    counted = sum(counts(sessions))
    assert counted <= truth
    if whole:
        assert counted == truth
