"""Connection flags: never more successes than attempts, no user in them (CS-1, CS-4)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter

import pytest
from captures import text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors import openvpn
from aggregator.agent.connections import ConnectionTotals
from aggregator.agent.readings import UNKNOWN_ORIGIN, Capture, Connection, Drop, Origin
from aggregator.errors import BadInputError
from aggregator.model.records import ConnectionFlags

DAY = dt.date(2026, 10, 5)
NEXT_DAY = dt.date(2026, 10, 6)
EPOCH = "9f3c2b7a11d04e55"
GERMANY, FRANCE = Origin("DE", 3320), Origin("FR", 3215)


def shown(
    key: object, account: str | None = None, origin: Origin = GERMANY, established: bool = True
) -> Connection:
    """Return a connection."""
    return Connection(key, account, account, origin, established)


def trying(key: object, origin: Origin = GERMANY) -> Connection:
    """Return an attempt whose user is not known yet."""
    return shown(key, None, origin, established=False)


def capture(*connections: Connection, unreadable: int = 0, keyed_by: str = "test") -> Capture:
    """Return a capture of connections alone."""
    dropped = {Drop.UNREADABLE: unreadable} if unreadable else {}
    return Capture((), dropped, keyed_by, connections)


def after(*captures: Capture, day: dt.date = DAY) -> ConnectionTotals:
    """Return the totals after captures of one day, the first one being the baseline."""
    state = ConnectionTotals()
    for each in captures:
        state = state.after(each, day)
    return state


def records(state: ConnectionTotals) -> list[ConnectionFlags]:
    """Return the records of a state."""
    return state.records("us-nyc", EPOCH)


def numbers(state: ConnectionTotals) -> list[tuple[str, str, int, int, int]]:
    """Return day, country, users, attempts and successes of every record."""
    return [(r.day, r.country, r.users, r.attempts, r.successes) for r in records(state)]


def test_the_first_capture_counts_its_users_only() -> None:
    """They were attempted before the agent started."""
    state = after(capture(shown(1, "alice"), shown(2, "bob", FRANCE), trying(3)))
    assert numbers(state) == [("2026-10-05", "DE", 1, 0, 0), ("2026-10-05", "FR", 1, 0, 0)]


def test_an_attempt_that_was_open_at_the_start_is_no_success() -> None:
    state = after(capture(trying(1)), capture(shown(1, "alice")))
    assert numbers(state) == [("2026-10-05", "DE", 1, 0, 0)]


def test_a_new_connection_is_an_attempt_and_a_success() -> None:
    assert numbers(after(capture(), capture(shown(1, "alice")))) == [("2026-10-05", "DE", 1, 1, 1)]


def test_an_attempt_succeeds_in_a_later_capture_and_once() -> None:
    steps = [capture(), capture(trying(1)), capture(shown(1, "alice")), capture(shown(1, "alice"))]
    assert numbers(after(*steps[:2])) == [("2026-10-05", "DE", 0, 1, 0)]
    assert numbers(after(*steps)) == [("2026-10-05", "DE", 1, 1, 1)]


def test_an_attempt_that_vanishes_has_failed() -> None:
    state = after(capture(), capture(trying(1)), capture(), capture())
    assert numbers(state) == [("2026-10-05", "DE", 0, 1, 0)]


def test_a_key_that_comes_back_is_a_new_attempt() -> None:
    once = capture(shown(1, "alice"))
    assert numbers(after(capture(), once, capture(), once)) == [("2026-10-05", "DE", 1, 2, 2)]


def test_a_row_that_could_not_be_read_once_is_no_new_attempt() -> None:
    once = capture(shown(1, "alice"))
    state = after(capture(), once, capture(unreadable=1), once)
    assert numbers(state) == [("2026-10-05", "DE", 1, 1, 1)]


def test_a_connection_shown_twice_at_once_counts_once() -> None:
    state = after(capture(), capture(shown(1, "alice"), trying(1)))
    assert numbers(state) == [("2026-10-05", "DE", 1, 1, 1)]


def test_users_are_distinct_accounts() -> None:
    many = capture(shown(1, "alice"), shown(2, "alice"), shown(3, "bob"), shown(4), trying(5))
    assert numbers(after(capture(), many)) == [("2026-10-05", "DE", 2, 5, 4)]


def test_a_user_who_stays_counts_on_every_day_and_attempts_do_not() -> None:
    state = after(capture(), capture(shown(1, "alice")))
    state = state.after(capture(shown(1, "alice")), NEXT_DAY)
    assert numbers(state) == [("2026-10-05", "DE", 1, 1, 1), ("2026-10-06", "DE", 1, 0, 0)]


def test_a_success_after_midnight_belongs_to_its_attempt() -> None:
    """Otherwise the new day would have a success without an attempt."""
    state = after(capture(), capture(trying(1)))
    state = state.after(capture(shown(1, "alice")), NEXT_DAY)
    assert numbers(state) == [("2026-10-05", "DE", 0, 1, 1), ("2026-10-06", "DE", 1, 0, 0)]


def test_a_success_from_elsewhere_belongs_to_its_attempt_and_the_user_to_both_places() -> None:
    state = after(capture(), capture(trying(1)), capture(shown(1, "alice", FRANCE)))
    assert numbers(state) == [("2026-10-05", "DE", 0, 1, 1), ("2026-10-05", "FR", 1, 0, 0)]


def test_apps_and_versions_are_cells_of_their_own() -> None:
    with_app = [
        dataclasses.replace(shown(1, "alice"), app="android", version="11.4.0"),
        dataclasses.replace(shown(2, "bob"), app="android"),
        shown(3, "carol"),
    ]
    found = records(after(capture(), capture(*with_app)))
    assert [(r.app, r.version, r.users) for r in found] == [
        (None, None, 1),
        ("android", None, 1),
        ("android", "11.4.0", 1),
    ]


def test_a_day_that_comes_back_never_falls() -> None:
    """The clock was set back: the users of the day begin anew, their number does not."""
    state = after(capture(), capture(shown(1, "alice"), shown(2, "bob")))
    state = state.after(capture(shown(1, "alice")), NEXT_DAY)
    state = state.after(capture(shown(1, "alice")), DAY)
    assert numbers(state)[0] == ("2026-10-05", "DE", 2, 2, 2)


def test_days_before_are_forgotten_with_their_open_attempts() -> None:
    state = after(capture(), capture(trying(1), shown(2, "bob")))
    state = state.after(capture(trying(1), shown(2, "bob")), NEXT_DAY).without_days_before(NEXT_DAY)
    assert numbers(state) == [("2026-10-06", "DE", 1, 0, 0)]
    back = state.after(capture(shown(1, "alice"), trying(3)), DAY)
    assert numbers(back)[0] == ("2026-10-05", "DE", 1, 1, 0)
    gone = back.without_days_before(NEXT_DAY + dt.timedelta(days=1))
    assert records(gone) == []
    assert not gone._users.cells


def test_forgetting_keeps_what_is_shown() -> None:
    state = after(capture(), capture(shown(1, "alice"))).without_days_before(NEXT_DAY)
    assert numbers(state.after(capture(shown(1, "alice")), NEXT_DAY)) == [
        ("2026-10-06", "DE", 1, 0, 0)
    ]
    assert ConnectionTotals().without_days_before(DAY) == ConnectionTotals()


def test_cs_1_the_state_shows_and_holds_no_account() -> None:
    state = after(capture(), capture(shown(1, "alice")))
    assert "alice" not in repr(state)
    assert "alice" not in repr([getattr(state, f.name) for f in dataclasses.fields(state)])
    assert "alice" not in str(state._users.cells)


def test_cs_1_two_days_and_two_agents_hash_differently() -> None:
    seen = capture(shown(1, "alice"))
    states = [after(seen), after(seen).after(seen, NEXT_DAY), after(seen)]
    held = [state._users.cells for state in states]
    hashes = [hashed for cells in held for users in cells.values() for hashed in users]
    assert len(set(hashes)) == 3


def test_captures_of_another_form_are_refused() -> None:
    with pytest.raises(BadInputError):
        after(capture(keyed_by="one"), capture(keyed_by="two"))


def test_cs_4_cells_without_a_number_are_not_sent() -> None:
    assert records(after(capture(), capture(), capture(unreadable=3))) == []


def test_records_are_complete() -> None:
    state = after(capture(), capture(dataclasses.replace(shown(1, "a"), app="ios", version="1.2")))
    assert [dataclasses.astuple(record) for record in records(state)] == [
        ("2026-10-05", "us-nyc", EPOCH, "DE", 3320, "ios", "1.2", 1, 1, 1)
    ]


def test_openvpn_from_unfinished_handshakes_to_sessions() -> None:
    """Captures of a real server: three handshakes that never ended, three sessions that began."""
    names = ["00-start.mgmt-status3", "01-connected.mgmt-status3", "03-tcp.mgmt-status3"]
    steps = [openvpn.parse(text_of(f"openvpn/{name}")) for name in names]
    assert numbers(after(*steps)) == [("2026-10-05", "ZZ", 2, 3, 3)]
    names = ["00-start.status-v2.file", "unfinished-handshakes.status-v2.file"]
    steps = [openvpn.parse(text_of(f"openvpn/{name}")) for name in names]
    (found,) = numbers(after(*steps))
    assert found[3] - found[4] == steps[1].dropped[Drop.UNFINISHED] > 0


# -- properties --------------------------------------------------------------------------------

_CONNECTION = st.builds(
    shown,
    st.integers(0, 6),
    st.sampled_from([None, "alice", "bob", "carol"]),
    st.sampled_from([GERMANY, FRANCE, UNKNOWN_ORIGIN]),
    st.booleans(),
)
_STEP = st.tuples(st.lists(_CONNECTION, max_size=6), st.integers(0, 3), st.booleans())
_STEPS = st.lists(_STEP, max_size=25)


def _by_cell(state: ConnectionTotals) -> dict[tuple[object, ...], tuple[int, int, int]]:
    return {(r.day, r.country, r.asn): (r.users, r.attempts, r.successes) for r in records(state)}


@given(_STEPS)
def test_successes_never_exceed_attempts_and_no_number_falls(
    steps: list[tuple[list[Connection], int, bool]],
) -> None:
    """Whatever a source shows, also when the clock goes back or days are forgotten."""
    state = ConnectionTotals()
    before: dict[tuple[object, ...], tuple[int, int, int]] = {}
    for connections, day, forgets in steps:
        date = DAY + dt.timedelta(days=day)
        if forgets:
            state = state.without_days_before(date)
            before = {key: value for key, value in before.items() if str(key[0]) >= str(date)}
        state = state.after(capture(*connections, unreadable=day // 3), date)
        found = _by_cell(state)
        assert all(successes <= attempts for _, attempts, successes in found.values())
        assert all(max(numbers) > 0 for numbers in found.values())
        assert before.keys() <= found.keys()
        for key, numbers in before.items():
            assert all(new >= old for new, old in zip(found[key], numbers, strict=True))
        before = found


@given(st.lists(st.lists(_CONNECTION, max_size=6), max_size=15))
def test_a_day_has_its_distinct_users_and_every_key_that_appeared(
    steps: list[list[Connection]],
) -> None:
    """Against a model that keeps everything."""
    state = ConnectionTotals().after(capture(), DAY)
    users: dict[str, set[str]] = {}
    attempts = successes = 0
    previous: dict[object, bool] = {}
    for connections in steps:
        state = state.after(capture(*connections), DAY)
        now: dict[object, bool] = {}
        for each in connections:
            now[each.key] = now.get(each.key, False) or each.established
            if each.established and each.account is not None:
                users.setdefault(each.origin.country, set()).add(each.account)
        for key, established in now.items():
            attempts += key not in previous
            succeeded = previous.get(key, False)
            successes += established and not succeeded
            now[key] = established or succeeded
        previous = now
    found = records(state)
    assert {r.country: r.users for r in found if r.users} == {c: len(u) for c, u in users.items()}
    assert sum(r.attempts for r in found) == attempts
    assert sum(r.successes for r in found) == successes


@given(st.lists(st.lists(_CONNECTION, max_size=6, unique_by=lambda c: c.key), max_size=6))
def test_the_order_of_connections_is_irrelevant(steps: list[list[Connection]]) -> None:
    there = after(*(capture(*connections) for connections in steps))
    back = after(*(capture(*reversed(connections)) for connections in steps))
    assert Counter(records(there)) == Counter(records(back))


def test_what_began_before_the_agent_is_no_attempt_but_its_user_counts() -> None:
    """A RADIUS session that a restarted agent first hears of by its next interim update."""
    shown = Connection("k", "acct-1", "acct-1", Origin("DE", 3320), True, began_before=True)
    state = ConnectionTotals()
    for connections in ((), (shown,), (shown,)):
        state = state.after(Capture((), {}, "test", connections), DAY)
    (record,) = state.records("us-nyc", EPOCH)
    assert (record.users, record.attempts, record.successes) == (1, 0, 0)
