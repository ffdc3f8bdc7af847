"""Origins: an address becomes a country and a provider, and is forgotten (CS-1, CS-6)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from aggregator.agent.origin import Locator
from aggregator.agent.readings import UNKNOWN_ORIGIN, Origin
from aggregator.errors import ConfigError
from aggregator.model.countries import COUNTRIES

# Public addresses are needed here: documentation prefixes are in no database, and private.
V4, V6 = "198.41.0.4", "2001:500:200::b"
NETWORKS = ("198.41.0.0/24", "2001:500:200::/48", "10.0.0.0/8", "fd00::/8")
GERMANY = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}}
TELEKOM = {"autonomous_system_number": 3320, "autonomous_system_organization": "Telekom"}


def database(path: Path, record: Mapping[str, Any], version: int = 6) -> Path:
    """Write a database in which all `NETWORKS` have `record`; replaces `path` by a rename."""
    writer = MMDBWriter(ip_version=version, ipv4_compatible=version == 6)
    networks = NETWORKS if version == 6 else NETWORKS[::2]
    writer.insert_network(IPSet(networks), dict(record))
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    return new.replace(path)


@pytest.fixture
def locate(tmp_path: Path) -> Locator:
    return Locator(
        database(tmp_path / "country.mmdb", GERMANY), database(tmp_path / "asn.mmdb", TELEKOM)
    )


@pytest.mark.parametrize(
    "address",
    [
        V4,
        f"{V4}:5555",
        f" {V4}\n",
        f"udp4:{V4}:5555",
        f"tcp4-server:{V4}:5555",
        f"{V4}[4500]",
        f"::ffff:{V4}",
        f"[::ffff:{V4}]:51820",
        V6,
        f"[{V6}]",
        f"[{V6}]:51820",
        f"{V6}%eth0",
        f"[{V6}%eth0]:51820",
        f"udp6:[{V6}]:1194",
        f"tcp6-server:{V6}",
        "2001:0500:0200:0000:0000:0000:0000:000B",
    ],
)
def test_cs_1_every_notation_of_an_address_has_its_origin(locate: Locator, address: str) -> None:
    assert locate(address) == Origin("DE", 3320)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "(none)",
        "UNKNOWN",
        "localhost:5555",
        "10.0.0.1:1194",
        "10.0.0.1",
        "fd00::1",
        "[fd00::1]:51820",
        "fe80::1%eth0",
        "127.0.0.1",
        "::1",
        "192.0.2.1",
        "9.9.9.9",
        "2620:fe::fe",
        f"{V4}.1",
        f"{V4}:1:2",
        f"x{V4}",
        "198.41.0.004",
        "1.2.3",
        "[",
        "]:",
        "\x00",
        "٣.٣.٣.٣",
        "9" * 10_000,
    ],
)
def test_private_unknown_and_malformed_addresses_have_none(locate: Locator, address: str) -> None:
    assert locate(address) == UNKNOWN_ORIGIN


@given(st.text(max_size=60))
def test_any_text_has_an_origin(address: str) -> None:
    assert Locator(None, None)(address) == UNKNOWN_ORIGIN


@pytest.mark.parametrize(
    ("record", "origin"),
    [
        (GERMANY, Origin("DE", 0)),
        ({"country": "DE", "country_name": "Germany"}, Origin("DE", 0)),
        ({"country": "Germany", "country_code": "DE"}, Origin("DE", 0)),
        ({"country_code": "de"}, Origin("DE", 0)),
        ({"country": {"iso_code": "XK"}}, Origin("XK", 0)),
        ({"country": {"iso_code": "EU"}}, UNKNOWN_ORIGIN),
        ({"country": {"iso_code": 49}}, UNKNOWN_ORIGIN),
        ({"country": {}}, UNKNOWN_ORIGIN),
        ({"country": ["DE"]}, UNKNOWN_ORIGIN),
        ({"registered_country": {"iso_code": "DE"}}, UNKNOWN_ORIGIN),
        (TELEKOM, Origin("ZZ", 3320)),
        ({"asn": "AS3320", "name": "Telekom"}, Origin("ZZ", 3320)),
        ({"asn": "3320"}, Origin("ZZ", 3320)),
        ({"asn": 3320}, Origin("ZZ", 3320)),
        ({"asn": "AS4294967295"}, Origin("ZZ", 4294967295)),
        ({"asn": "AS4294967296"}, UNKNOWN_ORIGIN),
        ({"asn": "Telekom"}, UNKNOWN_ORIGIN),
        ({"asn": True}, UNKNOWN_ORIGIN),
        ({"asn": {"asn": "AS3320"}}, UNKNOWN_ORIGIN),
        ({"country": "Germany", "country_code": "DE", "asn": "AS3320"}, Origin("DE", 3320)),
    ],
)
def test_databases_of_several_makers(
    tmp_path: Path, record: Mapping[str, Any], origin: Origin
) -> None:
    path = database(tmp_path / "one.mmdb", record)
    found = Locator(path, path)(V4)
    assert found == origin
    assert found.country in COUNTRIES


def test_each_database_is_optional(tmp_path: Path) -> None:
    country = database(tmp_path / "country.mmdb", GERMANY)
    asn = database(tmp_path / "asn.mmdb", TELEKOM)
    assert Locator(country, None)(V6) == Origin("DE", 0)
    assert Locator(None, asn)(V6) == Origin("ZZ", 3320)


def test_a_database_of_ipv4_alone_knows_no_ipv6(tmp_path: Path) -> None:
    locate = Locator(database(tmp_path / "four.mmdb", GERMANY, version=4), None)
    assert locate(V4) == Origin("DE", 0)
    assert locate(V6) == UNKNOWN_ORIGIN
    assert locate.faults() == []


def test_a_record_that_is_no_table_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "odd.mmdb"
    writer = MMDBWriter(ip_version=4)
    writer.insert_network(IPSet(NETWORKS[:1]), "DE")
    writer.to_db_file(str(path))
    assert Locator(path, path)(V4) == UNKNOWN_ORIGIN


@pytest.mark.parametrize("content", [None, b"", b"no database", b"\xab\xcd\xefMaxMind.com"])
def test_what_cannot_be_opened_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "GeoLite2-Country.mmdb"
    if content is not None:
        path.write_bytes(content)
    for paths in ((path, None), (None, path)):
        with pytest.raises(ConfigError) as caught:
            Locator(*paths)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_database_is_told_and_tells_nothing(tmp_path: Path) -> None:
    path = database(tmp_path / "country.mmdb", GERMANY)
    content = path.read_bytes()
    # The record becomes a pointer to nowhere; the tree and the metadata stay whole.
    at = content.index(b"\xabcountry" if b"\xabcountry" in content else b"Gcountry") - 1
    path.write_bytes(content[:at] + b"\x3f\xff\xff\xff\xff" + content[at + 5 :])
    locate = Locator(path, None)
    assert locate(V4) == UNKNOWN_ORIGIN
    assert [fault.split(":")[0] for fault in locate.faults()] == [str(path)]
    assert V4 not in str(locate.faults())


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def _replaced(path: Path) -> None:
    database(path, {"country": {"iso_code": "FR"}})


def _overwritten_with_the_same_times(path: Path) -> None:
    """Another inode alone is another file."""
    old = path.stat()
    _replaced(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


@pytest.mark.parametrize("change", [_replaced, _overwritten_with_the_same_times])
def test_a_newer_file_is_taken_up_once_a_minute(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    clock = Clock()
    path = database(tmp_path / "country.mmdb", GERMANY)
    locate = Locator(path, None, clock)
    change(path)
    clock.now += 59
    assert locate(V4).country == "DE"
    clock.now += 1
    assert locate(V4).country == "FR"


@pytest.mark.parametrize("content", [None, b"", b"half a datab"])
def test_a_newer_file_that_is_broken_leaves_the_old_one(
    tmp_path: Path, content: bytes | None
) -> None:
    clock = Clock()
    path = database(tmp_path / "country.mmdb", GERMANY)
    locate = Locator(path, None, clock)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for _ in range(2):
        clock.now += 60
        assert locate(V4).country == "DE"
        assert len(locate.faults()) == 1
    _replaced(path)
    clock.now += 60
    assert locate(V4).country == "FR"
    assert locate.faults() == []


def test_after_close_every_origin_is_unknown(locate: Locator) -> None:
    locate.close()
    locate.close()
    assert locate(V4) == UNKNOWN_ORIGIN


def test_cs_6_no_address_is_remembered(locate: Locator) -> None:
    locate(V4)
    seen = repr([getattr(locate, name) for name in vars(locate)]) + repr(locate)
    assert V4 not in seen
    assert not any(isinstance(value, dict | list | set) for value in vars(locate).values())
