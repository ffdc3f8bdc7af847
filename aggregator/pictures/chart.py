"""Line charts, bar charts and sparks as SVG: for a page, whose colours they take, or alone.

Series differ by more than colour: by dashes, and by a label at their end. A chart says in words
what it shows, for those who do not see it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from aggregator.pictures.scale import sparse, spread, ticks

_FONT: Final = 12
_LINE: Final = 15
_BAR: Final = 22
_MANY_DAYS: Final = 75
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2 1 2", "12 4", "1 4", "6 2 6 6")
# Colours that those who see red and green alike can tell apart (Okabe and Ito, 2008), darkened
# until each has a contrast of 4.5 on white.
_COLOURS: Final = (
    "#0b5f97", "#a3470b", "#00735c", "#9c3a78", "#7a5c00", "#3d6b99", "#6b4e9b", "#555555",
)  # fmt: skip
_MOST_SERIES: Final = len(_COLOURS)
_STYLE: Final = (
    'text{font:12px "DejaVu Sans",sans-serif;fill:#444}.title{font-size:14px;font-weight:bold;'
    "fill:#111}.note{font-size:11px}.grid{stroke:#ddd}.axis{stroke:#888}.line{fill:none;"
    "stroke-width:1.8}"
    + "".join(
        f".s{number}{{stroke:{colour}}}.f{number}{{fill:{colour}}}"
        for number, colour in enumerate(_COLOURS)
    )
)


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """Numbers with a name; None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """What a picture shows: a label a place, and series of as many values.

    `unit` writes a value. `from_zero` is for quantities; a rate begins where it is, or as low as
    gives its scale the `least_span`. Texts have room for letters so wide: on a page that may be
    narrow, more. No more than eight series are drawn.
    """

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    unit: Callable[[float], str]
    note: str = ""
    from_zero: bool = True
    least_span: float = 5.0
    letter: float = 7.2

    def told(self) -> str:
        """Return what it shows in words."""
        parts = []
        for one in self.series[:_MOST_SERIES]:
            known = [
                (value, label)
                for value, label in zip(one.values, self.labels, strict=True)
                if value is not None
            ]
            if known:
                (low, at_low), (high, at_high) = min(known), max(known)
                parts.append(
                    f"{one.name}: least {self.unit(low)} ({at_low}), most {self.unit(high)}"
                    f" ({at_high}), last {self.unit(known[-1][0])} ({known[-1][1]})."
                )
        return " ".join(parts) or "Nothing to show."


def lines(chart: Chart, *, width: int = 720, height: int = 260, standalone: bool = False) -> str:
    """Return a line chart of values in time; a whole file if it is `standalone`."""
    series = chart.series[:_MOST_SERIES]
    scale = _scale(chart, series)
    texts = [chart.unit(tick) for tick in scale]
    top = _top(chart, standalone=standalone)
    named = len(series) > 1
    left = 8 + max(map(len, texts)) * chart.letter
    longest = max((len(one.name) for one in series), default=0)
    right = width - (14 + min(longest, 22) * chart.letter if named else 14)
    bottom = height - 26 - (_LINE if chart.note else 0)
    frame = _Frame(left, right, top, bottom, scale[0], scale[-1], len(chart.labels))
    parts = [*_grid(frame, scale, texts), *_days(frame, chart.labels, chart.letter)]
    for number, one in enumerate(series):
        parts += _line(frame, one.values, number)
    if named:
        parts += _names(frame, series)
    return _whole(chart, parts, width, height, standalone=standalone)


def bars(chart: Chart, *, width: int = 720, standalone: bool = False) -> str:
    """Return horizontal bars of the first series, a label a row; a file if it is `standalone`."""
    values = [value or 0.0 for value in chart.series[0].values] if chart.series else []
    texts = [
        "-" if value is None else chart.unit(value)
        for value in (chart.series[0].values if chart.series else ())
    ]
    top = _top(chart, standalone=standalone)
    height = round(top + _BAR * len(values) + 8 + (_LINE if chart.note else 0))
    left = 8 + min(max(map(len, chart.labels), default=0), 28) * chart.letter
    room = width - left - 16 - max(map(len, texts), default=0) * chart.letter
    largest = max(values, default=0.0) or 1.0
    parts = []
    for number, (label, value, text) in enumerate(zip(chart.labels, values, texts, strict=True)):
        y = top + _BAR * number
        length = max(0.0, value / largest) * room
        base = y + _BAR * 0.68
        parts += [
            _text(left - 6, base, _cut(label, 28), "end"),
            f'<rect class="f0" x="{left:.1f}" y="{y + 3:.1f}" width="{length:.1f}"'
            f' height="{_BAR - 6}"/>',
            _text(left + length + 6, base, text, "start"),
        ]
    return _whole(chart, parts, width, height, standalone=standalone)


def spark(
    values: Sequence[float | None], *, width: int = 120, height: int = 24, title: str = ""
) -> str:
    """Return a small line without a scale, for a row of a table; hidden from screen readers."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    low = max(0.0, 2 * low - high)  # so that a small change does not look like all or nothing
    frame = _Frame(1, width - 1, 2, height - 2, low, high if high > low else low + 1, len(values))
    path = "".join(_paths(frame, values)[0])
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' aria-hidden="true">{hint}<path class="line s0" d="{path}"/></svg>'
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Frame:
    """Where the values of a chart lie."""

    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float
    count: int

    def x(self, index: int) -> float:
        if self.count < 2:
            return (self.left + self.right) / 2
        return self.left + (self.right - self.left) * index / (self.count - 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * share


def _scale(chart: Chart, series: Sequence[Series]) -> list[float]:
    known = [value for one in series for value in one.values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if not chart.from_zero:
        # So that a rate that hardly moves does not look like one that leaps.
        return ticks(min(low, high - chart.least_span), high)
    return ticks(min(low, 0.0), high)


def _grid(frame: _Frame, scale: Sequence[float], texts: Sequence[str]) -> list[str]:
    parts = []
    for tick, text in zip(scale, texts, strict=True):
        y = frame.y(tick)
        parts.append(
            f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{frame.right:.1f}"/>'
            + _text(frame.left - 6, y + 4, text, "end")
        )
    return parts


def _days(frame: _Frame, labels: Sequence[str], letter: float) -> list[str]:
    """Return the labels below: a few, and of many days the beginnings of months."""
    starts = [number for number, label in enumerate(labels) if label[8:] == "01"]
    many = len(labels) > _MANY_DAYS and len(starts) > 1
    letters = len("2026-10") if many else None
    width = max((len(label[:letters]) for label in labels), default=1) * letter + 18
    most = max(2, int((frame.right - frame.left) / width))
    chosen = starts[:: math.ceil(len(starts) / most)] if many else sparse(len(labels), most)
    parts = []
    for number in chosen:
        x = frame.x(number)
        side = "middle"
        if x - frame.left < width / 2 - 9:
            side = "start"
        elif frame.right - x < width / 2 - 9:
            side = "end"
        parts.append(
            f'<path class="axis" d="M{x:.1f} {frame.bottom:.1f}v4"/>'
            + _text(x, frame.bottom + 17, labels[number][:letters], side)
        )
    return parts


def _paths(frame: _Frame, values: Sequence[float | None]) -> tuple[list[str], list[int]]:
    """Return the path of each run of known values, and the places of those that are alone."""
    paths, alone = [], []
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    runs = itertools.groupby(enumerate(known), key=lambda item: item[1][0] - item[0])
    for _, group in runs:
        run = [point for _, point in group]
        if len(run) == 1:
            alone.append(run[0][0])
        points = "L".join(f"{frame.x(index):.1f} {frame.y(value):.1f}" for index, value in run)
        paths.append(f"M{points}")
    return paths, alone


def _line(frame: _Frame, values: Sequence[float | None], number: int) -> list[str]:
    paths, alone = _paths(frame, values)
    dash = f' stroke-dasharray="{_DASHES[number]}"' if _DASHES[number] else ""
    parts = [f'<path class="line s{number}"{dash} d="{"".join(paths)}"/>'] if paths else []
    for index in alone:
        value = values[index]
        assert value is not None
        x, y = frame.x(index), frame.y(value)
        parts.append(f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    return parts


def _names(frame: _Frame, series: Sequence[Series]) -> list[str]:
    """Return the name of each series beside its last value."""
    told = [
        (number, one.name, next(value for value in reversed(one.values) if value is not None))
        for number, one in enumerate(series)
        if any(value is not None for value in one.values)
    ]
    places = spread([frame.y(value) for _, _, value in told], _LINE, frame.top, frame.bottom)
    return [
        f'<text class="f{number}" x="{frame.right + 6:.1f}" y="{y + 4:.1f}">'
        f"{escape(_cut(name, 22))}</text>"
        for (number, name, _), y in zip(told, places, strict=True)
    ]


def _top(chart: Chart, *, standalone: bool) -> float:
    return 34.0 if standalone and chart.title else 12.0


def _text(x: float, y: float, text: str, side: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{side}">{escape(text)}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _whole(chart: Chart, parts: Sequence[str], width: int, height: int, *, standalone: bool) -> str:
    words = f"<title>{escape(chart.title)}</title><desc>{escape(chart.told())}</desc>"
    note = ""
    if chart.note:
        note = f'<text class="note" x="8" y="{height - 6}">{escape(chart.note)}</text>'
    if not standalone:
        return (
            f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">'
            f"{words}{''.join(parts)}{note}</svg>"
        )
    heading = f'<text class="title" x="8" y="20">{escape(chart.title)}</text>'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img">{words}<style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f"{heading}{''.join(parts)}{note}</svg>\n"
    )
