"""Which texts hold a network address or a time of day (promises CS-1, CS-6, CV-2, CT-2).

Both checks fail closed: what may be read as an address or as a time is one. The notations are
IPv4 (dotted decimal, dotted octal, 0x-hex, with port or prefix), IPv6 (also mapped), MAC (in
pairs or fours, with colons, hyphens, dots or underscores), each also reversed (`in-addr.arpa`,
`ip6.arpa`, or letter by letter), percent-encoded, in other scripts' digits, bracketed
("defanged"), or inside a longer word. E-mail-shaped and plain decimal accounts are legitimate.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

# One part of a dotted quad: 0-255 in decimal, or up to 0377 in octal, with leading zeros. Only
# the two inner parts need the range: any digit beside the outer dots already ends an address.
_PART: Final = r"0*(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2}|0[0-3]?[0-7]{1,2})"
_IPV4: Final = re.compile(rf"[0-9]\.{_PART}\.{_PART}\.[0-9]")
_OTHERS: Final = re.compile(
    r"0x[0-9a-f]"  # 0x-hex
    r"|::"  # shortened IPv6
    r"|(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}"  # full IPv6
    r"|(?:[0-9a-f]{1,4}:){6}[0-9]{1,3}\."  # IPv6 that ends in a dotted quad
    r"|(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}"  # MAC with colons
    r"|[0-9a-f]{2}(?P<pair>[-_.])(?:[0-9a-f]{2}(?P=pair)){4}[0-9a-f]{2}"  # MAC in pairs
    r"|[0-9a-f]{4}(?P<four>[.:])[0-9a-f]{4}(?P=four)[0-9a-f]{4}"  # MAC in groups of four
    # the same with hyphens: three groups alone, not those inside a UUID, not a number in groups
    r"|(?<![0-9a-f-])(?=[0-9-]*[a-f])[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}(?![0-9a-f-])"
    r"|(?:[0-9a-f]\.){7}[0-9a-f]"  # reversed nibbles
    r"|in-addr\.arpa|ip6\.arpa"
)
_TIME: Final = re.compile(
    r"(?<![0-9])[0-2]?[0-9]:[0-5][0-9](?![0-9])"  # 13:37, also with seconds
    # 2026-10-05T13, 20261005T13; a long number and another one, such as 12345678_01, is none
    r"|[0-9]{4}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12][0-9]|3[01])[t _](?:[01][0-9]|2[0-4])"
    r"|(?<![0-9a-z])[01]?[0-9] ?[ap]\.?m(?![a-z])"  # 1 pm
)
# What most texts are: characters that cannot hide anything, and no beginning of any notation.
# Both are also run by RE2 over whole columns, so they use only what RE2 knows. Each suspicion
# begins with what few texts hold, so that a search without a match is quick.
PLAIN_CHARACTERS: Final = "0-9A-Za-z_.@+=/-"
_HEX: Final = r"0x"
_DOTS: Final = r"\.(?:[0-9a-f]{4}\.|[0-9a-f]+\.[0-9a-f]+\.|arpa)"
_HYPHENS: Final = (
    r"[-_](?:[0-9a-f]{2}[-_]){4}"
    r"|(?:^|[^0-9a-f-])[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}(?:$|[^0-9a-f-])"
)
_CLOCK: Final = r"[0-9](?:[t_][0-9]{2}|[ap]\.?m)"
SUSPECT: Final = rf"(?i){_HEX}|{_DOTS}|{_HYPHENS}|{_CLOCK}"
_PLAIN: Final = re.compile(f"[{PLAIN_CHARACTERS}]*")
_has_dots: Final = re.compile(_DOTS).search
_has_hyphens: Final = re.compile(_HYPHENS).search
_has_clock: Final = re.compile(_CLOCK).search
# Characters of other scripts that people read as the dots, colons and hyphens of an address.
_LOOKALIKES: Final = str.maketrans(
    {
        "\u3002": ".",  # ideographic full stop
        "\u00b7": ".",  # middle dot
        "\u2236": ":",  # ratio
        "\u02d0": ":",  # modifier letter triangular colon
        "\ua789": ":",  # modifier letter colon
        "\u2010": "-",  # hyphen
        "\u2013": "-",  # en dash
    }
)
_WRAPPING: Final = re.compile(r"[\[\](){}<>\\\"']")
_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_harmless(text: str) -> bool:
    """Say whether `text` plainly holds neither; False says only that a closer look is due."""
    if _PLAIN.fullmatch(text) is None:
        return False
    lowered = text.lower()
    return not (
        _HEX in lowered or _has_dots(lowered) or _has_hyphens(lowered) or _has_clock(lowered)
    )


def address_like(text: str) -> bool:
    """Say whether `text` holds a network address in any notation named above."""
    if is_harmless(text):
        return False
    plain = _plain(text)
    squeezed = re.sub(r"\s+", "", plain)
    return any(
        _OTHERS.search(form) or _IPV4.search(form) or _IPV4.search(form[::-1])
        for form in {plain, squeezed}
    )


def timestamp_like(text: str) -> bool:
    """Say whether `text` holds a time of day; a bare date is not one."""
    return not is_harmless(text) and _TIME.search(_plain(text)) is not None


def has_forbidden_character(text: str) -> bool:
    """Say whether `text` has a control, format, surrogate or line-separating character."""
    if text.isascii():
        return not text.isprintable()
    return any(unicodedata.category(character) in _FORBIDDEN_CATEGORIES for character in text)


def _plain(text: str) -> str:
    """Return `text` in the one spelling that the patterns are written for."""
    if "%" in text:
        text = unquote(text, errors="replace")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_LOOKALIKES)
        text = "".join(
            str(unicodedata.digit(character)) if character.isdigit() else character
            for character in text
            if unicodedata.category(character) != "Cf"
        )
    return _WRAPPING.sub("", text.lower())
