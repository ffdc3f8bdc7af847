"""The ends of OpenVPN sessions: told by the hook, merged so that nothing counts twice (CS-2)."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from captures import text_of
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.agent.collectors import SOURCES
from aggregator.agent.collectors.openvpn import Settings, connect
from aggregator.agent.collectors.openvpn_ends import SessionEnds
from aggregator.agent.collectors.openvpn_socket import End, HookSocket, parse_end
from aggregator.agent.collectors.openvpn_status import Session, Status, parse_status
from aggregator.agent.openvpn_hook import send_hook
from aggregator.agent.readings import UNKNOWN_ORIGIN, Capture, Drop, Reading, nowhere
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError, ConfigError

DAY = dt.date(2026, 10, 5)
EPOCH = "9f3c2b7a11d04e55"


def disconnects() -> list[dict[str, str]]:
    """Return the environments of `client-disconnect` that a real server made, oldest first."""
    found = []
    for block in text_of("openvpn/12.script-env").split("--- ")[1:]:
        title, *lines = block.splitlines()
        if ".client-disconnect." in title:
            found.append(dict(line.split("=", 1) for line in lines))
    return found


def end(environ: dict[str, str]) -> End:
    """Return what arrives of such an environment."""
    count = int(environ["bytes_received"]) + int(environ["bytes_sent"])
    return End(environ["common_name"], environ["time_unix"], count)


def totals_of(state: RunningTotals) -> Counter[str]:
    """Return bytes by account."""
    return Counter({record.user: record.bytes for record in state.records("us-nyc", EPOCH)})


# -- the hook ----------------------------------------------------------------------------------


@pytest.fixture
def hook(tmp_path: Path) -> HookSocket:
    hook = HookSocket(str(tmp_path / "hook.sock"), "0660", "")
    yield hook
    hook.close()


def test_cs_6_the_hook_passes_on_four_values_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "hook.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        for environ in disconnects():
            assert send_hook(environ, path)
            message = json.loads(receiver.recv(4096))
            assert message == {
                "common_name": environ["common_name"],
                "time_unix": int(environ["time_unix"]),
                "bytes_received": int(environ["bytes_received"]),
                "bytes_sent": int(environ["bytes_sent"]),
            }
            assert not re.search(r"\d+\.\d+\.\d+|fd[0-9a-f]{2}:", json.dumps(message))


def test_ends_of_a_real_server_arrive(tmp_path: Path, hook: HookSocket) -> None:
    path = str(tmp_path / "hook.sock")
    sent = [send_hook(environ, path) for environ in disconnects()]
    ends, dropped = hook.take()
    assert all(sent)
    assert ends == [end(environ) for environ in disconnects()]
    assert not dropped
    assert hook.take() == ([], {})


def test_more_ends_arrive_than_the_kernel_queues(tmp_path: Path, hook: HookSocket) -> None:
    """It holds about ten datagrams; a server that stops ends all its sessions at once."""
    path = str(tmp_path / "hook.sock")
    environ = disconnects()[0]
    for number in range(500):
        while not send_hook({**environ, "bytes_sent": str(number)}, path):
            pass
    ends, _dropped = hook.take()
    assert len(ends) == 500


def test_the_hook_never_waits_and_never_fails(tmp_path: Path) -> None:
    environ = disconnects()[0]
    path = str(tmp_path / "hook.sock")
    assert not send_hook(environ, path)
    assert not send_hook(environ, str(tmp_path))
    assert not send_hook(environ, "x" * 500)
    assert not send_hook(environ, "\0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nobody_reads:
        nobody_reads.bind(path)
        sent = [send_hook(environ, path) for _ in range(2000)]
    assert sent[0]
    assert not sent[-1]
    assert not send_hook(environ, path)


def test_the_hook_is_a_program_that_loads_next_to_nothing(tmp_path: Path, hook: HookSocket) -> None:
    """No packet passes the server while it runs."""
    script = (
        "import runpy, sys\n"
        "runpy.run_module('aggregator.agent.openvpn_hook', run_name='__main__')\n"
        "own = {name for name in sys.modules if name.startswith('aggregator')}\n"
        "assert own <= {'aggregator', 'aggregator.agent'}, own"
    )
    environ = {**disconnects()[0], "PYTHONPATH": os.pathsep.join(sys.path)}
    for socket_path in (str(tmp_path / "hook.sock"), str(tmp_path / "nobody")):
        subprocess.run([sys.executable, "-c", script, socket_path], env=environ, check=True)
    assert hook.take()[0] == [end(disconnects()[0])]


@pytest.mark.parametrize("field", ["common_name", "time_unix", "bytes_received", "bytes_sent"])
@pytest.mark.parametrize("value", [None, "", "-1", "x" * 20, "9" * 40])
def test_an_environment_that_tells_no_end_is_not_sent(
    tmp_path: Path, hook: HookSocket, field: str, value: str | None
) -> None:
    environ = {**disconnects()[0], field: value}
    if value is None:
        del environ[field]
    sent = send_hook({k: v for k, v in environ.items() if v is not None}, f"{tmp_path}/hook.sock")
    is_name = field == "common_name" and bool(value)
    assert sent is is_name
    assert len(hook.take()[0]) == is_name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"common_name": "203.0.113.7"}, Drop.ADDRESS_LIKE),
        ({"common_name": "bob 13:37"}, Drop.TIMESTAMP_LIKE),
        ({"common_name": "x" * 129}, Drop.BAD_FORMAT),
        ({"common_name": "bob\udcff"}, Drop.BAD_FORMAT),
        ({"common_name": ""}, Drop.BAD_FORMAT),
        ({"common_name": 7}, Drop.BAD_FORMAT),
        ({"time_unix": "1795325114"}, Drop.BAD_FORMAT),
        ({"time_unix": -1}, Drop.BAD_FORMAT),
        ({"bytes_sent": True}, Drop.BAD_FORMAT),
        ({"bytes_sent": 1.0}, Drop.BAD_FORMAT),
        ({"bytes_sent": -1}, Drop.BAD_FORMAT),
        ({"bytes_sent": 2**53}, Drop.BAD_FORMAT),
        ({"trusted_ip": "203.0.113.7"}, Drop.BAD_FORMAT),
    ],
)
def test_a_forged_datagram_is_counted_and_dropped(
    tmp_path: Path, hook: HookSocket, change: dict[str, object], reason: Drop
) -> None:
    message = {"common_name": "a", "time_unix": 1, "bytes_received": 2, "bytes_sent": 3, **change}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(json.dumps(message).encode(), str(tmp_path / "hook.sock"))
        sender.sendto(b'{"common_name": "alice"', str(tmp_path / "hook.sock"))
    ends, dropped = hook.take()
    assert not ends
    assert dropped == Counter([reason, Drop.BAD_FORMAT])


@given(st.binary(max_size=100))
def test_any_datagram_is_an_end_or_a_reason(datagram: bytes) -> None:
    assert isinstance(parse_end(datagram), End | Drop)
    assert parse_end(b"[" * 4096) is Drop.BAD_FORMAT


def test_an_end_shows_nothing() -> None:
    assert "alice" not in repr(End("alice", "1", 2))


@pytest.mark.parametrize(("mode", "bits"), [("0660", 0o660), ("600", 0o600)])
def test_the_socket_has_its_mode_and_group(tmp_path: Path, mode: str, bits: int) -> None:
    path = tmp_path / "hook.sock"
    hook = HookSocket(str(path), mode, "root" if os.getuid() == 0 else "")
    assert stat.S_IMODE(path.stat().st_mode) == bits
    hook.close()
    hook.close()
    assert not path.exists()


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "hook.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(str(path))
        with pytest.raises(ConfigError, match="in use"):
            HookSocket(str(path), "0660", "")
    hook = HookSocket(str(path), "0660", "")
    with pytest.raises(ConfigError, match="in use"):
        HookSocket(str(path), "0660", "")
    hook.close()


def test_another_agents_socket_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "hook.sock"
    hook = HookSocket(str(path), "0660", "")
    path.rename(tmp_path / "kept")  # so that the inode is not used again
    path.touch()
    hook.close()
    assert path.exists()


@pytest.mark.parametrize(
    ("mode", "group"), [("rw", ""), ("9999", ""), ("", ""), ("0660", "no-such-group")]
)
def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path, mode: str, group: str) -> None:
    with pytest.raises(ConfigError):
        HookSocket(str(tmp_path / "hook.sock"), mode, group)


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hook.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="something else"):
        HookSocket(str(path), "0660", "")
    assert path.read_text() == "precious"


# -- captures of a real server, with its ends ------------------------------------------------------


def after(*steps: tuple[str, list[dict[str, str]]]) -> Counter[str]:
    """Return the totals after captures, each with the ends that arrived since the one before."""
    ends, state = SessionEnds(), RunningTotals(SOURCES["openvpn"])
    for name, environs in steps:
        status = parse_status(text_of(f"openvpn/{name}"), nowhere)
        state = state.after(ends.merged(status, map(end, environs), {}), DAY)
    return totals_of(state)


def test_the_tail_of_a_session_counts_with_the_hook() -> None:
    """Three sessions of user1 end between readings; without the hook their tails are lost."""
    first, second, killed = disconnects()[:3]
    names = [
        f"{name}.mgmt-status3"
        for name in ("06-rekeyed", "07-reconnected", "08b-timeout", "09-mgmt-killed")
    ]
    without = after(*((name, []) for name in names))
    told: list[list[dict[str, str]]] = [[], [first], [second], [killed]]
    with_hook = after(*zip(names, told, strict=True))
    last = {r.counter.since: r.bytes for name in names for r in _readings(name)}
    tails = sum(end(each).bytes - last[each["time_unix"]] for each in (first, second, killed))
    assert tails == 200 + 280 + 80
    assert with_hook == {"user1": without["user1"] + tails, "user2": without["user2"]}


def _readings(name: str) -> tuple[Reading, ...]:
    return parse_status(text_of(f"openvpn/{name}"), nowhere).capture.readings


def test_a_stale_status_beside_its_ends_counts_nothing_twice() -> None:
    """The server stopped: its file still lists both sessions, and both ends were told."""
    both = disconnects()[-2:]
    name = "11a-stopped.status-v2.file"
    grown = after((name, []), (name, both), (name, []), (name, []))
    assert grown == {}  # the file was written last after their last byte
    grown = after(("11b-restarted.status-v2.file", []), (name, both), (name, []))
    assert grown == {"user1": 2072 + 2231, "user2": 2070 + 2329}
    empty = "11b-restarted.status-v2.file"
    grown = after((empty, []), (name, []), (name, both), (empty, []))
    assert grown == {"user1": 2072 + 2231, "user2": 2070 + 2329}


def test_a_session_shorter_than_the_interval_counts_whole_and_as_a_connection() -> None:
    ends = SessionEnds()
    status = parse_status(text_of("openvpn/00-start.mgmt-status3"), nowhere)
    state = RunningTotals(SOURCES["openvpn"]).after(ends.merged(status, [], {}), DAY)
    capture = ends.merged(status, [End("alice", "7", 100), End("alice", "7", 5)], {})
    state = state.after(capture, DAY)
    assert totals_of(state) == {"alice": 105}
    assert [(c.name, c.established, c.origin) for c in capture.connections] == [
        ("alice", True, UNKNOWN_ORIGIN)
    ] * 2
    assert len({c.key for c in capture.connections}) == 2
    assert not ends.merged(status, [], {}).connections


def test_the_end_of_a_session_that_was_shown_is_no_further_connection() -> None:
    ends = SessionEnds()
    listed = parse_status(text_of("openvpn/11a-stopped.status-v2.file"), nowhere)
    gone = parse_status(text_of("openvpn/11b-restarted.status-v2.file"), nowhere)
    assert len(ends.merged(listed, [], {}).connections) == 2
    one, other = map(end, disconnects()[-2:])
    assert ends.merged(listed, [one], {}).connections == listed.capture.connections
    assert ends.merged(gone, [other], {}).connections == ()


def test_final_numbers_are_forgotten_once_they_are_surely_counted() -> None:
    ends = SessionEnds()
    ends.merged(Status(Capture((), {}, ""), 1), [End("alice", "7", 100)], {})
    assert ends._groups
    for written in (1, 2, 2):
        assert len(ends.merged(Status(Capture((), {}, ""), written), [], {}).readings) == 1
    assert not ends.merged(Status(Capture((), {}, ""), 3), [], {}).readings[1:]
    assert not ends._groups


def test_an_older_row_than_before_is_not_taken_for_a_reset() -> None:
    """A file read while it is rewritten may still have it."""
    ends, state = SessionEnds(), RunningTotals(SOURCES["openvpn"])
    for written, count in enumerate((0, 100, 90, 110)):
        row = Reading("alice", "alice", Session("alice", "1", "7"), count)
        capture = ends.merged(Status(Capture((row,), {}, ""), written), [], {})
        state = state.after(capture, DAY)
    assert totals_of(state) == {"alice": 110}


def test_drops_of_the_status_and_of_the_hook_are_added_up() -> None:
    status = Status(Capture((), {Drop.UNFINISHED: 2}, ""), 1)
    capture = SessionEnds().merged(status, [], {Drop.UNFINISHED: 1, Drop.BAD_FORMAT: 3})
    assert capture.dropped == {Drop.UNFINISHED: 3, Drop.BAD_FORMAT: 3}


# -- the reader ----------------------------------------------------------------------------------


def test_the_reader_takes_in_what_the_hook_told(tmp_path: Path) -> None:
    path, hook_path = tmp_path / "status", str(tmp_path / "hook.sock")
    reader = connect(Settings(status=str(path), hook_socket=hook_path), nowhere)
    state = RunningTotals(SOURCES["openvpn"])
    *_, user1, user2 = disconnects()
    now = dt.datetime.now(dt.UTC)
    for environ in (None, user1, None, user2, None):
        if environ is not None:
            assert send_hook(environ, hook_path)
        text = text_of("openvpn/11b-restarted.status-v2.file")
        path.write_text(re.sub(r"(TIME,[^,]*,).*", rf"\g<1>{int(now.timestamp())}", text))
        state = state.after(reader.read(now), DAY)
    assert totals_of(state) == {"user1": 2072 + 2231, "user2": 2070 + 2329}
    reader.close()
    assert not os.path.lexists(hook_path)


def test_ends_wait_while_no_status_can_be_read(tmp_path: Path) -> None:
    path, hook_path = tmp_path / "status", str(tmp_path / "hook.sock")
    reader = connect(Settings(status=str(path), hook_socket=hook_path), nowhere)
    assert send_hook(disconnects()[0], hook_path)
    with pytest.raises(BadInputError):
        reader.read(dt.datetime.now(dt.UTC))
    path.write_text(text_of("openvpn/00-start.status-v2.file"))
    written = dt.datetime.fromtimestamp(1795325110, dt.UTC)
    assert len(reader.read(written).readings) == 1
    reader.close()


def test_version_1_has_no_times_that_the_hook_could_be_matched_by(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text(text_of("openvpn/01-connected.mgmt-status1"))
    hook_socket = str(tmp_path / "hook.sock")
    reader = connect(Settings(status=str(path), hook_socket=hook_socket), nowhere)
    with pytest.raises(BadInputError, match="status-version"):
        reader.read(dt.datetime.now(dt.UTC))
    reader.close()


# -- properties: a server that is simulated, with the truth beside it ------------------------------

_WHO = st.sampled_from(["alice", "bob"])
_SINCE = st.sampled_from(["1", "2"])
_EVENT = st.one_of(
    st.tuples(st.just("starts"), _WHO, _SINCE),
    st.tuples(st.just("moves"), st.integers(0, 5), st.integers(1, 100)),
    st.tuples(st.just("moves"), st.integers(0, 5), st.integers(1, 100)),
    st.tuples(st.just("ends"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("writes"), st.integers(0, 1), st.none()),
)
# A reading: what happens between the reading of the status and that of the hook, and which rows
# cannot be read, by number (the ones that are there).
_HIDDEN = st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 3), max_size=3))
_READ = st.tuples(st.just("reads"), st.lists(_EVENT, max_size=3), _HIDDEN)
_NONE: frozenset[int] = frozenset()
_READS = ("reads", [], _NONE)
_WRITES = ("writes", 1, None)
_STEPS = st.lists(st.one_of(_EVENT, _READ), max_size=40)
Step = tuple[str, object, object]


class Server:
    """Sessions, the status file that was written last, and the hook's queue."""

    def __init__(self) -> None:
        """Begin without sessions, and with a status that says so."""
        self.sessions: list[list[object]] = []
        self.file: list[tuple[Session, int]] = []
        self.time = self.clients = 0
        self.queue: list[End] = []
        self.truth: Counter[str] = Counter()
        self.lost = False

    def step(self, kind: str, one: object, two: object) -> None:
        """Do one step other than a reading."""
        if kind == "starts":
            self.clients += 1
            self.sessions.append([Session(str(one), str(self.clients), str(two)), 0])
        elif kind == "writes":
            assert isinstance(one, int)
            self.time += one
            self.file = [(session, count) for session, count in self.sessions]
        elif self.sessions:
            assert isinstance(one, int)
            row = self.sessions[one % len(self.sessions)]
            if kind == "moves":
                row[1] += two
                self.truth[row[0].name] += two
            else:
                self.sessions.remove(row)
                self.lost = self.lost or bool(two)
                if not two:
                    self.queue.append(End(row[0].name, row[0].since, row[1]))

    def status(self, hidden: frozenset[int]) -> Status:
        """Return what the file says, with some rows unreadable."""
        rows = [row for number, row in enumerate(self.file) if number not in hidden]
        readings = tuple(Reading(s.name, s.name, s, count) for s, count in rows)
        dropped = {Drop.UNREADABLE: len(hidden)} if len(rows) < len(self.file) else {}
        return Status(Capture(readings, dropped, ""), self.time)


class Agent:
    """The reader and the totals, checked against the truth at every reading."""

    def __init__(self) -> None:
        """Begin together with the server."""
        self.server = Server()
        self.ends = SessionEnds()
        self.state = RunningTotals(SOURCES["openvpn"])
        self.before: Counter[str] = Counter()
        self.read([], _NONE)

    def read(self, meanwhile: list[Step], hidden: frozenset[int]) -> None:
        """Read once: the status, then what the hook told up to then."""
        status = self.server.status(hidden)
        for step in meanwhile:
            self.server.step(*step)
        capture = self.ends.merged(status, self.server.queue, {})
        self.server.queue = []
        self.state = self.state.after(capture, DAY)
        found = totals_of(self.state)
        assert all(found[who] <= self.server.truth[who] for who in found)
        assert all(found[who] >= self.before[who] for who in self.before)
        self.before = found

    def run(self, steps: list[Step], hides: bool) -> None:
        """Do all steps."""
        for kind, one, two in steps:
            if kind == "reads":
                assert isinstance(one, list)
                assert isinstance(two, frozenset)
                self.read(one, two if hides else _NONE)
            else:
                self.server.step(kind, one, two)

    def settle(self) -> None:
        """Write and read until everything is sure."""
        for _ in range(3):
            self.server.step(*_WRITES)
            self.read([], _NONE)


@given(_STEPS, st.booleans())
@example(  # the stale status lists a session whose end was told
    [
        ("starts", "alice", "1"),
        ("moves", 0, 5),
        _WRITES,
        ("ends", 0, False),
        _READS,
        _READS,
    ],
    False,
)
@example(  # two of one second, one row hidden while the other one ends
    [
        ("starts", "alice", "1"),
        ("starts", "alice", "1"),
        ("moves", 0, 50),
        ("moves", 1, 60),
        _WRITES,
        _READS,
        ("ends", 1, False),
        ("reads", [], frozenset({0})),
        _READS,
    ],
    True,
)
@example(  # both of one second hidden, and then one after the other readable again
    [
        ("starts", "alice", "1"),
        ("starts", "alice", "1"),
        ("moves", 0, 50),
        ("moves", 1, 60),
        _WRITES,
        _READS,
        ("reads", [], frozenset({0, 1})),
        ("reads", [], frozenset({0})),
        _READS,
    ],
    True,
)
@example(  # the same, and one final number is known
    [
        ("starts", "alice", "1"),
        ("starts", "alice", "1"),
        ("starts", "alice", "1"),
        ("moves", 0, 50),
        ("moves", 1, 60),
        ("moves", 2, 40),
        _WRITES,
        _READS,
        ("ends", 2, False),
        _WRITES,
        _READS,
        _WRITES,
        _READS,
        _WRITES,
        ("reads", [], frozenset({0, 1})),
        ("reads", [], frozenset({0})),
        _READS,
    ],
    True,
)
@example(  # a small session ends that was never listed, beside a large one of the same second
    [
        ("starts", "alice", "1"),
        ("moves", 0, 100),
        _WRITES,
        _READS,
        ("starts", "alice", "1"),
        ("moves", 1, 5),
        ("ends", 1, False),
        _READS,
    ],
    False,
)
@example(  # the status is written between its reading and the end, and lists what has ended
    [
        ("starts", "alice", "1"),
        ("moves", 0, 5),
        ("reads", [_WRITES, ("ends", 0, False)], _NONE),
        _READS,
        _READS,
    ],
    False,
)
@example(  # the same beside an older end that is already sure
    [
        ("starts", "alice", "1"),
        ("moves", 0, 9),
        _WRITES,
        _READS,
        ("ends", 0, False),
        _READS,
        _WRITES,
        _READS,
        ("starts", "alice", "1"),
        ("moves", 0, 5),
        ("writes", 0, None),
        _WRITES,
        ("reads", [], frozenset({0})),
        ("reads", [_WRITES, ("ends", 0, False)], _NONE),
        _READS,
    ],
    True,
)
def test_totals_never_exceed_the_truth_whatever_is_lost_stale_or_unreadable(
    steps: list[Step], hides: bool
) -> None:
    agent = Agent()
    agent.run(steps, hides)
    agent.settle()


@given(_STEPS)
@example(  # the other one of the same second goes on, and is not the one that ended
    [
        ("starts", "alice", "1"),
        ("starts", "alice", "1"),
        ("moves", 0, 5),
        ("moves", 1, 9),
        ("ends", 1, False),
        _WRITES,
        _READS,
        ("moves", 0, 3),
    ]
)
def test_totals_are_exact_if_no_hook_is_lost(steps: list[Step]) -> None:
    agent = Agent()
    agent.run([step for step in steps if step[0] != "ends" or not step[2]], hides=False)
    agent.settle()
    if not agent.server.lost:
        assert +totals_of(agent.state) == +agent.server.truth
    if not agent.server.sessions:
        assert not agent.ends._groups
