"""One row of a directory: its columns, what they may hold, and the entry that it makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from aggregator.directory.errors import BrokenError, Trouble
from aggregator.model.settings import Entry
from aggregator.model.text import has_forbidden_character

COLUMNS: Final = (
    "account", "address", "language", "plan", "exempt", "objects", "restricted",
)  # fmt: skip
"""What a directory may tell of an account; `account` is needed, all else is ignored."""

MOST_CHARACTERS: Final = 10_000
"""A longer field is malformed."""

Row = tuple[str, str, str, str, str, str, str]
"""The texts of COLUMNS, "" where there is none."""

_FLAGS: Final = {
    "": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True,
}  # fmt: skip
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


class Batch(NamedTuple):
    """Some rows as they came, and which of COLUMNS they have."""

    columns: tuple[str, ...]
    rows: list[Row]


def places(names: Iterable[object]) -> dict[str, int]:
    """Return where each known column stands among a header's `names`; case does not matter.

    BrokenError without a column `account`, or with a known one twice.
    """
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        column = str(name).strip().lower()
        if column in found:
            raise BrokenError(Trouble.COLUMN_TWICE)
        if column in COLUMNS:
            found[column] = place
    if "account" not in found:
        raise BrokenError(Trouble.NO_COLUMN)
    return found


def text_row(values: Iterable[object]) -> Row:
    """Return the row of values that have types, in the order of COLUMNS.

    ValueError if one is neither text, whole number nor nothing; flags may be true and false too.
    """
    account, address, language, plan, exempt, objects, restricted = values
    words = (_text(account), _text(address), _text(language), _text(plan))
    # A lone surrogate is no text; UnicodeEncodeError is a ValueError.
    "".join(words).encode()
    return (*words, _flag(exempt), _flag(objects), _flag(restricted))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError


def _flag(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    # Databases without booleans give numbers of several types.
    if value == 0:
        return "0"
    if value == 1:
        return "1"
    raise ValueError


def verify(rows: Sequence[Row], before: int) -> None:
    """Let `rows` pass that may be trusted; BrokenError tells the number of the first other one.

    Every row is looked at, not only those asked for: which row is wrong must not tell who was.
    """
    flags, most = _FLAGS, MOST_CHARACTERS
    for number, row in enumerate(rows, before + 1):
        account, address, language, plan, exempt, objects, restricted = row
        if (
            not account
            or len(account) > most
            or len(address) > most
            or len(language) > most
            or len(plan) > most
            or (exempt not in flags and _odd(exempt))
            or (objects not in flags and _odd(objects))
            or (restricted not in flags and _odd(restricted))
        ):
            raise BrokenError(Trouble.MALFORMED, number)


def _odd(flag: str) -> bool:
    return len(flag) > MOST_CHARACTERS or flag.strip().lower() not in _FLAGS


def entry(row: Row) -> Entry:
    """Return the entry of a row that passed `verify`; what cannot be used is left out."""
    account, address, language, plan, exempt, objects, restricted = row
    language = language.strip()
    return Entry(
        account=account,
        address=_line(address),
        language=language if _LANGUAGE.fullmatch(language) else None,
        plan=_line(plan),
        exempt=_is_set(exempt),
        objects=_is_set(objects),
        restricted=_is_set(restricted),
    )


def merged(earlier: Entry, later: Entry) -> Entry:
    """Return what two rows say together: the later one, and the protection of both.

    Two accounts of one pseudonym cannot be told apart: then neither has an address.
    """
    return Entry(
        account=later.account,
        address=later.address if earlier.account == later.account else None,
        language=later.language,
        plan=later.plan,
        exempt=earlier.exempt or later.exempt,
        objects=earlier.objects or later.objects,
        restricted=earlier.restricted or later.restricted,
    )


def _line(text: str) -> str | None:
    """Return `text` where it is one plain line: a header of a mail must not be made of more."""
    return None if has_forbidden_character(text) else text.strip() or None


def _is_set(flag: str) -> bool:
    return _FLAGS[flag.strip().lower()]
