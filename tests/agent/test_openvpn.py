"""OpenVPN: captured status in, golden output out; addresses and times end in the parser (CS-6)."""

from __future__ import annotations

import re

import pytest
from captures import golden, goldens, said, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors.openvpn import parse
from aggregator.agent.readings import Capture, Drop, Origin
from aggregator.errors import BadInputError

HEADER_2_6 = (
    "Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes Sent,"
    "Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher"
)
HEADER_2_4 = HEADER_2_6.removesuffix(",Data Channel Cipher")
HEADER_2_3 = (
    "Common Name,Real Address,Virtual Address,Bytes Received,Bytes Sent,"
    "Connected Since,Connected Since (time_t),Username"
)
ADDRESS = "203.0.113.9:40000"
SINCE = "2026-10-05 05:25:16,1791177916"


def status(*rows: str, header: str = HEADER_2_6) -> str:
    """Return a version 2 status with these rows."""
    lines = [
        "TITLE,OpenVPN",
        f"TIME,{SINCE}",
        f"HEADER,CLIENT_LIST,{header}",
        *rows,
        "HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)",
        f"ROUTING_TABLE,10.98.0.2,user1,{ADDRESS},{SINCE}",
        "GLOBAL_STATS,Max bcast/mcast queue length,0",
        "END",
    ]
    return "".join(f"{line}\n" for line in lines)


def row(name: str, received: int, sent: int, client: int = 0, username: str = "UNDEF") -> str:
    """Return a row of version 2 as OpenVPN 2.6 writes it."""
    return (
        f"CLIENT_LIST,{name},{ADDRESS},10.98.0.2,,{received},{sent},{SINCE},{username},"
        f"{client},{client},AES-256-GCM"
    )


def names(capture: Capture) -> list[tuple[str, int]]:
    """Return names and bytes in order."""
    return sorted((reading.name, reading.bytes) for reading in capture.readings)


@pytest.mark.parametrize("name", goldens("openvpn"))
def test_captures_of_a_real_daemon(name: str) -> None:
    assert said(parse(text_of(name))) == golden(name)


def test_02_udp_grew_by_exactly_1_052_000_bytes() -> None:
    """1000 datagrams of 1000 bytes: 1000 * (1028 + 24); the idle sessions had a keepalive each."""
    before, after = (
        {reading.counter: reading.bytes for reading in parse(text_of(f"openvpn/{name}")).readings}
        for name in ("fast-02a.mgmt-before", "fast-02b.mgmt-after")
    )
    assert before.keys() == after.keys()
    assert sorted(after[counter] - before[counter] for counter in after) == [40, 40, 1_052_000]


def test_file_and_management_know_the_same_sessions() -> None:
    in_file = parse(text_of("openvpn/02c-udp1000x1000.status-v2.file"))
    live = parse(text_of("openvpn/02c-udp1000x1000.mgmt-status3"))
    assert {r.counter for r in in_file.readings} == {r.counter for r in live.readings}
    assert in_file.keyed_by == live.keyed_by


@pytest.mark.parametrize(
    ("earlier", "later", "same"),
    [
        ("03-tcp", "05-float", True),
        ("05-float", "06-rekeyed", True),
        ("08b-timeout", "09-mgmt-killed", False),
        ("09-mgmt-killed", "10b-server-usr1-clients-back", False),
    ],
)
def test_a_session_outlives_float_and_rekey_but_no_restart(
    earlier: str, later: str, same: bool
) -> None:
    def sessions(name: str) -> set[object]:
        readings = parse(text_of(f"openvpn/{name}.mgmt-status3")).readings
        return {reading.counter for reading in readings if reading.name == "user1"}

    assert (sessions(earlier) == sessions(later)) is same


def test_a_client_id_used_again_after_a_restart_is_another_session() -> None:
    """For user2 it is 1 both times; only the start of the session differs."""
    before, after = (
        {r.counter for r in parse(text_of(f"openvpn/{name}.mgmt-status3")).readings}
        for name in ("09-mgmt-killed", "11c-after-restart")
    )
    assert not before & after


def test_openvpn_exporter_39_duplicate_common_names_are_sessions_of_one_account() -> None:
    capture = parse(text_of("openvpn/01-connected.mgmt-status3"))
    assert [r.name for r in capture.readings].count("user1") == 2
    assert len({reading.counter for reading in capture.readings}) == 3


@pytest.mark.parametrize("name", goldens("openvpn"))
def test_cs_6_no_address_and_no_time_is_kept_outside_the_opaque_key(name: str) -> None:
    capture = parse(text_of(name))
    seen = repr(capture) + str([(r.name, r.account, r.bytes) for r in capture.readings])
    seen += "".join(repr(reading.counter) for reading in capture.readings)
    assert not re.search(r"\d+\.\d+\.\d+|fd[0-9a-f]{2}:|\d\d:\d\d|179532\d{4}", seen)


def test_a_session_key_shows_nothing() -> None:
    (reading,) = parse(status(row("alice", 1, 2))).readings
    assert "alice" not in repr(reading)
    assert "alice" not in repr(reading.counter)


def test_nothing_to_read_is_not_could_not_read() -> None:
    capture = parse(text_of("openvpn/11b-restarted.status-v2.file"))
    assert not capture.readings
    assert not capture.dropped


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "hello\n",
        status(row("alice", 1, 2)).removesuffix("END\n"),
        status(row("alice", 1, 2)).removesuffix("D\n"),
        status(row("alice", 1, 2)) * 2,
        row("alice", 1, 2) + "\nEND\n",
        status(row("alice", 1, 2), header="Common Name,Real Address"),
        status(row("alice", 1, 2), header="Real Address,Bytes Received,Bytes Sent"),
    ],
    ids=[
        "empty",
        "blank",
        "other",
        "no-end",
        "end-cut",
        "two",
        "no-header",
        "no-bytes",
        "no-name",
    ],
)
def test_could_not_read_is_an_error_without_input_text(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in ("alice", "203.0.113", "hello"))


def test_a_management_session_without_status_could_not_be_read() -> None:
    with pytest.raises(BadInputError):
        parse(text_of("openvpn/04.mgmt-bytecount"))


def test_notifications_inside_a_status_are_no_rows() -> None:
    noisy = text_of("openvpn/01-connected.mgmt-status3").replace(
        "HEADER\tROUTING", ">BYTECOUNT_CLI:0,1,2\n>CLIENT:ENV,common_name=user1\nHEADER\tROUTING"
    )
    assert said(parse(noisy)) == golden("openvpn/01-connected.mgmt-status3")


def test_the_end_of_another_command_does_not_end_the_status() -> None:
    text = "OpenVPN Version: 2\nEND\nSUCCESS: nclients=3\n" + status(row("alice", 1, 2))
    assert names(parse(text)) == [("alice", 3)]


def test_windows_line_ends_are_read() -> None:
    text = text_of("openvpn/01-connected.mgmt-status1").replace("\n", "\r\n")
    assert said(parse(text)) == golden("openvpn/01-connected.mgmt-status1")


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER_2_4, row("alice", 5, 6).removesuffix(",AES-256-GCM")),
        (HEADER_2_3, f"CLIENT_LIST,alice,{ADDRESS},10.98.0.2,5,6,{SINCE},UNDEF"),
        (HEADER_2_6 + ",Later", row("alice", 5, 6) + ",more"),
    ],
    ids=["2.4", "2.3", "later"],
)
def test_columns_are_found_by_the_header(header: str, line: str) -> None:
    assert names(parse(status(line, header=header))) == [("alice", 11)]


def test_version_1_of_openvpn_2_4_with_an_older_date() -> None:
    text = (
        "OpenVPN CLIENT LIST\nUpdated,Mon Oct  5 05:25:23 2026\n"
        "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n"
        f"ev,il,{ADDRESS},7,8,Mon Oct  5 05:25:16 2026\n"
        f"UNDEF,{ADDRESS},7,8,Mon Oct  5 05:25:16 2026\n"
        "ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n"
        f"10.0.0.2,x,{ADDRESS},y\n"
        "GLOBAL STATS\nMax bcast/mcast queue length,0\nEND\n"
    )
    capture = parse(text)
    assert names(capture) == [("ev,il", 15)]
    assert capture.dropped == {Drop.UNFINISHED: 1}


def test_version_1_sessions_of_one_second_are_both_counted() -> None:
    text = (
        "OpenVPN CLIENT LIST\nCommon Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n"
        f"alice,{ADDRESS},7,8,2026-10-05 05:25:16\nalice,203.0.113.8:1,70,80,2026-10-05 05:25:16\n"
        "ROUTING TABLE\nEND\n"
    )
    capture = parse(text)
    assert names(capture) == [("alice", 15), ("alice", 150)]
    assert len({reading.counter for reading in capture.readings}) == 1


@pytest.mark.parametrize("name", ["ev,il", ",", "a,1,2", "1,2,3,4", "a,,b"])
@pytest.mark.parametrize("username", ["UNDEF", "ev,il", "7,8", ",,"])
def test_commas_in_names_do_not_move_the_numbers(name: str, username: str) -> None:
    assert names(parse(status(row(name, 100, 23, username=username)))) == [(name, 123)]


def test_a_row_that_fits_the_header_in_two_ways_is_dropped() -> None:
    """No header that is known allows it; one that did would let a name choose its bytes."""
    header = "Common Name,Bytes Received,Bytes Sent,Connected Since,Username"
    capture = parse(status("CLIENT_LIST,a,1,2,3,x,y", header=header))
    assert not capture.readings
    assert capture.dropped == {Drop.UNREADABLE: 1}


@given(
    st.text("ab,1UNDEF", min_size=1, max_size=20),
    st.text("ab,1", max_size=20),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_a_forged_name_gives_the_true_bytes_or_none(
    name: str, username: str, received: int, sent: int
) -> None:
    capture = parse(status(row(name, received, sent, username=username)))
    assert names(capture) in ([(name, received + sent)], [])
    assert len(capture.readings) + sum(capture.dropped.values()) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("203.0.113.77", Drop.ADDRESS_LIKE),
        ("bob-fd77:2::2", Drop.ADDRESS_LIKE),
        ("bob 13:37", Drop.TIMESTAMP_LIKE),
        ("", Drop.BAD_FORMAT),
        ("x" * 129, Drop.BAD_FORMAT),
        ("bob\u202e", Drop.BAD_FORMAT),
        ("bob\x85", Drop.BAD_FORMAT),
        ("bob\udcff", Drop.BAD_FORMAT),
        ("UNDEF", Drop.UNFINISHED),
    ],
)
def test_cs_6_an_account_no_record_may_carry_is_dropped_and_counted(
    name: str, reason: Drop
) -> None:
    capture = parse(status(row(name, 1, 2), row("alice", 3, 4, client=1)))
    assert names(capture) == [("alice", 7)]
    assert capture.dropped == {reason: 1}


@pytest.mark.parametrize("name", ["alice@example.org", "81723", "ärger", "用户", "x" * 128])
def test_legitimate_accounts_are_kept(name: str) -> None:
    assert names(parse(status(row(name, 1, 2)))) == [(name, 3)]


def test_a_malformed_row_is_counted_and_the_rest_is_used() -> None:
    """FreeRADIUS PR 5835: one bad record must not stop the queue."""
    rows = (
        row("alice", 1, 2),
        "CLIENT_LIST,bob",
        "CLIENT_LIST",
        row("carol", 1, 2, client=1).replace(",1,2,", ",x,2,"),
        "d,203.0.113.9:1,10.98.0.2,,1,2," + SINCE + ",UNDEF,1,1,AES-256-GCM",
        row("e", 1, 2, client=3).replace(",1,2,", ",1,99999999999999999,"),
        row("f" + "," * 500, 1, 2, client=4),
    )
    capture = parse(status(*rows))
    assert names(capture) == [("alice", 3)]
    assert capture.dropped == {Drop.UNREADABLE: 6}


def test_a_session_that_is_there_twice_counts_once() -> None:
    """A status file read while it is rewritten: an old row beside the new one."""
    capture = parse(status(row("alice", 10, 5), row("alice", 9, 5), row("alice", 9, 4)))
    assert names(capture) == [("alice", 15)]
    assert capture.dropped == {Drop.REPEATED: 2}


def test_what_follows_the_end_is_ignored() -> None:
    assert names(parse(status(row("alice", 1, 2)) + row("bob", 1, 2) + "\nEND\n")) == [("alice", 3)]


@given(st.text(max_size=200))
def test_any_row_is_a_reading_or_a_count(line: str) -> None:
    capture = parse(status("CLIENT_LIST," + line.replace("\n", "")))
    assert len(capture.readings) + sum(capture.dropped.values()) == 1


# -- connections -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens("openvpn"))
def test_every_client_of_a_capture_is_a_connection(name: str) -> None:
    capture = parse(text_of(name))
    established = [c.name for c in capture.connections if c.established]
    assert sorted(map(str, established)) == sorted(r.name for r in capture.readings)
    trying = [c for c in capture.connections if not c.established]
    assert len(trying) == capture.dropped.get(Drop.UNFINISHED, 0)
    assert all(c.name is None and c.account is None for c in trying)


def test_cs_1_real_addresses_are_seen_by_locate_alone() -> None:
    """As 2.6 prints them: IPv4 with its port, IPv6 without."""
    seen: list[str] = []

    def locate(address: str) -> Origin:
        seen.append(address)
        return Origin("DE", len(seen))

    capture = parse(text_of("openvpn/01-connected.mgmt-status3"), locate)
    assert seen == ["10.77.3.2:57196", "fd77:2::2", "10.77.1.2:47268"]
    assert [(c.name, c.origin) for c in capture.connections] == [
        ("user1", Origin("DE", 1)),
        ("user2", Origin("DE", 2)),
        ("user1", Origin("DE", 3)),
    ]
    kept = repr(capture) + repr([(c.key, c.name, c.account) for c in capture.connections])
    assert not any(address in kept for address in seen)


def test_the_hostile_rows_of_a_capture_are_located_by_their_own_column() -> None:
    seen: list[str] = []

    def locate(address: str) -> Origin:
        seen.append(address)
        return Origin()

    parse(status(row("ev,il", 1, 2, username="7,8"), row("UNDEF", 3, 4, client=1)), locate)
    assert seen == [ADDRESS, ADDRESS]


def test_an_attempt_whose_name_becomes_known_is_the_same_one() -> None:
    before, after = (parse(status(row(name, 1, 2, client=7))) for name in ("UNDEF", "alice"))
    (trying,), (connected,) = before.connections, after.connections
    assert trying.key == connected.key
    assert (trying.established, connected.established) == (False, True)
    assert (connected.name, connected.account) == ("alice", "alice")


def test_a_client_id_used_again_is_another_attempt() -> None:
    first = row("alice", 1, 2)
    again = first.replace("1791177916", "1791177999")
    keys = [parse(status(each)).connections[0].key for each in (first, again)]
    assert len(set(keys)) == 2


def test_cs_6_a_name_no_record_may_carry_still_connected() -> None:
    (connection,) = parse(status(row("203.0.113.77", 1, 2))).connections
    assert (connection.name, connection.account, connection.established) == (None, None, True)
    assert "203.0.113.77" not in repr(connection.key)


def test_a_session_that_is_there_twice_is_one_connection() -> None:
    assert len(parse(status(row("alice", 10, 5), row("alice", 9, 5))).connections) == 1


def test_version_1_tells_connections_of_one_second_apart_by_their_number() -> None:
    """Established ones first, so that the success of one is never that of the other."""

    def keys(*names: str) -> list[tuple[bool, object]]:
        rows = "".join(f"{name},{ADDRESS},7,8,2026-10-05 05:25:16\n" for name in names)
        header = "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n"
        capture = parse(f"{header}{rows}ROUTING TABLE\nEND\n")
        return [(c.established, c.key) for c in capture.connections]

    both = keys("UNDEF", "alice")
    assert [established for established, _ in both] == [True, False]
    assert len({key for _, key in both}) == 2
    assert keys("alice") == both[:1]


@given(st.lists(st.sampled_from(["UNDEF", "alice", "bob", "203.0.113.7"]), max_size=6))
def test_clients_with_ids_of_their_own_are_as_many_connections(found: list[str]) -> None:
    capture = parse(status(*(row(name, 1, 2, client=at) for at, name in enumerate(found))))
    assert len({connection.key for connection in capture.connections}) == len(found)
    assert sum(c.established for c in capture.connections) == len(found) - found.count("UNDEF")
