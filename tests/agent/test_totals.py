"""Running totals: never too much, never down, and exactly right where nothing was hidden (CS-2)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections import Counter

import pytest
from captures import server_only, text_of
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.agent.accounts import name_accounts, parse_accounts
from aggregator.agent.collectors import SOURCES, Source, openvpn, wireguard
from aggregator.agent.readings import Capture, Drop, Reading
from aggregator.agent.resets import from_zero
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError

DAY = dt.date(2026, 10, 5)
NEXT_DAY = dt.date(2026, 10, 6)
EPOCH = "9f3c2b7a11d04e55"


def capture(*rows: tuple[str, object, int], unreadable: int = 0) -> Capture:
    """Return a capture of (account, counter, bytes)."""
    readings = tuple(Reading(account, account, counter, count) for account, counter, count in rows)
    return Capture(readings, {Drop.UNREADABLE: unreadable} if unreadable else {}, "test")


def totals(*captures: Capture, source: str = "wireguard") -> dict[str, int]:
    """Return bytes by account after captures of one day."""
    state = RunningTotals(SOURCES[source])
    for each in captures:
        state = state.after(each, DAY)
    return {record.user: record.bytes for record in state.records("us-nyc", EPOCH)}


def of_wireguard(*names: str) -> dict[str, int]:
    """Return the totals of captured `wg show`; accounts are the first letters of the keys."""
    accounts: dict[str, str] = {}
    found = []
    for name in names:
        read = wireguard.parse(server_only(text_of(f"wireguard/{name}.all-transfer")))
        accounts |= {reading.name: reading.name[:4] for reading in read.readings}
        found.append(name_accounts(read, accounts))
    return totals(*found)


def of_openvpn(*names: str) -> dict[str, int]:
    """Return the totals of captured status output."""
    read = [openvpn.parse(text_of(f"openvpn/{name}")) for name in names]
    return totals(*read, source="openvpn")


# -- captures of real daemons ------------------------------------------------------------------


def test_wireguard_udp_is_exact() -> None:
    assert of_wireguard("01-handshake", "02-udp1000x1000") == {"hsvm": 1_072_000}
    assert of_wireguard("02-udp1000x1000", "03-udp6-1000x1000") == {"HFGm": 1_088_000}


def test_openvpn_udp_is_exact() -> None:
    """The two idle sessions, one of them user1's second, had a keepalive of 40 bytes each."""
    grown = of_openvpn("fast-02a.mgmt-before", "fast-02b.mgmt-after")
    assert grown == {"user1": 1_052_000 + 40, "user2": 40}


def test_wireguard_from_its_start_counts_everything_over_roaming_reconnect_and_reload() -> None:
    names = ["00-start", "01-handshake", "02-udp1000x1000", "03-udp6-1000x1000", "04-tcp"]
    names += ["05-idle", "06-roamed", "07-reconnected", "08-syncconf"]
    assert of_wireguard(*names) == {"hsvm": 56_768_924 + 26_015_208, "HFGm": 7_661_476 + 64_083_556}


def test_wireguard_removed_and_added_anew_is_not_charged_its_history() -> None:
    """3x-ui 5456: a re-added user was charged 2,560 GB."""
    assert of_wireguard("08-syncconf", "09-removed", "10-readded", "11-setconf") == {}


def test_wireguard_after_a_restart_counts_from_zero() -> None:
    names = ("08-syncconf", "11-setconf", "12-newkey", "13-restarted", "14-after-restart")
    assert of_wireguard(*names) == {"hsvm": 1_062_412 + 31_516}
    assert of_wireguard("08-syncconf", "14-after-restart") == {"hsvm": 1_062_412 + 31_516}


def test_wireguard_rekey_does_not_reset() -> None:
    """130 pings of 128 bytes each way, and the handshake: 148 and 92 bytes, a keepalive of 32."""
    grown = (1_079_048 - 1_062_228) + (64_472 - 47_740)
    assert of_wireguard("rekey-14-before", "rekey-15-after") == {"yHw1": grown}


def test_openvpn_sessions_of_one_account_are_added_up() -> None:
    """openvpn_exporter 39: duplicate common names."""
    before = 2071 + 2025 + 2180 + 2135
    after = 2263 + 2225 + 54_177_944 + 25_508_851
    grown = of_openvpn("01-connected.mgmt-status3", "03-tcp.mgmt-status3")
    assert grown["user1"] == after - before


def test_openvpn_new_session_counts_as_a_whole() -> None:
    grown = of_openvpn("06-rekeyed.mgmt-status3", "07-reconnected.mgmt-status3")
    old_sessions = (2575 + 2465 - 2495 - 2385) + (55_235_600 + 25_548_079 - 55_235_560 - 25_547_959)
    assert grown["user1"] == old_sessions + 1_057_957 + 42_834


def test_openvpn_restart_counts_the_new_sessions_and_nothing_twice() -> None:
    """Bugs vnstat 40 and 69: a decrease is a reset, and no wrap."""
    names = ("11a-stopped", "11b-restarted", "11c-after-restart")
    grown = of_openvpn(*(f"{name}.status-v2.file" for name in names))
    assert grown == {"user1": 1999 + 2025, "user2": 1999 + 2026}


def test_a_stale_status_file_counts_nothing() -> None:
    """The file stays on disk after the server stopped."""
    assert of_openvpn("11a-stopped.status-v2.file", "11a-stopped.status-v2.file") == {}


# -- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "counted"),
    [
        ((), (5,), 5),
        ((5,), (5,), 0),
        ((5,), (7,), 2),
        ((5,), (4,), 4),
        ((5,), (), 0),
        ((5, 9), (9,), 0),
        ((5, 9), (10, 6), 2),
        ((5, 9), (8,), 3),
        ((5,), (6, 2), 3),
        ((9, 9), (9, 1), 1),
    ],
)
def test_from_zero(before: tuple[int, ...], now: tuple[int, ...], counted: int) -> None:
    assert from_zero(before, now) == counted


def test_cl_4_the_first_capture_is_only_a_baseline() -> None:
    """A restart of the agent charges nothing again, whatever the counters hold."""
    assert totals(capture(("a", 1, 10**12))) == {}
    assert totals(capture(("a", 1, 10**12)), capture(("a", 1, 10**12 + 5))) == {"a": 5}


def test_a_counter_that_appears_later_is_new_traffic() -> None:
    assert totals(capture(), capture(("a", 1, 7))) == {"a": 7}


def test_a_counter_that_vanished_keeps_what_it_had() -> None:
    assert totals(capture(("a", 1, 0)), capture(("a", 1, 7)), capture()) == {"a": 7}


def test_cs_4_an_account_that_moved_nothing_has_no_record() -> None:
    """Configured peers that never connect must not swell the crowd."""
    assert totals(capture(("a", 1, 0)), capture(("a", 1, 0), ("b", 2, 0))) == {}


def test_a_peer_missing_from_one_capture_is_not_charged_its_history() -> None:
    readings = capture(("a", 1, 10**12))
    assert totals(readings, capture(), readings) == {}


def test_a_session_with_an_unreadable_row_is_not_charged_its_history() -> None:
    readings = capture(("a", 1, 10**12))
    assert totals(readings, capture(unreadable=1), readings, source="openvpn") == {}


def test_cs_6_an_ended_session_is_forgotten_at_once() -> None:
    state = RunningTotals(SOURCES["openvpn"]).after(capture(("a", 1, 5)), DAY)
    assert state._counters == {1: (5,)}
    assert state.after(capture(), DAY)._counters == {}


def test_a_delta_over_midnight_belongs_to_the_day_of_the_later_capture() -> None:
    state = RunningTotals(SOURCES["wireguard"])
    for count, day in ((0, DAY), (10, DAY), (25, NEXT_DAY), (26, NEXT_DAY)):
        state = state.after(capture(("a", 1, count)), day)
    assert [(r.day, r.bytes) for r in state.records("us-nyc", EPOCH)] == [
        ("2026-10-05", 10),
        ("2026-10-06", 16),
    ]


def test_a_long_session_is_counted_on_its_last_day_too() -> None:
    """Sessions of 40 days: every day has its own share, the last one included."""
    state = RunningTotals(SOURCES["openvpn"])
    for number in range(41):
        state = state.after(capture(("a", 1, number * 100)), DAY + dt.timedelta(days=number))
    records = state.records("us-nyc", EPOCH)
    assert len(records) == 40
    assert {record.bytes for record in records} == {100}


def test_a_day_that_comes_back_goes_on() -> None:
    """A clock set back within an epoch must not lower a total."""
    state = RunningTotals(SOURCES["wireguard"])
    for count, day in ((0, DAY), (10, DAY), (20, NEXT_DAY), (30, DAY)):
        state = state.after(capture(("a", 1, count)), day)
    assert [record.bytes for record in state.records("us-nyc", EPOCH)] == [20, 10]


def test_days_that_are_over_are_forgotten_and_nothing_else() -> None:
    """Memory must not grow for ever; the counters are still needed."""
    state = RunningTotals(SOURCES["wireguard"])
    for count, day in ((0, DAY), (10, DAY), (25, NEXT_DAY)):
        state = state.after(capture(("a", 1, count)), day)
    state = state.without_days_before(NEXT_DAY)
    assert [(r.day, r.bytes) for r in state.records("us-nyc", EPOCH)] == [("2026-10-06", 15)]
    state = state.after(capture(("a", 1, 26)), NEXT_DAY)
    assert [(r.day, r.bytes) for r in state.records("us-nyc", EPOCH)] == [("2026-10-06", 16)]
    assert state.without_days_before(NEXT_DAY + dt.timedelta(days=1)).records("x", EPOCH) == []


def test_captures_of_another_form_are_refused() -> None:
    """The same counters under other keys would be charged their history."""
    text = text_of("wireguard/04-tcp.all-transfer")
    state = RunningTotals(SOURCES["wireguard"]).after(wireguard.parse(text), DAY)
    with pytest.raises(BadInputError):
        state.after(wireguard.parse(server_only(text)), DAY)


def test_a_key_mapped_later_is_not_charged_its_history() -> None:
    """3x-ui 5456, by another way: the counter was there, only its account was not."""
    first, second = capture(("key", 1, 10**12)), capture(("key", 1, 10**12 + 3))
    unmapped, mapped = parse_accounts("x,y\n"), parse_accounts("key,alice\n")
    assert totals(
        name_accounts(capture(), unmapped),
        name_accounts(first, unmapped),
        name_accounts(second, mapped),
    ) == {"alice": 3}


def test_a_key_given_to_another_account_charges_each_its_share() -> None:
    maps = [parse_accounts(f"key,{account}\n") for account in ("alice", "alice", "bob")]
    found = [capture(("key", 1, count)) for count in (100, 110, 125)]
    assert totals(*map(name_accounts, found, maps)) == {"alice": 10, "bob": 15}


def test_records_are_complete_and_sorted() -> None:
    state = RunningTotals(SOURCES["wireguard"]).after(capture(), NEXT_DAY)
    state = state.after(capture(("b", 1, 2), ("a", 2, 3)), NEXT_DAY)
    state = state.after(capture(("b", 1, 3), ("a", 2, 3)), DAY)
    assert [dataclasses.astuple(record) for record in state.records("us-nyc", EPOCH)] == [
        ("2026-10-05", "b", "us-nyc", EPOCH, 1),
        ("2026-10-06", "a", "us-nyc", EPOCH, 3),
        ("2026-10-06", "b", "us-nyc", EPOCH, 2),
    ]


def test_the_state_shows_no_account() -> None:
    state = RunningTotals(SOURCES["wireguard"]).after(capture(("alice", 1, 2)), DAY)
    assert "alice" not in repr(state.after(capture(("alice", 1, 9)), DAY))


# -- properties: a daemon that is simulated, with the truth beside it ------------------------------

_PEERS = ("p1", "p2", "p3", "p4")
_ACCOUNT = {"p1": "alice", "p2": "alice", "p3": "bob", "p4": "carol"}
_READ = ("captured", "", 0)
_STEP = st.one_of(
    st.tuples(st.just("moves"), st.sampled_from(_PEERS), st.integers(1, 1000)),
    st.tuples(st.just("removed"), st.sampled_from(_PEERS), st.just(0)),
    st.tuples(st.just("added"), st.sampled_from(_PEERS), st.just(0)),
    st.tuples(st.just("restarted"), st.just(""), st.just(0)),
    st.tuples(st.just("captured"), st.just(""), st.integers(0, 3)),
)


class Daemon:
    """Counters per peer that reset as WireGuard's do, and the truth since the first capture."""

    def __init__(self, sessions: bool) -> None:
        """Start with all peers at 0; `sessions`: a counter added anew has a new key."""
        self.sessions = sessions
        self.counters = dict.fromkeys(_PEERS, 0)
        self.life = Counter[str]()
        self.truth = Counter[str]()

    def step(self, kind: str, peer: str, number: int) -> None:
        """Do one step other than a capture."""
        if kind == "moves" and peer in self.counters:
            self.counters[peer] += number
            self.truth[_ACCOUNT[peer]] += number
        elif kind == "removed":
            self.counters.pop(peer, None)
        elif kind == "added" and peer not in self.counters:
            self.counters[peer] = 0
            self.life[peer] += 1
        elif kind == "restarted":
            self.counters = dict.fromkeys(self.counters, 0)
            self.life.update(self.counters.keys())

    def capture(self, seed: int) -> Capture:
        """Return the counters in some order."""
        rows = [
            (_ACCOUNT[peer], (peer, self.life[peer] if self.sessions else 0), count)
            for peer, count in self.counters.items()
        ]
        random.Random(seed).shuffle(rows)
        return capture(*rows)


def _by_account(state: RunningTotals) -> Counter[str]:
    found: Counter[str] = Counter()
    for record in state.records("us-nyc", EPOCH):
        found[record.user] += record.bytes
    return found


@given(st.lists(_STEP, max_size=60), st.booleans(), st.integers(0, 500))
@example(  # removed and added anew between two captures, and above its old value again
    [
        ("moves", "p1", 5),
        _READ,
        ("removed", "p1", 0),
        ("added", "p1", 0),
        ("moves", "p1", 9),
        _READ,
    ],
    False,
    0,
)
@example(  # a hidden reset: the counter passes its old value before it is read again
    [("moves", "p3", 5), _READ, ("restarted", "", 0), ("moves", "p3", 9), _READ],
    False,
    0,
)
def test_totals_never_exceed_what_the_daemon_counted_and_never_fall(
    steps: list[tuple[str, str, int]], sessions: bool, history: int
) -> None:
    daemon = Daemon(sessions)
    daemon.counters["p1"] = history
    source: Source = SOURCES["openvpn" if sessions else "wireguard"]
    state = RunningTotals(source).after(daemon.capture(0), DAY)
    before = _by_account(state)
    for kind, peer, number in steps:
        if kind != "captured":
            daemon.step(kind, peer, number)
            continue
        day = DAY + dt.timedelta(days=number % 2)
        state = state.after(daemon.capture(number), day)
        after = _by_account(state)
        assert all(after[account] >= before[account] for account in _ACCOUNT.values())
        assert all(after[account] <= daemon.truth[account] for account in _ACCOUNT.values())
        before = after


@given(st.lists(_STEP, max_size=60), st.booleans())
def test_totals_are_exact_if_every_reset_is_seen(
    steps: list[tuple[str, str, int]], sessions: bool
) -> None:
    """Read before and after every reset, nothing is lost and nothing counted twice."""
    daemon = Daemon(sessions)
    state = RunningTotals(SOURCES["openvpn" if sessions else "wireguard"])
    state = state.after(daemon.capture(0), DAY)
    for number, step in enumerate(steps):
        if step[0] in ("removed", "added", "restarted"):
            state = state.after(daemon.capture(number), DAY)
        if step[0] != "captured":
            daemon.step(*step)
        state = state.after(daemon.capture(number), DAY)
    assert +_by_account(state) == +daemon.truth


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6), st.integers())
def test_the_order_of_rows_is_irrelevant(counts: list[list[int]], seed: int) -> None:
    """Also of several counters under one key."""
    captures = [capture(*(("a", at % 2, count) for at, count in enumerate(c))) for c in counts]
    shuffled = []
    for each in captures:
        readings = list(each.readings)
        random.Random(seed).shuffle(readings)
        shuffled.append(dataclasses.replace(each, readings=tuple(readings)))
    assert totals(*captures) == totals(*shuffled)


@given(st.lists(st.integers(0, 50), max_size=5), st.data())
def test_several_counters_under_one_key_never_count_too_much(
    before: list[int], data: st.DataObject
) -> None:
    """Some go on, some end, some are new: the result never exceeds what truly moved."""
    going_on = [old for old in before if data.draw(st.booleans())]
    grown = [data.draw(st.integers(0, 50)) for _ in going_on]
    new = data.draw(st.lists(st.integers(0, 50), max_size=3))
    now = [old + more for old, more in zip(going_on, grown, strict=True)] + new
    assert 0 <= from_zero(before, now) <= sum(grown) + sum(new)


@given(st.lists(_STEP, max_size=40), st.integers(0, 40))
def test_an_agent_restart_loses_an_interval_at_most_and_adds_nothing(
    steps: list[tuple[str, str, int]], at: int
) -> None:
    """Two epochs, as the aggregator adds them up, never exceed the truth."""
    daemon = Daemon(sessions=False)
    states = [RunningTotals(SOURCES["wireguard"]).after(daemon.capture(0), DAY)]
    for number, step in enumerate(steps):
        if number == at:
            states.append(RunningTotals(SOURCES["wireguard"]))
        if step[0] == "captured":
            states[-1] = states[-1].after(daemon.capture(number), DAY)
        else:
            daemon.step(*step)
    both = sum(map(_by_account, states), Counter[str]())
    assert all(both[account] <= daemon.truth[account] for account in _ACCOUNT.values())
