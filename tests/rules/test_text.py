"""No text holds an address or a time of day, in any notation (CS-1, CS-6, CV-2, CT-2)."""

from __future__ import annotations

import datetime as dt
import ipaddress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aggregator.model import text

IPV4 = "198.51.100.77"
IPV6 = "2001:db8:1:22:333:4444:5:77"
MAC = "00:1b:44:11:3a:b7"


def quad(number: int, spelled: str) -> str:
    return ".".join(format(part, spelled) for part in number.to_bytes(4, "big"))


ADDRESSES = {
    "mac in pairs, dots": "aa.bb.cc.dd.ee.ff",
    "mac in pairs, underscores": "aa_bb_cc_dd_ee_ff",
    "mac in fours, hyphens": "00e0-fc12-3456",
    "ipv4": IPV4,
    "ipv4 padded": "010.001.002.003",
    "ipv4 port": f"{IPV4}:443",
    "ipv4 prefix": f"{IPV4}/24",
    "ipv4 zero": "0.0.0.0",
    "ipv4 broadcast": "255.255.255.255",
    "ipv4 in a word": f"user{IPV4}x",
    "ipv4 in mail": f"joe@{IPV4}",
    "ipv4 after a dot": f"a.{IPV4}",
    "ipv4 before a dot": f"{IPV4}.example.org",
    "dotted octal": "0306.063.0144.0115",
    "dotted octal wide": "000306.000063.000144.000377",
    "0x dotted": "0xc6.0x33.0x64.0x4d",
    **{f"0x {n} digits": "0x" + "c633644d"[:n] for n in range(1, 9)},
    "0x upper": "0XC633644D",
    "0x in a word": "acct0x1fz",
    "ipv6": IPV6,
    "ipv6 upper": IPV6.upper(),
    "ipv6 exploded": ipaddress.ip_address("2001:db8::7").exploded,
    "ipv6 short": "2001:db8::7",
    "ipv6 loopback": "::1",
    "ipv6 unspecified": "::",
    "ipv6 ends": "2001:db8:7::",
    "ipv6 port": f"[{IPV6}]:443",
    "ipv6 prefix": "2001:db8::/32",
    "ipv6 zone": "fe80::7%eth0",
    "ipv6 in a word": f"face{IPV6}beef",
    "mapped": f"::ffff:{IPV4}",
    "mapped hex": "::ffff:c633:644d",
    "mapped full": f"0:0:0:0:0:ffff:{IPV4}",
    "mac": MAC,
    "mac upper": MAC.upper(),
    "mac short": "0:1b:44:1:3a:b7",
    "mac hyphens": MAC.replace(":", "-"),
    "mac dots": "001b.4411.3ab7",
    "mac groups": "001b:4411:3ab7",
    "mac in a word": f"dead{MAC.replace(':', '-')}beef",
    "reversed octets": "77.100.51.198",
    "reversed letters": IPV4[::-1],
    "reversed letters over 255": "192.168.200.100"[::-1],
    "reversed nibbles of letters": "a.b.c.d.e.f.a.b",
    "reversed name": ipaddress.ip_address(IPV4).reverse_pointer,
    "reversed nibbles": ipaddress.ip_address(IPV6).reverse_pointer,
    "reversed nibbles bare": "7.7.0.0.5.0.0.0.4.4.4.4",
    "reversed ipv6": IPV6[::-1],
    "reversed ipv6 short": "2001:db8::7"[::-1],
    "reversed mac": MAC.replace(":", "-")[::-1],
    "zone only": "2.0.192.in-addr.arpa",
    "zone only v6": "8.b.d.0.ip6.arpa",
    "full width": IPV4.translate({ord("0") + n: ord("\uff10") + n for n in range(10)}),
    "arabic digits": IPV4.translate({ord("0") + n: 0x660 + n for n in range(10)}),
    "ideographic stops": IPV4.replace(".", "\u3002"),
    "full width colons": IPV6.replace(":", "\uff1a"),
    "soft hyphen": "198.\u00ad51.100.77",
    "percent": IPV4.replace(".", "%2e"),
    "defanged": IPV4.replace(".", "[.]"),
    "spaced": IPV4.replace(".", " . "),
    "quoted": '198"."51.100.77',
}
TIMES = {
    "instant": "2026-10-05T13:37:22Z",
    "instant lower": "2026-10-05t13",
    "hour": "2026-10-05T13",
    "offset": "2026-10-05T13:37:22.123+02:00",
    "space": "2026-10-05 13",
    "basic": "20261005T133700Z",
    "underscore": "20261005_13",
    "clock": "13:37",
    "seconds": "3:37:22",
    "midnight": "2026-10-05T24",
    "in a word": "joe13:37x",
    "pm": "1 pm",
    "am": "11am",
    "dotted": "11 a.m.",
    "mail": "Mon, 05 Oct 2026 13:37:22 GMT",
}
LEGITIMATE = (
    "acct-81723", "81723", "3232235777", "12345678901234567890", "0", "john", "A", "a.b",
    "john.smith@example.com", "j.r.r.tolkien@mail.cam.ac.uk", "first.last+tag@sub.example.org",
    "1.2.3@example.com", "user_1985", "team/alice", "name=value", "o'hara", "joe smith",
    "550e8400-e29b-41d4-a716-446655440000", "6ba7b8109dad11d180b400c04fd430c8",
    "Jürgen Müller", "田中太郎", "Мария", "محمد", "١٢٣٤٥", "Ğülşen", "naïve·café",
    "1.2.3", "11.4.0", "1.2", "v1.2.3-rc1", "2026-10-05", "20261005", "acct-20261005",
    "12345678_01", "user:alice", "realm:1234", "deadbeef", "cafebabe1234", "amy", "10amy", "sam7",
    "us-nyc", "de-fra-01", "a-1-2-3-4-5", "1234-5678-9012", "50%", "100%25", "xx", "x0",
    "alex01", "index01",
)  # fmt: skip


@pytest.mark.parametrize("name", ADDRESSES)
def test_cs6_every_notation_of_an_address_is_caught(name: str) -> None:
    assert text.address_like(ADDRESSES[name])
    assert text.address_like(f"zz{ADDRESSES[name]}")
    assert text.address_like(f"zz {ADDRESSES[name]} zz")


@pytest.mark.parametrize("name", TIMES)
def test_cs6_every_notation_of_a_time_is_caught(name: str) -> None:
    assert text.timestamp_like(TIMES[name])


@pytest.mark.parametrize("account", LEGITIMATE)
def test_legitimate_accounts_are_neither(account: str) -> None:
    assert not text.address_like(account)
    assert not text.timestamp_like(account)


words = st.text("abcdefghijklmnopqrstuvwxyzGHXY_-@ éж", max_size=8)
v4 = st.integers(0, 2**32 - 1)
v6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
notations = st.one_of(
    v4.map(lambda n: quad(n, "d")),
    v4.map(lambda n: quad(n, "03d")),
    v4.map(lambda n: quad(n, "04o")),
    v4.map(lambda n: quad(n, "05o")),
    v4.map(lambda n: quad(n, "d")[::-1]),
    v4.map(lambda n: quad(n, "#x")),
    v4.map(lambda n: f"0x{n:x}"),
    v4.map(lambda n: f"0X{n:08X}"),
    v4.map(lambda n: f"::ffff:{quad(n, 'd')}"),
    v4.map(lambda n: f"0:0:0:0:0:ffff:{quad(n, 'd')}"),
    v4.map(lambda n: ipaddress.ip_address(n).reverse_pointer),
    v6.map(lambda a: a.compressed),
    v6.map(lambda a: a.exploded),
    v6.map(lambda a: a.exploded.upper()),
    v6.map(lambda a: a.compressed[::-1]),
    v6.map(lambda a: a.reverse_pointer),
    v6.map(lambda a: ".".join(a.exploded.replace(":", "")[::-1])),
    st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":")),
    st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex("-").upper()),
    st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(".", 2)),
    st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex("-")[::-1]),
)
tails = st.one_of(
    st.just(""), st.integers(0, 65535).map(":{}".format), st.integers(0, 128).map("/{}".format)
)


@given(words, notations, tails, words)
def test_cs6_random_addresses_inside_random_words_are_caught(
    before: str, address: str, tail: str, after: str
) -> None:
    assert text.address_like(before + address + tail + after)


@given(
    words,
    st.datetimes().filter(lambda moment: moment.year >= 1000),
    st.sampled_from(["%Y-%m-%dT%H:%M", "%Y%m%dT%H", "%H:%M:%S", "%H:%M"]),
)
def test_cs6_random_times_are_caught(word: str, moment: dt.datetime, spelled: str) -> None:
    assert text.timestamp_like(f"{word.rstrip('0123456789')} {moment:{spelled}}")


LETTERS = [*"0179abftpmx._-@+=/:%[]"]
WORDS = [
    "..",
    "0x",
    "198",
    "51",
    "12",
    "2026",
    "10",
    "05",
    "255",
    "aabb",
    ".arpa",
    "in-addr",
    "ip6",
]
PIECES = [*LETTERS, *WORDS, "pm", "::", "%2e"]
near = st.lists(st.sampled_from(PIECES), max_size=18).map("".join)


@given(st.one_of(near, st.text(), st.from_regex(r"[0-9A-Fa-fxt_.@+=/-]{0,40}", fullmatch=True)))
@example("1.2.3.4")
@example("a-11-22-33-44-5")
@example("1_23")
def test_cs6_what_is_harmless_matches_no_pattern(account: str) -> None:
    assume(text.is_harmless(account))
    plain = text._plain(account)
    for form in (plain, "".join(plain.split())):
        assert not text._OTHERS.search(form)
        assert not text._IPV4.search(form)
        assert not text._IPV4.search(form[::-1])
    assert not text._TIME.search(plain)


@given(near, near)
def test_texts_joined_by_an_equals_sign_are_harmless_exactly_if_each_is(one: str, two: str) -> None:
    each = text.is_harmless(one) and text.is_harmless(two)
    assert text.is_harmless(f"{one}={two}") == each


@pytest.mark.parametrize("account", ["acct-81723", "john.smith@example.com", "11.4.0", "user_1"])
def test_common_accounts_are_harmless_at_first_sight(account: str) -> None:
    assert text.is_harmless(account)


FORBIDDEN = (0, 9, 10, 0x7F, 0x85, 0xAD, 0x200B, 0x2028, 0x2029, 0x202E, 0xD800, 0xFEFF, 0xE0041)


@pytest.mark.parametrize("bad", [chr(number) for number in FORBIDDEN], ids=ascii)
def test_forbidden_characters(bad: str) -> None:
    assert text.has_forbidden_character(f"a{bad}b")
    assert not text.has_forbidden_character("Jürgen Müller 田中")


@given(st.text(st.characters(codec=None)))
def test_no_text_makes_the_checks_fail(account: str) -> None:
    assert text.address_like(account) in {True, False}
    assert text.timestamp_like(account) in {True, False}
