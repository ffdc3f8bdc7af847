"""Numbers, sizes, months and days as people of a language write them, and an excess in such words.

Babel writes them, by the Unicode consortium's tables: so a language that an operator adds gets its
own separators, units and plurals too. Sizes are decimal: 1 MB is 1,000,000 bytes. What is said to
be exceeded is rounded down and still shown above what it exceeds, so that no sentence is untrue.
"""

# ruff: noqa: PLC0415 - heavy libraries load only where a mail or a sentence is written

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import unicodedata
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any, Final

from aggregator.model.days import end_of_month, first_day, month_of
from aggregator.model.fairuse import Excess, RuleKind

MEGABYTE: Final = 1_000_000
_UNITS: Final = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte")
_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
# English as it is written outside America: 21 October 2026.
_SPELLINGS: Final = {"en": "en_001"}
_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_LONGEST_NAME: Final = 128
_PLACES: Final = 9


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A number as text; `plural` is the language's category for it, such as one or other."""

    text: str
    value: Decimal
    plural: str

    @property
    def short(self) -> str:
        """The same text, so that a number stands where a size may."""
        return self.text

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: `full` in MB (4,812,345 MB), `short` in the unit that suits (4.8 TB)."""

    full: str
    short: str

    def __str__(self) -> str:
        return self.full if self.full == self.short else f"{self.full} ({self.short})"


class Words:
    """Writes for people of one language; what it writes has no space that a line may end at."""

    def __init__(self, language: str) -> None:
        """Write as `language`, a tag such as de or pt-BR; as English if nobody knows it."""
        self._locale = _locale(language)

    @property
    def direction(self) -> str:
        """Which way the language is written: ltr or rtl."""
        return str(self._locale.text_direction)

    def number(self, value: int | Decimal) -> Number:
        """Return a number with all its digits, in groups."""
        from babel.numbers import format_decimal

        exact = Decimal(value)
        text = format_decimal(exact, locale=self._locale, decimal_quantization=False)
        return Number(_unbroken(text), exact, self._locale.plural_form(exact))

    def percent(self, value: int | Decimal) -> Number:
        """Return a number of percent with its sign."""
        from babel.numbers import format_percent

        exact = Decimal(value)
        text = format_percent(exact / 100, locale=self._locale, decimal_quantization=False)
        return Number(_unbroken(text), exact, self._locale.plural_form(exact))

    def size(self, count: int | Fraction) -> Size:
        """Return a number of bytes in both forms; below 1 GB they are the same."""
        full = self._amount(_megabytes(Fraction(count)), "megabyte")
        if count < 1000 * MEGABYTE:
            return Size(full, full)
        amount, unit = Fraction(count), 0
        while (rounded := _tenths(amount)) >= 1000 and unit < len(_UNITS) - 1:
            amount, unit = amount / 1000, unit + 1
        return Size(full, self._amount(rounded, _UNITS[unit]))

    def month(self, month: str) -> str:
        """Return a month, YYYY-MM, in words: October 2026."""
        return self._date(first_day(month), "yMMMM")

    def day(self, day: str) -> str:
        """Return a day, YYYY-MM-DD, in words: 21 October 2026."""
        from babel.dates import format_date

        date = dt.date.fromisoformat(day)
        return self._bound(date, format_date(date, "long", locale=self._locale))

    def day_of_year(self, day: str) -> str:
        """Return a day, YYYY-MM-DD, without its year: 21 October."""
        date = dt.date.fromisoformat(day)
        return self._bound(date, self._date(date, "MMMMd"))

    def _date(self, date: dt.date, skeleton: str) -> str:
        from babel.dates import format_skeleton

        return format_skeleton(skeleton, date, locale=self._locale)

    def _bound(self, date: dt.date, text: str) -> str:
        """Return a date whose day stays on the line of its month."""
        if self._locale.language == "fr" and date.day == 1:
            # An ordinal, which the tables leave out.
            text = text.replace("1", "1er", 1)
        return text.replace(" ", "\u00a0", 1)

    def _amount(self, value: Decimal, unit: str) -> str:
        from babel.units import format_unit

        digits = self._locale.decimal_formats[None].pattern.replace(".###", ".######")
        name = f"digital-{unit}"
        return _unbroken(format_unit(value, name, "short", digits, locale=self._locale))


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Figures:
    """All that a sentence about one excess may need, in words; texts unless another type is told.

    `value` is what the rule measures and `limit` its threshold: a Number of others, of times or of
    percent, or a Size. `alone`: there is no other user; `idle`: what would be divided by is 0.
    `value_bar` and `limit_bar` are the lengths of their bars in percent, the longer one 100.
    """

    kind: str
    rule: str
    plans: tuple[str, ...]
    percent: int
    step: Number
    month: str
    next_month: str
    through: str
    through_day: str
    day: str | None
    location: str | None
    bytes: Size
    value: Number | Size
    limit: Number | Size
    value_bar: int
    limit_bar: int
    share: Number | None
    total: Size
    projected: Size
    others: Number
    mean: Size | None
    median: Size
    average_others: Number | None
    lightest_others: Number
    location_total: Size | None
    alone: bool
    idle: bool


def figures(excess: Excess, words: Words) -> Figures:
    """Return `excess` in words; ValueError or TypeError if its figures belong to no such rule."""
    kind, others = excess.kind, excess.users - 1
    measured = _measured(excess)
    aim = Fraction(excess.threshold * excess.percent, 100)
    value, limit = _value_and_limit(excess, measured, aim, words)
    value_bar, limit_bar = _bars(measured, excess.threshold)
    average = _average_others(excess, aim if kind is RuleKind.OUTWEIGHS_MEAN else None)
    share = _share(excess)
    return Figures(
        kind=kind.value,
        rule=excess.rule,
        plans=tuple(clean(plan) for plan in excess.plans),
        percent=excess.percent,
        step=words.percent(excess.percent),
        month=words.month(excess.month),
        next_month=words.month(month_of(end_of_month(excess.month).date())),
        through=words.day(excess.through),
        through_day=words.day_of_year(excess.through),
        day=words.day(excess.day) if excess.day else None,
        location=excess.location,
        bytes=words.size(excess.bytes),
        value=value,
        limit=limit,
        value_bar=value_bar,
        limit_bar=limit_bar,
        share=None if share is None else words.percent(rounded(share, _share_aim(excess))),
        total=words.size(excess.month_bytes),
        projected=words.size(excess.projected_bytes),
        others=words.number(others),
        mean=words.size(Fraction(excess.others_bytes, others)) if others else None,
        median=words.size(excess.median_bytes),
        average_others=None if average is None else words.number(average),
        lightest_others=words.number(excess.outweighs_lightest),
        location_total=None if excess.location_bytes is None else words.size(excess.location_bytes),
        alone=others == 0,
        idle=measured is None,
    )


def rounded(value: Fraction, above: Fraction | None = None, *, strictly: bool = False) -> Decimal:
    """Return `value` rounded down to few digits, but above `above` if it is.

    `strictly` gives a number below `value`, so that "more than" is true of it.
    """
    places = 0 if value >= 100 else 1
    while value < 1 and places < _PLACES and value * 10**places < 10 and value > 0:
        places += 1
    while True:
        scaled = value * 10**places
        whole = int(scaled) - (strictly and scaled == int(scaled) and scaled > 0)
        enough = above is None or value <= above or _passes(whole, above * 10**places, strictly)
        if enough or places >= _PLACES:
            return _trimmed(Decimal(whole).scaleb(-places))
        places += 1


def clean(text: str) -> str:
    """Return a name that others chose, harmless in a line: no control characters, not too long."""
    kept = text[:_LONGEST_NAME]
    return "".join(
        "\ufffd" if unicodedata.category(character) in _FORBIDDEN else character
        for character in kept
    )


def is_right_to_left(text: str) -> bool:
    """Say whether `text` would turn the words around it about."""
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)


def _measured(excess: Excess) -> Fraction | None:
    """Return what the rule holds against its threshold; None where there is nothing to divide by.

    In the threshold's unit: others, bytes, times the median, or percent.
    """
    if excess.kind is RuleKind.OUTWEIGHS_MEAN:
        return _over(excess.bytes * (excess.users - 1), excess.others_bytes)
    if excess.kind is RuleKind.OUTWEIGHS_LIGHTEST:
        return Fraction(excess.outweighs_lightest)
    if excess.kind is RuleKind.TIMES_MEDIAN:
        return _over(excess.bytes, excess.median_bytes)
    if excess.kind is RuleKind.LOCATION_SHARE:
        return _over(100 * excess.bytes, excess.location_bytes or 0)
    return Fraction(excess.bytes)


def _value_and_limit(
    excess: Excess, measured: Fraction | None, aim: Fraction, words: Words
) -> tuple[Number | Size, Number | Size]:
    threshold, kind = excess.threshold, excess.kind
    if not kind.compares:
        return words.size(excess.bytes), words.size(threshold)
    strictly = kind is RuleKind.OUTWEIGHS_MEAN
    if kind is RuleKind.OUTWEIGHS_LIGHTEST:
        value = Decimal(excess.outweighs_lightest)
    else:
        value = rounded(measured or Fraction(0), aim, strictly=strictly)
    write = words.percent if kind is RuleKind.LOCATION_SHARE else words.number
    return write(value), write(threshold)


def _average_others(excess: Excess, above: Fraction | None) -> Decimal | None:
    """Return than how many average others the month's traffic is more (CS-9); None for none."""
    ratio = _over(excess.month_bytes * (excess.users - 1), excess.others_bytes)
    return None if ratio is None else rounded(ratio, above, strictly=True)


def _share(excess: Excess) -> Fraction | None:
    """Return what the bytes are in percent: of the threshold, or of the location's traffic."""
    if excess.kind is RuleKind.LOCATION_SHARE:
        return _over(100 * excess.bytes, excess.location_bytes or 0) or Fraction(0)
    if excess.kind.compares:
        return None
    return _over(100 * excess.bytes, excess.threshold) or Fraction(0)


def _share_aim(excess: Excess) -> Fraction:
    whole = excess.threshold if excess.kind is RuleKind.LOCATION_SHARE else 100
    return Fraction(whole * excess.percent, 100)


def _bars(measured: Fraction | None, threshold: int) -> tuple[int, int]:
    if measured is None or threshold <= 0:
        return 100, 1
    most = max(measured, Fraction(threshold))
    return max(1, int(100 * measured / most)), max(1, int(100 * threshold / most))


def _over(number: int, by: int) -> Fraction | None:
    return Fraction(number, by) if by else None


def _passes(whole: int, aim: Fraction, strictly: bool) -> bool:
    return whole >= aim if strictly else whole > aim


def _megabytes(count: Fraction) -> Decimal:
    """Return bytes as MB: whole ones, and where there are few, with some places."""
    amount = count / MEGABYTE
    places = next((n for n, least in enumerate((100, 10, 1)) if amount >= least), 6)
    return _halved(amount, places)


def _tenths(amount: Fraction) -> Decimal:
    return _halved(amount, 1 if amount < 100 else 0)


def _halved(amount: Fraction, places: int) -> Decimal:
    scaled = amount * 10**places
    whole = Decimal(round(scaled))
    return _trimmed(whole.scaleb(-places).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN))


def _trimmed(value: Decimal) -> Decimal:
    """Return the same number without noughts after its last digit, and without an exponent."""
    whole = value.quantize(Decimal(1), ROUND_FLOOR)
    return whole if value == whole else value.normalize()


def _locale(language: str) -> Any:
    from babel import Locale, UnknownLocaleError

    tag = language if _TAG.fullmatch(language) else "en"
    try:
        return Locale.parse(_SPELLINGS.get(tag.lower(), tag.replace("-", "_")))
    except (UnknownLocaleError, ValueError):
        shorter = tag.rpartition("_" if "_" in tag else "-")[0]
        return _locale(shorter or "en")


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")
