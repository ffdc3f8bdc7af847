"""What a page is made of: facts, tables, charts, words. The template knows how each looks."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from aggregator.model.numbers import size
from aggregator.pictures.chart import Chart, Series, lines
from aggregator.site.figures import Outcome, percent, points


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: its text, the exact value that it is sorted by, and a small picture."""

    text: str
    value: str = ""
    svg: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: `key` is what the page's script knows it by; `hint` says what it is."""

    name: str
    key: str = ""
    is_number: bool = False
    hint: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; with `filter` its rows can be filtered, the words say by what."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    filter: str = ""
    note: str = ""
    sorted_by: int | None = None
    empty: str = "Nothing to show."


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One figure with its name, and how it was before."""

    name: str
    text: str
    value: str = ""
    note: str = ""
    mood: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Figures side by side."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[Fact]


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A chart, with its numbers as a table beneath."""

    kind: ClassVar[str] = "picture"
    id: str
    title: str
    svg: str
    table: Table


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """Paragraphs of plain text."""

    kind: ClassVar[str] = "words"
    paragraphs: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """A file's text as it is."""

    kind: ClassVar[str] = "listing"
    name: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Controls:
    """What the page's script is controlled by; hidden where there is no script."""

    kind: ClassVar[str] = "controls"
    name: str
    choices: Sequence[tuple[str, str]] = ()
    others: Sequence[tuple[str, str]] = ()


# Of the charts on pages; assets/site.js draws them as large.
WIDTH: Final = 560
HEIGHT: Final = 220
LETTER: Final = 9.0

Block = Facts | Table | Picture | Words | Listing | Controls


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading; its blocks stand side by side where there is room."""

    id: str
    title: str
    blocks: Sequence[Block]
    side_by_side: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A page: its file, its name in the menu, its sections, and what its script needs."""

    file: str
    title: str
    lead: str
    sections: Sequence[Section]
    data: Any = None


def whole(value: int | None) -> Cell:
    """Return the cell of a count."""
    return Cell("-") if value is None else Cell(f"{value:,}", str(value))


def volume(value: int | None) -> Cell:
    """Return the cell of a number of bytes."""
    return Cell("-") if value is None else Cell(size(value), str(value))


def share(value: float | None) -> Cell:
    """Return the cell of a percentage."""
    return Cell("-") if value is None else Cell(f"{value:.1f} %", f"{value:.1f}")


def moved(value: float | None, unit: str = " %") -> Cell:
    """Return the cell of a change."""
    if value is None:
        return Cell("-")
    value = value or 0.0  # no minus before a zero
    return Cell(f"{value:+.1f}{unit}", f"{value:.1f}")


def outcome_cells(now: Outcome | None, before: Outcome | None) -> list[Cell]:
    """Return attempts, success now and before, and its change in points."""
    rate, earlier = percent(now or (0, 0)), percent(before or (0, 0))
    fall = moved(points(rate, earlier), "")
    return [whole(now[0] if now else None), share(rate), share(earlier), fall]


OUTCOME_COLUMNS = (
    Column("attempts", "attempts", True),
    Column("success", "success", True, "share of attempts that succeeded"),
    Column("before", "before", True, "the same in the time before"),
    Column("change", "change", True, "in percentage points"),
)


def over_time(
    id_: str, title: str, days: Sequence[dt.date], values: Sequence[float | None], cell: Any,
    *, from_zero: bool = True,
) -> Picture:  # fmt: skip
    """Return a chart of one series, with its numbers."""
    chart = Chart(
        title, [str(day) for day in days], [Series(title, values)],
        lambda value: cell(int(value) if from_zero else value).text, from_zero=from_zero,
        letter=LETTER,
    )  # fmt: skip
    rows = [
        (Cell(str(day)), cell(value))
        for day, value in zip(days, values, strict=True)
        if value is not None
    ]
    columns = (Column("day"), Column(title, is_number=True))
    table = Table(f"{id_}-table", f"{title}, by day", columns, rows[::-1])
    return Picture(id_, title, lines(chart, width=WIDTH, height=HEIGHT), table)


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def packed(values: Sequence[int | None]) -> str:
    """Return whole numbers for the page's script: to base 36, commas between, nothing for none."""
    return ",".join("" if value is None else _base_36(value) for value in values)


def _base_36(value: int) -> str:
    digits = ""
    while value >= 36:
        value, digit = divmod(value, 36)
        digits = _DIGITS[digit] + digits
    return _DIGITS[value] + digits
