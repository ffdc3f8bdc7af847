"""WireGuard: captured `wg show` in, golden output out; secrets end in the parser (CS-6, CS-7)."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from captures import golden, goldens, said, server_only, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors.wireguard import parse
from aggregator.agent.readings import Drop
from aggregator.errors import BadInputError


def key(seed: int) -> str:
    """Return a made-up text in the shape of a key."""
    return base64.b64encode(bytes([seed]) * 32).decode()


PRIVATE, PRESHARED, PEER, OTHER = key(1), key(2), key(3), key(4)
ENDPOINT, ALLOWED, HANDSHAKE = "203.0.113.9:51820", "10.9.0.2/32,fd99::2/128", "1795325088"
PEER_LINE = f"{PEER}\t{PRESHARED}\t{ENDPOINT}\t{ALLOWED}\t{HANDSHAKE}\t1000\t24\t25"
DUMP = f"{PRIVATE}\t{key(5)}\t51820\toff\n{PEER_LINE}\n"
ALL_DUMP = f"wg0\t{PRIVATE}\t{key(5)}\t51820\toff\nwg0\t{PEER_LINE}\n"


@pytest.mark.parametrize("name", goldens("wireguard"))
def test_captures_of_a_real_daemon(name: str) -> None:
    assert said(parse(text_of(name))) == golden(name)


def test_one_interface_and_all_interfaces_say_the_same() -> None:
    text = text_of("wireguard/04-tcp.all-transfer")
    of_all = {reading.counter: reading.bytes for reading in parse(text).readings}
    of_one = parse(server_only(text))
    assert len(of_one.readings) == 3
    interface = text.split("\t", 1)[0]
    for reading in of_one.readings:
        assert of_all[interface, reading.name] == reading.bytes
    assert of_one.keyed_by != parse(text).keyed_by


def test_02_udp_grew_by_exactly_1_072_000_bytes() -> None:
    """1000 datagrams of 1000 bytes: 1000 * (ceil16(1028) + 32), nothing came back."""
    before, after = (
        {r.name: r.bytes for r in parse(server_only(text_of(f"wireguard/{name}"))).readings}
        for name in ("01-handshake.all-transfer", "02-udp1000x1000.all-transfer")
    )
    assert sorted(after[name] - before[name] for name in after) == [0, 0, 1_072_000]


def test_03_udp_over_ipv6_grew_by_exactly_1_088_000_bytes() -> None:
    before, after = (
        {r.name: r.bytes for r in parse(server_only(text_of(f"wireguard/{name}"))).readings}
        for name in ("02-udp1000x1000.all-transfer", "03-udp6-1000x1000.all-transfer")
    )
    assert sorted(after[name] - before[name] for name in after) == [0, 0, 1_088_000]


@pytest.mark.parametrize("text", [DUMP, ALL_DUMP], ids=["one", "all"])
def test_cs_6_nothing_of_a_dump_but_key_and_bytes_is_kept(text: str) -> None:
    capture = parse(text)
    assert [(r.name, r.account, r.bytes) for r in capture.readings] == [(PEER, None, 1024)]
    assert not capture.dropped
    kept = str([dataclasses.astuple(reading) for reading in capture.readings])
    for secret in (PRIVATE, PRESHARED, ENDPOINT, "203.0.113", "fd99", HANDSHAKE, key(5)):
        assert secret not in kept


def test_cs_7_a_reading_shows_neither_key_nor_counter() -> None:
    assert PEER not in repr(parse(DUMP))


def test_a_key_has_no_account_before_the_operators_map_names_it() -> None:
    assert [r.account for r in parse(f"{PEER}\t1\t2\n").readings] == [None]


@pytest.mark.parametrize(
    "text",
    [
        f"{PRIVATE}\t{key(5)}\t51820\toff\n",
        "(none)\t(none)\t0\toff\n",
        f"wg0\t{PRIVATE}\t{key(5)}\t51820\t0x2a\n",
    ],
)
def test_an_interface_without_peers_is_nothing_to_read(text: str) -> None:
    capture = parse(text)
    assert not capture.readings
    assert not capture.dropped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "Unable to access interface: No such device\n",
        f"{PEER}\t1072276\t22",
        f"interface: wg0\n  public key: {PEER}\n",
        '{"json": true}\n',
        f"{PEER[:-2]}\t1\t2\n",
        f"{PEER}\t-1\t2\n",
        f"{PEER}\t1\t2\t3\t4\t5\n",
        f"{PEER}\t1\t\u0662\n",
        f"{PEER}\t{'9' * 5000}\t2\n",
    ],
)
def test_could_not_read_is_an_error_without_input_text(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert PEER not in message
    assert not any(word in message for word in text.split() if len(word) > 6)


def test_a_malformed_row_is_counted_and_the_rest_is_used() -> None:
    capture = parse(f"{PEER}\t1\t2\nrubbish\n{OTHER}\t3\n{OTHER}\tx\t4\n")
    assert [r.bytes for r in capture.readings] == [3]
    assert capture.dropped == {Drop.UNREADABLE: 3}


def test_rows_of_two_commands_do_not_mix() -> None:
    capture = parse(f"{PEER}\t1\t2\nwg0\t{OTHER}\t1\t2\n")
    assert len(capture.readings) == 1
    assert capture.dropped == {Drop.UNREADABLE: 1}


def test_a_key_on_two_interfaces_is_two_counters() -> None:
    capture = parse(f"wg0\t{PEER}\t1\t2\nwg1\t{PEER}\t10\t20\n")
    assert len({reading.counter for reading in capture.readings}) == 2
    assert said(capture)["accounts"] == [{"account": PEER, "sessions": 2, "bytes": 33}]


def test_a_key_that_looks_like_a_hex_address_is_still_a_key() -> None:
    """Any 0x with a digit is address-like; about one key in 150 has it, and is never sent."""
    name = "0x1f" + PEER[4:]
    assert [r.name for r in parse(f"{name}\t1\t2\n").readings] == [name]


def test_windows_line_ends_are_read() -> None:
    assert said(parse(f"{PEER}\t1\t2\r\n"))["accounts"][0]["bytes"] == 3


_FIELD = st.sampled_from(
    ["wg0", PEER, PRIVATE, "(none)", "off", "0", "17", "-3", "x", ENDPOINT, "", "\u2028"]
)


@given(st.lists(st.lists(_FIELD, max_size=10).map("\t".join), max_size=6).map("\n".join))
def test_any_text_is_a_capture_or_one_expected_error(text: str) -> None:
    try:
        capture = parse(f"{text}\n")
    except BadInputError:
        return
    assert all(reading.bytes >= 0 for reading in capture.readings)
    assert ENDPOINT not in str([dataclasses.astuple(reading) for reading in capture.readings])
