"""Reading a running WireGuard interface by a `wg` that says what the test wants."""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path

import pytest
from captures import said, server_only, text_of
from hypothesis import given
from hypothesis import strategies as st
from test_wireguard import ENDPOINT, OTHER, PEER, key

from aggregator.agent.accounts import name_accounts, parse_accounts
from aggregator.agent.collectors import SOURCES
from aggregator.agent.collectors.wireguard import Settings, _Connections, connect, parse
from aggregator.agent.connections import ConnectionTotals
from aggregator.agent.readings import Capture, Locate, Origin, Reader, SilentSourceError, nowhere
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError, ConfigError

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
DAY = NOW.date()
EPOCH = "9f3c2b7a11d04e55"


class Wg:
    """A program in the place of `wg`: prints what is set, and notes how it was called."""

    def __init__(self, folder: Path) -> None:
        """Make the program in `folder`."""
        self.folder = folder
        self.command = folder / "wg"
        self.calls = folder / "calls"
        self.says()

    def says(self, transfer: str = "", endpoints: str = "", code: int = 0, wait: int = 0) -> None:
        """Print these from now on."""
        for name, text in (("transfer", transfer), ("endpoints", endpoints)):
            (self.folder / name).write_text(text, encoding="utf-8")
        folder = shlex.quote(str(self.folder))
        self.command.write_text(
            f'#!/bin/sh\necho "$*" >> {folder}/calls\n[ {wait} = 0 ] || exec sleep {wait}\n'
            f'cat {folder}/"$3"\n[ {code} = 0 ] || echo "Unable to access wg0" >&2\nexit {code}\n'
        )
        self.command.chmod(0o755)

    def reader(self, locate: Locate = nowhere, timeout_seconds: int = 30) -> Reader:
        """Return a reader that runs this program."""
        return connect(Settings("wg0", str(self.command), timeout_seconds), locate)


@pytest.fixture
def wg(tmp_path: Path) -> Wg:
    return Wg(tmp_path)


def names(capture: Capture) -> list[str | None]:
    """Return the names of the connections."""
    return sorted((connection.name for connection in capture.connections), key=str)


def test_one_interface_is_read_by_its_transfer_alone(wg: Wg) -> None:
    """Without databases no address is ever asked for (CS-7)."""
    text = server_only(text_of("wireguard/04-tcp.all-transfer"))
    wg.says(transfer=text)
    capture = wg.reader().read(NOW)
    assert said(capture) == said(parse(text))
    assert len(capture.readings) == 3
    assert wg.calls.read_text() == "show wg0 transfer\n"


def test_an_interface_without_peers_is_nothing_to_read(wg: Wg) -> None:
    capture = wg.reader(lambda _address: Origin("DE", 1)).read(NOW)
    assert (capture.readings, capture.connections, capture.dropped) == ((), (), {})
    wg.says(transfer=f"{PEER}\t1\t2\n")
    assert wg.reader().read(NOW).keyed_by == capture.keyed_by


@pytest.mark.parametrize("what", ["missing", "not executable", "no interface", "slow", "cut off"])
def test_could_not_read_is_an_error_without_input_text(wg: Wg, what: str) -> None:
    reader = wg.reader(timeout_seconds=1 if what == "slow" else 30)
    if what == "missing":
        wg.command.unlink()
    elif what == "not executable":
        wg.command.chmod(0o644)
    elif what == "no interface":
        wg.says(transfer=f"{PEER}\t1\t2\n", code=1)
    elif what == "slow":
        wg.says(wait=60)
    else:
        wg.says(transfer=f"{PEER}\t1\t2\n{OTHER}\t1")
    with pytest.raises(BadInputError) as caught:
        reader.read(NOW)
    assert not isinstance(caught.value, SilentSourceError)
    assert "\n" not in str(caught.value)
    assert PEER not in str(caught.value)


def test_an_idle_interface_is_no_silent_source(wg: Wg) -> None:
    wg.says(transfer=f"{PEER}\t1\t2\n")
    reader = wg.reader()
    assert {reader.read(NOW + dt.timedelta(days=at)).readings for at in range(5)} == {
        reader.read(NOW).readings
    }
    reader.close()
    reader.close()


@pytest.mark.parametrize("interface", ["", "all", "wg 0", "a/b", "x" * 16])
def test_an_interface_must_be_named(interface: str) -> None:
    """`wg show all` lists the interfaces of every network namespace with wireguard-go."""
    with pytest.raises(ConfigError):
        connect(Settings(interface), nowhere)


def test_a_connection_is_over_after_one_silent_reading_at_least() -> None:
    with pytest.raises(ConfigError):
        connect(Settings("wg0", quiet_readings=0), nowhere)


# -- connections -----------------------------------------------------------------------------


def test_cs_1_endpoints_are_seen_by_locate_alone(wg: Wg) -> None:
    seen: list[str] = []

    def locate(address: str) -> Origin:
        seen.append(address)
        return Origin("DE", 3320)

    endpoints = f"{PEER}\t{ENDPOINT}\n{OTHER}\t(none)\n{key(7)}\t[2001:db8::7]:51820\nrubbish\n"
    reader = wg.reader(locate)
    wg.says(f"{PEER}\t1\t2\n{OTHER}\t0\t0\n", endpoints)
    reader.read(NOW)
    wg.says(f"{PEER}\t5\t2\n{OTHER}\t0\t0\n", endpoints)
    capture = reader.read(NOW)
    assert seen == [ENDPOINT, "[2001:db8::7]:51820"] * 2
    assert [(c.name, c.account, c.origin, c.established) for c in capture.connections] == [
        (PEER, None, Origin("DE", 3320), True)
    ]
    assert wg.calls.read_text() == "show wg0 transfer\nshow wg0 endpoints\n" * 2
    kept = repr(capture) + repr(vars(reader)) + repr(vars(reader)["_connections"]._peers)
    assert "203.0.113" not in kept
    assert PEER not in repr(capture)


def test_endpoints_that_cannot_be_read_are_an_error(wg: Wg) -> None:
    """The bytes are not lost: the counters go on."""
    wg.says(transfer=f"{PEER}\t1\t2\n")
    reader = wg.reader(lambda _address: Origin())
    (wg.folder / "endpoints").unlink()
    wg.command.write_text(wg.command.read_text().replace("exit 0", '[ "$3" != endpoints ]'))
    with pytest.raises(BadInputError):
        reader.read(NOW)


class Interface:
    """An interface whose counters the test moves; reads it with `quiet_readings` of 2."""

    def __init__(self, **received: int) -> None:
        """Begin with these counters, and read once: the baseline."""
        self.received = received
        self.connections = _Connections(quiet_readings=2)
        self.totals = ConnectionTotals()
        self.map = parse_accounts("a,alice\nb,bob\n")
        self.read()

    def read(self, **received: int) -> list[str | None]:
        """Set counters and read; return who is shown, None for one who is not named."""
        self.received |= received
        found = self.connections.shown(self.received, {})
        capture = name_accounts(Capture((), {}, "test", found), self.map)
        self.totals = self.totals.after(capture, DAY)
        return names(capture)

    def numbers(self) -> tuple[int, int, int]:
        """Return users, attempts and successes."""
        records = self.totals.records("us-nyc", EPOCH) or [None]
        record = records[0]
        return (0, 0, 0) if record is None else (record.users, record.attempts, record.successes)


def test_a_peer_that_begins_to_speak_connects() -> None:
    interface = Interface(a=0, b=0)
    assert interface.read() == []
    assert interface.read(a=148) == ["a"]
    assert interface.numbers() == (1, 1, 1)


def test_what_was_there_before_the_first_reading_is_no_attempt_and_no_user() -> None:
    """A restart of the agent must not make every peer connect anew (CS-4)."""
    interface = Interface(a=10**9, b=10**9)
    assert interface.numbers() == (0, 0, 0)
    assert interface.read(a=10**9 + 32) == [None, "a"]
    assert interface.numbers() == (1, 0, 0)


def test_a_peer_that_was_silent_long_enough_connects_anew() -> None:
    interface = Interface(a=0)
    interface.read(a=1)
    assert interface.read() == [None]
    interface.read(a=2)
    assert interface.numbers() == (1, 1, 1)
    assert interface.read() == [None]
    assert interface.read() == []
    interface.read(a=3)
    assert interface.numbers() == (1, 2, 2)


def test_cs_4_a_silent_peer_is_no_user_of_the_next_day() -> None:
    interface = Interface(a=0)
    interface.read(a=1)
    interface.totals = interface.totals.without_days_before(DAY + dt.timedelta(days=1))
    interface.read()
    assert interface.numbers() == (0, 0, 0)


def test_a_counter_that_was_reset_and_grew_has_spoken() -> None:
    interface = Interface(a=0)
    interface.read(a=100)
    assert interface.read(a=50) == ["a"]
    assert interface.numbers() == (1, 1, 1)


def test_a_restart_of_the_interface_is_silence() -> None:
    interface = Interface(a=0)
    interface.read(a=100)
    assert interface.read(a=0) == [None]
    assert interface.read() == []
    assert interface.read(a=148) == ["a"]
    assert interface.numbers() == (1, 2, 2)


def test_a_peer_that_is_removed_is_forgotten() -> None:
    interface = Interface(a=0)
    interface.read(a=100)
    del interface.received["a"]
    assert interface.read() == []
    assert interface.connections._peers == {}
    assert interface.read(a=100) == ["a"]
    assert interface.numbers() == (1, 2, 2)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)), max_size=20))
def test_attempts_are_successes_and_users_have_spoken(steps: list[dict[str, int]]) -> None:
    interface = Interface(a=0, b=0)
    spoke: set[str] = set()
    for step in steps:
        before = dict(interface.received)
        interface.read(**{name: before[name] + more for name, more in step.items()})
        spoke |= {name for name, count in interface.received.items() if count > before[name]}
        users, attempts, successes = interface.numbers()
        assert users == len(spoke)
        assert attempts == successes >= users


# -- totals of a reader -----------------------------------------------------------------------


def test_3x_ui_5456_a_peer_removed_and_added_between_readings_starts_from_0(wg: Wg) -> None:
    reader, accounts = wg.reader(), parse_accounts(f"{PEER},alice\n")
    state = RunningTotals(SOURCES["wireguard"])
    for received in (10**12, 10**12 + 5, 0, 7, None, 3):
        wg.says(transfer="" if received is None else f"{PEER}\t{received}\t0\n")
        state = state.after(name_accounts(reader.read(NOW), accounts), DAY)
    assert [record.bytes for record in state.records("us-nyc", EPOCH)] == [5 + 7 + 3]
