"""Every notation of a network address and of a time of day that a text may not hold."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Final

Maker = Callable[[random.Random], str]

# Letters that neither begin a number nor are one in hex, so that a marker adds no address itself.
_LETTERS: Final = "ghjkqrsvwyz"


def marker(rng: random.Random, length: int = 14) -> str:
    """Return a word that nothing else holds."""
    return "".join(rng.choices(_LETTERS, k=length))


def ipv4(rng: random.Random) -> str:
    """Return a dotted quad long enough to be unique, whose parts are no valid octal."""
    return f"198.{rng.randint(180, 189)}.{rng.randint(100, 255)}.{rng.randint(100, 255)}"


def ipv6(rng: random.Random) -> str:
    """Return eight groups without a zero group."""
    return ":".join(["2001", *(f"{rng.randint(0x1000, 0xFFFF):x}" for _ in range(7))])


def mac(rng: random.Random) -> str:
    """Return a MAC address with colons."""
    return ":".join(f"{rng.randint(16, 255):02x}" for _ in range(6))


def _reverse_name(rng: random.Random) -> str:
    return ipaddress.ip_address(ipv4(rng)).reverse_pointer


def _octal(rng: random.Random, width: int) -> str:
    return ".".join(f"{int(part):0{width}o}" for part in ipv4(rng).split("."))


ADDRESSES: Final[dict[str, Maker]] = {
    "ipv4": ipv4,
    "ipv4 small": lambda rng: f"10.0.{rng.randint(0, 255)}.{rng.randint(1, 254)}",
    "ipv4 zeros": lambda rng: ".".join(
        f"{int(part):03d}" for part in f"10.1.2.{rng.randint(1, 99)}".split(".")
    ),
    "ipv4 port": lambda rng: f"{ipv4(rng)}:{rng.randint(1024, 65535)}",
    "ipv4 prefix": lambda rng: f"{ipv4(rng)}/{rng.randint(8, 32)}",
    "ipv4 in mail": lambda rng: f"joe@{ipv4(rng)}",
    "ipv4 last octet": lambda rng: f"{rng.randint(1, 9)}.{rng.randint(1, 9)}.0.{rng.randint(0, 9)}",
    "octal": lambda rng: _octal(rng, 4),
    "octal wide": lambda rng: _octal(rng, 6),
    "hex": lambda rng: f"0x{rng.getrandbits(32):08x}",
    "hex upper": lambda rng: f"0X{rng.getrandbits(32):08X}",
    "hex 1": lambda rng: f"0x{rng.getrandbits(4):x}",
    "hex 5": lambda rng: f"0x{rng.getrandbits(20):05x}",
    "hex dotted": lambda rng: ".".join(f"0x{int(part):02x}" for part in ipv4(rng).split(".")),
    "ipv6": ipv6,
    "ipv6 upper": lambda rng: ipv6(rng).upper(),
    "ipv6 full": lambda rng: ipaddress.ip_address(f"2001:db8::{rng.getrandbits(16):x}").exploded,
    "ipv6 short": lambda rng: f"2001:db8:{rng.getrandbits(16):x}::{rng.getrandbits(16):x}",
    "ipv6 start": lambda rng: f"::{rng.getrandbits(16):x}",
    "ipv6 end": lambda rng: f"2001:db8:{rng.getrandbits(16):x}::",
    "ipv6 port": lambda rng: f"[{ipv6(rng)}]:{rng.randint(1024, 65535)}",
    "ipv6 prefix": lambda rng: f"2001:db8:{rng.getrandbits(16):x}::/48",
    "ipv6 zone": lambda rng: f"fe80::{rng.getrandbits(16):x}%eth0",
    "mapped": lambda rng: f"::ffff:{ipv4(rng)}",
    "mapped hex": lambda rng: f"::ffff:{rng.getrandbits(16):x}:{rng.getrandbits(16):x}",
    "mapped full": lambda rng: f"0:0:0:0:0:ffff:{ipv4(rng)}",
    "nat64": lambda rng: f"64:ff9b::{ipv4(rng)}",
    "mac": mac,
    "mac upper": lambda rng: mac(rng).upper(),
    "mac hyphens": lambda rng: mac(rng).replace(":", "-"),
    "mac dots": lambda rng: ".".join(f"{rng.randint(4096, 65535):x}" for _ in range(3)),
    "reversed name": _reverse_name,
    "reversed nibbles": lambda rng: ipaddress.ip_address(ipv6(rng)).reverse_pointer,
    "reversed nibbles bare": lambda rng: ".".join(ipv6(rng).replace(":", "")[::-1]),
    "reversed octets": lambda rng: ".".join(ipv4(rng).split(".")[::-1]),
    "reversed ipv4": lambda rng: ipv4(rng)[::-1],
    "reversed ipv6": lambda rng: ipv6(rng)[::-1],
    "reversed mac": lambda rng: mac(rng)[::-1],
}

# Not spelled out by DESIGN, but what "a check that cannot decide fails closed" asks for.
DISGUISED: Final[dict[str, Maker]] = {
    "full width": lambda rng: ipv4(rng).translate({ord("0") + n: 0xFF10 + n for n in range(10)}),
    "ideographic stops": lambda rng: ipv4(rng).replace(".", "。"),
    "full width colons": lambda rng: ipv6(rng).replace(":", "\uff1a"),
    "arabic digits": lambda rng: ipv4(rng).translate({ord("0") + n: 0x660 + n for n in range(10)}),
    "percent": lambda rng: ipv4(rng).replace(".", "%2E"),
    "defanged": lambda rng: ipv4(rng).replace(".", "[.]"),
    "spaces": lambda rng: ipv4(rng).replace(".", " . "),
}

TIMES: Final[dict[str, Maker]] = {
    "instant": lambda rng: f"2026-10-05T{rng.randint(10, 23)}:{rng.randint(10, 59)}:22Z",
    "instant fraction": lambda rng: f"2026-10-05T13:37:22.{rng.randint(100_000, 999_999)}+02:00",
    "instant space": lambda rng: f"2026-10-05 {rng.randint(10, 23)}:{rng.randint(10, 59)}",
    "basic": lambda rng: f"20261005T{rng.randint(10, 23)}{rng.randint(10, 59)}00Z",
    "clock": lambda rng: f"{rng.randint(10, 23)}:{rng.randint(10, 59)}",
    "clock seconds": lambda rng: f"{rng.randint(0, 9)}:{rng.randint(10, 59)}:{rng.randint(10, 59)}",
    "mail date": lambda rng: f"Mon, 05 Oct 2026 {rng.randint(10, 23)}:37:{rng.randint(10, 59)} GMT",
}
