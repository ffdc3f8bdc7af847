"""RADIUS packets as a NAS makes them, for the other tests; and how the receiver takes them apart.

The builder is written from RFC 2866 and knows nothing of the code under test.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

import pytest
from captures import text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors.radius_packet import Refusal
from aggregator.agent.collectors.radius_receiver import Client, Receiver, parse
from aggregator.agent.collectors.radius_records import Meaning
from aggregator.agent.readings import Drop, nowhere
from aggregator.errors import BadInputError

SECRET = b"testing123"  # of the captures, which were made with it
NAS_ADDRESS = "192.0.2.10"
NUMBERS = {
    "User-Name": 1,
    "NAS-IP-Address": 4,
    "NAS-Port": 5,
    "Framed-IP-Address": 8,
    "Called-Station-Id": 30,
    "Calling-Station-Id": 31,
    "NAS-Identifier": 32,
    "Proxy-State": 33,
    "Acct-Status-Type": 40,
    "Acct-Delay-Time": 41,
    "Acct-Input-Octets": 42,
    "Acct-Output-Octets": 43,
    "Acct-Session-Id": 44,
    "Acct-Session-Time": 46,
    "Acct-Input-Gigawords": 52,
    "Acct-Output-Gigawords": 53,
    "NAS-IPv6-Address": 95,
}
STATUSES = {"Start": 1, "Stop": 2, "Interim-Update": 3, "Accounting-On": 7, "Accounting-Off": 8}
Attributes = Iterable[tuple[str, str | int | bytes]]


def encoded(name: str, value: str | int | bytes) -> bytes:
    """Return one attribute as it stands in a packet."""
    if name == "Acct-Status-Type" and isinstance(value, str):
        value = STATUSES[value]
    if "Address" in name and isinstance(value, str):
        value = ipaddress.ip_address(value).packed
    if isinstance(value, int):
        value = value.to_bytes(4)
    if isinstance(value, str):
        value = value.encode()
    return bytes([NUMBERS[name], len(value) + 2]) + value


def packet(
    attributes: Attributes, identifier: int = 1, secret: bytes = SECRET, signed: bool = False
) -> bytes:
    """Return an Accounting-Request; `signed` adds a Message-Authenticator (RFC 2869)."""
    body = b"".join(encoded(name, value) for name, value in attributes)
    length = 20 + len(body) + (18 if signed else 0)
    head = bytes([4, identifier]) + length.to_bytes(2)
    if signed:
        blank = bytes([80, 18]) + bytes(16)
        made = hmac.new(secret, head + bytes(16) + body + blank, "md5").digest()
        body += blank[:2] + made
    authenticator = hashlib.md5(head + bytes(16) + body + secret).digest()
    return head + authenticator + body


def interim(received: int = 1000, session: str = "0001", user: str = "alice") -> bytes:
    """Return an Interim-Update of one session that is a minute old."""
    return packet(
        [
            ("NAS-Identifier", "nas-a"),
            ("Acct-Status-Type", "Interim-Update"),
            ("User-Name", user),
            ("Acct-Session-Id", session),
            ("Acct-Input-Octets", received),
            ("Acct-Output-Octets", 1),
            ("Acct-Session-Time", 60),
        ]
    )


def resealed(content: bytes) -> bytes:
    """Return a packet with the authenticator that its content needs."""
    made = hashlib.md5(content[:4] + bytes(16) + content[20:] + SECRET).digest()
    return content[:4] + made + content[20:]


def receiver() -> Receiver:
    """Return a receiver of one NAS that has run for an hour at the instant 10000."""
    client = Client(ipaddress.ip_network("192.0.2.0/24"), SECRET)
    return Receiver([client], Meaning(nowhere), since=6400.0)


def is_response(answer: bytes | None, request: bytes) -> bool:
    """Say whether `answer` is what RFC 2866 asks for."""
    if answer is None or answer[0] != 5 or answer[1] != request[1]:
        return False
    made = hashlib.md5(answer[:4] + request[4:20] + answer[20:] + SECRET).digest()
    return answer[4:20] == made and int.from_bytes(answer[2:4]) == len(answer)


def test_the_builder_makes_what_a_real_nas_made() -> None:
    """The captured packet of radclient, made again from its attributes."""
    captured = bytes.fromhex(text_of("radius/raw-accounting-requests.hex").split()[1])
    words = [("NAS-IP-Address", "10.77.0.1"), ("NAS-Identifier", "nas-a")]
    assert b"".join(encoded(*word) for word in words) == captured[20:33]
    assert resealed(captured) == captured


@pytest.mark.parametrize("name", ["raw-accounting-requests.hex", "strongswan-accounting.hex"])
def test_packets_of_real_daemons_are_authentic_and_answered(name: str) -> None:
    lines = [line for line in text_of(f"radius/{name}").split() if line != "ready"]
    taker = receiver()
    for line in lines:
        content = bytes.fromhex(line)
        assert is_response(taker.answer(content, NAS_ADDRESS, 10_000.0), content)
    assert lines
    assert not taker.refused


def test_a_packet_that_was_changed_on_its_way_is_not_answered() -> None:
    content = interim()
    for at in range(len(content)):
        taker = receiver()
        changed = bytearray(content)
        changed[at] ^= 0x40
        answer = taker.answer(bytes(changed), NAS_ADDRESS, 10_000.0)
        assert answer is None
        assert sum(taker.refused.values()) == 1
        assert not taker.sessions.capture().readings


def test_another_secret_is_a_bad_authenticator() -> None:
    taker = receiver()
    content = packet([("Acct-Status-Type", "Start")], secret=b"other")
    assert taker.answer(content, NAS_ADDRESS, 10_000.0) is None
    assert taker.refused == {Refusal.BAD_AUTHENTICATOR: 1}


@pytest.mark.parametrize("sender", ["192.0.3.10", "2001:db8::1", "::1", "fe80::1%eth0"])
def test_others_than_the_clients_are_not_answered(sender: str) -> None:
    taker = receiver()
    assert taker.answer(interim(), sender, 10_000.0) is None
    assert taker.refused == {Refusal.UNKNOWN_SENDER: 1}


def test_a_client_behind_a_v6_socket_is_known_by_its_v4_address() -> None:
    assert is_response(receiver().answer(interim(), "::ffff:192.0.2.10", 10_000.0), interim())


def test_the_most_specific_client_has_the_secret() -> None:
    clients = [
        Client(ipaddress.ip_network(network), secret)
        for network, secret in [
            ("0.0.0.0/0", b"a"),
            ("192.0.2.10/32", SECRET),
            ("192.0.2.0/24", b"b"),
        ]
    ]
    taker = Receiver(clients, Meaning(nowhere), since=0.0)
    assert taker.answer(interim(), NAS_ADDRESS, 1.0) is not None
    assert taker.answer(interim(), "192.0.2.11", 1.0) is None


def test_a_message_authenticator_is_checked_where_there_is_one() -> None:
    words = [("Acct-Status-Type", "Start"), ("User-Name", "alice"), ("Acct-Session-Id", "1")]
    signed = packet(words, signed=True)
    assert is_response(receiver().answer(signed, NAS_ADDRESS, 10_000.0), signed)
    forged = resealed(signed[:-1] + bytes([signed[-1] ^ 1]))
    short = packet(words) + bytes([80, 3, 0])
    short = resealed(short[:2] + len(short).to_bytes(2) + short[4:])
    twice = signed + signed[-18:]
    twice = resealed(twice[:2] + len(twice).to_bytes(2) + twice[4:])
    for content in (forged, short, twice):
        taker = receiver()
        assert taker.answer(content, NAS_ADDRESS, 10_000.0) is None
        assert taker.refused == {Refusal.BAD_AUTHENTICATOR: 1}


def test_a_proxy_finds_its_proxy_state_in_the_answer_in_order() -> None:
    states = [("Proxy-State", b"first"), ("Proxy-State", b"\x00\xff")]
    content = packet([states[0], ("Acct-Status-Type", "Start"), states[1]])
    answer = receiver().answer(content, NAS_ADDRESS, 10_000.0)
    assert answer is not None
    assert is_response(answer, content)
    assert answer[20:] == b"".join(encoded(*state) for state in states)


def test_what_follows_the_length_is_padding() -> None:
    taker = receiver()
    assert is_response(taker.answer(interim() + b"\0" * 7, NAS_ADDRESS, 10_000.0), interim())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (interim()[:19], Refusal.MALFORMED),
        (interim()[:-1], Refusal.MALFORMED),
        (b"\x04\x01\x00\x13" + bytes(16), Refusal.MALFORMED),
        (b"\x04\x01\xff\xff" + bytes(70_000), Refusal.MALFORMED),
        (b"\x04\x01\x00\x15" + bytes(17), Refusal.MALFORMED),
        (b"\x04\x01\x00\x16" + bytes(16) + b"\x01\x01", Refusal.MALFORMED),
        (b"\x04\x01\x00\x16" + bytes(16) + b"\x01\x03", Refusal.MALFORMED),
        (b"\x01" + interim()[1:], Refusal.NOT_ACCOUNTING),
    ],
)
def test_what_is_no_accounting_request_is_refused(content: bytes, reason: Refusal) -> None:
    taker = receiver()
    assert taker.answer(content, NAS_ADDRESS, 10_000.0) is None
    assert taker.refused == {reason: 1}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], Drop.UNREADABLE),
        ([("Acct-Status-Type", 99)], Drop.UNREADABLE),
        ([("Acct-Status-Type", b"\x01")], Drop.UNREADABLE),
        ([("Acct-Status-Type", "Start"), ("User-Name", "alice")], Drop.UNREADABLE),
        ([("Acct-Status-Type", "Start"), ("Acct-Status-Type", "Stop")], Drop.UNREADABLE),
        (
            [
                ("Acct-Status-Type", "Start"),
                ("Acct-Session-Id", "1"),
                ("User-Name", "198.51.100.7"),
            ],
            Drop.ADDRESS_LIKE,
        ),
        ([("Acct-Status-Type", "Start"), ("Acct-Session-Id", "1")], Drop.BAD_FORMAT),
        (
            [("Acct-Status-Type", "Start"), ("Acct-Session-Id", "1"), ("User-Name", b"\xff")],
            Drop.BAD_FORMAT,
        ),
    ],
)
def test_freeradius_pr_5835_one_bad_record_does_not_stop_the_queue(
    words: list[tuple[str, str | int | bytes]], reason: Drop
) -> None:
    """A NAS that gets no answer sends the record again and again, and what follows it waits."""
    taker = receiver()
    content = packet(words)
    assert is_response(taker.answer(content, NAS_ADDRESS, 10_000.0), content)
    assert is_response(taker.answer(interim(), NAS_ADDRESS, 10_000.0), interim())
    capture = taker.sessions.capture()
    assert capture.dropped == {reason: 1}
    assert [reading.bytes for reading in capture.readings] == [1001]


def test_a_duplicate_is_answered_again_and_counted_once() -> None:
    taker = receiver()
    for _time in range(3):
        assert is_response(taker.answer(interim(), NAS_ADDRESS, 10_000.0), interim())
    assert [reading.bytes for reading in taker.sessions.capture().readings] == [1001]


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_answered(content: bytes) -> None:
    taker = receiver()
    answer = taker.answer(content, NAS_ADDRESS, 10_000.0)
    assert (answer is None) == (sum(taker.refused.values()) == 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([*NUMBERS.values(), 26, 80]), st.binary(max_size=40)), max_size=12
    )
)
def test_any_attributes_of_a_nas_are_an_event_or_a_count(
    attributes: list[tuple[int, bytes]],
) -> None:
    body = b"".join(bytes([number, len(value) + 2]) + value for number, value in attributes)
    content = resealed(b"\x04\x07" + (20 + len(body)).to_bytes(2) + bytes(16) + body)
    taker = receiver()
    answer = taker.answer(content, NAS_ADDRESS, 10_000.0)
    assert (answer is None) == any(number == 80 for number, _value in attributes)
    capture = taker.sessions.capture()
    assert len(capture.readings) + sum(capture.dropped.values()) <= 1


@pytest.mark.parametrize("text", ["", "\n\n", "ready\n", "00\n", "04zz\n", "\u0660\u0661\n"])
def test_text_without_a_request_could_not_be_read(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    assert "04zz" not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_a_capture_or_one_expected_error(text: str) -> None:
    try:
        parse(text)
    except BadInputError:
        return
    pytest.fail("no random text is a packet")


def test_requests_as_text_need_no_secret_and_keep_their_order() -> None:
    text = "".join(f"{interim(count).hex()}\n" for count in (500, 900, 700))
    capture = parse(text + interim(5, session="0002").hex().upper() + "\r\nnoise\n")
    assert sorted(reading.bytes for reading in capture.readings) == [6, 701, 901]
    assert capture.dropped == {Drop.UNREADABLE: 1}
